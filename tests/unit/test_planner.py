"""The planner from golden cases: desired and observed in, steps and reasons out."""

from __future__ import annotations

from dataclasses import replace
from ipaddress import IPv4Address, IPv4Interface, IPv4Network

import pytest

from otgd.describe import describe
from otgd.model import (
    LOOPBACK,
    Aspect,
    DesiredState,
    Forward,
    GadgetSpec,
    Masquerade,
    ObservedAddress,
    ObservedLink,
    ObservedRoute,
    ObservedState,
    Passage,
    Plan,
    Quarantine,
    Rule,
    SourceGuard,
    Stray,
    UnknownPolicy,
    UplinkPolicy,
)
from otgd.planner import choose_uplink, make_plan

ETH0 = ObservedLink(
    ifindex=2,
    ifname="eth0",
    mac="b8:27:eb:00:00:01",
    driver="smsc95xx",
    up=True,
    carrier=True,
    addresses=(ObservedAddress(interface=IPv4Interface("192.168.1.5/24")),),
)
DEFAULT = ObservedRoute(destination=IPv4Network("0.0.0.0/0"), ifindex=2, metric=100)
LAN = ObservedRoute(destination=IPv4Network("192.168.1.0/24"), ifindex=2)


def spec(number: int, **fields: object) -> GadgetSpec:
    subnet = f"10.0.{10 + number}"
    base = GadgetSpec(
        name=f"ethusb{number}",
        mac=f"00:22:82:ff:ff:0{number}",
        host=IPv4Interface(f"{subnet}.1/24"),
        guest=IPv4Address(f"{subnet}.2"),
    )
    return replace(base, **fields)  # type: ignore[arg-type]


def bare(number: int, ifname: str = "", ifindex: int = 0, **fields: object) -> ObservedLink:
    """A link with gadget *number*'s MAC as it comes: down, without an address."""
    base = ObservedLink(
        ifindex=ifindex or 10 + number,
        ifname=ifname or f"usb{number}",
        mac=f"00:22:82:ff:ff:0{number}",
        driver="cdc_ether",
    )
    return replace(base, **fields)  # type: ignore[arg-type]


def done(number: int, **fields: object) -> ObservedLink:
    """The same link as it shall be."""
    address = ObservedAddress(interface=spec(number).host, owned=True)
    fields = {"ifname": f"ethusb{number}", "up": True, "addresses": (address,), **fields}
    return bare(number, **fields)  # type: ignore[arg-type]


def rules(number: int, uplink: str = "eth0", **fields: bool) -> frozenset[Rule]:
    gadget, subnet = f"ethusb{number}", spec(number).subnet
    forward = Forward(
        gadget=gadget,
        ifname=gadget,
        uplink=uplink,
        to_uplink=fields.get("to_uplink", bool(uplink)),
        to_peers=fields.get("to_peers", True),
    )
    guard = SourceGuard(gadget=gadget, ifname=gadget, subnet=subnet)
    if not forward.to_uplink:
        return frozenset({guard, forward})
    return frozenset({guard, forward, Masquerade(gadget=gadget, subnet=subnet, uplink=uplink)})


def want(*numbers: int, **fields: object) -> DesiredState:
    return DesiredState(gadgets=tuple(spec(n) for n in numbers), **fields)  # type: ignore[arg-type]


def have(*links: ObservedLink, **fields: object) -> ObservedState:
    connected = tuple(
        ObservedRoute(destination=a.interface.network, ifindex=link.ifindex)
        for link in links
        for a in link.addresses
    )
    base = ObservedState(links=(ETH0, *links), routes=(DEFAULT, LAN, *connected), forwarding=True)
    return replace(base, **fields)  # type: ignore[arg-type]


def steps(plan: Plan) -> list[str]:
    return [describe(step) for step in plan.steps]


def reasons(plan: Plan, aspect: Aspect = Aspect.LINK) -> dict[str, str]:
    return {b.gadget: b.reason for b in plan.blocked if b.aspect is aspect}


