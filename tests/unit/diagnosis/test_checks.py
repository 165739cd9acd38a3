"""Checks by facts that are fine but for one; what the lab can break is broken there as well."""

from __future__ import annotations

from dataclasses import replace
from ipaddress import IPv4Interface, IPv4Network
from typing import TYPE_CHECKING

import pytest

from otgd.diagnosis.examination import AFTER, BEFORE, GADGET, examine
from otgd.diagnosis.facts import ForwardChain, Probe
from otgd.diagnosis.findings import Mark
from otgd.errors import Problem
from otgd.model import (
    LOOPBACK,
    AddAddress,
    AddRoute,
    AddRule,
    DesiredState,
    Masquerade,
    ObservedRoute,
    Passage,
    SourceGuard,
)
from tests.unit.diagnosis.conftest import (
    LINK,
    OBSERVED,
    PLAN,
    ROUTES,
    SPEC,
    UPLINK,
    WELL,
    trouble,
    with_link,
    with_unknown,
)

if TYPE_CHECKING:
    from otgd.diagnosis.facts import Facts

PROBLEM = Problem(file="otgd.toml", line=3, key="x", cause="unknown key", remedy="delete it")
GUARD = SourceGuard(gadget=SPEC.name, ifname=SPEC.name, subnet=SPEC.subnet)
ADD_HUB = AddAddress(gadget="", ifindex=LOOPBACK, interface=IPv4Interface("10.0.10.1/32"))
ADD_ROUTE = AddRoute(gadget="another", ifindex=9, subnet=SPEC.subnet, source=ADD_HUB.interface.ip)
MASQUERADE = Masquerade(gadget="another", subnet=IPv4Network("10.9.0.0/24"), uplink="eth0")
OTHERS = ForwardChain(family="inet", table="site", name="forward", drops=True)
FIREWALLD = ForwardChain(family="inet", table="firewalld", name="filter_FORWARD", drops=True)
DOCKERS = ForwardChain(family="ip", table="filter", name="FORWARD", drops=True)
ACCEPT = "\t\tmeta mark & 0x10000000 == 0x10000000 accept"
LEGACY = "*filter\n:INPUT ACCEPT [0:0]\n:FORWARD DROP [0:0]\n:OUTPUT ACCEPT [0:0]\nCOMMIT\n"
LEGACY_PASS = LEGACY.replace(
    "COMMIT", "-A FORWARD -m mark --mark 0x10000000/0x10000000 -m comment --comment otgd -j ACCEPT"
)

