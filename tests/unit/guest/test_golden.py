"""A card of each release becomes ethusb1's: every byte of the difference is in expected.diff."""

from __future__ import annotations

import pytest

from otgd.guest.plan import diff
from otgd.guest.tree import Entry, File, Place, root
from otgd.guest.undo import MANIFEST
from tests.unit.guest.cards import (
    GOLDEN,
    RELEASES,
    WORKER2,
    MemoryCard,
    golden_card,
    golden_entries,
    prepare,
    undo,
)


@pytest.mark.parametrize("release", RELEASES)
def test_card_changes_exactly_as_expected(release: str) -> None:
    plan = prepare(golden_card(release))

    assert plan.release == release
    assert diff(plan.changes) == (GOLDEN / release / "expected.diff").read_text()


@pytest.mark.parametrize("release", RELEASES)
def test_planned_changes_are_what_the_card_then_holds(release: str) -> None:
    card = golden_card(release)
    plan = prepare(card)

    assert {change.place: card.read(change.place) for change in plan.changes} == {
        change.place: change.after for change in plan.changes
    }


@pytest.mark.parametrize("release", RELEASES)
def test_preparing_twice_changes_nothing(release: str) -> None:
    card = golden_card(release)
    prepare(card)
    once = dict(card.entries)

    assert prepare(card).changes == ()
    assert card.entries == once


@pytest.mark.parametrize("release", RELEASES)
def test_undo_brings_back_every_byte(release: str) -> None:
    card = golden_card(release)
    prepare(card)

    undo(card)

    assert card.entries == golden_entries(release)


@pytest.mark.parametrize("release", RELEASES)
def test_card_of_another_gadget_becomes_the_same_as_a_fresh_one(release: str) -> None:
    fresh, used = golden_card(release), golden_card(release)
    prepare(fresh)
    prepare(used, WORKER2)

    prepare(used)

    assert _without_manifest(used) == _without_manifest(fresh)
    undo(used)
    assert used.entries == golden_entries(release)


@pytest.mark.parametrize("release", ["bookworm", "trixie"])
def test_profile_is_for_root_alone(release: str) -> None:
    card = golden_card(release)
    prepare(card)

    profile = {
        "bookworm": root("etc/NetworkManager/system-connections/otgd-usb0.nmconnection"),
        "trixie": root("etc/netplan/60-otgd.yaml"),
    }[release]
    entry = card.read(profile)
    assert isinstance(entry, File)
    assert (entry.mode, entry.uid, entry.gid) == (0o600, 0, 0)


def _without_manifest(card: MemoryCard) -> dict[Place, Entry]:
    return {place: entry for place, entry in card.entries.items() if place != MANIFEST}
