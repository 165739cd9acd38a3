"""An otgctl to call, and a runtime directory whose daemon this test plays."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import pytest

from otgd.adapters.state_file import StateFile
from otgd.cli import main

if TYPE_CHECKING:
    from pathlib import Path

CONFIG = """\
[fleet]
count = 2
interface = "ethusb{n}"
mac = "00:22:82:ff:ff:01"
guest_mac = "00:22:82:ff:ff:11"
subnet = "10.0.11.0/24"
hostname = "worker{n}"
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Said:
    """What one run of otgctl said."""

    code: int
    out: str
    err: str

    @property
    def lines(self) -> list[str]:
        return self.out.splitlines()

    @property
    def document(self) -> Any:  # noqa: ANN401 - JSON
        return json.loads(self.out)


@dataclass(slots=True)
class Tool:
    """otgctl in this process, with a config and a runtime directory of its own."""

    directory: Path
    capture: pytest.CaptureFixture[str]
    daemon: StateFile = field(init=False)

    def __post_init__(self) -> None:
        self.daemon = StateFile(self.directory / "run")
        self.write_config(CONFIG)

    @property
    def config_file(self) -> Path:
        return self.directory / "otgd.toml"

    def write_config(self, text: str) -> None:
        self.config_file.write_text(text)

    def run_daemon(self, state: dict[str, Any]) -> None:
        """Hold the lock and tell *state*, as a running daemon does."""
        assert self.daemon.lock()
        self.daemon.write(state)

    def __call__(self, *arguments: str) -> Said:
        places = ("-c", str(self.config_file), "--runtime-dir", str(self.daemon.directory))
        code = main([*places, *arguments])
        said = self.capture.readouterr()
        return Said(code=code, out=said.out, err=said.err)


@pytest.fixture
def otgctl(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Tool:
    """Return an otgctl of this test's own."""
    return Tool(directory=tmp_path, capture=capsys)


def gadget(name: str = "ethusb1", **facts: Any) -> dict[str, Any]:  # noqa: ANN401 - JSON
    """Return a configured gadget's entry of state.json, with *facts* of its own."""
    return {
        "name": name,
        "state": "configured",
        "reason": "",
        "mac": "00:22:82:ff:ff:01",
        "ifindex": 7,
        "driver": "cdc_ether",
        "port": "1-1.2",
        "serial": None,
        "known_by": "mac",
        "addresses": ["10.0.11.1/24"],
        "masquerade": True,
        "since": "2026-01-01T00:00:00.000Z",
    } | facts


def absent(name: str = "ethusb2", **facts: Any) -> dict[str, Any]:  # noqa: ANN401 - JSON
    """Return an absent gadget's entry of state.json."""
    gone = gadget(
        name,
        state="absent",
        reason="no link is there",
        mac="00:22:82:ff:ff:02",
        ifindex=None,
        driver=None,
        port=None,
        known_by=None,
        addresses=[],
        masquerade=False,
    )
    return gone | facts


def state(*gadgets: dict[str, Any], **facts: Any) -> dict[str, Any]:  # noqa: ANN401 - JSON
    """Return a state.json."""
    return {
        "otgd_version": "0.1.0",
        "pid": 4711,
        "config_fault": None,
        "version": 1,
        "uplink": "eth0",
        "uplink_fault": None,
        "firewall": {"backend": "iptables", "reason": ""},
        "forwarding": True,
        "gadgets": list(gadgets),
        "unknown": [],
        "last_pass": {"duration_s": 0.004, "steps": 0, "failures": []},
    } | facts
