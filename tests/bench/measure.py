"""What is done to a booted system, and which samples come of it."""

from __future__ import annotations

import json
import subprocess
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

from tests.bench.cables import Crowd
from tests.bench.gadgets import MOST
from tests.bench.peers import OTGD_CONFIG, otgd, otgd_config
from tests.bench.samples import Figure
from tests.lab.deadline import until
from tests.lab.topology import FAR_SIDE

if TYPE_CHECKING:
    from collections.abc import Mapping

    from tests.bench.cables import Plug
    from tests.bench.peers import Peer
    from tests.bench.samples import Results
    from tests.bench.testbed import Machine, Testbed
    from tests.lab.namespaces import Namespace
    from tests.system.host import Host

PRESENT = (1, 10, 50, MOST)
"""How many gadgets are there when the cost of one event is measured."""

BACKENDS = ("nftables", "iptables")

_SLOW_SHARE = 3
_NO_RESYNC_S = 3600
_RESYNC_S = 0.25
_RESYNC_WINDOW_S = 5.0
_WARM_UP = 100


@dataclass(frozen=True, slots=True, kw_only=True)
class Effort:
    """How much is measured.

    Attributes:
        repetitions: how often each peer has its turn, so that a bad minute hits everybody.
        rounds: per turn, by how many gadgets are plugged at once.
        starts: per turn.
        events: plugs for each number of present gadgets.
        growth: plugs that memory may grow by.
    """

    repetitions: int
    rounds: Mapping[int, int]
    starts: int
    idle_s: float
    events: int
    throughput_s: int
    growth: int


FULL = Effort(
    repetitions=3,
    rounds={1: 20, 4: 6, 50: 3},
    starts=4,
    idle_s=60,
    events=20,
    throughput_s=5,
    growth=2000,
)
QUICK = Effort(
    repetitions=2,
    rounds={1: 6, 4: 2, 50: 1},
    starts=2,
    idle_s=10,
    events=6,
    throughput_s=2,
    growth=500,
)


def answers(plugs: list[Plug]) -> tuple[list[float], int]:
    """Return the times of those that were answered, and how many were not."""
    times = [plug.answered_ms for plug in plugs if plug.answered_ms is not None]
    return times, len(plugs) - len(times)


# --- side by side -------------------------------------------------------------------------------


