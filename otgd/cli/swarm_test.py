"""How ``otgctl swarm test`` goes on and what it tells."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from otgd.cli.printing import print_line, print_table
from otgd.swarm import guid, load, trial

if TYPE_CHECKING:
    from collections.abc import Sequence

    from otgd.swarm.engine import Engine
    from otgd.swarm.load import Run
    from otgd.swarm.roster import Row
    from otgd.swarm.ssh import Policy
    from otgd.swarm.trial import Replica, Stand

FEW = 100
"""The guide's number of requests."""

AT_ONCE = (1, 5)
"""The guide's."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """What one node came to.

    Attributes:
        faults: what did not answer, one sentence each.
        runs: of load; empty where nothing answered.
    """

    name: str
    address: str
    faults: tuple[str, ...]
    runs: tuple[Run, ...]

    @property
    def good(self) -> bool:
        """Whether everything was answered."""
        return not self.faults and not any(run.failed for run in self.runs)


@dataclass(slots=True, kw_only=True)
class SwarmTest:
    """One test of the whole swarm.

    Attributes:
        published: the port on the nodes.
        seconds: how long the longer run takes on each node; 0 for none.
        quiet: print nothing on the way.
        ingress: whether every node answers for all; known once it runs.
    """

    hub: Engine
    published: int
    seconds: float
    quiet: bool
    ingress: bool = False

    def __call__(self, rows: Sequence[Row], policy: Policy, publish: str) -> list[Verdict]:
        """Do it; everything that was made is gone afterwards.

        Raises:
            OtgdError: the service does not come up.
        """
        with trial.opened(self.hub, rows, policy) as stands:
            self._say(f"nodes that take work: {', '.join(stand.name for stand in stands)}")
            ip_vs = publish == "auto" and trial.have_ip_vs(stands)
            self.ingress = publish == "ingress" or ip_vs
            try:
                trial.distribute(stands)
                self._say(f"image {guid.TAG} is on every node")
                return self._with_service(stands)
            finally:
                trial.remove_images(stands)

    def _with_service(self, stands: Sequence[Stand]) -> list[Verdict]:
        with trial.service(
            self.hub, stands, ingress=self.ingress, published=self.published
        ) as replicas:
            mode = (
                "ingress, any node for all" if self.ingress else "each node for itself (no ip_vs)"
            )
            self._say(
                f"{len(replicas)} of {len(stands)} replicas run; port {self.published}, {mode}"
            )
            with ThreadPoolExecutor(max_workers=len(stands)) as pool:
                faults = list(pool.map(lambda stand: self._faults(stand, replicas), stands))
            # One after the other: they share this host's processors.
            return [self._judge(stand, found) for stand, found in zip(stands, faults, strict=True)]

    def _faults(self, stand: Stand, replicas: Sequence[Replica]) -> tuple[str, ...]:
        """Say what does not answer at a node."""
        missing, cause = trial.missing_at(
            stand, replicas, ingress=self.ingress, published=self.published
        )
        if missing:
            where = f"http://{stand.address}:{self.published}{guid.PATH}"
            return (_fault(where, missing, cause),)
        missing, cause = trial.missing_peers(stand, replicas, published=self.published)
        if missing:
            return (_fault(f"the overlay network from {stand.name}", missing, cause),)
        return ()

    def _judge(self, stand: Stand, faults: tuple[str, ...]) -> Verdict:
        where = f"{stand.address}:{self.published}"
        for fault in faults:
            self._say(f"{stand.name}: {fault}")
        if not faults:
            self._say(f"{stand.name}: {where} answers, and every replica over the overlay")
        runs = self._load(stand.address) if not faults else ()
        return Verdict(name=stand.name, address=where, faults=faults, runs=runs)

    def _load(self, address: str) -> tuple[Run, ...]:
        def request() -> str:
            return load.container_of(load.get(address, self.published, guid.PATH))

        runs = [load.run(request, at_once=n, requests=FEW) for n in AT_ONCE]
        if self.seconds:
            runs.append(load.run(request, at_once=AT_ONCE[-1], seconds=self.seconds))
        return tuple(runs)

    def _say(self, text: str) -> None:
        if not self.quiet:
            print_line(text)

    def print_load(self, verdicts: Sequence[Verdict]) -> None:
        """Print what the load came to, and how it all ended."""
        rows = [
            (verdict.name, verdict.address, str(run.at_once), *load.summary(run))
            for verdict in verdicts
            for run in verdict.runs
        ]
        if rows:
            print()
            print_table(("NODE", "ADDRESS", "AT ONCE", *load.COLUMNS), rows)
        bad = [verdict.name for verdict in verdicts if not verdict.good]
        print(f"\nNot every request was answered: {', '.join(bad)}." if bad else "\nAll answered.")

    def document(self, verdicts: Sequence[Verdict]) -> dict[str, Any]:
        """Return it all for programs."""
        return {
            "version": 1,
            "publish": "ingress" if self.ingress else "host",
            "good": all(verdict.good for verdict in verdicts),
            "nodes": [
                {
                    "name": verdict.name,
                    "address": verdict.address,
                    "faults": list(verdict.faults),
                    "runs": [_run_document(run) for run in verdict.runs],
                }
                for verdict in verdicts
            ],
        }


def _fault(what: str, missing: set[str], cause: str) -> str:
    told = f": {cause}" if cause else ""
    return f"{what}: no answer from {', '.join(sorted(missing))}{told}"


def _run_document(run: Run) -> dict[str, Any]:
    return {
        "at_once": run.at_once,
        "requests": run.sent,
        "failed": run.failed,
        "took_s": round(run.took_s, 3),
        "per_s": round(run.per_s, 1),
        **{
            f"p{percent}_ms": round(run.percentile_ms(percent), 2) if run.latencies_s else None
            for percent in (50, 95, 99)
        },
    }
