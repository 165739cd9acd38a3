"""The service around the passes: real selector, real signals, real pipes; the rest in memory.

The daemon runs in the main thread, as its signals demand; a test's script runs beside it and, when
it is over, ends the daemon by SIGTERM.
"""

from __future__ import annotations

import itertools
import os
import re
import signal
import threading
import time
from dataclasses import dataclass, field
from ipaddress import IPv4Address, IPv4Interface
from typing import TYPE_CHECKING, NoReturn

import pytest

from otgd.daemon import RETRY_FIRST_S, Backoff, Daemon
from otgd.errors import ConfigError, OtgdError, PermanentError, Problem, TransientError
from otgd.events import Kind
from otgd.model import (
    Backend,
    Config,
    DesiredState,
    Forward,
    GadgetSpec,
    Masquerade,
    OnStop,
    Settings,
    SourceGuard,
)
from tests.fake_kernel import FakeKernel
from tests.fake_service import FakeLog, FakeService, FakeState, FakeWorld
from tests.fakes import FakeFirewall
from tests.lab.deadline import until

if TYPE_CHECKING:
    from collections.abc import Callable, Collection

    from otgd.model import Rule

MAC = "00:22:82:ff:ff:01"
OTHER_MAC = "00:22:82:ff:ff:02"
NO_TIMER = 3600.0
"""A resync that never comes within a test."""


def gadget(n: int) -> GadgetSpec:
    return GadgetSpec(
        name=f"ethusb{n}",
        mac=f"00:22:82:ff:ff:0{n}",
        host=IPv4Interface(f"10.0.1{n}.1/24"),
        guest=IPv4Address(f"10.0.1{n}.2"),
    )


def config(*numbers: int, **settings: object) -> Config:
    return Config(
        desired=DesiredState(gadgets=tuple(gadget(n) for n in numbers or (1,))),
        settings=Settings(**{"resync_s": NO_TIMER, **settings}),  # type: ignore[arg-type]
    )


class ScriptedKernel(FakeKernel):
    """Does something at each call of a verb, before it answers or fails: ``at[verb] = …``."""

    def __init__(self) -> None:
        super().__init__()
        self.at: dict[str, Callable[[], object]] = {}

    def _call(self, verb: str) -> None:
        try:
            super()._call(verb)
        finally:
            self.at.get(verb, lambda: None)()


@dataclass
class Stage:
    """The daemon among fakes; *reloads* is what it reads at each SIGHUP, oldest first."""

    config: Config = field(default_factory=config)
    service: FakeService = field(default_factory=FakeService)
    log: FakeLog = field(default_factory=FakeLog)
    state: FakeState = field(default_factory=FakeState)
    worlds: list[FakeWorld] = field(default_factory=lambda: [FakeWorld(ScriptedKernel())])
    reloads: list[Config | Exception] = field(default_factory=list)
    connected: int = 0

    @property
    def world(self) -> FakeWorld:
        """The one that the daemon works on at first."""
        return self.worlds[0]

    @property
    def kernel(self) -> ScriptedKernel:
        assert isinstance(self.world.kernel, ScriptedKernel)
        return self.world.kernel

    @property
    def looks(self) -> int:
        """How often the daemon has looked at the links; a quiet pass looks once."""
        return self.kernel.calls.count("observe_links")

    def ready(self) -> int:
        return len(self.service.times("READY=1"))

    def reload(self, new: Config | Exception) -> None:
        """SIGHUP with *new* in the file; return when the reload is over."""
        self.reloads.append(new)
        before = self.ready()
        os.kill(os.getpid(), signal.SIGHUP)
        until(lambda: self.ready() > before, what=lambda: self.service.lines)

    def plug(self, n: int = 1, ifname: str = "") -> None:
        """A gadget comes, and the kernel says so."""
        self.world.happens(lambda: self.kernel.plug(ifname or f"usb{n}", gadget(n).mac or ""))

    def wait_up(self, n: int = 1) -> None:
        until(lambda: self.state.gadget(f"ethusb{n}").get("state") == "configured")

    def play(self, script: Callable[[], object] = lambda: None) -> int:
        """Run the daemon and *script* beside it; return the daemon's exit code."""
        failures: list[BaseException] = []
        done = threading.Event()

        def beside() -> None:
            try:
                until(lambda: self.ready() or done.is_set(), what=lambda: self.log.events)
                script()
            except BaseException as err:  # noqa: BLE001 - raised again below
                failures.append(err)
            finally:
                if not done.is_set():
                    os.kill(os.getpid(), signal.SIGTERM)

        # A signal that comes before the daemon listens or after it must not end the test run.
        previous = {n: signal.signal(n, lambda *_: None) for n in (signal.SIGTERM, signal.SIGHUP)}
        thread = threading.Thread(target=beside, name="script")
        thread.start()
        try:
            return self._daemon().run()
        finally:
            done.set()
            thread.join()
            for number, handler in previous.items():
                signal.signal(number, handler)
            if failures:
                raise failures[0]

    def _daemon(self) -> Daemon:
        return Daemon(
            config=self.config,
            load=self._load,
            connect=self._connect,
            log=self.log,
            service=self.service,
            state=self.state,
        )

    def _load(self) -> Config:
        new = self.reloads.pop(0)
        if isinstance(new, Exception):
            raise new
        return new

    def _connect(self, _: Config) -> FakeWorld:
        world = self.worlds[self.connected]
        self.connected += 1
        return world


