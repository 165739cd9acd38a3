"""The state as metrics, in Prometheus' text format (0.0.4): otgctl metrics, and the textfile.

Pure: from state.json's content, and the links' counters where they are known, to text.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any

from otgd.status import State

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

TRAFFIC = {
    "rx_bytes": ("receive_bytes", "Bytes that came from the gadget"),
    "tx_bytes": ("transmit_bytes", "Bytes that went to the gadget"),
    "rx_packets": ("receive_packets", "Packets that came from the gadget"),
    "tx_packets": ("transmit_packets", "Packets that went to the gadget"),
    "rx_errors": ("receive_errors", "Errors in receiving from the gadget"),
    "tx_errors": ("transmit_errors", "Errors in sending to the gadget"),
    "rx_dropped": ("receive_dropped", "Packets from the gadget that were dropped"),
    "tx_dropped": ("transmit_dropped", "Packets to the gadget that were dropped"),
}
"""Counter of struct rtnl_link_stats64 → metric's name and meaning, as node_exporter names them."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Metric:
    """One metric with its samples, by labels."""

    name: str
    meaning: str
    samples: tuple[tuple[Mapping[str, str], float], ...]
    kind: str = "gauge"

    def __str__(self) -> str:
        name = f"otgd_{self.name}"
        lines = [f"# HELP {name} {self.meaning}.", f"# TYPE {name} {self.kind}"]
        for labels, value in self.samples:
            inside = ",".join(f'{key}="{_escaped(text)}"' for key, text in labels.items())
            labels_shown = f"{{{inside}}}" if inside else ""
            lines.append(f"{name}{labels_shown} {value + 0!r}")  # True + 0 is 1
        return "\n".join(lines)


def collect(
    state: dict[str, Any] | None, counts: Mapping[str, Mapping[str, int]]
) -> Iterator[Metric]:
    """Yield every metric of *state* (None: no daemon), and of *counts* by gadget and counter."""
    yield _single("up", "Whether otgd runs", state is not None)
    if state is None:
        return
    facts = {
        "version": state["otgd_version"],
        "backend": state["firewall"]["backend"],
        "uplink": state["uplink"] or "",
    }
    yield Metric(name="info", meaning="What otgd is and works with", samples=((facts, 1),))
    yield _single("forwarding", "Whether the host forwards", state["forwarding"])
    yield _single(
        "unknown_links", "Links of a gadget driver that no entry names", len(state["unknown"])
    )
    yield from _gadgets(state["gadgets"])
    yield from _last_pass(state["last_pass"])
    for field, (name, meaning) in TRAFFIC.items() if counts else ():
        yield Metric(
            name=f"gadget_{name}_total",
            meaning=meaning,
            kind="counter",
            samples=tuple(
                ({"gadget": gadget}, counters[field]) for gadget, counters in counts.items()
            ),
        )


def _gadgets(gadgets: list[dict[str, Any]]) -> Iterator[Metric]:
    yield Metric(
        name="gadget_state",
        meaning="1 for the state that the gadget is in, 0 for the others",
        samples=tuple(
            ({"gadget": gadget["name"], "state": state}, gadget["state"] == state)
            for gadget in gadgets
            for state in State
        ),
    )
    yield Metric(
        name="gadget_masquerade",
        meaning="Whether a masquerade for the gadget is in force",
        samples=tuple(({"gadget": gadget["name"]}, gadget["masquerade"]) for gadget in gadgets),
    )
    yield Metric(
        name="gadget_state_since_seconds",
        meaning="Unix time since when the gadget is in its state",
        samples=tuple(
            ({"gadget": gadget["name"]}, datetime.fromisoformat(gadget["since"]).timestamp())
            for gadget in gadgets
            if gadget["since"]
        ),
    )


def _last_pass(last: dict[str, Any]) -> Iterator[Metric]:
    yield _single("pass_duration_seconds", "Duration of the last pass told", last["duration_s"])
    yield _single("pass_steps", "Steps that the last pass told took", last["steps"])
    yield _single("pass_failures", "Steps of the last pass told that failed", len(last["failures"]))


def _single(name: str, meaning: str, value: float) -> Metric:
    return Metric(name=name, meaning=meaning, samples=(({}, value),))


def _escaped(text: str) -> str:
    return text.replace("\\", r"\\").replace('"', r"\"").replace("\n", r"\n")