# --- the main road -------------------------------------------------------------------------------


def test_a_plugged_gadget_gets_rules_then_name_then_address_then_up() -> None:
    plan = make_plan(want(1), have(bare(1, "usb0"), forwarding=False))

    assert steps(plan) == [
        "add forwarding of ethusb1 (to uplink eth0, to other gadgets)",
        "add masquerade of 10.0.11.0/24 through eth0",
        "add source guard 10.0.11.0/24 on ethusb1",
        "set net.ipv4.ip_forward to 1",
        "rename usb0 to ethusb1",
        "add address 10.0.11.1/24 to ethusb1",
        "set ethusb1 up",
    ]
    assert plan.bindings == (("ethusb1", 11),)
    assert plan.blocked == ()


def test_a_configured_gadget_needs_nothing() -> None:
    plan = make_plan(want(1), have(done(1), rules=rules(1)))

    assert plan.converged
    assert plan.uplink == "eth0"


def test_an_unplugged_gadget_leaves_no_rule() -> None:
    plan = make_plan(want(1), have(rules=rules(1)))

    assert steps(plan) == [
        "remove forwarding of ethusb1 (to uplink eth0, to other gadgets)",
        "remove masquerade of 10.0.11.0/24 through eth0",
        "remove source guard 10.0.11.0/24 on ethusb1",
    ]
    assert plan.bindings == ()


def test_an_entry_that_is_gone_from_the_config_loses_address_first_and_rules_last() -> None:
    plan = make_plan(want(2), have(done(1), rules=rules(1)))

    assert steps(plan)[0] == "remove address 10.0.11.1/24 from ifindex 11"
    assert all(step.startswith("remove ") for step in steps(plan)[1:])
    assert [link.ifname for link in plan.unknown] == ["ethusb1"]


def test_a_changed_subnet_is_added_before_the_old_one_is_removed() -> None:
    desired = DesiredState(
        gadgets=(spec(1, host=IPv4Interface("10.0.99.1/24"), guest=IPv4Address("10.0.99.2")),)
    )

    plan = make_plan(desired, have(done(1), rules=rules(1)))

    changes = [s for s in steps(plan) if "address" in s]
    assert changes == [
        "add address 10.0.99.1/24 to ethusb1",
        "remove address 10.0.11.1/24 from ethusb1",
    ]
    old, new = (f"masquerade of 10.0.{n}.0/24 through eth0" for n in (11, 99))
    assert steps(plan).index(f"remove {old}") < steps(plan).index(f"add {new}")


def test_foreign_addresses_stay() -> None:
    foreign = ObservedAddress(interface=IPv4Interface("192.168.77.1/24"))
    link = done(1, addresses=(*done(1).addresses, foreign))

    assert make_plan(want(1), have(link, rules=rules(1))).converged


def test_the_same_address_by_another_hand_is_good_enough() -> None:
    link = done(1, addresses=(ObservedAddress(interface=spec(1).host),))

    assert make_plan(want(1), have(link, rules=rules(1))).converged


def test_what_carries_our_mark_where_it_is_not_wanted_goes() -> None:
    eth0 = replace(ETH0, addresses=(*ETH0.addresses, *done(3).addresses))

    plan = make_plan(want(1), have(links=(eth0,)))

    assert steps(plan) == ["remove address 10.0.13.1/24 from ifindex 2"]


def test_a_stray_is_cleared_before_anything_is_added() -> None:
    stray = Stray(text="chain OTGD-POSTROUTING without its jump")

    plan = make_plan(want(1), have(bare(1), rules=frozenset({stray})))

    assert steps(plan)[0] == "remove stray chain OTGD-POSTROUTING without its jump"


# --- who is who ----------------------------------------------------------------------------------


def test_a_link_of_another_driver_is_never_ours_even_with_the_mac() -> None:
    plan = make_plan(want(1), have(bare(1, driver="smsc95xx")))

    assert plan.converged
    assert plan.unknown == ()