@pytest.fixture
def stage() -> Stage:
    """A host with an uplink and no gadget yet."""
    made = Stage()
    uplink = made.kernel.plug("eth0", "02:00:00:00:00:01", driver="smsc95xx")
    made.kernel.change(uplink, up=True)
    made.kernel.default_route(uplink)
    return made


def fds() -> int:
    return len(os.listdir("/proc/self/fd"))  # noqa: PTH208 - a count is all


# --- start and stop ------------------------------------------------------------------------------


def test_the_first_pass_is_over_before_ready(stage: Stage) -> None:
    stage.kernel.plug("usb0", MAC)
    seen: list[dict[str, object]] = []

    class Watching(FakeService):
        def notify(self, *assignments: str) -> None:
            super().notify(*assignments)
            if "READY=1" in assignments:
                seen.append(stage.state.gadget("ethusb1"))

    stage.service = Watching()
    assert stage.play() == 0
    assert [entry["state"] for entry in seen] == ["configured"]
    assert stage.service.lines[-2:] == ["STOPPING=1", "STATUS=stopping"]
    assert stage.log.messages(Kind.SERVICE_READY) == [
        "ready: 1 of 1 gadgets up, uplink eth0; firewall fake, since the test says so"
    ]


def test_events_are_subscribed_to_before_the_first_look(stage: Stage) -> None:
    """A gadget that comes right after the look is served, since its event was waited for."""

    def plug_once() -> None:
        if stage.looks == 1:
            stage.plug()

    stage.kernel.at["observe_routes"] = plug_once  # the links have just been looked at
    stage.play(stage.wait_up)


def test_a_first_pass_that_fails_is_told_and_mended(stage: Stage) -> None:
    stage.kernel.plug("usb0", MAC)
    stage.kernel.fail["observe_links"] = [TransientError("the kernel is busy")]
    stage.play(stage.wait_up)
    status = [line for line in stage.service.lines if line.startswith("STATUS=")]
    fault = "cannot look at the network: the kernel is busy"
    up = "1 of 1 gadgets up, uplink eth0"
    assert status == [f"STATUS={text}" for text in (fault, fault, up, "stopping")]


def test_no_kernel_events_at_start_is_an_error() -> None:
    class Deaf(Stage):
        def _connect(self, _: Config) -> NoReturn:
            raise TransientError("listen to rtnetlink events: Too many open files")

    with pytest.raises(OtgdError, match="listen to rtnetlink events"):
        Deaf().play()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT], ids=["SIGTERM", "SIGINT"])
def test_a_signal_ends_it(stage: Stage, number: signal.Signals) -> None:
    assert stage.play(lambda: os.kill(os.getpid(), number)) == 0
    assert stage.log.messages(Kind.SERVICE_STOPPING) == ["stopped"]


def test_stopping_keeps_the_network_and_takes_the_state_away(stage: Stage) -> None:
    stage.kernel.plug("usb0", MAC)
    stage.play(stage.wait_up)
    assert len(stage.world.filter.held) == 3
    assert any(link.ifname == "ethusb1" and link.up for link in stage.kernel.links.values())
    assert stage.state.state is None
    assert stage.world.closed


def test_stopping_releases_the_network_where_the_config_says_so(stage: Stage) -> None:
    stage.config = config(1, on_stop=OnStop.RELEASE)
    ifindex = stage.kernel.plug("usb0", MAC)

    def hold_the_lock() -> None:
        stage.wait_up()
        stage.world.filter.fail_next = []
        stage.kernel.fail["remove_address"] = [TransientError("the kernel is busy")] * 2

    stage.play(hold_the_lock)
    assert stage.world.filter.held == set()
    assert stage.kernel.links[ifindex].addresses == ()
    assert stage.log.messages(Kind.PASS_CRASHED) == []


