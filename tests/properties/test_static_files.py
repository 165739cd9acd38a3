"""What export writes, import reads back: any gadgets, known by any signs."""

from __future__ import annotations

from dataclasses import replace
from ipaddress import IPv4Address, IPv4Interface
from pathlib import PurePosixPath
from typing import TYPE_CHECKING

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from otgd.cli import static_files
from otgd.cli.importing import dhcpcd, document, ini, network, packet_filter, udev
from otgd.config import parse_config
from otgd.identity import signs_of
from otgd.model import GadgetSpec

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from otgd.cli.importing.findings import Finding
    from otgd.cli.static_files import StaticFile

READERS: dict[str, Callable[[str, str], Iterator[Finding]]] = {
    ".rules": udev.read,
    ".conf": dhcpcd.read,
    ".link": ini.read_link,
    ".network": ini.read_network,
    ".nft": packet_filter.read_nft,
}

macs = st.integers(1, 2**40 - 1).map(lambda n: f"02:{n.to_bytes(5).hex(':')}")
serials = st.text("ABCXYZabcxyz0189._:-", min_size=1, max_size=20)
hubs = st.lists(st.integers(1, 99).map(str), min_size=1, max_size=6)
ports = st.tuples(st.integers(1, 999), hubs).map(lambda port: f"{port[0]}-{'.'.join(port[1])}")
names = st.sampled_from(("ethusb", "eth.", "my-zero_"))


@st.composite
def gadgets(draw: st.DrawFn) -> list[GadgetSpec]:
    """Draw up to six gadgets of which no two have a sign in common."""
    specs = [
        GadgetSpec(
            name=f"{draw(names)}{n}",
            mac=draw(st.none() | macs),
            serial=draw(st.none() | serials),
            port=draw(st.none() | ports),
            host=IPv4Interface(f"10.0.{n}.{draw(st.integers(1, 2))}/24"),
            guest=IPv4Address(f"10.0.{n}.9"),
            masquerade=draw(st.booleans()),
        )
        for n in range(1, draw(st.integers(1, 6)) + 1)
    ]
    signs = [sign for spec in specs for sign in signs_of(spec).items()]
    assume(all(map(signs_of, specs)) and len(set(signs)) == len(signs))
    return specs


def imported(files: list[StaticFile]) -> str:
    """Return what import makes of *files*, in the order in which it finds them."""
    findings = [
        finding
        for suffix, read in READERS.items()
        for file in sorted(files, key=lambda file: file.path)
        if PurePosixPath(file.path).suffix == suffix and "sysctl" not in file.path
        for finding in read(file.text, file.path)
    ]
    return document.write(network.build(findings))


def host_part(spec: GadgetSpec) -> GadgetSpec:
    """Return what the host's files can say: nothing of the guest."""
    return replace(spec, guest=spec.host.ip)


@pytest.mark.parametrize("formats", [("udev", "dhcpcd"), ("networkd",)], ids=" ".join)
@given(specs=gadgets())
def test_import_export_import_is_the_identity(
    formats: tuple[str, ...], specs: list[GadgetSpec]
) -> None:
    def round_trip(these: list[GadgetSpec]) -> str:
        wanted = static_files.Network(gadgets=these, uplinks=("eth0",))
        formats_given = (*formats, "nftables")
        return imported([f for each in formats_given for f in static_files.FORMATS[each](wanted)])

    text = round_trip(specs)
    got = parse_config(text, file="imported").desired.gadgets
    assert set(map(host_part, got)) == set(map(host_part, specs))
    assert "Not taken over" not in text
    assert round_trip(list(got)) == text
