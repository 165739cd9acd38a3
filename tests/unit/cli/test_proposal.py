"""What is proposed for a link that no entry knows."""

from __future__ import annotations

from dataclasses import replace
from ipaddress import IPv4Interface, IPv4Network

import pytest

from otgd.cli.gadgets import Matcher, with_proposal
from otgd.cli.proposal import Proposer
from otgd.config import parse_config
from otgd.errors import OtgdError
from otgd.identity import Sign
from otgd.model import ObservedAddress, ObservedLink, ObservedRoute
from tests.unit.cli.conftest import CONFIG

MORE = '[gadget.camera]\nmac = "00:22:82:ff:ff:42"\nsubnet = "192.168.9.0/24"\n'
SWARM = '[swarm]\nhub_address = "10.0.14.1"\naddress_pool = "10.20.0.0/16"\n'
ZERO = ObservedLink(
    ifindex=7,
    ifname="usb0",
    mac="00:22:82:ff:ff:91",
    driver="cdc_ether",
    port="1-1.2",
    serial="d4c3",
)


def proposer(
    *links: ObservedLink, more: str = MORE, routes: tuple[ObservedRoute, ...] = ()
) -> Proposer:
    return Proposer(parse_config(CONFIG + more, file="f"), (ZERO, *links), routes)


def test_name_and_subnet_go_on_from_the_first_gadget() -> None:
    assert proposer().propose(ZERO).lines == (
        "[gadget.ethusb3]",
        'mac = "00:22:82:ff:ff:91"',
        'subnet = "10.0.13.0/24"',
    )


def test_without_any_gadget_it_is_the_guides() -> None:
    empty = Proposer(parse_config("", file="f"), (ZERO,))
    assert empty.propose(ZERO).lines[::2] == ("[gadget.ethusb1]", 'subnet = "10.0.11.0/24"')


def test_several_proposals_are_accepted_together() -> None:
    links = [replace(ZERO, ifindex=n, mac=f"00:22:82:ff:ff:9{n}") for n in range(3)]
    maker = proposer(*links)
    written = "\n".join(line for link in links for line in maker.propose(link).lines)
    gadgets = parse_config(f"{CONFIG}{MORE}{written}\n", file="f").desired.gadgets
    assert [(g.name, str(g.subnet)) for g in gadgets[3:]] == [
        (f"ethusb{n}", f"10.0.1{n}.0/24") for n in (3, 4, 5)
    ]


def test_what_the_host_uses_is_not_taken() -> None:
    other = replace(
        ZERO,
        ifindex=8,
        ifname="ethusb3",
        altnames=("ethusb4",),
        addresses=(ObservedAddress(interface=IPv4Interface("10.0.13.7/25")),),
    )
    routes = tuple(
        ObservedRoute(destination=IPv4Network(text), ifindex=8)
        for text in ("0.0.0.0/0", "128.0.0.0/1", "10.0.15.128/25")
    )
    proposal = proposer(other, more=MORE + SWARM, routes=routes).propose(ZERO)
    assert (proposal.name, str(proposal.subnet)) == ("ethusb5", "10.0.16.0/24")


@pytest.mark.parametrize(
    ("fields", "sign"),
    [
        ({}, Sign.MAC),
        ({"random_mac": True}, Sign.SERIAL),
        ({"random_mac": True, "serial": ""}, Sign.PORT),
    ],
    ids=["MAC", "serial", "port"],
)
def test_best_sign_that_lasts_is_taken(fields: dict[str, object], sign: Sign) -> None:
    link = replace(ZERO, **fields)  # type: ignore[arg-type]
    assert proposer().propose(link).sign is sign


def test_serial_that_another_has_too_is_not_taken() -> None:
    link = replace(ZERO, random_mac=True)
    assert proposer(replace(ZERO, ifindex=8)).propose(link).sign is Sign.PORT


@pytest.mark.parametrize(
    ("fields", "sign", "why"),
    [
        ({"random_mac": True}, Sign.MAC, "usb0 cannot be known by its MAC: cdc_ether made it up"),
        ({"serial": ""}, Sign.SERIAL, "usb0 cannot be known by its USB serial: it has none"),
        ({"port": ""}, Sign.PORT, "usb0 cannot be known by its USB port: it is not on USB"),
        (
            {"random_mac": True, "serial": "", "port": ""},
            None,
            "usb0 has a MAC that cdc_ether made up, and no USB port",
        ),
    ],
    ids=["random MAC", "no serial", "no port", "nothing"],
)
def test_sign_that_is_not_there_is_refused(
    fields: dict[str, object], sign: Sign | None, why: str
) -> None:
    link = replace(ZERO, **fields)  # type: ignore[arg-type]
    with pytest.raises(OtgdError, match=f"^{why}$"):
        proposer().propose(link, sign=sign)


def test_gadget_of_the_config_gets_a_further_sign() -> None:
    proposal = proposer().propose(ZERO, name="ethusb2", sign=Sign.PORT)
    assert proposal.lines == ("[gadget.ethusb2]", 'match = { port = "1-1.2" }')
    merged = parse_config(CONFIG + "\n".join(proposal.lines), file="f").desired.gadgets[1]
    assert (merged.mac, merged.port) == ("00:22:82:ff:ff:02", "1-1.2")


def test_gadget_that_has_the_sign_is_refused() -> None:
    with pytest.raises(OtgdError, match="ethusb2 is in the config already, with the MAC 00:22"):
        proposer().propose(ZERO, name="ethusb2")


def test_gadget_that_has_a_subnet_gets_no_other() -> None:
    subnet = IPv4Network("10.9.9.0/24")
    with pytest.raises(OtgdError, match=r"has a subnet, 10\.0\.12\.0/24"):
        proposer().propose(ZERO, name="ethusb2", sign=Sign.PORT, subnet=subnet)


def test_no_subnet_left_is_told() -> None:
    full = [
        replace(ZERO, addresses=(ObservedAddress(interface=IPv4Interface(text)),))
        for text in ("10.0.0.1/8", "172.16.0.1/12", "192.168.0.1/16")
    ]
    with pytest.raises(OtgdError, match="no private subnet is left; name one with --subnet"):
        proposer(*full).propose(ZERO)


def test_what_cannot_be_proposed_is_told_beside_the_others() -> None:
    link = replace(ZERO, random_mac=True, serial="", port="")
    maker = proposer()
    device = with_proposal(Matcher(maker.config, {}), link, maker)
    assert device.proposal == ()
    assert device.config.endswith("has a MAC that cdc_ether made up, and no USB port")