def test_a_link_that_no_entry_names_gets_nothing_and_is_reported() -> None:
    plan = make_plan(want(1), have(bare(7)))

    assert plan.converged
    assert [(u.ifname, u.reason) for u in plan.unknown] == [
        ("usb7", "no entry of the config has its MAC")
    ]


def test_a_random_mac_is_told() -> None:
    plan = make_plan(want(1), have(bare(7, random_mac=True, driver="cdc_subset")))

    assert plan.unknown[0].reason == (
        "no entry of the config has its MAC; cdc_subset made the MAC up"
    )


def test_of_two_links_with_one_mac_neither_wins_silently() -> None:
    plan = make_plan(want(1), have(bare(1, "usb0", 11), bare(1, "usb1", 12)))

    assert plan.converged
    assert reasons(plan) == {
        "ethusb1": "MAC 00:22:82:ff:ff:01 is on usb0 (ifindex 11) and usb1 (ifindex 12); "
        "unplug one or give it a MAC of its own"
    }
    assert [u.ifname for u in plan.unknown] == ["usb0", "usb1"]


def test_the_one_that_holds_the_address_keeps_it_from_a_second_with_its_mac() -> None:
    plan = make_plan(want(1), have(done(1), bare(1, "usb1", 12), rules=rules(1)))

    assert plan.converged
    assert plan.bindings == (("ethusb1", 11),)
    assert [(u.ifname, u.reason) for u in plan.unknown] == [
        ("usb1", "its MAC is also that of another link, and belongs to ethusb1")
    ]


def test_a_link_waits_until_udev_has_finished_with_it() -> None:
    plan = make_plan(want(1), have(bare(1, initialized=False)))

    assert plan.converged
    assert reasons(plan, Aspect.PENDING) == {
        "ethusb1": "its link usb1 is there, but udev has not finished with it"
    }


def test_a_configured_link_stays_though_udev_forgot_it() -> None:
    plan = make_plan(want(1), have(done(1, initialized=False), rules=rules(1)))

    assert plan.converged
    assert plan.blocked == ()


# --- names ---------------------------------------------------------------------------------------


def test_two_gadgets_swap_their_names_through_a_temporary_one() -> None:
    plan = make_plan(want(1, 2), have(bare(1, "ethusb2"), bare(2, "ethusb1")))

    assert [step for step in steps(plan) if step.startswith("rename")] == [
        "rename ethusb2 to otgd11",
        "rename ethusb1 to ethusb2",
        "rename otgd11 to ethusb1",
    ]


def test_a_chain_of_names_is_untied_from_its_free_end() -> None:
    plan = make_plan(want(1, 2, 3), have(bare(1, "usb0"), bare(2, "ethusb1"), bare(3, "ethusb2")))

    assert [step for step in steps(plan) if step.startswith("rename")] == [
        "rename ethusb2 to ethusb3",
        "rename ethusb1 to ethusb2",
        "rename usb0 to ethusb1",
    ]


def test_a_ring_of_three_is_opened_once() -> None:
    plan = make_plan(
        want(1, 2, 3), have(bare(1, "ethusb2"), bare(2, "ethusb3"), bare(3, "ethusb1"))
    )

    renames = [step for step in steps(plan) if step.startswith("rename")]
    assert len(renames) == 4
    assert sum("otgd11" in step for step in renames) == 2


def test_a_name_that_somebody_else_has_blocks_the_gadget_alone() -> None:
    taken = replace(ETH0, ifindex=7, ifname="ethusb1", mac="02:00:00:00:00:07", addresses=())

    plan = make_plan(want(1, 2), have(bare(1), taken, done(2), rules=rules(2)))

    assert plan.converged
    assert reasons(plan) == {"ethusb1": "the name ethusb1 is taken by ifindex 7"}


def test_who_waits_for_a_blocked_gadgets_name_is_blocked_too() -> None:
    taken = replace(ETH0, ifindex=7, ifname="ethusb2", mac="02:00:00:00:00:07", addresses=())

    plan = make_plan(want(1, 2), have(taken, bare(2, "ethusb1"), bare(1)))

    assert plan.converged
    assert reasons(plan) == {
        "ethusb1": "the name ethusb1 is taken by ifindex 12",
        "ethusb2": "the name ethusb2 is taken by ifindex 7",
    }


