"""Exported names of gadgets that are known by more than a MAC: the best sign holds."""

from __future__ import annotations

from ipaddress import IPv4Address, IPv4Interface

from otgd.cli.static_files import Network, networkd, udev
from otgd.model import GadgetSpec

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