@pytest.mark.parametrize(
    ("fault", "told"),
    [
        (PermanentError("not permitted"), "the network is not released: not permitted"),
        (KeyError("x"), r"the network is not released: KeyError: 'x' \(fake_kernel.py:\d+\)"),
    ],
    ids=["refused", "defect"],
)
def test_a_release_that_fails_is_told_and_the_end_comes(
    stage: Stage, fault: Exception, told: str
) -> None:
    stage.config = config(1, on_stop=OnStop.RELEASE)
    errors: list[Exception] = [fault]

    def spoil() -> None:
        stage.kernel.fail["observe_links"] = errors  # type: ignore[assignment]

    assert stage.play(spoil) == 0
    assert re.fullmatch(told, stage.log.messages(Kind.PASS_CRASHED)[0])


def test_nothing_leaks(stage: Stage) -> None:
    stage.play()
    before = fds()
    again = Stage()
    again.play()
    assert fds() == before


# --- triggers ------------------------------------------------------------------------------------


def test_a_plugged_gadget_is_served_at_once_and_told(stage: Stage) -> None:
    def script() -> None:
        stage.plug()
        stage.wait_up()

    stage.play(script)
    assert stage.log.messages(Kind.GADGET_CONFIGURED) == [
        "ethusb1: configured: 10.0.11.1/24, masquerade through eth0"
    ]
    assert "STATUS=1 of 1 gadgets up, uplink eth0" in stage.service.lines


def test_many_events_are_one_pass(stage: Stage) -> None:
    def script() -> None:
        quiet = stage.looks
        stage.world.trigger.fire(500)
        stage.world.other_trigger.fire(500)
        until(lambda: stage.looks > quiet)
        # One more event comes after those have been answered; else a later pass may be unseen.
        settled = stage.looks
        stage.world.trigger.fire()
        until(lambda: stage.looks > settled)
        assert stage.looks - quiet <= 4  # the two pipes may be filled around one pass

    stage.play(script)


def test_events_that_are_not_about_us_cost_no_pass(stage: Stage) -> None:
    def script() -> None:
        looks, drains = stage.looks, stage.world.trigger.drains
        stage.world.trigger.murmur()
        until(lambda: stage.world.trigger.drains > drains)
        assert stage.looks == looks
        stage.world.trigger.fire()
        until(lambda: stage.looks > looks)

    stage.play(script)


@pytest.mark.parametrize("told", ["settled", "settled and new", "new", "waiting", "lost events"])
def test_udevs_monitor_has_news_only_of_links_that_have_not_settled(
    stage: Stage, told: str
) -> None:
    monitor = stage.world.trigger
    monitor.newcomers_only = True
    settled = stage.kernel.plug("usb0", MAC)
    waiting = stage.kernel.plug("eth1", "02:00:00:00:00:02", driver="smsc95xx")
    stage.kernel.change(waiting, up=True, initialized=False)
    named = {
        "settled": frozenset({settled}),
        "settled and new": frozenset({settled, 99}),
        "new": frozenset({99}),
        "waiting": frozenset({waiting}),
        "lost events": None,
    }[told]
    turns_before: list[int] = []

    def drain() -> int:
        del monitor.drain  # the next one is its own again
        turns_before.append(stage.log.flushes)
        return monitor.drain()

    def script() -> None:
        stage.wait_up()
        looks = stage.looks
        monitor.drain = drain  # type: ignore[method-assign]
        monitor.names = [named]
        monitor.fire()
        until(lambda: turns_before and stage.log.flushes > turns_before[0])
        assert (stage.looks == looks) is (told == "settled")

    stage.play(script)


def test_a_trigger_with_nothing_to_say_is_not_asked(stage: Stage) -> None:
    def script() -> None:
        stage.plug()
        stage.wait_up()
        stage.world.trigger.fire()
        until(lambda: stage.looks > 3)

    stage.play(script)
    assert stage.world.trigger.drains > 0
    assert stage.world.other_trigger.drains == 0


def test_an_event_that_comes_as_a_pass_begins_is_answered_by_it(stage: Stage) -> None:
    """One trigger wakes the daemon; what the other one says meanwhile is read before the look."""
    trigger, other = stage.world.trigger, stage.world.other_trigger
    read_before_look: list[int] = []

    def wake() -> int:
        del trigger.drain  # the next one is its own again
        other.fire()
        return trigger.drain()

    def script() -> None:
        trigger.drain = wake  # type: ignore[method-assign]
        stage.kernel.at["observe_links"] = lambda: read_before_look.append(other.drains)
        trigger.fire()
        until(lambda: read_before_look)

    stage.play(script)
    assert read_before_look[0] == 1


