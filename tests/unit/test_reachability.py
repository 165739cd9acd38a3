"""When a guest counts as reachable, and when it is asked: times are plain numbers."""

from __future__ import annotations

import itertools
import math
from ipaddress import IPv4Address

import pytest

from otgd.model import Neighbour, Traffic
from otgd.reachability import (
    FIRST_PAUSE_S,
    LAST_PAUSE_S,
    SETTLE_S,
    STUCK_S,
    TRY_S,
    Guest,
    Reachability,
    Target,
)

ADDRESS = IPv4Address("10.0.11.2")
ONE = Target(gadget="ethusb1", ifindex=3, address=ADDRESS)
TWO = Target(gadget="ethusb2", ifindex=4, address=IPv4Address("10.0.12.2"))


class Watched:
    """What is known of guest one, with a kernel that asks when told to."""

    def __init__(self, *targets: Target) -> None:
        self.known = Reachability()
        self.follow(*(targets or (ONE,)), now=0.0)

    def follow(self, *targets: Target, now: float) -> None:
        """Watch these, whose carrier has settled by *now*."""
        self.known.follow(targets)
        for target in targets:
            self.known.note_carrier(target.gadget, now - SETTLE_S, carrier=True)

    def guest(self) -> Guest:
        return self.known.verdicts()["ethusb1"].guest

    @property
    def reason(self) -> str:
        return self.known.verdicts()["ethusb1"].reason

    def hear(self, known: Neighbour, now: float) -> None:
        self.known.learn(ONE.ifindex, ONE.address, known, now)

    def ask(self, now: float) -> None:
        assert self.known.due(now) == [ONE]
        self.known.asked(ONE, now)

    def ask_in_vain(self, now: float) -> float:
        """Ask and hear nothing; return when it is to be asked next."""
        self.ask(now)
        self.hear(Neighbour.SILENT, now + TRY_S)
        return self.known.next_at

    def lose(self, now: float) -> None:
        """Have it answer, then not."""
        self.hear(Neighbour.ANSWERS, now)
        self.hear(Neighbour.ASKING, now)
        self.hear(Neighbour.SILENT, now)


def test_new_guest_is_asked_soon_and_nothing_is_said_of_it() -> None:
    watched = Watched()
    assert watched.known.due(0.0) == [ONE]
    assert (watched.guest(), watched.reason) == (Guest.UNKNOWN, "")


def test_guest_that_answers_is_not_asked_again_before_a_recheck() -> None:
    watched = Watched()
    watched.ask(0.0)
    watched.hear(Neighbour.ANSWERS, 0.001)
    assert (watched.guest(), watched.reason) == (Guest.ANSWERS, "")
    assert watched.known.next_at == math.inf
    watched.known.recheck(60.0)
    assert watched.known.due(60.0) == [ONE]


def test_pauses_grow_up_to_a_minute() -> None:
    watched = Watched()
    asked, now = [0.0], watched.ask_in_vain(0.0)
    while len(asked) < 12:
        asked.append(now)
        now = watched.ask_in_vain(now)
    pauses = [b - a - TRY_S for a, b in itertools.pairwise(asked)]
    assert pauses == [1, 2, 4, 8, 16, 32, 60, 60, 60, 60, 60]
    assert (pauses[0], pauses[-1]) == (FIRST_PAUSE_S, LAST_PAUSE_S)


def test_doubled_silence_changes_neither_pause_nor_state() -> None:
    watched = Watched()
    next_at = watched.ask_in_vain(0.0)
    for now in (3.1, 3.2, 3.9):
        watched.hear(Neighbour.SILENT, now)
    assert watched.known.next_at == next_at
    assert watched.guest() is Guest.SILENT


def test_guest_that_never_answered_is_silent_and_one_that_did_is_lost() -> None:
    watched = Watched()
    watched.ask_in_vain(0.0)
    assert watched.guest() is Guest.SILENT
    assert watched.reason == "its guest 10.0.11.2 has not answered yet"
    watched.lose(100.0)
    assert watched.guest() is Guest.LOST
    assert watched.reason == "its guest 10.0.11.2 does not answer"
    assert watched.known.next_at == 100.0 + FIRST_PAUSE_S


