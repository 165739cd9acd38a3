"""Every step has a sentence for people and a word for journal fields."""

from __future__ import annotations

from ipaddress import IPv4Address, IPv4Interface, IPv4Network
from typing import get_args

import pytest

from otgd.describe import describe, describe_rule, slug
from otgd.model import (
    Action,
    AddAddress,
    AddRoute,
    AddRule,
    ClosePassage,
    EnableForwarding,
    Forward,
    Masquerade,
    OpenPassage,
    Quarantine,
    RemoveAddress,
    RemoveAltname,
    RemoveRoute,
    RemoveRule,
    RenameLink,
    Rule,
    SetLinkDown,
    SetLinkUp,
    SourceGuard,
    Stray,
)

SUBNET = IPv4Network("10.0.11.0/24")
ADDRESS = IPv4Interface("10.0.11.1/24")
HUB = IPv4Address("10.0.10.1")
ZERO = "ethusb1"
MASQUERADE = Masquerade(gadget=ZERO, subnet=SUBNET, uplink="eth0")

STEPS: list[tuple[Action, str, str]] = [
    (EnableForwarding(), "set net.ipv4.ip_forward to 1", "enable-forwarding"),
    (OpenPassage(), "let gadgets through other programs' FORWARD chain", "open-passage"),
    (
        ClosePassage(),
        "take otgd's rule out of other programs' FORWARD chain",
        "close-passage",
    ),
    (
        AddRule(rule=MASQUERADE),
        "add masquerade of 10.0.11.0/24 through eth0",
        "add-masquerade",
    ),
    (
        RemoveRule(rule=Stray(text="chain OTGD-OLD")),
        "remove stray chain OTGD-OLD",
        "remove-stray",
    ),
    (
        RenameLink(gadget=ZERO, ifindex=4, old="usb0", new=ZERO),
        "rename usb0 to ethusb1",
        "rename-link",
    ),
    (
        RemoveAltname(gadget=ZERO, ifindex=4, altname=ZERO),
        "take the alternative name ethusb1 off ifindex 4",
        "remove-altname",
    ),
    (
        AddAddress(gadget="", ifindex=1, interface=IPv4Interface("10.0.10.1/32")),
        "add address 10.0.10.1/32 to lo",
        "add-address",
    ),
    (
        AddRoute(gadget=ZERO, ifindex=4, subnet=SUBNET, source=HUB),
        "route 10.0.11.0/24 to ethusb1 from 10.0.10.1",
        "add-route",
    ),
    (
        RemoveRoute(gadget="", ifindex=4, subnet=SUBNET, source=HUB),
        "remove the route of 10.0.11.0/24 to ifindex 4 from 10.0.10.1",
        "remove-route",
    ),
    (
        AddAddress(gadget=ZERO, ifindex=4, interface=ADDRESS),
        "add address 10.0.11.1/24 to ethusb1",
        "add-address",
    ),
    (
        RemoveAddress(gadget="", ifindex=4, interface=ADDRESS),
        "remove address 10.0.11.1/24 from ifindex 4",
        "remove-address",
    ),
    (SetLinkUp(gadget=ZERO, ifindex=4), "set ethusb1 up", "set-link-up"),
    (SetLinkDown(gadget="", ifindex=4), "set ifindex 4 down", "set-link-down"),
]

RULES: list[tuple[Rule, str]] = [
    (MASQUERADE, "masquerade of 10.0.11.0/24 through eth0"),
    (
        SourceGuard(gadget=ZERO, ifname=ZERO, subnet=SUBNET),
        "source guard 10.0.11.0/24 on ethusb1",
    ),
    (
        Forward(gadget=ZERO, ifname=ZERO, uplink="eth0", to_uplink=True, to_peers=True),
        "forwarding of ethusb1 (to uplink eth0, to other gadgets)",
    ),
    (
        Forward(gadget=ZERO, ifname=ZERO, uplink="eth0", to_uplink=False, to_peers=False),
        "forwarding of ethusb1 (not to uplink eth0, not to other gadgets)",
    ),
    (
        Forward(gadget=ZERO, ifname=ZERO, uplink="", to_uplink=False, to_peers=True),
        "forwarding of ethusb1 (to no uplink, to other gadgets)",
    ),
    (Quarantine(ifname="usb0"), "quarantine of usb0"),
    (Stray(text="chain OTGD-OLD"), "stray chain OTGD-OLD"),
]


@pytest.mark.parametrize(("step", "sentence", "word"), STEPS, ids=[word for *_, word in STEPS])
def test_a_step_is_described(step: Action, sentence: str, word: str) -> None:
    assert describe(step) == sentence
    assert slug(step) == word


@pytest.mark.parametrize(("rule", "phrase"), RULES, ids=[phrase for _, phrase in RULES])
def test_a_rule_is_described(rule: Rule, phrase: str) -> None:
    assert describe_rule(rule) == phrase


def test_no_kind_of_step_or_rule_is_left_out() -> None:
    assert {type(step) for step, *_ in STEPS} == set(get_args(Action))
    assert {type(rule) for rule, _ in RULES} == set(get_args(Rule))