@pytest.mark.parametrize(
    "overflows",
    [[False], [True], [True, True]],
    ids=["new number", "same number", "twice, same number"],
)
def test_a_trigger_that_had_to_open_anew_is_still_heard(
    stage: Stage, overflows: list[bool]
) -> None:
    """epoll forgets a descriptor that was closed, even when a new one has its number."""

    def script() -> None:
        trigger = stage.world.trigger
        trigger.overflow_next = overflows
        count = len(overflows)
        while trigger.overflows < count:
            before = trigger.drains
            trigger.fire()
            until(lambda: trigger.drains > before)  # noqa: B023 - used at once
            until_idle(stage)
        stage.plug()
        stage.wait_up()

    stage.play(script)
    assert stage.log.messages(Kind.EVENTS_LOST)[0].startswith("more events than the kernel could")


def until_idle(stage: Stage) -> None:
    """Return when the daemon has turned once more for an event of the other trigger."""
    looks = stage.looks
    stage.world.other_trigger.fire()
    until(lambda: stage.looks > looks)


@pytest.mark.parametrize(
    "fault", [TransientError("Cannot allocate memory"), ValueError("odd message")], ids=str
)
def test_a_trigger_that_cannot_be_read_ends_nothing(stage: Stage, fault: Exception) -> None:
    def script() -> None:
        stage.world.trigger.fail_next = [fault]
        stage.plug()
        stage.wait_up()

    assert stage.play(script) == 0
    assert len(stage.log.messages(Kind.PASS_CRASHED)) == 1


# --- timers --------------------------------------------------------------------------------------


def test_a_resync_finds_what_no_event_told(stage: Stage) -> None:
    stage.config = config(1, resync_s=0.02)

    def script() -> None:
        stage.kernel.plug("usb0", MAC)
        stage.wait_up()

    stage.play(script)


def test_a_quiet_service_looks_no_oftener_than_its_resync(stage: Stage) -> None:
    stage.config = config(1, resync_s=0.05)
    looks: list[float] = []

    stage.kernel.at["observe_links"] = lambda: looks.append(time.monotonic())
    stage.play(lambda: until(lambda: len(looks) >= 5))
    gaps = [later - earlier for earlier, later in itertools.pairwise(looks)]
    assert min(gaps) >= 0.05


def name_only(stage: Stage, ifindex: int) -> None:
    """From now on, events name this link and nothing else."""
    for trigger in (stage.world.trigger, stage.world.other_trigger):
        trigger.names = [frozenset({ifindex})] * 100_000


def full_looks(stage: Stage) -> int:
    """How often the daemon has looked at everything, routes included."""
    return stage.kernel.calls.count("observe_routes")


def test_events_do_not_put_off_the_look_at_everything(stage: Stage) -> None:
    stage.config = config(1, resync_s=0.1)
    ifindex = stage.kernel.plug("usb0", MAC)

    def script() -> None:
        stage.wait_up()
        name_only(stage, ifindex)
        before = full_looks(stage)

        def seen_while_busy() -> bool:
            stage.world.trigger.fire()
            return full_looks(stage) >= before + 3

        until(seen_while_busy)

    stage.play(script)
    assert stage.looks > 2 * full_looks(stage)  # the others were glances


def test_after_a_trigger_failed_an_event_is_answered_by_a_look_at_everything(
    stage: Stage,
) -> None:
    """What the failed one had to say is lost, so what the other one names is not enough."""
    ifindex = stage.kernel.plug("usb0", MAC)

    def fire_both() -> None:
        del stage.kernel.at["observe_links"]
        stage.world.trigger.fail_next = [TransientError("Cannot allocate memory")]
        stage.world.trigger.fire()
        stage.world.other_trigger.fire()

    def script() -> None:
        stage.wait_up()
        name_only(stage, ifindex)
        before = len(stage.kernel.calls)
        stage.kernel.at["observe_links"] = fire_both
        stage.world.trigger.fire()

        def looks() -> list[str]:
            return [verb for verb in stage.kernel.calls[before:] if verb.startswith("observe")]

        until(lambda: len(looks()) >= 3)
        glance, *everything = looks()[:3]
        assert glance == "observe_links"
        assert everything == ["observe_links", "observe_routes"]

    stage.play(script)