BROKEN: dict[str, tuple[str, Facts]] = {
    "config": ("config", replace(WELL, problems=(PROBLEM,))),
    "daemon": ("daemon", replace(WELL, runs=False, told=None)),
    "daemon told nothing": ("daemon", replace(WELL, told=None)),
    "state unreadable": ("daemon", replace(WELL, told=None, told_fault="it is not JSON")),
    "stopped by a signal": ("daemon", replace(WELL, halted=4711)),
    "config refused at reload": ("config", replace(WELL, config_fault="Permission denied")),
    "kernel": ("kernel", replace(WELL, release="5.15.84-v8+")),
    "kernel of no number": ("kernel", replace(WELL, release="unknown")),
    "cdc_subset": ("drivers", with_unknown("cdc_subset", random_mac=True)),
    "random MAC": ("drivers", with_unknown("cdc_eem", random_mac=True)),
    "RNDIS": ("drivers", with_unknown("rndis_host")),
    "too little power": ("power", replace(WELL, throttled=0x50005)),
    "once too little power": ("power", replace(WELL, throttled=0x50000)),
    "udev": ("udev", replace(WELL, udev=frozenset({2}))),
    "name": ("name", with_link(ifname="usb0")),
    "address": ("address", with_link(addresses=())),
    "down": ("carrier", with_link(up=False)),
    "no carrier": ("carrier", with_link(carrier=False)),
    "manager": ("managers", replace(WELL, managers={7: ("dhcpcd",)})),
    "rules": ("rules", replace(WELL, plan=replace(PLAN, steps=(AddRule(rule=GUARD),)))),
    "no ARP": ("arp", replace(WELL, probes={SPEC.name: Probe()})),
    "no ping": ("ping", replace(WELL, probes={SPEC.name: Probe(mac="00:22:82:ff:ff:11")})),
    "otgd's own word": ("otgd", replace(WELL, told={SPEC.name: ("failed", "it is odd")})),
    "blocked": ("otgd", replace(WELL, told={SPEC.name: ("blocked", "it is odd")})),
    "forwarding": ("forwarding", replace(WELL, observed=replace(OBSERVED, forwarding=False))),
    "firewall": ("firewall", replace(WELL, observed=replace(OBSERVED, firewall_fault="no"))),
    "passage unknown": ("firewall", replace(WELL, observed=replace(OBSERVED, passage_fault="no"))),
    "passage closed": (
        "firewall",
        replace(WELL, observed=replace(OBSERVED, passage=Passage.CLOSED)),
    ),
    "legacy drop": ("firewall", replace(WELL, legacy_filter=LEGACY)),
    "foreign chain": ("firewall", replace(WELL, chains=(OTHERS,))),
    "firewalld": ("firewall", replace(WELL, chains=(FIREWALLD,))),
    "nftables beside legacy": ("firewall", replace(WELL, chains=(DOCKERS,), flavour="legacy")),
    "no uplink": ("uplink", replace(WELL, plan=replace(PLAN, uplink="", uplink_fault="none"))),
    "no hub": ("hub", replace(WELL, plan=replace(PLAN, hub_fault="none"))),
    "hub not on lo": ("hub", replace(WELL, plan=replace(PLAN, steps=(ADD_HUB,)))),
    "no route from the hub": ("hub", replace(WELL, plan=replace(PLAN, steps=(ADD_ROUTE,)))),
    "uplink without carrier": (
        "uplink",
        replace(WELL, observed=replace(OBSERVED, links=(replace(UPLINK, carrier=False), LINK))),
    ),
    "uplink without default route": (
        "uplink",
        replace(WELL, observed=replace(OBSERVED, routes=ROUTES[1:])),
    ),
}
ALSO_WELL: dict[str, Facts] = {
    "all": WELL,
    "no swarm": replace(WELL, desired=DesiredState(gadgets=(SPEC,))),
    "address on another link": replace(
        WELL, plan=replace(PLAN, steps=(replace(ADD_HUB, gadget="another", ifindex=9),))
    ),
    "another driver's unlisted link": with_unknown("cdc_ether"),
    "older kernel that will do": replace(WELL, release="5.18.0"),
    "newer major version": replace(WELL, release="7.0.0-rc1"),
    "no udevd": replace(WELL, udev=None),
    "no vcgencmd": replace(WELL, throttled=None),
    "throttled by heat": replace(WELL, throttled=0x80008),
    "kernel's log unreadable": replace(WELL, kernel_log=None),
    "firewall hidden": replace(WELL, hidden="only root can read it", chains=None, probes={}),
    "no nft": replace(WELL, chains=None),
    "another gadget's rule": replace(WELL, plan=replace(PLAN, steps=(AddRule(rule=MASQUERADE),))),
    "manager of another link": replace(WELL, managers={2: ("NetworkManager",)}),
    "legacy drop with our rule": replace(WELL, legacy_filter=LEGACY_PASS),
    "legacy drop seen by iptables": replace(WELL, legacy_filter=LEGACY, flavour="legacy"),
    "Docker's chain, seen by iptables": replace(WELL, chains=(DOCKERS,)),
    "chain that accepts": replace(WELL, chains=(replace(OTHERS, drops=False),)),
    "chain with our rule": replace(WELL, chains=(replace(OTHERS, text=ACCEPT),)),
    "firewalld that knows": replace(WELL, chains=(replace(FIREWALLD, text='iifname "ethusb1"'),)),
    "passage granted": replace(WELL, observed=replace(OBSERVED, passage=Passage.GRANTED)),
}


def test_every_check_says_something_when_all_is_well() -> None:
    said = {finding.check: finding.mark for finding in examine(WELL)}
    assert list(said) == [*BEFORE, *GADGET, *AFTER]
    assert set(said.values()) == {Mark.OK}


@pytest.mark.parametrize("facts", ALSO_WELL.values(), ids=ALSO_WELL.keys())
def test_nothing_is_wrong(facts: Facts) -> None:
    assert trouble(facts) == {}


@pytest.mark.parametrize(("check", "facts"), BROKEN.values(), ids=BROKEN.keys())
def test_one_thing_is_wrong(check: str, facts: Facts) -> None:
    found = trouble(facts)
    assert list(found) == [check]
    assert found[check].why
    assert found[check].remedy
    assert found[check].gadget == (SPEC.name if check in GADGET else "")


def test_every_check_is_broken_here() -> None:
    elsewhere = {"usb", "kernel-log", "plugged", "overlap", "dhcp"}  # below, and in test_readers
    assert {check for check, _ in BROKEN.values()} | elsewhere == {*BEFORE, *GADGET, *AFTER}


def test_remedy_names_the_file_that_is_wrong() -> None:
    problem = replace(PROBLEM, file="/etc/otgd/otgd.toml.d/mine.toml")
    found = trouble(replace(WELL, problems=(problem,)))
    assert found["config"].remedy.startswith("sudoedit /etc/otgd/otgd.toml.d/mine.toml ")


