"""A pretended host, and facts that are fine but for what a test says."""

from __future__ import annotations

from dataclasses import replace
from ipaddress import IPv4Address, IPv4Interface, IPv4Network
from typing import TYPE_CHECKING, Any

import pytest

from otgd.diagnosis.examination import examine
from otgd.diagnosis.facts import Facts, Probe
from otgd.model import (
    DesiredState,
    GadgetSpec,
    ObservedAddress,
    ObservedLink,
    ObservedRoute,
    ObservedState,
    Plan,
    UnknownLink,
)
from tests.unit.diagnosis.host_tree import HostTree

if TYPE_CHECKING:
    from pathlib import Path

    from otgd.diagnosis.findings import Finding

MAC = "00:22:82:ff:ff:01"
SPEC = GadgetSpec(
    name="ethusb1",
    mac=MAC,
    host=IPv4Interface("10.0.11.1/24"),
    guest=IPv4Address("10.0.11.2"),
    guest_mac="00:22:82:ff:ff:11",
)
LINK = ObservedLink(
    ifindex=7,
    ifname="ethusb1",
    mac=MAC,
    driver="cdc_ether",
    port="1-1.2",
    up=True,
    carrier=True,
    addresses=(ObservedAddress(interface=SPEC.host, owned=True),),
)
UPLINK = ObservedLink(
    ifindex=2,
    ifname="eth0",
    mac="b8:27:eb:00:00:01",
    driver="smsc95xx",
    up=True,
    carrier=True,
    addresses=(ObservedAddress(interface=IPv4Interface("192.0.2.7/24")),),
)
ROUTES = (
    ObservedRoute(destination=IPv4Network("0.0.0.0/0"), ifindex=2),
    ObservedRoute(destination=IPv4Network("192.0.2.0/24"), ifindex=2),
    ObservedRoute(destination=SPEC.subnet, ifindex=7),
)
OBSERVED = ObservedState(links=(UPLINK, LINK), routes=ROUTES, forwarding=True)
PLAN = Plan(bindings=((SPEC.name, LINK.ifindex),), uplink="eth0")
WELL = Facts(
    desired=DesiredState(gadgets=(SPEC,), hub=IPv4Address("10.0.10.1")),
    runs=True,
    told={SPEC.name: ("configured", "")},
    release="6.12.25+rpt-rpi-v8",
    kernel_log=(),
    throttled=0,
    udev=frozenset({2, 7}),
    observed=OBSERVED,
    plan=PLAN,
    probes={SPEC.name: Probe(mac="00:22:82:ff:ff:11", echoed=True)},
    flavour="nf_tables",
    chains=(),
)


@pytest.fixture
def host(tmp_path: Path) -> HostTree:
    """Return a pretended host with nothing on it."""
    return HostTree(tmp_path)


def trouble(facts: Facts, name: str = "") -> dict[str, Finding]:
    """Return what is wrong, by check."""
    return {f.check: f for f in examine(facts, name) if f.is_trouble}


def with_link(**changes: Any) -> Facts:  # noqa: ANN401 - any field
    """Return facts that are fine, but for the gadget's link."""
    links = (UPLINK, replace(LINK, **changes))
    return replace(WELL, observed=replace(OBSERVED, links=links))


def with_unknown(driver: str, *, random_mac: bool = False) -> Facts:
    """Return facts that are fine, but for a second link that no entry names."""
    other = replace(
        LINK,
        ifindex=9,
        ifname="usb1",
        mac="02:00:00:00:00:09",
        driver=driver,
        random_mac=random_mac,
        port="1-1.3",
        addresses=(),
    )
    unknown = UnknownLink(
        ifindex=9,
        ifname="usb1",
        mac=other.mac,
        driver=driver,
        port="1-1.3",
        reason="no entry of the config has its MAC",
    )
    return replace(
        WELL,
        observed=replace(OBSERVED, links=(UPLINK, LINK, other)),
        plan=replace(PLAN, unknown=(unknown,)),
    )