def test_the_links_own_alternative_name_makes_room() -> None:
    plan = make_plan(want(1), have(bare(1, "enx002282ffff01", altnames=("ethusb1",))))

    assert "take the alternative name ethusb1 off ifindex 11" in steps(plan)
    assert steps(plan).index("rename enx002282ffff01 to ethusb1") == (
        steps(plan).index("take the alternative name ethusb1 off ifindex 11") + 1
    )


def test_an_alternative_name_of_another_link_is_taken() -> None:
    plan = make_plan(want(1), have(replace(ETH0, altnames=("ethusb1",)), bare(1), links=()))
    assert plan.converged

    observed = have(bare(1), links=(replace(ETH0, altnames=("ethusb1",)), bare(1)))
    assert reasons(make_plan(want(1), observed)) == {
        "ethusb1": "the name ethusb1 is taken by ifindex 2, an alternative name of eth0"
    }


# --- uplink --------------------------------------------------------------------------------------


def wlan0(**fields: object) -> ObservedLink:
    base = ObservedLink(ifindex=3, ifname="wlan0", mac="b8:27:eb:00:00:02", up=True, carrier=True)
    return replace(base, **fields)  # type: ignore[arg-type]


def route(ifindex: int, metric: int = 0) -> ObservedRoute:
    return ObservedRoute(destination=IPv4Network("0.0.0.0/0"), ifindex=ifindex, metric=metric)


@pytest.mark.parametrize(
    ("names", "routes", "expected"),
    [
        pytest.param((), (route(2, 100), route(3, 600)), "eth0", id="auto-lowest-metric"),
        pytest.param((), (route(2, 700), route(3, 600)), "wlan0", id="auto-other-metric"),
        pytest.param((), (route(3),), "wlan0", id="auto-only-wlan"),
        pytest.param((), (), "", id="auto-none"),
        pytest.param((), (route(99),), "", id="auto-unknown-link"),
        pytest.param(("wlan0",), (), "wlan0", id="a-name-needs-no-route"),
        pytest.param(("ppp0",), (route(2),), "", id="a-name-that-is-not-there"),
        pytest.param(("wlan0", "eth0"), (route(2), route(3)), "wlan0", id="list-best-first"),
        pytest.param(("wlan0", "eth0"), (route(2),), "eth0", id="list-without-route"),
        pytest.param(("ppp0", "ppp1"), (route(2),), "", id="list-none"),
    ],
)
def test_the_uplink(
    names: tuple[str, ...], routes: tuple[ObservedRoute, ...], expected: str
) -> None:
    desired = DesiredState(uplink_policy=UplinkPolicy(interfaces=names))

    name, fault = choose_uplink(desired, ObservedState(links=(ETH0, wlan0()), routes=routes))

    assert name == expected
    assert bool(fault) is not bool(name)


def test_a_listed_uplink_without_carrier_is_passed_over() -> None:
    desired = DesiredState(uplink_policy=UplinkPolicy(interfaces=("wlan0", "eth0")))
    observed = ObservedState(links=(ETH0, wlan0(carrier=False)), routes=(route(2), route(3)))

    assert choose_uplink(desired, observed) == ("eth0", "")


def test_a_gadget_that_offers_a_default_route_is_no_uplink() -> None:
    observed = have(done(1), rules=rules(1, uplink=""), routes=(route(11),))

    plan = make_plan(want(1), observed)

    assert plan.uplink == ""
    assert reasons(plan, Aspect.UPLINK) == {
        "ethusb1": "no way out: no interface but gadgets holds a default route"
    }
    assert plan.converged


