"""``otgctl status`` while a daemon runs: what it tells, and how."""

from __future__ import annotations

import os
import pty
import subprocess
import sys
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import pytest

from otgd.cli.status import age
from tests.unit.cli.conftest import absent, gadget, state

if TYPE_CHECKING:
    from tests.unit.cli.conftest import Tool

UNKNOWN = {
    "ifindex": 9,
    "ifname": "usb3",
    "mac": "00:22:82:ff:ff:99",
    "driver": "cdc_ether",
    "port": "1-1.4",
    "reason": "no entry of the config has its MAC",
}


def test_every_gadget_has_a_line_with_its_facts(otgctl: Tool) -> None:
    otgctl.run_daemon(state(gadget(), absent()))
    said = otgctl("status")
    assert said.code == 0
    assert said.lines[0] == "otgd 0.1.0 runs (pid 4711)"
    assert said.lines[1] == "uplink eth0, firewall iptables, forwarding on"
    rows = {line.split()[0]: line.split() for line in said.lines[3:]}
    assert rows["NAME"][:5] == ["NAME", "STATE", "ADDRESS", "MASQUERADE", "PORT"]
    assert rows["ethusb1"][1:5] == ["configured", "10.0.11.1/24", "yes", "1-1.2"]
    assert rows["ethusb2"][1:5] == ["absent", "-", "-", "-"]
    assert said.lines[-1].endswith("no link is there")


def test_unknown_links_are_listed(otgctl: Tool) -> None:
    otgctl.run_daemon(state(gadget(), unknown=[UNKNOWN]))
    last = otgctl("status").lines[-1]
    assert last.split()[:4] == ["usb3", "00:22:82:ff:ff:99", "cdc_ether", "1-1.4"]
    assert last.endswith("no entry of the config has its MAC")


def test_faults_of_the_whole_are_said(otgctl: Tool) -> None:
    faults = {"config_fault": "otgd.toml:2: colour: unknown key", "uplink_fault": "no route"}
    otgctl.run_daemon(state(gadget(), uplink=None, **faults))
    said = otgctl("status")
    refused = "config refused, the old one is in force: otgd.toml:2: colour: unknown key"
    assert said.lines[1] == refused
    assert said.lines[2].startswith("uplink none (no route), ")


def test_no_uplink_is_said(otgctl: Tool) -> None:
    otgctl.run_daemon(state(gadget(), uplink=None, forwarding=False))
    assert otgctl("status").lines[1] == "uplink none, firewall iptables, forwarding off"


def test_json_is_what_the_daemon_told(otgctl: Tool) -> None:
    told = state(gadget(), absent(), unknown=[UNKNOWN])
    otgctl.run_daemon(told)
    assert otgctl("status", "--json").document == told | {"running": True}


def test_broken_state_file_is_one_line(otgctl: Tool) -> None:
    otgctl.run_daemon(state())
    otgctl.daemon.path.write_text("{")
    said = otgctl("status")
    assert said.code == 1
    assert said.err.startswith(f"otgctl: read {otgctl.daemon.path}: ")
    assert len(said.err.splitlines()) == 1


def test_terminal_gets_colour(otgctl: Tool) -> None:
    otgctl.run_daemon(state(gadget(), absent()))
    environment = {"PATH": os.environ["PATH"], "TERM": "xterm-256color", "COLUMNS": "120"}
    master, slave = pty.openpty()
    command = [sys.executable, "-m", "otgd.cli", "--runtime-dir", str(otgctl.daemon.directory)]
    subprocess.run([*command, "status"], stdout=slave, env=environment, check=True)
    os.close(slave)
    shown = os.read(master, 65536).decode()
    os.close(master)
    assert "\x1b[32mconfigured" in shown


def test_pipe_gets_no_colour(otgctl: Tool) -> None:
    otgctl.run_daemon(state(gadget(), absent()))
    assert "\x1b" not in otgctl("status").out


def test_running_daemon_costs_no_heavy_import(otgctl: Tool) -> None:
    otgctl.run_daemon(state(gadget(), absent()))
    code = (
        "import sys; from otgd.cli import main; "
        f"code = main(['--runtime-dir', {str(otgctl.daemon.directory)!r}, 'status']); "
        "heavy = {'pyroute2', 'pydantic', 'iptc', 'pyudev', 'rich', 'systemd'} & set(sys.modules); "
        "sys.exit(f'imported {heavy}' if heavy or code else 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], check=False, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(
    ("since", "said"),
    [
        pytest.param("2026-01-01T00:00:00.000Z", "0 s ago", id="now"),
        pytest.param("2026-01-01T00:00:01.000Z", "0 s ago", id="clock set back"),
        pytest.param("2025-12-31T23:59:01.000Z", "59 s ago", id="seconds"),
        pytest.param("2025-12-31T23:58:59.000Z", "1 min ago", id="minutes"),
        pytest.param("2025-12-31T22:00:00.000Z", "2 h ago", id="hours"),
        pytest.param("2025-12-01T00:00:00.000Z", "31 d ago", id="days"),
        pytest.param(None, "", id="never told"),
    ],
)
def test_age_is_told_in_its_largest_unit(since: str | None, said: str) -> None:
    assert age(since, datetime(2026, 1, 1, tzinfo=UTC)) == said
