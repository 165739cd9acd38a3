"""What otgd wrote into the journal, read with systemd-python where there is one.

Only root and the groups adm and systemd-journal may read the system's journal; for others, and
where no journald runs, there is simply nothing.
"""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from otgd.events import Kind

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator
    from datetime import datetime

UNITS = ("otgd.service", "otgd-swarm.service")


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """One line of the journal."""

    time: datetime
    message: str
    gadget: str


def open_journal(kinds: Collection[Kind], *, gadget: str = "") -> Any:  # noqa: ANN401 - untyped
    """Return a reader of otgd's entries of these kinds, or None where there is no journal.

    Anybody may write into the journal, and name any message. So only the service's words count,
    which is not root, and root's, who may run otgd by hand; journald itself says who it was.
    """
    try:
        from systemd import journal

        reader = journal.Reader()
    except (ImportError, OSError):
        return None
    for kind in kinds:
        reader.add_match(MESSAGE_ID=kind.message_id)
    if gadget:
        reader.add_match(OTGD_GADGET=gadget)
    reader.add_conjunction()
    for unit in UNITS:
        reader.add_match(_SYSTEMD_UNIT=unit)
    reader.add_disjunction()
    reader.add_match(_UID=0)
    return reader


def last_entries(gadget: str, count: int) -> list[Entry]:
    """Return the last *count* things that the journal tells of the gadget, oldest first."""
    reader = open_journal(set(Kind) - {Kind.STEP_APPLIED}, gadget=gadget)
    if reader is None:
        return []
    found: list[Entry] = []
    with reader, suppress(OSError):
        reader.seek_tail()
        while len(found) < count and (raw := reader.get_previous()):
            found.append(_entry(raw))
    return found[::-1]


def new_entries(reader: Any) -> Iterator[Entry]:  # noqa: ANN401 - untyped
    """Yield what was written since the last time."""
    reader.process()
    while raw := reader.get_next():
        yield _entry(raw)


def _entry(raw: dict[str, Any]) -> Entry:
    return Entry(
        time=raw["__REALTIME_TIMESTAMP"].astimezone(),
        message=str(raw.get("MESSAGE", "")),
        gadget=str(raw.get("OTGD_GADGET", "")),
    )