def test_what_may_work_in_a_moment_is_tried_again_with_growing_waits(stage: Stage) -> None:
    stage.kernel.plug("usb0", MAC)
    stage.kernel.fail["add_address"] = [TransientError("the kernel is busy") for _ in range(5)]
    tries: list[float] = []

    stage.kernel.at["add_address"] = lambda: tries.append(time.monotonic())
    stage.play(stage.wait_up)
    gaps = [later - earlier for earlier, later in itertools.pairwise(tries)]
    assert len(gaps) == 5
    assert all(gap >= RETRY_FIRST_S * 2**n for n, gap in enumerate(gaps))
    # One line says that it fails, one that it works; no line for each try.
    assert len(stage.log.messages(Kind.GADGET_FAILED)) == 1
    assert len(stage.log.messages(Kind.GADGET_CONFIGURED)) == 1


def test_backoff_doubles_up_to_its_bound_and_starts_afresh() -> None:
    backoff = Backoff()
    waits = [backoff.next() for _ in range(20)]
    assert waits[:4] == [0.02, 0.04, 0.08, 0.16]
    assert waits[-2:] == [30.0, 30.0]
    backoff.reset()
    assert backoff.next() == 0.02


def test_a_step_that_somebody_keeps_undoing_is_retried_later(stage: Stage) -> None:
    """Held steps have a timer of their own; the fight is no busy loop and ends when it ends."""
    fighting = True

    ifindex = stage.kernel.plug("usb0", MAC)

    def undo() -> None:
        if fighting:
            stage.kernel.change(ifindex, addresses=())

    stage.kernel.at["observe_links"] = undo

    def script() -> None:
        nonlocal fighting
        until(
            lambda: "somebody" in stage.state.gadget("ethusb1").get("reason", ""),
            what=lambda: (stage.log.events, stage.state.state),
        )
        assert stage.state.gadget("ethusb1")["state"] == "failed"
        fighting = False
        stage.wait_up()

    stage.play(script)


def test_links_that_come_faster_than_a_pass_get_the_next_at_once(stage: Stage) -> None:
    born = 1

    def plug_another() -> None:
        nonlocal born
        if born <= 9:
            stage.kernel.plug(f"usb{born}", gadget(born).mac or "")
            born += 1

    stage.config = config(*range(1, 10))
    stage.kernel.at["observe_links"] = plug_another

    def script() -> None:
        for n in range(1, 10):
            stage.wait_up(n)

    stage.play(script)


# --- watchdog ------------------------------------------------------------------------------------


def test_the_watchdog_is_fed_twice_in_its_time_although_nothing_happens(stage: Stage) -> None:
    stage.service = FakeService(watchdog_s=0.1)
    stage.play(lambda: until(lambda: len(stage.service.times("WATCHDOG=1")) >= 4))
    fed = stage.service.times("WATCHDOG=1")
    gaps = [later - earlier for earlier, later in itertools.pairwise(fed)]
    assert min(gaps) >= 0.05
    assert stage.looks <= 2


def test_without_a_watchdog_nothing_is_fed(stage: Stage) -> None:
    stage.config = config(1, resync_s=0.01)
    stage.play(lambda: until(lambda: stage.looks >= 5))
    assert stage.service.times("WATCHDOG=1") == []


def test_the_watchdog_starves_while_passes_fail_and_is_fed_as_soon_as_one_ends(
    stage: Stage,
) -> None:
    stage.service = FakeService(watchdog_s=0.04)

    sick = False

    def fail() -> None:
        if sick:
            raise PermanentError("not permitted")

    stage.kernel.at["observe_links"] = fail

    def script() -> None:
        nonlocal sick
        until(lambda: stage.service.times("WATCHDOG=1"))
        sick = True
        stage.world.trigger.fire()
        until(lambda: stage.log.of(Kind.PASS_CRASHED))
        fed = len(stage.service.times("WATCHDOG=1"))
        looks = stage.looks
        until(lambda: stage.looks >= looks + 4)  # 20 + 40 + 80 + 160 ms: several watchdog times
        assert len(stage.service.times("WATCHDOG=1")) == fed
        sick = False
        looks = stage.looks
        stage.world.trigger.fire()
        until(lambda: len(stage.service.times("WATCHDOG=1")) > fed)
        assert stage.looks == looks + 1

    stage.play(script)


