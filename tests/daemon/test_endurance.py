"""A day's worth of events in a minute: cycles, bursts, and a daemon that is killed all the time."""

from __future__ import annotations

import random
import time
from typing import TYPE_CHECKING

import pytest

from tests.lab.deadline import until
from tests.lab.topology import FAR_SIDE, Lab
from tests.lab.traffic import PingStream

if TYPE_CHECKING:
    from tests.daemon.conftest import Launcher
    from tests.lab.daemon import Daemon

UP = ("configured", "reachable")
CYCLES = 1000
BURST = 1000
KILLS = 50
MEBIBYTE = 1 << 20


def assert_true_to(lab: Lab, present: set[int], *, count: int = 4) -> None:
    """Hold that the kernel has the network of the plugged gadgets, once, and nothing else."""

    def faults() -> list[str]:
        rules, links = lab.masqueraded(), lab.links()
        found = []
        for n in range(1, count + 1):
            rule_count = rules[f"10.0.{10 + n}.0/24"]
            link = links.get(f"ethusb{n}")
            addresses = [a["local"] for a in link["addr_info"]] if link else []
            wanted = (1, [f"10.0.{10 + n}.1"]) if n in present else (0, [])
            ipv4 = [address for address in addresses if "." in address]
            if (rule_count, ipv4) != wanted:
                found.append(f"gadget {n}: {rule_count} rules, {ipv4} instead of {wanted}")
        return found

    until(lambda: not faults(), what=faults)


def cycle(lab: Lab, daemon: Daemon, n: int) -> None:
    """Pull gadget *n* out and plug it in again, each time until the daemon has seen it."""
    lab.unplug(n)
    daemon.wait_for(f"ethusb{n}", "absent")
    lab.plug(n)
    daemon.wait_for(f"ethusb{n}", *UP)


@pytest.mark.timeout(600)
def test_a_thousand_plug_cycles_leave_no_trace(lab: Lab, launch: Launcher) -> None:
    empty = lab.firewall()
    daemon = launch(measured=False, service="resync_s = 3600")
    lab.plug_all(1, 2, 3, 4)
    for turn in range(40):  # caches fill, freed memory gets reused
        cycle(lab, daemon, turn % 4 + 1)
    rules, fds, memory_bytes = lab.firewall(), daemon.fds(), daemon.memory_bytes()

    for turn in range(CYCLES):
        cycle(lab, daemon, turn % 4 + 1)
        if turn % 100 == 99:
            assert_true_to(lab, {1, 2, 3, 4})

    assert sorted(lab.firewall().splitlines()) == sorted(rules.splitlines())
    until(lambda: daemon.fds() == fds, what=daemon.fds)  # it may be writing its state just now
    assert daemon.memory_bytes() - memory_bytes < 2 * MEBIBYTE
    for n in (1, 2, 3, 4):
        until(lambda n=n: lab.online(n))  # type: ignore[misc] # n is bound on purpose
    lab.unplug(1, 2, 3, 4)
    assert_true_to(lab, set())
    until(lambda: lab.firewall() == empty)


def test_burst_that_overflows_the_event_queues_is_survived(lab: Lab, launch: Launcher) -> None:
    daemon = launch(service="resync_s = 3600")
    lab.plug_all(1, 2)
    assert_true_to(lab, {1, 2})
    lab.host.run("ip", "link", "add", "name", "noise0", "type", "bridge")

    with daemon.paused():
        # Between them these fill every queue: udev events from the one, rtnetlink from the other.
        changes = "".join(f"link set noise0 mtu {1000 + n}\n" for n in range(BURST))
        lab.host.run("ip", "-batch", "-", stdin=changes)
        uevents = f"for n in $(seq {BURST}); do echo change >/sys/class/net/noise0/uevent; done"
        lab.host.run_inside("sh", "-c", uevents)
        lab.unplug(1)
        lab.plug_all(3, 4)

    assert_true_to(lab, {2, 3, 4})
    until(lambda: "more events than the kernel could queue" in daemon.stderr())
    for n in (2, 3, 4):
        until(lambda n=n: lab.online(n))  # type: ignore[misc] # n is bound on purpose
    # It still hears events.
    lab.plug(1)
    daemon.wait_for("ethusb1", *UP)
    lab.unplug(2)
    daemon.wait_for("ethusb2", "absent")


def test_burst_of_plug_events_ends_in_the_last_state(lab: Lab, launch: Launcher) -> None:
    daemon = launch()
    for _ in range(25):  # as fast as the kernel can, without waiting for the daemon
        lab.plug_all(1, 2, 3, 4)
        lab.unplug(1, 2, 3, 4)
    lab.plug_all(2, 4)
    assert_true_to(lab, {2, 4})
    for n in (2, 4):
        daemon.wait_for(f"ethusb{n}", *UP)
        until(lambda n=n: lab.online(n))  # type: ignore[misc] # n is bound on purpose


@pytest.mark.timeout(600)
def test_sigkill_at_any_moment_leaves_nothing_stale(lab: Lab, launch: Launcher) -> None:
    seed = time.time_ns()
    rng = random.Random(seed)  # noqa: S311 - not for secrets
    print(f"seed {seed}")  # noqa: T201 - pytest shows it when the test fails
    daemon = launch(measured=False)
    lab.plug(1)
    until(lambda: lab.online(1))
    plugged = {1}

    def toggle() -> None:
        for n in rng.sample((2, 3, 4), rng.randint(1, 3)):
            (lab.unplug if n in plugged else lab.plug)(n)
            plugged.symmetric_difference_update({n})

    with PingStream(lab.guest(1), FAR_SIDE) as stream:
        until(lambda: stream.answers)
        since_s = time.monotonic()
        for turn in range(KILLS):
            toggle()
            daemon.kill(after_s=rng.uniform(0, 0.02))  # in the passes that the toggling caused
            toggle()
            daemon.start()
            if turn % 4 == 0:  # in the first pass, or before it
                daemon.kill(after_s=rng.uniform(0.1, 0.6))
                toggle()
                daemon.start()
            daemon.wait_ready()
            assert_true_to(lab, plugged)
        assert stream.answers > 0
        assert stream.lost_since(since_s) == []
    lab.unplug(*plugged)
    assert_true_to(lab, set())
    until(lambda: "otgd" not in lab.firewall().lower())