def test_a_moved_uplink_replaces_rules_in_one_go() -> None:
    observed = have(done(1), links=(ETH0, wlan0(), done(1)), rules=rules(1), routes=(route(3),))

    plan = make_plan(want(1), observed)

    assert steps(plan) == [
        "remove forwarding of ethusb1 (to uplink eth0, to other gadgets)",
        "remove masquerade of 10.0.11.0/24 through eth0",
        "add forwarding of ethusb1 (to uplink wlan0, to other gadgets)",
        "add masquerade of 10.0.11.0/24 through wlan0",
    ]


def test_without_uplink_everything_but_the_way_out_is_there() -> None:
    plan = make_plan(want(1), have(bare(1), routes=()))

    assert "add address 10.0.11.1/24 to ethusb1" in steps(plan)
    assert "add forwarding of ethusb1 (to no uplink, to other gadgets)" in steps(plan)
    assert not any("masquerade" in step for step in steps(plan))


def test_a_gadget_without_masquerade_misses_no_uplink() -> None:
    desired = DesiredState(gadgets=(spec(1, masquerade=False),))
    observed = have(done(1), rules=rules(1, to_uplink=False))

    assert make_plan(desired, observed).converged
    assert make_plan(desired, replace(observed, routes=())).blocked == ()


def test_an_isolated_gadget_without_masquerade_needs_no_forwarding() -> None:
    desired = DesiredState(gadgets=(spec(1, masquerade=False, isolate=True),))
    observed = have(done(1), rules=rules(1, to_uplink=False, to_peers=False), forwarding=False)

    assert make_plan(desired, observed).converged


# --- blocked -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("other", "cause"),
    [
        pytest.param({"address": "10.0.11.200/24"}, "address 10.0.11.0/24", id="same-lan"),
        pytest.param({"address": "10.0.0.1/16"}, "address 10.0.0.0/16", id="wider-lan"),
        pytest.param({"route": "10.0.11.128/25"}, "route 10.0.11.128/25", id="vpn-route"),
    ],
)
def test_a_subnet_that_is_another_network_too_is_blocked(other: dict[str, str], cause: str) -> None:
    links, routes = [bare(1)], [DEFAULT]
    if "address" in other:
        address = ObservedAddress(interface=IPv4Interface(other["address"]))
        links.append(wlan0(addresses=(address,)))
    else:
        links.append(wlan0())
        routes.append(ObservedRoute(destination=IPv4Network(other["route"]), ifindex=3))

    plan = make_plan(want(1), have(links=(ETH0, *links), routes=tuple(routes)))

    assert reasons(plan) == {"ethusb1": f"subnet 10.0.11.0/24 overlaps the {cause} of wlan0"}
    assert plan.converged


def test_a_configured_gadget_gives_way_when_the_host_roams_into_its_subnet() -> None:
    lan = wlan0(addresses=(ObservedAddress(interface=IPv4Interface("10.0.11.7/24")),))

    plan = make_plan(want(1), have(done(1), lan, rules=rules(1)))

    assert steps(plan)[0] == "remove address 10.0.11.1/24 from ifindex 11"
    assert len(steps(plan)) == 1 + len(rules(1))


def test_default_routes_in_halves_are_no_overlap() -> None:
    halves = tuple(
        ObservedRoute(destination=IPv4Network(net), ifindex=3)
        for net in ("0.0.0.0/1", "128.0.0.0/1")
    )
    observed = have(links=(ETH0, wlan0(), done(1)), routes=(DEFAULT, *halves), rules=rules(1))

    assert make_plan(want(1), observed).converged


def test_a_route_of_a_link_that_is_gone_still_counts() -> None:
    routes = (DEFAULT, ObservedRoute(destination=IPv4Network("10.0.11.0/24"), ifindex=77))

    plan = make_plan(want(1), have(bare(1), routes=routes))

    assert reasons(plan)["ethusb1"].endswith("of ifindex 77")


def test_a_subnet_moves_from_one_gadget_to_another_in_one_plan() -> None:
    desired = DesiredState(gadgets=(spec(2, host=spec(1).host, guest=spec(1).guest),))

    plan = make_plan(desired, have(done(1), bare(2)))

    assert plan.blocked == ()
    assert "add address 10.0.11.1/24 to ethusb2" in steps(plan)
    assert "remove address 10.0.11.1/24 from ifindex 11" in steps(plan)


