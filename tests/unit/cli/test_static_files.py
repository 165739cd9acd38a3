"""Exported names of gadgets that are known by more than a MAC: the best sign holds."""

from __future__ import annotations

from ipaddress import IPv4Address, IPv4Interface
from typing import TYPE_CHECKING

import pytest

from otgd.cli.static_files import Network, networkd, udev
from otgd.model import GadgetSpec

if TYPE_CHECKING:
    from tests.unit.cli.conftest import Tool

GADGETS = [
    GadgetSpec(
        name=f"ethusb{n}",
        host=IPv4Interface(f"10.0.1{n}.1/24"),
        guest=IPv4Address(f"10.0.1{n}.2"),
        mac=mac,
        serial=serial,
        port=port,
    )
    for n, mac, serial, port in [
        (1, "00:22:82:ff:ff:01", "d4c3", "1-1.2"),
        (2, None, "a*b", "1-1.3"),
    ]
]
NETWORK = Network(gadgets=GADGETS, uplinks=())


def test_udev_rules_end_with_the_best_sign() -> None:
    (file,) = udev(NETWORK)
    start = 'SUBSYSTEM=="net", ACTION=="add", '
    assert file.text.splitlines()[1:] == [
        start + 'KERNELS=="1-1.2", NAME="ethusb1"',
        start + 'KERNELS=="1-1.3", NAME="ethusb2"',
        start + 'ATTRS{serial}=="d4c3", NAME="ethusb1"',
        start + 'ATTR{address}=="00:22:82:ff:ff:01", NAME="ethusb1"',
    ]


def test_link_files_begin_with_the_best_sign() -> None:
    files = {file.path.rpartition("/")[2]: file.text.splitlines() for file in networkd(NETWORK)}
    assert {name: lines[2] for name, lines in files.items()} == {
        "10-ethusb1.link": "MACAddress=00:22:82:ff:ff:01",
        "11-ethusb1.link": "Property=ID_SERIAL_SHORT=d4c3",
        "12-ethusb1.link": "Property=DEVPATH=*/1-1.2:*",
        "10-ethusb1.network": "Name=ethusb1",
        "12-ethusb2.link": "Property=DEVPATH=*/1-1.3:*",
        "10-ethusb2.network": "Name=ethusb2",
    }


@pytest.mark.parametrize("name", ["udev", "networkd"])
def test_gadget_that_no_file_can_name_is_told(otgctl: Tool, name: str) -> None:
    otgctl.write_config('[gadget.camera]\nmatch = { serial = "a*b" }\nsubnet = "10.9.0.0/24"\n')
    said = otgctl("export", "--format", name)
    assert said.code == 0
    assert said.err == (
        "otgctl: camera: udev cannot look for USB serial a*b, so no file here names its link; "
        "give it a mac or a port\n"
    )