def test_a_keep_alive_that_a_fault_left_out_is_made_up_for_at_once(stage: Stage) -> None:
    """Else a short fault around one keep-alive would use up the watchdog's whole time."""
    stage.service = FakeService(watchdog_s=NO_TIMER)
    stage.kernel.fail["observe_links"] = [TransientError("the kernel is busy")]
    stage.play(lambda: until(lambda: stage.service.times("WATCHDOG=1")))
    assert len(stage.service.times("WATCHDOG=1")) == 1


# --- crashes -------------------------------------------------------------------------------------


def test_a_defect_in_a_pass_ends_nothing_and_is_told_once(stage: Stage) -> None:
    broken = False

    def break_down() -> None:
        if broken:
            raise ZeroDivisionError("a defect")

    stage.kernel.plug("usb0", MAC)
    stage.kernel.at["observe_links"] = break_down

    def script() -> None:
        nonlocal broken
        stage.wait_up()
        broken = True
        for _ in range(5):
            looks = stage.looks
            stage.world.trigger.fire()
            until(lambda: stage.looks > looks)  # noqa: B023 - used at once
        until(lambda: stage.state.state and stage.state.state["last_pass"]["failures"])
        assert "ZeroDivisionError" in stage.service.status
        assert stage.state.gadget("ethusb1")["state"] == "configured"  # what was last seen
        broken = False
        stage.world.trigger.fire()
        until(lambda: stage.service.status == "1 of 1 gadgets up, uplink eth0")
        until(lambda: stage.state.state and not stage.state.state["last_pass"]["failures"])

    assert stage.play(script) == 0
    (event,) = stage.log.of(Kind.PASS_CRASHED)
    place = r"ZeroDivisionError: a defect \(test_daemon.py:\d+\)"
    assert re.fullmatch(f"a defect of otgd, please report it: {place}", event.message)
    assert "in break_down" in event.fields["OTGD_TRACEBACK"]


def test_a_defect_in_telling_is_no_news_at_each_pass_either(stage: Stage) -> None:
    class Unwritable(FakeState):
        def write(self, _: dict[str, object]) -> None:
            raise ZeroDivisionError("a defect")

    stage.state = Unwritable()
    stage.play(lambda: until(lambda: stage.looks >= 4))
    assert len(stage.log.of(Kind.PASS_CRASHED)) == 1


# --- reload --------------------------------------------------------------------------------------


def test_a_reload_is_announced_and_over_when_the_new_config_is_in_force(stage: Stage) -> None:
    stage.kernel.plug("usb2", OTHER_MAC)

    def script() -> None:
        stage.reload(config(1, 2))
        assert stage.state.gadget("ethusb2")["state"] == "configured"

    stage.play(script)
    lines = stage.service.lines
    start = lines.index("RELOADING=1")
    assert re.fullmatch(r"MONOTONIC_USEC=\d+", lines[start + 1])
    told_at = stage.service.times("RELOADING=1")[0]
    assert abs(int(lines[start + 1].partition("=")[2]) / 1e6 - told_at) < 5
    assert lines.index("READY=1", start) > start
    assert stage.log.messages(Kind.CONFIG_RELOADED) == ["config reloaded, 2 gadgets"]
    assert stage.connected == 1


def test_a_refused_config_leaves_the_old_one_in_force_and_is_shown(stage: Stage) -> None:
    stage.kernel.plug("usb0", MAC)
    problems = tuple(
        Problem(file="otgd.toml", line=n, key="x", cause="is unknown", remedy="remove it")
        for n in (3, 7)
    )

    def script() -> None:
        stage.wait_up()
        stage.reload(ConfigError(problems))
        assert stage.service.status == (
            "config refused, the old one is in force (otgd.toml:3: x: is unknown; remove it); "
            "1 of 1 gadgets up, uplink eth0"
        )
        assert stage.state.gadget("ethusb1")["state"] == "configured"
        stage.reload(config(1))
        assert stage.service.status == "1 of 1 gadgets up, uplink eth0"

    stage.play(script)
    assert [event.fields["OTGD_REASON"] for event in stage.log.of(Kind.CONFIG_REJECTED)] == [
        "otgd.toml:3: x: is unknown; remove it",
        "otgd.toml:7: x: is unknown; remove it",
    ]


def test_a_defect_while_reading_the_config_ends_nothing(stage: Stage) -> None:
    stage.play(lambda: stage.reload(ZeroDivisionError("a defect")))
    (told,) = stage.log.messages(Kind.CONFIG_REJECTED)
    assert "ZeroDivisionError: a defect" in told