def test_without_a_packet_filter_a_gadget_still_has_its_address() -> None:
    plan = make_plan(want(1), have(bare(1), firewall_fault="no iptables here"))

    assert steps(plan) == [
        "rename usb1 to ethusb1",
        "add address 10.0.11.1/24 to ethusb1",
        "set ethusb1 up",
    ]
    assert reasons(plan, Aspect.FIREWALL) == {"ethusb1": "no iptables here"}


def test_without_a_packet_filter_an_isolated_gadget_stays_off() -> None:
    desired = DesiredState(gadgets=(spec(1, isolate=True),))

    plan = make_plan(desired, have(bare(1), firewall_fault="no iptables here"))

    assert plan.converged
    assert reasons(plan) == {"ethusb1": "it cannot be isolated: no iptables here"}


# --- other programs' FORWARD ---------------------------------------------------------------------


@pytest.mark.parametrize(
    ("passage", "expected"),
    [
        pytest.param(Passage.OPEN, [], id="nothing-in-the-way"),
        pytest.param(Passage.SPARE, [], id="not-needed-any-more-but-harmless"),
        pytest.param(Passage.GRANTED, [], id="let-through-already"),
        pytest.param(
            Passage.CLOSED, ["let gadgets through other programs' FORWARD chain"], id="closed"
        ),
    ],
)
def test_the_way_through_forward_is_opened_where_it_is_closed(
    passage: Passage, expected: list[str]
) -> None:
    """Plugged or not: the rule is the same, and a plug need not wait for it."""
    assert steps(make_plan(want(1), have(passage=passage))) == expected
    assert steps(make_plan(want(1), have(done(1), rules=rules(1), passage=passage))) == expected


@pytest.mark.parametrize("passage", [Passage.GRANTED, Passage.SPARE])
def test_without_gadgets_to_forward_our_rule_is_taken_out(passage: Passage) -> None:
    assert steps(make_plan(want(), have(passage=passage))) == [
        "take otgd's rule out of other programs' FORWARD chain"
    ]
    assert make_plan(want(), have(passage=Passage.CLOSED)).converged


def test_a_forward_chain_that_cannot_be_read_is_told_where_it_matters() -> None:
    fault = "iptables: chain `FORWARD' in table `filter' is incompatible"

    plan = make_plan(want(1), have(done(1), rules=rules(1), passage_fault=fault))

    assert reasons(plan, Aspect.UPLINK) == {"ethusb1": f"FORWARD may drop its packets: {fault}"}


# --- unknown = "block" ---------------------------------------------------------------------------


def test_block_takes_an_unlisted_link_down_and_drops_its_packets() -> None:
    plan = make_plan(want(1, unknown=UnknownPolicy.BLOCK), have(bare(7, up=True)))

    assert steps(plan) == ["add quarantine of usb7", "set ifindex 17 down"]


def test_block_is_quiet_once_done_and_ends_with_the_link() -> None:
    desired = want(1, unknown=UnknownPolicy.BLOCK)
    quarantine = frozenset({Quarantine(ifname="usb7")})

    assert make_plan(desired, have(bare(7), rules=quarantine)).converged
    assert steps(make_plan(desired, have(rules=quarantine))) == ["remove quarantine of usb7"]


def test_block_keeps_a_rogue_from_being_the_uplink() -> None:
    rogue = bare(7, up=True)
    observed = have(links=(rogue,), routes=(route(17),))

    assert make_plan(want(1, unknown=UnknownPolicy.BLOCK), observed).uplink == ""


@pytest.mark.parametrize("policy", list(UnknownPolicy))
def test_a_usb_modem_that_the_config_names_as_uplink_is_left_alone(policy: UnknownPolicy) -> None:
    desired = want(1, unknown=policy, uplink_policy=UplinkPolicy(interfaces=("usb7",)))

    plan = make_plan(desired, have(links=(bare(7, up=True),), routes=()))

    assert (plan.uplink, plan.unknown, plan.steps) == ("usb7", (), ())


