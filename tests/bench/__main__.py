"""Run the benchmark, print and write the report: packaging/bench.sh --help."""

from __future__ import annotations

import argparse
import os
import platform
import sys
import tempfile
import time
from contextlib import ExitStack
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

from tests.bench import measure
from tests.bench.peers import FLEET, all_peers
from tests.bench.plot import draw
from tests.bench.report import write_report
from tests.bench.samples import Results
from tests.bench.testbed import REPOSITORY, Testbed
from tests.lab.namespaces import run

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.bench.peers import Peer

PARTS = ("peers", "scale", "growth")

MEASURED = ("systemd", "network-manager", "dhcpcd", "python3", "python3-pyroute2", "nftables")


def main() -> int:
    """Measure, or report anew what an earlier run measured."""
    options = _parse()
    if options.report is not None:
        _publish(Results.load(options.report), options.report.parent)
        return 0
    out = options.out or Path(tempfile.mkdtemp(prefix="otgd-bench-results-"))
    out.mkdir(parents=True, exist_ok=True)
    effort = measure.QUICK if options.quick else measure.FULL
    if options.growth is not None:
        effort = replace(effort, growth=options.growth)
    with ExitStack() as stack:
        _say("preparing: C programs, Debian root, package")
        testbed = Testbed(stack=stack, guests=FLEET)
        peers = [p for p in all_peers(testbed.bound) if not options.only or p.key in options.only]
        results = Results(machine=_machine(testbed), peers={peer.key: peer.title for peer in peers})
        for name, step in _steps(testbed, peers, effort, results, options.part or PARTS):
            _say(name)
            step()
            results.machine["load average at the end"] = _load()
            results.save(out / "results.json")  # a run that is cut short is not lost
    _publish(results, out)
    return 0


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="bench.sh", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="fewer rounds: minutes, not an hour")
    parser.add_argument("--out", type=Path, help="directory for results; default: a new one")
    parser.add_argument(
        "--only",
        action="append",
        choices=[peer.key for peer in all_peers(Path())],
        help="measure this peer only; repeatable",
    )
    parser.add_argument(
        "--part", action="append", choices=PARTS, help="do this part only; repeatable"
    )
    parser.add_argument(
        "--growth",
        type=int,
        metavar="PLUGS",
        help="plugs that memory may grow over; the goal: 10000",
    )
    parser.add_argument(
        "--report", type=Path, metavar="FILE", help="measure nothing; report a results.json"
    )
    return parser.parse_args()


def _steps(
    testbed: Testbed,
    peers: list[Peer],
    effort: measure.Effort,
    results: Results,
    parts: list[str] | tuple[str, ...],
) -> list[tuple[str, Callable[[], None]]]:
    steps: list[tuple[str, Callable[[], None]]] = []
    turns = [(i, peer) for i in range(effort.repetitions) for peer in peers]
    backends = [b for b in measure.BACKENDS if f"otgd-{b}" in results.peers]

    def turn(i: int, peer: Peer) -> Callable[[], None]:
        last = i == effort.repetitions - 1
        return lambda: measure.take_turn(testbed, peer, effort, results, idle=last)

    if "peers" in parts:
        steps += [(f"turn {i + 1}: {peer.title}", turn(i, peer)) for i, peer in turns]
    for backend in backends:
        if "scale" in parts:
            todo = (testbed, backend, effort, results)
            steps.append((f"scale: {backend}", lambda x=todo: measure.scale(*x)))  # type: ignore[misc]
    for backend in backends:
        if "growth" in parts:
            todo = (testbed, backend, effort, results)
            steps.append((f"growth: {backend}", lambda x=todo: measure.growth(*x)))  # type: ignore[misc]
    return steps


def _machine(testbed: Testbed) -> dict[str, str]:
    models = [
        line.split(":", 1)[1].strip()
        for line in Path("/proc/cpuinfo").read_text().splitlines()
        if line.startswith(("model name", "Model"))
    ]
    git = ("git", "-c", "safe.directory=*", "-C", str(REPOSITORY))
    return {
        "date": datetime.now(tz=UTC).strftime("%Y-%m-%d %H:%M UTC"),
        "processor": f"{os.cpu_count()} x {models[0] if models else platform.machine()}",
        "kernel": platform.release(),
        "commit": run(*git, "describe", "--always", "--dirty", check=False).strip(),
        "Debian": testbed.versions(MEASURED),
        "load average at the start": _load(),
    }


def _load() -> str:
    return " ".join(f"{each:.1f}" for each in os.getloadavg())


def _publish(results: Results, out: Path) -> None:
    report = write_report(results)
    (out / "report.md").write_text(report)
    (out / "plug-to-ping.svg").write_text(draw(results))
    print(report)  # noqa: T201 - what it was run for
    _say(f"results.json, report.md and plug-to-ping.svg are in {out}")


def _say(what: str) -> None:
    print(time.strftime("%H:%M:%S"), what, file=sys.stderr)  # noqa: T201


if __name__ == "__main__":
    sys.exit(main())
