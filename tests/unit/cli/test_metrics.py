"""``otgctl metrics``: the text format, and the numbers in it."""

from __future__ import annotations

import re
from dataclasses import asdict
from typing import TYPE_CHECKING

from otgd.cli.counters import Counters
from otgd.metrics import Metric, collect
from tests.unit.cli.conftest import absent, gadget, state

if TYPE_CHECKING:
    from tests.unit.cli.conftest import Tool

NAME = r"[a-zA-Z_:][a-zA-Z0-9_:]*"
LABEL = rf'{NAME}="(?:[^"\\\n]|\\["\\n])*"'
SAMPLE = re.compile(rf"({NAME})(?:\{{{LABEL}(?:,{LABEL})*\}})? (?:-?[0-9.]+(?:e[+-][0-9]+)?)")


def parse(text: str) -> dict[str, str]:
    """Read the text format as its specification has it; return the value of each series."""
    values: dict[str, str] = {}
    current = ""
    for line in text.splitlines():
        if match := re.fullmatch(rf"# HELP ({NAME}) .+", line):
            assert not any(series.startswith(match[1] + "{") for series in values), line
            current = match[1]
        elif match := re.fullmatch(rf"# TYPE ({NAME}) (gauge|counter)", line):
            assert match[1] == current
            assert (match[2] == "counter") == current.endswith("_total")
        else:
            sample = SAMPLE.fullmatch(line)
            assert sample, line
            assert sample[1] == current
            series, _, value = line.rpartition(" ")
            assert series not in values, line
            values[series] = value
    return values


def test_stopped_daemon_is_down_and_nothing_else(otgctl: Tool) -> None:
    said = otgctl("metrics")
    assert said.code == 0
    assert parse(said.out) == {"otgd_up": "0"}


def test_running_daemon_tells_all(otgctl: Tool) -> None:
    otgctl.run_daemon(state(gadget(ifindex=999_999), absent()))
    values = parse(otgctl("metrics").out)
    assert values["otgd_up"] == "1"
    assert values['otgd_info{version="0.1.0",backend="iptables",uplink="eth0"}'] == "1"
    assert values['otgd_gadget_state{gadget="ethusb1",state="configured"}'] == "1"
    assert values['otgd_gadget_state{gadget="ethusb1",state="absent"}'] == "0"
    assert values['otgd_gadget_state{gadget="ethusb2",state="absent"}'] == "1"
    assert values['otgd_gadget_masquerade{gadget="ethusb2"}'] == "0"
    assert values['otgd_gadget_state_since_seconds{gadget="ethusb1"}'] == "1767225600.0"
    assert values["otgd_pass_duration_seconds"] == str(0.004)
    assert values["otgd_unknown_links"] == "0"


def test_counters_are_of_the_host_and_exact() -> None:
    counts = {"ethusb1": asdict(Counters(rx_bytes=2**50 + 1, tx_errors=3))}
    values = parse("\n".join(map(str, collect(state(gadget()), counts))))
    assert values['otgd_gadget_receive_bytes_total{gadget="ethusb1"}'] == str(2**50 + 1)
    assert values['otgd_gadget_transmit_errors_total{gadget="ethusb1"}'] == "3"


def test_labels_are_escaped() -> None:
    metric = Metric(name="x", meaning="X", samples=(({"a": 'back\\slash "quote"\nline'}, 1),))
    assert str(metric).splitlines()[-1] == r'otgd_x{a="back\\slash \"quote\"\nline"} 1'
    parse(str(metric))