def test_report_lets_a_usb_modem_be_the_uplink() -> None:
    plan = make_plan(want(1), have(links=(bare(7, up=True),), routes=(route(17),)))

    assert (plan.uplink, plan.unknown) == ("usb7", ())


# --- the hub -------------------------------------------------------------------------------------

HUB = IPv4Address("10.0.10.1")
OWN_HUB = ObservedAddress(interface=IPv4Interface(HUB), owned=True)
LO = ObservedLink(
    ifindex=LOOPBACK,
    ifname="lo",
    mac="00:00:00:00:00:00",
    up=True,
    addresses=(ObservedAddress(interface=IPv4Interface("127.0.0.1/8")),),
)
LO_WITH_HUB = replace(LO, addresses=(*LO.addresses, OWN_HUB))


def want_hub(*numbers: int, hub: IPv4Address | None = HUB) -> DesiredState:
    return DesiredState(gadgets=tuple(spec(n, via_hub=True) for n in numbers), hub=hub)


def from_hub(number: int, hub: IPv4Address = HUB) -> ObservedRoute:
    return ObservedRoute(
        destination=spec(number).subnet, ifindex=10 + number, source=hub, owned=True
    )


def kernels(number: int) -> ObservedRoute:
    gadget = spec(number)
    return ObservedRoute(destination=gadget.subnet, ifindex=10 + number, source=gadget.host.ip)


def with_hub(
    *links: ObservedLink, lo: ObservedLink = LO_WITH_HUB, **fields: object
) -> ObservedState:
    return have(lo, *links, **fields)


def test_a_plugged_member_is_routed_from_the_hub_once_its_link_is_up() -> None:
    plan = make_plan(want_hub(1), with_hub(bare(1, "usb0"), lo=LO))

    assert steps(plan)[3:] == [
        "rename usb0 to ethusb1",
        "add address 10.0.10.1/32 to lo",
        "add address 10.0.11.1/24 to ethusb1",
        "set ethusb1 up",
        "route 10.0.11.0/24 to ethusb1 from 10.0.10.1",
    ]


def test_the_hub_is_there_before_any_gadget() -> None:
    assert steps(make_plan(want_hub(1), with_hub(lo=LO))) == ["add address 10.0.10.1/32 to lo"]


def test_a_configured_member_needs_nothing() -> None:
    routes = (DEFAULT, from_hub(1), kernels(1))

    assert make_plan(want_hub(1), with_hub(done(1), routes=routes, rules=rules(1))).converged


@pytest.mark.parametrize(
    "routes",
    [(), (kernels(1),), (kernels(1), from_hub(1)), (kernels(1), from_hub(2))],
    ids=["none", "the kernel's", "behind the kernel's", "by another link"],
)
def test_a_member_gets_the_route_that_counts(routes: tuple[ObservedRoute, ...]) -> None:
    state = with_hub(done(1), done(2), routes=(DEFAULT, *routes), rules=rules(1) | rules(2))

    assert "route 10.0.11.0/24 to ethusb1 from 10.0.10.1" in steps(make_plan(want_hub(1, 2), state))


def test_somebody_elses_route_from_the_hub_is_good_enough() -> None:
    routes = (DEFAULT, replace(from_hub(1), owned=False), kernels(1))

    assert make_plan(want_hub(1), with_hub(done(1), routes=routes, rules=rules(1))).converged


def test_somebody_elses_hub_address_is_good_enough_and_stays() -> None:
    foreign = replace(LO, addresses=(replace(OWN_HUB, owned=False),))

    assert make_plan(want_hub(), with_hub(lo=foreign)).converged
    assert make_plan(want(), with_hub(lo=foreign)).converged


