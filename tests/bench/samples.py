"""What was measured: every single value, as a file that a report can be made of again."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from enum import StrEnum
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pathlib import Path


class Figure(StrEnum):
    """Everything that is measured; the unit is the name's end.

    A figure of a plug knows how many gadgets were plugged at once; ``EVENT_…``, ``PASS_…`` and
    ``THROUGHPUT_…`` how many were present; ``GROWTH_…`` how many had been plugged before.
    """

    ANSWER_MS = "answer_ms"
    OWN_CPU_MS = "own_cpu_ms"
    SYSTEM_CPU_MS = "system_cpu_ms"
    START_MS = "start_ms"
    START_CPU_MS = "start_cpu_ms"
    IDLE_PSS_MIB = "idle_pss_mib"
    IDLE_RSS_MIB = "idle_rss_mib"
    USED_PSS_MIB = "used_pss_mib"
    USED_RSS_MIB = "used_rss_mib"
    WAKEUPS_PER_MIN = "wakeups_per_min"
    IDLE_CPU_MS_PER_MIN = "idle_cpu_ms_per_min"
    EVENT_ANSWER_MS = "event_answer_ms"
    EVENT_CPU_MS = "event_cpu_ms"
    EVENT_PASS_MS = "event_pass_ms"  # noqa: S105 - a pass is no password
    PASS_CPU_MS = "pass_cpu_ms"  # noqa: S105 - likewise
    THROUGHPUT_GBIT_S = "throughput_gbit_s"
    GROWTH_MIB = "growth_mib"


@dataclass(frozen=True, slots=True, kw_only=True)
class Sample:
    """What one round gave.

    Attributes:
        gadgets: see ``Figure``; 0 where it does not matter.
        values: one for each gadget of the round, or a single one.
        lost: gadgets that never got there.
    """

    figure: Figure
    peer: str
    values: tuple[float, ...]
    gadgets: int = 0
    lost: int = 0


@dataclass(slots=True, kw_only=True)
class Results:
    """One run.

    Attributes:
        machine: what it ran on, for people.
        peers: who was measured: key and title, in the report's order.
    """

    machine: dict[str, str] = field(default_factory=dict)
    peers: dict[str, str] = field(default_factory=dict)
    samples: list[Sample] = field(default_factory=list)

    def add(
        self, figure: Figure, peer: str, *values: float, gadgets: int = 0, lost: int = 0
    ) -> None:
        """Keep a round's values."""
        self.samples.append(
            Sample(figure=figure, peer=peer, values=values, gadgets=gadgets, lost=lost)
        )

    def of(self, figure: Figure, peer: str, gadgets: int | None = None) -> list[Sample]:
        """Return the rounds of one figure."""
        return [
            each
            for each in self.samples
            if (each.figure, each.peer) == (figure, peer) and gadgets in {None, each.gadgets}
        ]

    def values(self, figure: Figure, peer: str, gadgets: int | None = None) -> list[float]:
        """Return every value of one figure."""
        return [value for each in self.of(figure, peer, gadgets) for value in each.values]

    def save(self, path: Path) -> None:
        """Write all of it as JSON."""
        path.write_text(json.dumps(asdict(self), indent=1) + "\n")

    @classmethod
    def load(cls, path: Path) -> Results:
        """Read what ``save`` wrote."""
        loaded: dict[str, Any] = json.loads(path.read_text())
        samples = [
            Sample(**{**each, "figure": Figure(each["figure"]), "values": tuple(each["values"])})
            for each in loaded["samples"]
        ]
        return cls(machine=loaded["machine"], peers=loaded["peers"], samples=samples)


def percentile(values: list[float], share: float) -> float:
    """Return the smallest value that at least *share* (0 to 1) of all do not exceed."""
    ordered = sorted(values)
    below = sum(1 for i in range(len(ordered)) if (i + 1) / len(ordered) < share - 1e-9)
    return ordered[below]
