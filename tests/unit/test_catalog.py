"""systemd/otgd.catalog explains every kind of event, and nothing else."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from otgd.events import Kind

CATALOG = Path(__file__).parents[2] / "systemd" / "otgd.catalog"
FIELDS = {
    *("INTERFACE", "OTGD_GADGET", "OTGD_MAC", "OTGD_PORT", "OTGD_STATE"),
    *("OTGD_ACTION", "OTGD_REASON"),
}


def entries() -> list[tuple[str, str]]:
    """Return message id and text of each entry, in the file's order."""
    pieces = re.split(r"^-- ([0-9a-f]{32})\n", CATALOG.read_text(), flags=re.MULTILINE)
    return list(zip(pieces[1::2], pieces[2::2], strict=True))


def test_each_kind_of_event_has_one_entry_and_each_entry_a_kind() -> None:
    assert sorted(message_id for message_id, _ in entries()) == sorted(
        kind.message_id for kind in Kind
    )


def test_message_ids_differ() -> None:
    assert len({kind.message_id for kind in Kind}) == len(Kind)


@pytest.mark.parametrize("kind", list(Kind), ids=lambda kind: kind.name)
def test_entry_tells_subject_cause_and_remedy(kind: Kind) -> None:
    text = dict(entries())[kind.message_id]
    header, _, body = text.partition("\n\n")
    assert re.fullmatch(r"Subject: [^\n]+\nDefined-By: otgd", header)
    assert re.search(r"^Cause: \S", body, flags=re.MULTILINE)
    assert re.search(r"^Remedy: \S", body, flags=re.MULTILINE)


def test_only_journal_fields_of_an_event_are_filled_in() -> None:
    used = set(re.findall(r"@(\w+)@", CATALOG.read_text()))
    assert used <= FIELDS
