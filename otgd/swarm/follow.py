"""What ``otgctl swarm follow`` makes of a look: events to tell, and gadgets to join.

Pure but for the clock that it is given. A look is asked for by Docker's events and by state.json;
neither says what to do.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from otgd.events import Event, Kind
from otgd.swarm.roster import changes

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from otgd.model import GadgetSpec
    from otgd.swarm.roster import Change, Row

FIRST_PAUSE_S = 5.0
"""A guest answers ARP before its sshd and dockerd run."""

LONGEST_PAUSE_S = 300.0


@dataclass(slots=True)
class _Attempt:
    """A gadget that could not join: when to try again, and the last reason that was told."""

    pause_s: float
    due_s: float
    reason: str


@dataclass(slots=True)
class Follower:
    """Remembers the last look, and who could not join."""

    _known: tuple[Row, ...] | None = None
    _attempts: dict[str, _Attempt] = field(default_factory=dict)

    def news(self, rows: tuple[Row, ...]) -> Iterator[Event]:
        """Yield what is other than at the last look; the first look is no news."""
        known, self._known = self._known, rows
        for change in changes(known, rows) if known is not None else ():
            yield event_of(change)

    def latecomers(self, rows: Sequence[Row], now_s: float) -> list[GadgetSpec]:
        """Return the gadgets that are to join now: reachable, no node, and not just refused."""
        outside = {
            row.place.spec.name: row.place.spec
            for row in rows
            if row.place and row.node is None and row.place.state == "reachable"
        }
        for name in set(self._attempts) - set(outside):
            del self._attempts[name]  # it joined, or its cable is out: it starts anew
        return [
            spec
            for name, spec in outside.items()
            if name not in self._attempts or self._attempts[name].due_s <= now_s
        ]

    def refused(self, gadget: str, reason: str, now_s: float) -> Event | None:
        """Note that a gadget could not join; return what to tell, once for each reason."""
        last = self._attempts.get(gadget)
        pause_s = min(last.pause_s * 2, LONGEST_PAUSE_S) if last else FIRST_PAUSE_S
        self._attempts[gadget] = _Attempt(pause_s=pause_s, due_s=now_s + pause_s, reason=reason)
        if last and last.reason == reason:
            return None
        return Event(
            kind=Kind.SWARM_JOIN_FAILED,
            message=f"{gadget}: cannot join the swarm: {reason}; trying again",
            fields={"OTGD_GADGET": gadget, "INTERFACE": gadget, "OTGD_REASON": reason},
        )

    def next_due_s(self) -> float | None:
        """Return when somebody is to be tried again."""
        return min((attempt.due_s for attempt in self._attempts.values()), default=None)


def event_of(change: Change) -> Event:
    """Return what to tell of a node's change."""
    ready = change.now == "ready"
    gadget = change.row.place.spec.name if change.row.place else ""
    fields = {
        "OTGD_GADGET": gadget,
        "INTERFACE": gadget,
        "OTGD_STATE": change.now or "gone",
        "OTGD_REASON": change.row.reason,
    }
    kind = Kind.SWARM_NODE_READY if ready else Kind.SWARM_NODE_LOST
    return Event(kind=kind, message=change.sentence, fields=fields)