@pytest.mark.parametrize(("as_root", "remedy"), [(True, ""), (False, "sudo otgctl doctor")])
def test_root_is_not_told_to_become_root(as_root: bool, remedy: str) -> None:  # noqa: FBT001
    facts = replace(WELL, kernel_log=None, as_root=as_root)
    found = {finding.check: finding for finding in examine(facts)}
    assert (found["kernel-log"].mark, found["kernel-log"].remedy) == (Mark.SKIP, remedy)


def test_unplugged_gadget_is_no_trouble_unless_it_is_named() -> None:
    empty = replace(OBSERVED, links=(UPLINK,), routes=ROUTES[:2])
    facts = replace(WELL, observed=empty, plan=replace(PLAN, bindings=()))
    assert trouble(facts) == {}
    assert list(trouble(facts, SPEC.name)) == ["plugged"]


def test_mac_on_two_links_is_told_once() -> None:
    twin = replace(LINK, ifindex=8, ifname="usb1", addresses=())
    links = (UPLINK, replace(LINK, addresses=()), twin)
    facts = replace(WELL, observed=replace(OBSERVED, links=links), plan=replace(PLAN, bindings=()))
    assert list(trouble(facts)) == ["plugged"]


@pytest.mark.parametrize(
    "address", ["10.0.0.5/16", "10.0.11.5/24", "10.0.11.129/25"], ids=["around", "same", "inside"]
)
def test_subnet_of_another_network(address: str) -> None:
    lan = replace(UPLINK, addresses=(replace(LINK.addresses[0], interface=IPv4Interface(address)),))
    lan = replace(lan, addresses=tuple(replace(a, owned=False) for a in lan.addresses))
    found = trouble(replace(WELL, observed=replace(OBSERVED, links=(lan, LINK))))
    assert list(found) == ["overlap"]
    assert found["overlap"].what.endswith("of eth0")


def test_what_follows_from_an_overlap_is_not_told_as_trouble() -> None:
    blocked = replace(LINK, ifname="usb0", up=False, addresses=())
    lan = replace(UPLINK, addresses=(replace(LINK.addresses[0], owned=False),))
    facts = replace(
        WELL,
        observed=replace(OBSERVED, links=(lan, blocked)),
        told={SPEC.name: ("blocked", "subnet 10.0.11.0/24 overlaps 10.0.11.0/24 of eth0")},
        probes={SPEC.name: Probe(dhcp_server="10.12.194.1")},
    )
    assert set(trouble(facts)) == {"overlap", "dhcp"}  # another trouble is told all the same
    skipped = {f.check: f.what for f in examine(facts) if f.mark is Mark.SKIP}
    assert set(skipped) == {"name", "address", "carrier", "arp", "otgd"}
    assert set(skipped.values()) == {"not looked at, because its subnet overlaps"}


@pytest.mark.parametrize(
    ("destination", "overlaps"), [("10.0.0.0/8", True), ("0.0.0.0/1", False)], ids=["VPN", "half"]
)
def test_route_to_another_network(destination: str, *, overlaps: bool) -> None:
    route = ObservedRoute(destination=IPv4Network(destination), ifindex=2)
    facts = replace(WELL, observed=replace(OBSERVED, routes=(*ROUTES, route)))
    assert ("overlap" in trouble(facts)) is overlaps


def test_dhcp_server_of_the_guest() -> None:
    answer = replace(WELL.probes[SPEC.name], dhcp_server="10.12.194.1")
    found = trouble(replace(WELL, probes={SPEC.name: answer}))
    assert list(found) == ["dhcp"]
    assert found["dhcp"].what.startswith("a DHCP server, 10.12.194.1,")


def test_findings_are_one_sentence_each() -> None:
    for _, facts in BROKEN.values():
        for finding in trouble(facts).values():
            for text in (finding.what, finding.why):
                assert "\n" not in text
                assert not text.endswith(".")


def test_gadget_whose_mac_lies_is_found_by_its_port() -> None:
    by_port = replace(SPEC, port=LINK.port)
    facts = replace(with_link(mac="5e:00:00:00:00:01"), desired=DesiredState(gadgets=(by_port,)))
    assert trouble(facts, SPEC.name) == {}


def test_of_two_links_the_one_with_the_better_sign_is_examined() -> None:
    by_port = replace(SPEC, port="1-1.3")
    facts = replace(with_unknown("cdc_ether"), desired=DesiredState(gadgets=(by_port,)))
    assert "plugged" not in trouble(facts, SPEC.name)
    both = replace(with_link(mac="5e:00:00:00:00:01"), plan=replace(PLAN, bindings=()))
    assert trouble(both, SPEC.name)["plugged"].what == f"no link has its MAC {SPEC.mac}"