def test_answer_lost_on_the_way_to_us_is_asked_for_again() -> None:
    """Without any event (an overflow, a defect of the kernel) the daemon does not wait for ever."""
    watched = Watched()
    watched.hear(Neighbour.ANSWERS, 0.0)
    watched.known.recheck(60.0)
    watched.ask(60.0)
    assert 60.0 < watched.known.next_at < 66.0


def test_entry_that_somebody_deletes_is_no_loss() -> None:
    """``ip neigh flush`` is told as a failure, though nobody has asked, and then as a deletion."""
    watched = Watched()
    watched.hear(Neighbour.ANSWERS, 0.0)
    watched.hear(Neighbour.SILENT, 10.0)
    watched.hear(Neighbour.UNKNOWN, 10.0)
    assert watched.guest() is Guest.ANSWERS
    assert watched.known.due(10.0) == [ONE]
    watched.ask_in_vain(10.0)
    assert watched.guest() is Guest.LOST


def test_kernel_that_asked_by_itself_is_believed() -> None:
    watched = Watched()
    watched.hear(Neighbour.ANSWERS, 0.0)
    watched.hear(Neighbour.ASKING, 40.0)
    watched.hear(Neighbour.SILENT, 43.0)
    assert watched.guest() is Guest.LOST


def test_guest_that_is_heard_of_is_asked_at_once_but_not_while_it_is_being_asked() -> None:
    watched = Watched()
    now = 0.0
    for _ in range(6):
        now = watched.ask_in_vain(now)
    watched.ask(now)
    watched.hear(Neighbour.HEARD, now + 1.0)
    assert watched.known.next_at == now + TRY_S
    watched.hear(Neighbour.HEARD, now + 20.0)
    assert watched.known.next_at == now + TRY_S  # due by now
    watched.ask(now + 20.0)
    watched.hear(Neighbour.ANSWERS, now + 20.1)
    assert watched.guest() is Guest.ANSWERS


def test_unconfirmed_guest_is_not_asked_for_want_of_traffic() -> None:
    watched = Watched()
    watched.hear(Neighbour.ANSWERS, 0.0)
    watched.hear(Neighbour.HEARD, 30.0)
    assert watched.guest() is Guest.ANSWERS
    assert watched.known.next_at == math.inf


def test_entry_made_by_hand_says_nothing_and_nobody_asks() -> None:
    watched = Watched()
    watched.hear(Neighbour.ANSWERS, 0.0)
    watched.hear(Neighbour.FIXED, 1.0)
    assert (watched.guest(), watched.known.next_at) == (Guest.UNKNOWN, math.inf)
    watched.hear(Neighbour.UNKNOWN, 2.0)
    assert watched.known.due(2.0) == [ONE]


def test_nobody_is_asked_before_there_is_a_carrier() -> None:
    known = Reachability()
    known.follow((ONE,))
    known.note_carrier("ethusb1", 0.0, carrier=False)
    assert known.next_at == math.inf
    known.note_carrier("ethusb1", 5.0, carrier=True)
    assert known.due(5.0) == []
    assert known.due(5.0 + SETTLE_S) == [ONE]


def test_carrier_that_goes_is_a_loss_and_nobody_is_asked_any_more() -> None:
    watched = Watched()
    watched.hear(Neighbour.ANSWERS, 0.0)
    watched.known.note_carrier("ethusb1", 5.0, carrier=False)
    watched.hear(Neighbour.UNKNOWN, 5.0)  # the kernel drops the link's entries
    watched.ask_in_vain(5.0)
    assert watched.guest() is Guest.LOST
    watched.ask_in_vain(9.0)
    assert watched.known.next_at == math.inf


def test_carrier_that_comes_back_ends_the_pause() -> None:
    watched = Watched()
    now = 0.0
    for _ in range(8):
        now = watched.ask_in_vain(now)
    watched.known.note_carrier("ethusb1", now - 30.0, carrier=False)
    watched.known.note_carrier("ethusb1", now - 20.0 - SETTLE_S, carrier=True)
    assert watched.known.due(now - 20.0) == [ONE]
    watched.ask(now - 20.0)
    assert watched.known.next_at == now - 20.0 + TRY_S + FIRST_PAUSE_S