def test_a_lo_that_is_down_is_set_up_for_the_hub_alone() -> None:
    down = replace(LO_WITH_HUB, up=False)

    assert steps(make_plan(want_hub(), with_hub(lo=down))) == ["set lo up"]
    assert make_plan(want(), with_hub(lo=replace(LO, up=False))).converged


def test_who_is_no_member_keeps_the_kernels_route() -> None:
    desired = DesiredState(gadgets=(spec(1),), hub=HUB)
    state = with_hub(done(1), routes=(DEFAULT, kernels(1)), rules=rules(1))

    assert make_plan(desired, state).converged


def test_a_former_member_loses_the_route_and_nothing_else() -> None:
    desired = DesiredState(gadgets=(spec(1),), hub=HUB)
    routes = (DEFAULT, from_hub(1), kernels(1))

    plan = make_plan(desired, with_hub(done(1), routes=routes, rules=rules(1)))

    assert steps(plan) == ["remove the route of 10.0.11.0/24 to ethusb1 from 10.0.10.1"]


def test_without_a_hub_routes_go_before_its_address() -> None:
    routes = (DEFAULT, from_hub(1), kernels(1))

    plan = make_plan(want(1), with_hub(done(1), routes=routes, rules=rules(1)))

    assert steps(plan) == [
        "remove the route of 10.0.11.0/24 to ethusb1 from 10.0.10.1",
        "remove address 10.0.10.1/32 from lo",
    ]


def test_a_moved_hub_is_there_before_the_old_one_goes() -> None:
    routes = (DEFAULT, from_hub(1), kernels(1))
    desired = want_hub(1, hub=IPv4Address("10.0.9.1"))

    plan = make_plan(desired, with_hub(done(1), routes=routes, rules=rules(1)))

    assert steps(plan) == [
        "add address 10.0.9.1/32 to lo",
        "route 10.0.11.0/24 to ethusb1 from 10.0.9.1",
        "remove the route of 10.0.11.0/24 to ethusb1 from 10.0.10.1",
        "remove address 10.0.10.1/32 from lo",
    ]


def test_a_route_of_ours_by_a_link_that_no_gadget_has_goes() -> None:
    plan = make_plan(want_hub(2), with_hub(done(1), routes=(DEFAULT, from_hub(1)), rules=rules(1)))

    assert steps(plan)[:2] == [
        "remove the route of 10.0.11.0/24 to ifindex 11 from 10.0.10.1",
        "remove address 10.0.11.1/24 from ifindex 11",
    ]


def test_a_route_of_ours_is_no_other_network() -> None:
    """Left on the link that gadget 1 had before; the gadget is on another one now."""
    old = replace(from_hub(1), ifindex=99)

    plan = make_plan(want_hub(1), with_hub(bare(1), routes=(DEFAULT, old)))

    assert plan.blocked == ()


@pytest.mark.parametrize(
    ("foreign", "cause"),
    [
        ((ObservedAddress(interface=IPv4Interface("10.0.10.7/24")),), "address"),
        (ETH0.addresses, "route"),
    ],
    ids=["address", "route"],
)
def test_a_hub_in_another_network_is_taken_back_and_its_members_are_told(
    foreign: tuple[ObservedAddress, ...], cause: str
) -> None:
    lan = ObservedRoute(destination=IPv4Network("10.0.10.0/24"), ifindex=2)
    state = with_hub(done(1), routes=(DEFAULT, lan, from_hub(1), kernels(1)), rules=rules(1))
    links = tuple(replace(x, addresses=foreign) if x.ifname == "eth0" else x for x in state.links)
    fault = f"hub address 10.0.10.1 is in the {cause} 10.0.10.0/24 of eth0"

    plan = make_plan(want_hub(1), replace(state, links=links))

    assert steps(plan) == [
        "remove the route of 10.0.11.0/24 to ethusb1 from 10.0.10.1",
        "remove address 10.0.10.1/32 from lo",
    ]
    assert plan.hub_fault == fault
    assert reasons(plan, Aspect.HUB) == {"ethusb1": fault}
    assert reasons(plan) == {}