def test_new_settings_bring_new_adapters(stage: Stage) -> None:
    stage.worlds.append(FakeWorld(stage.kernel, stage.world.filter))

    def script() -> None:
        stage.reload(config(1, log_level="debug"))
        assert stage.world.closed
        stage.kernel.plug("usb0", MAC)
        stage.worlds[1].trigger.fire()
        stage.wait_up()

    stage.play(script)
    assert stage.log.level == "debug"
    assert len(stage.world.filter.held) == 3  # the same packet filter: nothing was released


def test_adapters_that_cannot_be_had_leave_the_old_ones_in_use(stage: Stage) -> None:
    class Deaf(Stage):
        def _connect(self, asked: Config) -> FakeWorld:
            if self.connected:
                raise TransientError("listen to udev events: Too many open files")
            return super()._connect(asked)

    deaf = Deaf(worlds=stage.worlds)

    def script() -> None:
        deaf.reload(config(1, backend=Backend.NFTABLES))
        assert "Too many open files" in deaf.service.status
        assert not deaf.world.closed
        deaf.plug()
        deaf.wait_up()

    assert deaf.play(script) == 0


# --- another packet filter -----------------------------------------------------------------------


class JealousFirewall(FakeFirewall):
    """Notes what the other one holds when our rules are taken out of this one."""

    def __init__(self, successor: FakeFirewall, *, name: str) -> None:
        super().__init__(name=name)
        self._successor = successor
        self.successor_held: list[int] = []

    def apply(self, *, remove: Collection[Rule], add: Collection[Rule]) -> None:
        if remove:
            self.successor_held.append(len(self._successor.held))
        super().apply(remove=remove, add=add)


@pytest.fixture
def moving(stage: Stage) -> Stage:
    """A gadget is up, and the next config asks for another packet filter."""
    new = FakeFirewall(name="new")
    stage.worlds = [
        FakeWorld(stage.kernel, JealousFirewall(new, name="old")),
        FakeWorld(stage.kernel, new),
    ]
    stage.kernel.plug("usb0", MAC)
    return stage


def test_the_old_packet_filter_is_cleared_once_the_new_one_is_in_force(moving: Stage) -> None:
    old, new = moving.worlds[0].filter, moving.worlds[1].filter

    def script() -> None:
        moving.wait_up()
        moving.reload(config(1, backend=Backend.NFTABLES))

    moving.play(script)
    assert old.held == set()
    assert {type(rule) for rule in new.held} == {Masquerade, SourceGuard, Forward}
    assert isinstance(old, JealousFirewall)
    assert old.successor_held == [3]


def test_the_old_packet_filter_stays_while_the_new_one_does_not_work(moving: Stage) -> None:
    old, new = moving.worlds[0].filter, moving.worlds[1].filter

    def script() -> None:
        moving.wait_up()
        new.fail_next = [PermanentError("no nf_tables")]  # so there is nothing to do
        moving.reload(config(1, backend=Backend.NFTABLES))
        assert len(old.held) == 3
        moving.worlds[1].trigger.fire()
        until(lambda: not old.held)
        assert len(new.held) == 3

    moving.play(script)


def test_a_lock_on_the_old_packet_filter_is_waited_for(moving: Stage) -> None:
    old = moving.worlds[0].filter

    def script() -> None:
        moving.wait_up()
        old.fail_next = [TransientError("the lock is held")] * 3
        moving.reload(config(1, backend=Backend.NFTABLES))
        until(lambda: not old.held)

    moving.play(script)
    assert moving.log.messages(Kind.PASS_CRASHED) == [
        "remove the rules of the old backend: the lock is held"
    ]


def test_a_packet_filter_that_is_chosen_again_keeps_its_rules(moving: Stage) -> None:
    old = moving.worlds[0].filter
    moving.worlds.append(FakeWorld(moving.kernel, old))

    def script() -> None:
        moving.wait_up()
        moving.worlds[1].filter.fail_next = [PermanentError("no nf_tables")]
        moving.reload(config(1, backend=Backend.NFTABLES))
        moving.reload(config(1))
        until(lambda: not moving.worlds[1].filter.held)
        assert len(old.held) == 3

    moving.play(script)


def test_rules_that_an_earlier_run_left_elsewhere_are_released(stage: Stage) -> None:
    rule: Rule = Masquerade(gadget="ethusb1", subnet=gadget(1).subnet, uplink="eth0")
    before = FakeFirewall({rule}, name="before")
    stage.world.left = (before,)
    stage.play(lambda: until(lambda: not before.held))


class StubbornFirewall(FakeFirewall):
    """Can never be looked at; notes when it was tried (monotonic seconds)."""

    def __init__(self) -> None:
        super().__init__(name="before")
        self.tried: list[float] = []

    def observe(self) -> frozenset[Rule]:
        self.tried.append(time.monotonic())
        raise PermanentError("install python3-nftables")


