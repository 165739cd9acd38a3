"""The daemon and its guests: a scripted neighbour table, a real selector, a clock that jumps."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import pytest

from otgd.daemon import Daemon
from otgd.errors import PermanentError, TransientError
from otgd.events import Kind
from otgd.model import Neighbour, Traffic
from otgd.reachability import STUCK_S
from tests.lab.deadline import until
from tests.unit.test_daemon import MAC, Stage, config, gadget

if TYPE_CHECKING:
    from tests.fake_service import FakeNeighbours

GUEST = gadget(1).guest
GUEST_KINDS = (Kind.GUEST_LOST, Kind.GUEST_FOUND, Kind.LINK_STUCK)


class GuestStage(Stage):
    """A stage with a gadget plugged in; *skipped_s* is what the clock has jumped ahead."""

    skipped_s = 0.0

    def _daemon(self) -> Daemon:
        return Daemon(
            config=self.config,
            load=self._load,
            connect=self._connect,
            log=self.log,
            service=self.service,
            state=self.state,
            clock=lambda: time.monotonic() + self.skipped_s,
        )

    @property
    def neighbours(self) -> FakeNeighbours:
        return self.world.neighbours

    @property
    def ifindex(self) -> int:
        return next(i for i, link in self.kernel.links.items() if link.mac == MAC)

    def tell(self, *known: Neighbour) -> None:
        for each in known:
            self.neighbours.tell(self.ifindex, GUEST, each)

    def wait(self, state: str, reason: str = "") -> None:
        until(
            lambda: (self.entry.get("state"), self.entry.get("reason")) == (state, reason),
            what=lambda: self.entry,
        )

    @property
    def entry(self) -> dict[str, object]:
        return self.state.gadget("ethusb1")

    def skip(self, seconds: float) -> None:
        """Let time pass, and wake the daemon, which notices."""
        self.skipped_s += seconds
        asked = len(self.neighbours.asked)
        self.world.trigger.fire()
        until(lambda: len(self.neighbours.asked) > asked)

    def guest_events(self) -> list[str]:
        return [event.message for event in self.log.events if event.kind in GUEST_KINDS]


@pytest.fixture
def stage() -> GuestStage:
    made = GuestStage()
    uplink = made.kernel.plug("eth0", "02:00:00:00:00:01", driver="smsc95xx")
    made.kernel.change(uplink, up=True)
    made.kernel.default_route(uplink)
    made.kernel.plug("usb0", MAC)
    return made


LOST = "its guest 10.0.11.2 does not answer"
ANSWERED = (Neighbour.ANSWERS,)
UNANSWERED = (Neighbour.ASKING, Neighbour.SILENT)


def test_guest_is_asked_after_the_service_is_ready(stage: GuestStage) -> None:
    asked_when_ready: list[int] = []
    notify = stage.service.notify

    def watching(*assignments: str) -> None:
        notify(*assignments)
        if "READY=1" in assignments:
            asked_when_ready.append(len(stage.neighbours.asked))

    stage.service.notify = watching  # type: ignore[method-assign]
    stage.play(lambda: until(lambda: stage.neighbours.asked == [(stage.ifindex, GUEST)]))
    assert asked_when_ready == [0]


def test_guest_that_answers_is_told_in_the_state_file_only(stage: GuestStage) -> None:
    def script() -> None:
        stage.wait("configured")
        since = stage.entry["since"]
        stage.tell(*ANSWERED)
        stage.wait("reachable")
        assert stage.entry["since"] >= since  # type: ignore[operator]

    stage.play(script)
    assert stage.guest_events() == []
    assert len(stage.log.of(Kind.GADGET_CONFIGURED)) == 1


def test_guest_known_to_the_kernel_is_reachable_without_an_event(stage: GuestStage) -> None:
    stage.neighbours.known[stage.ifindex, GUEST] = Neighbour.ANSWERS
    stage.play(lambda: stage.wait("reachable"))


def test_lost_and_found_are_one_event_each(stage: GuestStage) -> None:
    def script() -> None:
        stage.tell(*ANSWERED)
        stage.wait("reachable")
        stage.tell(*UNANSWERED, *UNANSWERED)
        stage.wait("configured", LOST)
        stage.tell(*UNANSWERED)
        stage.tell(*ANSWERED, *ANSWERED)
        stage.wait("reachable")

    stage.play(script)
    assert stage.guest_events() == [
        f"ethusb1: lost: {LOST}",
        "ethusb1: found again: its guest 10.0.11.2 answers",
    ]
    (lost,) = stage.log.of(Kind.GUEST_LOST)
    assert lost.fields["OTGD_REASON"] == LOST
    assert lost.fields["OTGD_STATE"] == "configured"
    assert stage.log.of(Kind.GUEST_FOUND)[0].fields["OTGD_STATE"] == "reachable"


def test_passes_do_not_forget_that_a_guest_answers(stage: GuestStage) -> None:
    def script() -> None:
        stage.tell(*ANSWERED)
        stage.wait("reachable")
        stage.reload(config(1, 2))
        assert stage.entry["state"] == "reachable"
        stage.plug(2)
        stage.wait_up(2)
        assert stage.entry["state"] == "reachable"

    stage.play(script)
    assert stage.guest_events() == []


def test_link_that_only_sends_is_told_as_stuck_once(stage: GuestStage) -> None:
    def script() -> None:
        stage.tell(*ANSWERED)
        stage.wait("reachable")
        stage.tell(*UNANSWERED)
        stage.wait("configured", LOST)
        for sent in range(10, 20):
            stage.neighbours.carried[stage.ifindex] = Traffic(received=7, sent=sent)
            stage.skip(STUCK_S + 10)
        assert "receives nothing" in str(stage.entry["reason"])
        stage.tell(*ANSWERED)
        stage.wait("reachable")

    stage.play(script)
    kinds = [event.kind for event in stage.log.events if event.kind in GUEST_KINDS]
    assert kinds == [Kind.GUEST_LOST, Kind.LINK_STUCK, Kind.GUEST_FOUND]


def test_resync_asks_who_answered(stage: GuestStage) -> None:
    stage.config = config(1, resync_s=60.0)

    def script() -> None:
        stage.tell(*ANSWERED)
        stage.wait("reachable")
        asked = len(stage.neighbours.asked)
        stage.world.trigger.fire()
        stage.skipped_s += 59.0
        stage.skip(2.0)
        assert len(stage.neighbours.asked) == asked + 1

    stage.play(script)


def test_lost_events_are_asked_for(stage: GuestStage) -> None:
    def script() -> None:
        until(lambda: stage.neighbours.asked)
        stage.neighbours.known[stage.ifindex, GUEST] = Neighbour.ANSWERS
        stage.skipped_s += 3.0  # the kernel may be asking still
        stage.neighbours.overflow()
        stage.wait("reachable")

    stage.play(script)


def test_refused_question_is_put_again_later(stage: GuestStage) -> None:
    stage.neighbours.fail_next = [PermanentError("ask 10.0.11.2 on ifindex 2: no such device")]

    def script() -> None:
        until(lambda: len(stage.neighbours.asked) == 1)
        stage.neighbours.known[stage.ifindex, GUEST] = Neighbour.ANSWERS
        stage.skip(5.0)
        stage.wait("reachable")

    stage.play(script)
    assert stage.log.of(Kind.PASS_CRASHED) == []


def test_state_that_cannot_be_written_is_written_whole_by_the_next_pass(stage: GuestStage) -> None:
    stage.state.fault = TransientError("write state.json: No space left on device")

    def script() -> None:
        stage.tell(*ANSWERED)
        until(lambda: stage.log.of(Kind.GADGET_CONFIGURED))
        stage.tell(*UNANSWERED)
        until(lambda: stage.log.of(Kind.GUEST_LOST))
        stage.state.fault = None
        stage.tell(*ANSWERED)
        until(lambda: stage.log.of(Kind.GUEST_FOUND))
        stage.world.trigger.fire()
        stage.wait("reachable")
        assert stage.state.state is not None
        assert {"uplink", "last_pass"} <= stage.state.state.keys()

    stage.play(script)


def test_unplugged_gadget_is_not_lost(stage: GuestStage) -> None:
    def script() -> None:
        stage.tell(*ANSWERED)
        stage.wait("reachable")
        ifindex = stage.ifindex
        stage.neighbours.tell(ifindex, GUEST, Neighbour.UNKNOWN)
        stage.world.happens(lambda: stage.kernel.unplug(ifindex))
        until(lambda: stage.entry["state"] == "absent")

    stage.play(script)
    assert stage.guest_events() == []
    assert len(stage.log.of(Kind.GADGET_UNPLUGGED)) == 1