def take_turn(
    testbed: Testbed, peer: Peer, effort: Effort, results: Results, *, idle: bool
) -> None:
    """Boot one peer and measure it once; *idle* adds the long look at doing nothing."""
    with testbed.boot(peer) as (machine, _):
        _starts(machine, peer, effort, results)
        _memory(machine, peer, results, (Figure.IDLE_PSS_MIB, Figure.IDLE_RSS_MIB))
        if idle:
            _idle(machine, peer, effort, results)
        for count, rounds in effort.rounds.items():
            fewer = max(1, rounds // _SLOW_SHARE) if peer.slow else rounds
            _plugs(machine, peer, results, count=count, rounds=fewer)
        _memory(machine, peer, results, (Figure.USED_PSS_MIB, Figure.USED_RSS_MIB))
        _crashes(machine, peer, results)


def _crashes(machine: Machine, peer: Peer, results: Results) -> None:
    """Note what makes figures void: they belong to more than one life of the peer."""
    crashes = machine.container.unit(peer.unit, "NRestarts")
    if crashes != "0":
        results.machine[f"restarts of {peer.title}"] = crashes


def _starts(machine: Machine, peer: Peer, effort: Effort, results: Results) -> None:
    for i in range(effort.starts):
        if i:
            machine.stop()
        wall_ms, cpu_ms = machine.start()
        results.add(Figure.START_MS, peer.key, wall_ms)
        results.add(Figure.START_CPU_MS, peer.key, cpu_ms)
        machine.settle()


def _memory(machine: Machine, peer: Peer, results: Results, figures: tuple[Figure, Figure]) -> None:
    memory = machine.memory()
    results.add(figures[0], peer.key, memory.pss_mib)
    results.add(figures[1], peer.key, memory.rss_mib)


def _idle(machine: Machine, peer: Peer, effort: Effort, results: Results) -> None:
    wakeups, cpu_s = machine.wakeups(), machine.own_cpu_s()
    time.sleep(effort.idle_s)
    per_min = 60 / effort.idle_s
    results.add(Figure.WAKEUPS_PER_MIN, peer.key, (machine.wakeups() - wakeups) * per_min)
    used_ms = (machine.own_cpu_s() - cpu_s) * 1000
    results.add(Figure.IDLE_CPU_MS_PER_MIN, peer.key, used_ms * per_min)


def _plugs(machine: Machine, peer: Peer, results: Results, *, count: int, rounds: int) -> None:
    own_s, system_s = machine.own_cpu_s(), machine.system_cpu_s()
    for _ in range(rounds):
        times, lost = answers(machine.plug(count))
        machine.settle()
        machine.unplug()
        machine.settle()
        results.add(Figure.ANSWER_MS, peer.key, *times, gadgets=count, lost=lost)
    plugs = count * rounds
    own_ms = (machine.own_cpu_s() - own_s) * 1000 / plugs
    system_ms = (machine.system_cpu_s() - system_s) * 1000 / plugs
    results.add(Figure.OWN_CPU_MS, peer.key, own_ms, gadgets=count)
    results.add(Figure.SYSTEM_CPU_MS, peer.key, system_ms, gadgets=count)


# --- otgd against the number of gadgets ---------------------------------------------------------


def scale(testbed: Testbed, backend: str, effort: Effort, results: Results) -> None:
    """Measure one event, one idle pass and the throughput, the more gadgets are present.

    Events are measured without the minute's resync, which is what an idle pass costs.
    """
    peer = otgd(backend, count=MOST, resync_s=_NO_RESYNC_S)
    with testbed.boot(peer) as (machine, host):
        machine.start()
        crowd = Crowd(machine.container.network)
        for present in PRESENT:
            crowd.grow_to(present)
            until(lambda n=present: _configured(machine) >= n - 1, 60)  # type: ignore[misc]
            machine.settle()
            _events(machine, peer, effort, results, present=present)
            _passes(machine, backend, results, present=present)
            if present in {PRESENT[0], PRESENT[-1]}:
                machine.plug(1)
                gbit_s = _throughput(machine, testbed.guests[0], host, effort)
                results.add(Figure.THROUGHPUT_GBIT_S, peer.key, gbit_s, gadgets=present)
                machine.unplug()
        _crashes(machine, peer, results)
        crowd.close()


def _configured(machine: Machine) -> int:
    states = [gadget["state"] for gadget in machine.state()["gadgets"]]
    return sum(state in {"configured", "reachable"} for state in states)


def _events(
    machine: Machine, peer: Peer, effort: Effort, results: Results, *, present: int
) -> None:
    own_s = machine.own_cpu_s()
    for _ in range(effort.events):
        times, lost = answers(machine.plug(1))
        machine.settle()
        last_ms = machine.state()["last_pass"]["duration_s"] * 1000
        machine.unplug()
        machine.settle()
        results.add(Figure.EVENT_ANSWER_MS, peer.key, *times, gadgets=present, lost=lost)
        results.add(Figure.EVENT_PASS_MS, peer.key, last_ms, gadgets=present)
    used_ms = (machine.own_cpu_s() - own_s) * 1000 / effort.events
    results.add(Figure.EVENT_CPU_MS, peer.key, used_ms, gadgets=present)


def _passes(machine: Machine, backend: str, results: Results, *, present: int) -> None:
    """Let otgd look again every quarter of a second, and charge each look the same.

    A pass that took *c* seconds started *c* + ``_RESYNC_S`` after the one before, so in a window
    of *w* seconds with *u* seconds of CPU there were w / (c + resync) of them, and each took
    c = u * resync / (w - u).
    """
    peer = otgd(backend, count=MOST)
    _reconfigure(machine, otgd_config(backend, count=MOST, resync_s=_RESYNC_S))
    time.sleep(4 * _RESYNC_S)
    own_s, begin_s = machine.own_cpu_s(), time.monotonic()
    time.sleep(_RESYNC_WINDOW_S)
    used_s, window_s = machine.own_cpu_s() - own_s, time.monotonic() - begin_s
    cost_ms = used_s * _RESYNC_S / (window_s - used_s) * 1000
    results.add(Figure.PASS_CPU_MS, peer.key, cost_ms, gadgets=present)
    _reconfigure(machine, otgd_config(backend, count=MOST, resync_s=_NO_RESYNC_S))
    machine.settle()


def _reconfigure(machine: Machine, config: str) -> None:
    machine.container.write(OTGD_CONFIG, config)
    machine.container.run("systemctl", "restart", "otgd.service")


def _throughput(machine: Machine, guest: Namespace, host: Host, effort: Effort) -> float:
    """Return the Gbit/s of one TCP stream from a guest through the masquerade."""
    iperf = ("setpriv", "--pdeathsig", "KILL", "chroot", str(machine.container.root), "iperf3")
    server_options = ("--server", "--bind", FAR_SIDE)
    client_options = ("--client", FAR_SIDE, "--time", str(effort.throughput_s), "--json")
    with host.internet.entered():
        server = subprocess.Popen([*iperf, *server_options], stdout=subprocess.DEVNULL)
    try:
        until(lambda: _listens(host.internet), 5)
        told = json.loads(guest.run(*iperf, *client_options))
    finally:
        server.kill()
        server.wait()
    return float(told["end"]["sum_received"]["bits_per_second"]) / 1e9


def _listens(namespace: Namespace) -> bool:
    return FAR_SIDE in namespace.run("ss", "--listening", "--tcp", "--numeric", "--no-header")


# --- memory over time ---------------------------------------------------------------------------


def growth(testbed: Testbed, backend: str, effort: Effort, results: Results) -> None:
    """Measure what otgd's memory grows by, from warmed up to many plugs later."""
    peer = otgd(backend)
    at_once = 10
    with testbed.boot(peer) as (machine, _):
        machine.start()
        _plug_many(machine, _WARM_UP, at_once)
        before = machine.memory()
        _plug_many(machine, effort.growth, at_once)
        grown_mib = machine.memory().pss_mib - before.pss_mib
        results.add(Figure.GROWTH_MIB, peer.key, grown_mib, gadgets=effort.growth)


def _plug_many(machine: Machine, plugs: int, at_once: int) -> None:
    for _ in range(plugs // at_once):
        _, lost = answers(machine.plug(at_once))
        assert not lost, "a gadget was never configured"
        machine.unplug()
    machine.settle()