def test_gadget_on_another_link_starts_afresh() -> None:
    watched = Watched(ONE, TWO)
    watched.lose(0.0)
    again = Target(gadget="ethusb1", ifindex=9, address=ADDRESS)
    watched.follow(again, TWO, now=5.0)
    assert watched.guest() is Guest.UNKNOWN
    assert again in watched.known.due(5.0)
    watched.hear(Neighbour.ANSWERS, 6.0)  # of the old link
    assert watched.guest() is Guest.UNKNOWN


def test_gadget_that_is_gone_is_forgotten() -> None:
    watched = Watched(ONE, TWO)
    watched.follow(TWO, now=1.0)
    assert set(watched.known.verdicts()) == {"ethusb2"}
    assert watched.known.due(1.0) == [TWO]
    watched.follow(now=2.0)
    assert watched.known.next_at == math.inf


def test_following_again_changes_nothing() -> None:
    watched = Watched()
    watched.ask(0.0)
    watched.hear(Neighbour.ANSWERS, 0.1)
    before = watched.known.verdicts()
    watched.follow(ONE, now=5.0)
    assert watched.known.verdicts()["ethusb1"] is before["ethusb1"]
    assert watched.known.next_at == math.inf


def test_lost_events_put_everybody_in_doubt() -> None:
    watched = Watched(ONE, TWO)
    watched.hear(Neighbour.ANSWERS, 0.0)
    watched.known.doubt(7.0)
    assert watched.known.due(7.0) == [ONE, TWO]
    assert watched.guest() is Guest.ANSWERS


def test_strangers_are_ignored() -> None:
    watched = Watched()
    watched.known.learn(ONE.ifindex, TWO.address, Neighbour.ANSWERS, 0.0)
    watched.known.learn(TWO.ifindex, ONE.address, Neighbour.ANSWERS, 0.0)
    assert watched.guest() is Guest.UNKNOWN


# --- stuck ---------------------------------------------------------------------------------------


def stuck(watched: Watched) -> None:
    """Lose the guest and have its link send in vain for long enough."""
    watched.lose(0.0)
    watched.known.note_traffic(ONE, Traffic(received=10, sent=20), 1.0)
    watched.known.note_traffic(ONE, Traffic(received=10, sent=23), 1.0 + STUCK_S)


def test_link_that_sends_but_receives_nothing_is_stuck() -> None:
    watched = Watched()
    stuck(watched)
    assert watched.guest() is Guest.STUCK
    assert watched.reason.endswith("unplug the gadget and plug it in again")


@pytest.mark.parametrize(
    ("received", "sent", "after_s"),
    [(10, 23, STUCK_S - 1), (10, 20, STUCK_S + 1), (11, 23, STUCK_S + 1)],
    ids=["not for long", "nothing sent", "something received"],
)
def test_other_links_are_not_stuck(received: int, sent: int, after_s: float) -> None:
    watched = Watched()
    watched.lose(0.0)
    watched.known.note_traffic(ONE, Traffic(received=10, sent=20), 1.0)
    watched.known.note_traffic(ONE, Traffic(received=received, sent=sent), 1.0 + after_s)
    assert watched.guest() is Guest.LOST


def test_guest_that_never_answered_may_be_stuck() -> None:
    watched = Watched()
    watched.ask_in_vain(0.0)
    watched.known.note_traffic(ONE, Traffic(received=0, sent=3), 4.0)
    watched.known.note_traffic(ONE, Traffic(received=0, sent=9), 4.0 + STUCK_S)
    assert watched.guest() is Guest.STUCK


def test_link_is_stuck_once_until_its_guest_answers() -> None:
    watched = Watched()
    stuck(watched)
    watched.known.note_traffic(ONE, Traffic(received=11, sent=30), 100.0)
    assert watched.guest() is Guest.LOST
    watched.known.note_traffic(ONE, Traffic(received=11, sent=40), 200.0)
    assert watched.guest() is Guest.LOST
    stuck(watched)
    assert watched.guest() is Guest.STUCK


def test_stuck_link_whose_guest_answers_is_reachable() -> None:
    watched = Watched()
    stuck(watched)
    watched.hear(Neighbour.SILENT, 90.0)
    assert watched.guest() is Guest.STUCK
    watched.hear(Neighbour.ANSWERS, 91.0)
    assert watched.guest() is Guest.ANSWERS
