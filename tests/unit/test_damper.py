"""The damper: patient with accidents, tired of fights. Time is a number here."""

from __future__ import annotations

from ipaddress import IPv4Address, IPv4Network

import pytest

from otgd.damper import (
    FORGET_S,
    FREE,
    PATIENT_S,
    SETTLE_FACTOR,
    SETTLE_S,
    WEARY_AFTER,
    WEARY_S,
    Damper,
)
from otgd.model import (
    Action,
    AddRoute,
    AddRule,
    EnableForwarding,
    Quarantine,
    RemoveRoute,
    RemoveRule,
    SetLinkUp,
    Stray,
)

UP = SetLinkUp(gadget="ethusb1", ifindex=7)
OTHER = SetLinkUp(gadget="ethusb2", ifindex=8)


def fought(damper: Damper, times: int, *, every_s: float = 0.1) -> float:
    """Apply UP once and have it undone *times*; return the time after the last try."""
    now = 0.0
    for _ in range(times + 1):
        now += every_s
        damper.applied([UP], now)
    return now


def test_a_first_step_is_never_held() -> None:
    assert Damper().hold([UP], 0.0) == {}


def test_a_few_undoings_are_healed_at_once() -> None:
    damper = Damper()
    now = fought(damper, FREE - 1)

    assert damper.hold([UP], now) == {}


def test_a_fight_is_held_back_for_a_growing_while() -> None:
    waits = []
    for times in range(FREE, FREE + 8):
        damper = Damper()
        now = fought(damper, times)
        waits.append(damper.hold([UP], now)[UP].wait_s)

    assert waits == sorted(waits)
    assert waits[0] < waits[-1] == pytest.approx(PATIENT_S)


def test_a_held_step_is_free_again_when_its_time_has_come() -> None:
    damper = Damper()
    now = fought(damper, FREE)
    wait_s = damper.hold([UP], now)[UP].wait_s

    assert damper.hold([UP], now + wait_s) == {}


def test_a_long_fight_is_met_rarely() -> None:
    damper = Damper()
    now = fought(damper, WEARY_AFTER)

    held = damper.hold([UP], now)[UP]

    assert held.wait_s == WEARY_S
    assert held.undone == WEARY_AFTER


def test_only_the_contested_step_is_held() -> None:
    damper = Damper()
    now = fought(damper, FREE + 3)

    assert set(damper.hold([UP, OTHER, EnableForwarding()], now)) == {UP}


def test_what_stayed_in_force_for_long_starts_afresh() -> None:
    damper = Damper()
    now = fought(damper, FREE + 3) + FORGET_S + 1
    damper.applied([UP], now)

    assert damper.hold([UP], now) == {}


def test_a_replugged_gadget_starts_afresh_and_others_do_not() -> None:
    damper = Damper()
    now = fought(damper, FREE + 3)

    damper.forget(["ethusb2"], now)
    assert set(damper.hold([UP], now)) == {UP}
    damper.forget(["ethusb1"], now)
    assert damper.hold([UP], now) == {}


def test_nothing_is_remembered_for_ever() -> None:
    damper = Damper()
    now = fought(damper, 3)

    damper.forget([], now + FORGET_S + 1)

    assert not damper._history  # noqa: SLF001 - memory is what this test is about


def settled(damper: Damper, since: float) -> float:
    """Return how long it takes from *since* until nothing is contested."""
    return max((each.wait_s for each in damper.contested(since).values()), default=0.0)


def test_a_few_accidents_are_no_fight() -> None:
    damper = Damper()
    now = fought(damper, FREE - 1)
    damper.missed([UP], now)
    damper.applied([UP], now)

    assert damper.contested(now) == {}


def test_a_fight_is_contested_without_a_break_until_it_is_over() -> None:
    damper = Damper()
    now = fought(damper, FREE)
    for _ in range(30):
        damper.missed([UP], now)
        assert set(damper.contested(now)) == {UP}
        damper.applied([UP], now)
        assert set(damper.contested(now)) == {UP}
        now += PATIENT_S
        assert set(damper.contested(now)) == {UP}

    assert damper.contested(now + max(SETTLE_S, SETTLE_FACTOR * PATIENT_S)) == {}


def test_a_fight_with_long_rounds_takes_longer_to_be_over() -> None:
    damper = Damper()
    now = 0.0
    for _ in range(FREE + 1):
        damper.applied([UP], now)
        now += 10
        damper.missed([UP], now)
    damper.applied([UP], now)

    assert settled(damper, now) == SETTLE_FACTOR * 10


def test_what_is_undone_before_anybody_looks_is_contested_from_the_first_time() -> None:
    damper = Damper()
    damper.applied([UP], 1.0)
    damper.missed([UP], 1.0, at_once=True)
    damper.applied([UP], 1.02)

    assert settled(damper, 1.02) == SETTLE_S


ROUTE = {"subnet": IPv4Network("10.0.11.0/24"), "source": IPv4Address("10.0.10.1")}
PAIRS: dict[str, tuple[Action, Action]] = {
    "rule": (
        AddRule(rule=Quarantine(ifname="usb0")),
        RemoveRule(rule=Quarantine(ifname="usb0")),
    ),
    "route": (
        AddRoute(gadget="ethusb1", ifindex=7, **ROUTE),  # type: ignore[arg-type]
        RemoveRoute(gadget="ethusb1", ifindex=7, **ROUTE),  # type: ignore[arg-type]
    ),
}


@pytest.mark.parametrize(("do", "undo"), PAIRS.values(), ids=PAIRS)
def test_what_we_take_back_ourselves_was_not_undone(do: Action, undo: Action) -> None:
    damper = Damper()
    for now in range(FREE * 3):
        damper.applied([do], now)
        damper.missed([undo], now)
        damper.applied([undo], now)
        damper.missed([do], now)

    assert damper.hold([do, undo], FREE * 3) == {}
    assert damper.contested(FREE * 3) == {}


def test_contested_is_forgotten_in_the_end_also_where_nobody_wants_it_any_more() -> None:
    damper = Damper()
    now = fought(damper, FREE)
    damper.missed([UP], now)

    assert damper.contested(now + FORGET_S + 1) == {}


def test_strays_are_told_only_where_no_rule_is_undone_beside_them() -> None:
    damper = Damper()
    stray = RemoveRule(rule=Stray(text="nat: a needless line"))
    for _ in range(FREE + 1):
        damper.applied([stray], 1.0)
        damper.missed([stray], 1.0)
    assert set(damper.contested(1.0)) == {stray}

    rule = AddRule(rule=Quarantine(ifname="usb0"))
    damper.applied([rule], 1.0)
    damper.applied([rule], 1.0)
    assert damper.contested(1.0) == {}
