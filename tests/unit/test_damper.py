"""The damper: patient with accidents, tired of fights. Time is a number here."""

from __future__ import annotations

from otgd.damper import FORGET_S, FREE, PATIENT_S, WEARY_AFTER, WEARY_S, Damper
from otgd.model import EnableForwarding, SetLinkUp

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
    assert waits[0] < waits[-1] == PATIENT_S


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