def test_rules_that_cannot_be_released_are_tried_with_growing_pauses(stage: Stage) -> None:
    before = StubbornFirewall()
    stage.world.left = (before,)
    stage.play(lambda: until(lambda: len(before.tried) >= 6))
    pauses = [later - earlier for earlier, later in itertools.pairwise(before.tried)]
    assert pauses[4] >= 0.32
    assert stage.log.messages(Kind.PASS_CRASHED) == [
        "remove the rules of the before backend: install python3-nftables"
    ]


# --- telling -------------------------------------------------------------------------------------


def test_a_full_disk_under_the_state_is_told_once_and_mended(stage: Stage) -> None:
    stage.state.fault = PermanentError("write /run/otgd/state.json: No space left on device")

    def script() -> None:
        for _ in range(3):
            until_idle(stage)
        stage.state.fault = None
        until_idle(stage)
        until(lambda: stage.state.state)

    stage.play(script)
    assert stage.log.messages(Kind.STATE_NOT_WRITTEN) == [
        "write /run/otgd/state.json: No space left on device; "
        "what it tells is old until this is cured"
    ]


def test_a_quiet_pass_writes_and_says_nothing(stage: Stage) -> None:
    stage.kernel.plug("usb0", MAC)

    def script() -> None:
        stage.wait_up()
        writes, events, told = stage.state.writes, len(stage.log.events), len(stage.service.told)
        for _ in range(3):
            until_idle(stage)
        assert stage.state.writes == writes
        assert len(stage.log.events) == events
        assert len(stage.service.told) == told

    stage.play(script)


def test_the_state_tells_since_when(stage: Stage) -> None:
    def script() -> None:
        absent = stage.state.gadget("ethusb1")["since"]
        until_idle(stage)
        stage.plug()
        stage.wait_up()
        up = stage.state.gadget("ethusb1")["since"]
        assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", up)
        assert up >= absent
        stage.plug(2)  # unknown: the state is written again
        until(lambda: stage.state.state and stage.state.state["unknown"])
        assert stage.state.gadget("ethusb1")["since"] == up

    stage.play(script)


def test_a_failure_that_concerns_no_gadget_leaves_the_state_when_it_is_over(stage: Stage) -> None:
    """An address of ours on a foreign link cannot be taken away at first."""

    def failures() -> list[str]:
        return list(stage.state.state["last_pass"]["failures"]) if stage.state.state else []

    ifindex = stage.kernel.plug("dummy0", "02:00:00:00:00:09", driver="dummy")
    stage.kernel.add_address(ifindex, IPv4Interface("10.0.19.1/24"))
    stage.kernel.fail["remove_address"] = [PermanentError("not permitted")]

    def script() -> None:
        assert failures() == [f"remove address 10.0.19.1/24 from ifindex {ifindex}: not permitted"]
        stage.world.trigger.fire()
        until(lambda: not failures())

    stage.play(script)


def test_what_had_to_wait_for_the_journal_is_handed_over_at_each_turn(stage: Stage) -> None:
    def script() -> None:
        flushes = stage.log.flushes
        until_idle(stage)
        until(lambda: stage.log.flushes > flushes)

    stage.play(script)


def test_many_signals_at_once_are_one_reload(stage: Stage) -> None:
    """Signals that come while a pass is at work wait for it, and are answered by one reload."""

    def hang_up() -> None:
        if stage.looks == 1:
            for _ in range(100):
                signal.raise_signal(signal.SIGHUP)

    stage.reloads = [config(1), config(1), config(1)]
    stage.kernel.at["observe_links"] = hang_up
    stage.play(lambda: until(lambda: stage.ready() >= 2))
    assert 1 <= len(stage.service.times("RELOADING=1")) <= 2  # the pipe is read in two pieces


def test_reloads_do_not_put_the_keep_alive_off() -> None:
    """Each opens adapters anew; together they once kept the watchdog waiting until it bit."""
    worlds = [FakeWorld(ScriptedKernel()) for _ in range(400)]
    stage = Stage(service=FakeService(watchdog_s=0.2), worlds=worlds)

    def script() -> None:
        for resync_s in range(100, 100 + len(worlds) - 1):
            if len(stage.service.times("WATCHDOG=1")) >= 2:
                return
            stage.reload(config(resync_s=float(resync_s)))

    stage.play(script)

    assert len(stage.service.times("WATCHDOG=1")) >= 2
