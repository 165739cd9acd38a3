"""A bad config never gets the daemon to work: exit 78, each problem with its place and remedy."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import pytest

from tests.lab.daemon import otgd

if TYPE_CHECKING:
    from pathlib import Path

EX_CONFIG = 78

BAD_CONFIGS = {
    "unknown key": ('[uplink]\ninterfce = "eth0"', 2, "uplink.interfce", "interface"),
    "unknown table": ('[upink]\ninterface = "eth0"', 1, "upink", "uplink"),
    "not TOML": ("[uplink\n", 1, "", ""),
    "malformed MAC": (
        '[gadget.g1]\nmac = "00:22:82:ff:ff"\nsubnet = "10.0.11.0/24"',
        *(2, "gadget.g1.mac", "write"),
    ),
    "multicast MAC": (
        '[gadget.g1]\nmac = "01:22:82:ff:ff:01"\nsubnet = "10.0.11.0/24"',
        *(2, "gadget.g1.mac", "00:22:82:ff:ff:01"),
    ),
    "zero MAC": (
        '[gadget.g1]\nmac = "00:00:00:00:00:00"\nsubnet = "10.0.11.0/24"',
        *(2, "gadget.g1.mac", "write"),
    ),
    "MAC with the guide's asterisks": (
        '[gadget.g1]\nmac = "00:22:82:ff:ff:**01**"\nsubnet = "10.0.11.0/24"',
        *(2, "gadget.g1.mac", "00:22:82:ff:ff:01"),
    ),
    "MAC twice": (
        '[gadget.g1]\nmac = "00:22:82:ff:ff:01"\nsubnet = "10.0.11.0/24"\n'
        '[gadget.g2]\nmac = "00:22:82:ff:ff:01"\nsubnet = "10.0.12.0/24"',
        *(5, "gadget.g2.mac", "write"),
    ),
    "host MAC is a guest's": (
        '[fleet]\ncount = 17\ninterface = "ethusb{n}"\nmac = "00:22:82:ff:ff:01"\n'
        'guest_mac = "00:22:82:ff:ff:11"\nsubnet = "10.0.11.0/24"',
        *(None, "fleet", "write"),
    ),
    "interface name too long": (
        '[gadget.ethernet-over-usb]\nmac = "00:22:82:ff:ff:01"\nsubnet = "10.0.11.0/24"',
        *(1, "gadget.ethernet-over-usb", "write"),
    ),
    "interface name with a slash": (
        '[gadget."eth/1"]\nmac = "00:22:82:ff:ff:01"\nsubnet = "10.0.11.0/24"',
        *(1, 'gadget."eth/1"', "write"),
    ),
    "interface name with a percent sign": (
        '[gadget."eth%d"]\nmac = "00:22:82:ff:ff:01"\nsubnet = "10.0.11.0/24"',
        *(1, 'gadget."eth%d"', "write"),
    ),
    "interface name with a blank": (
        '[gadget."eth 1"]\nmac = "00:22:82:ff:ff:01"\nsubnet = "10.0.11.0/24"',
        *(1, 'gadget."eth 1"', "write"),
    ),
    "interface name is a dot": (
        '[gadget."."]\nmac = "00:22:82:ff:ff:01"\nsubnet = "10.0.11.0/24"',
        *(1, 'gadget."."', "write"),
    ),
    "interface name is the uplink's": (
        '[uplink]\ninterface = "eth0"\n'
        '[gadget.eth0]\nmac = "00:22:82:ff:ff:01"\nsubnet = "10.0.11.0/24"',
        *(3, "gadget.eth0", "write"),
    ),
    "subnet twice": (
        '[gadget.g1]\nmac = "00:22:82:ff:ff:01"\nsubnet = "10.0.11.0/24"\n'
        '[gadget.g2]\nmac = "00:22:82:ff:ff:02"\nsubnet = "10.0.11.0/24"',
        *(6, "gadget.g2.subnet", "write"),
    ),
    "subnets overlap": (
        '[gadget.g1]\nmac = "00:22:82:ff:ff:01"\nsubnet = "10.0.8.0/21"\n'
        '[gadget.g2]\nmac = "00:22:82:ff:ff:02"\nsubnet = "10.0.11.0/24"',
        *(6, "gadget.g2.subnet", "write"),
    ),
    "prefix too long": (
        '[gadget.g1]\nmac = "00:22:82:ff:ff:01"\nsubnet = "10.0.11.0/32"',
        *(3, "gadget.g1.subnet", "10.0.11.0/31"),
    ),
    "host bits set": (
        '[gadget.g1]\nmac = "00:22:82:ff:ff:01"\nsubnet = "10.0.11.1/24"',
        *(3, "gadget.g1.subnet", "10.0.11.0/24"),
    ),
    "address outside its subnet": (
        '[gadget.g1]\nmac = "00:22:82:ff:ff:01"\nsubnet = "10.0.11.0/24"\n'
        'host_address = "10.0.12.1"',
        *(4, "gadget.g1.host_address", "write"),
    ),
    "broadcast address": (
        '[gadget.g1]\nmac = "00:22:82:ff:ff:01"\nsubnet = "10.0.11.0/24"\n'
        'guest_address = "10.0.11.255"',
        *(4, "gadget.g1.guest_address", "write"),
    ),
    "network address": (
        '[gadget.g1]\nmac = "00:22:82:ff:ff:01"\nsubnet = "10.0.11.0/24"\n'
        'guest_address = "10.0.11.0"',
        *(4, "gadget.g1.guest_address", "write"),
    ),
    "fleet runs past the MAC's last octet": (
        '[fleet]\ncount = 4\ninterface = "ethusb{n}"\nmac = "00:22:82:ff:ff:fe"\n'
        'subnet = "10.0.11.0/24"',
        *(None, "fleet", "write"),
    ),
    "fleet runs out of IPv4": (
        '[fleet]\ncount = 4\ninterface = "ethusb{n}"\nmac = "00:22:82:ff:ff:01"\n'
        'subnet = "223.255.254.0/24"',
        *(None, "fleet", "write"),
    ),
}


@pytest.mark.parametrize(
    ("text", "line", "key", "remedy"), BAD_CONFIGS.values(), ids=list(BAD_CONFIGS)
)
def test_bad_config_at_start_is_refused_with_place_and_remedy(
    tmp_path: Path, text: str, line: int | None, key: str, remedy: str
) -> None:
    file = tmp_path / "otgd.toml"
    file.write_text(text)
    done = otgd("--config", str(file), "--runtime-dir", str(tmp_path))
    assert done.returncode == EX_CONFIG
    assert done.stdout == ""
    assert "Traceback" not in done.stderr
    number = "[0-9]+" if line is None else line
    place = f"{re.escape(str(file))}:{number}: {re.escape(key)}"
    told = [row for row in done.stderr.splitlines() if re.match(place, row)]
    assert told, done.stderr
    assert any(remedy in row.partition("; ")[2] for row in told), told


def test_all_problems_are_told_in_one_go(tmp_path: Path) -> None:
    file = tmp_path / "otgd.toml"
    file.write_text(
        '[uplink]\ninterfce = "eth0"\n[gadget.g1]\nmac = "x"\nsubnet = "10.0.11.1/24"\n'
    )
    done = otgd("--config", str(file), "--runtime-dir", str(tmp_path))
    assert done.returncode == EX_CONFIG
    lines = [row.removeprefix(f"{file}:").partition(":")[0] for row in done.stderr.splitlines()]
    assert lines == ["2", "4", "5"]


def test_missing_config_is_refused(tmp_path: Path) -> None:
    done = otgd("--config", str(tmp_path / "none.toml"), "--runtime-dir", str(tmp_path))
    assert done.returncode == EX_CONFIG
    assert "none.toml" in done.stderr
    assert "Traceback" not in done.stderr
