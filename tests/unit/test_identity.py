"""By what a gadget is known, and what becomes of a second link that says it is the same one."""

from __future__ import annotations

from dataclasses import replace
from ipaddress import IPv4Address, IPv4Interface
from typing import Any

import pytest

from otgd.describe import describe
from otgd.events import Event, Kind
from otgd.identity import Directory, Sign, describe_signs
from otgd.model import DesiredState, GadgetSpec, ObservedLink, ObservedState, UnknownPolicy
from otgd.planner import make_plan
from otgd.reconciler import Reconciler
from otgd.status import Status, events_between, make_status
from tests.fake_kernel import FakeKernel
from tests.fakes import FakeFirewall

MAC, PORT, SERIAL = "00:22:82:ff:ff:01", "1-1.2", "d4c3b2a1"
ZERO = GadgetSpec(
    name="ethusb1",
    mac=MAC,
    serial=SERIAL,
    port=PORT,
    host=IPv4Interface("10.0.11.1/24"),
    guest=IPv4Address("10.0.11.2"),
)
OTHER = replace(
    ZERO,
    name="ethusb2",
    mac="00:22:82:ff:ff:02",
    serial=None,
    port="1-1.3",
    host=IPv4Interface("10.0.12.1/24"),
    guest=IPv4Address("10.0.12.2"),
)
NEW_MAC = "5e:00:00:00:00:01"


def link(**fields: object) -> ObservedLink:
    """A link that shows nothing of any gadget, but what is given."""
    base = ObservedLink(ifindex=7, ifname="usb0", mac=NEW_MAC, driver="cdc_ether")
    return replace(base, **fields)  # type: ignore[arg-type]


# --- which gadget --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("shown", "name", "sign"),
    [
        ({"mac": MAC}, "ethusb1", Sign.MAC),
        ({"mac": MAC, "port": "1-1.3"}, "ethusb1", Sign.MAC),
        ({"mac": MAC, "port": "1-1.3", "random_mac": True}, "ethusb2", Sign.PORT),
        ({"serial": SERIAL, "port": "1-1.3"}, "ethusb1", Sign.SERIAL),
        ({"serial": "unheard", "port": PORT}, "ethusb1", Sign.PORT),
    ],
    ids=["MAC", "MAC over port", "random MAC", "serial over port", "port"],
)
def test_best_sign_decides(shown: dict[str, object], name: str, sign: Sign) -> None:
    claim = Directory((ZERO, OTHER)).claim(link(**shown))
    assert claim is not None
    assert (claim[0].name, claim[1]) == (name, sign)


@pytest.mark.parametrize("shown", [{}, {"mac": MAC, "random_mac": True}], ids=["none", "random"])
def test_link_without_a_sign_is_nobodys(shown: dict[str, object]) -> None:
    assert Directory((replace(ZERO, serial=None, port=None),)).claim(link(**shown)) is None


def test_signs_are_told_best_first() -> None:
    assert describe_signs(ZERO) == f"MAC {MAC} or USB serial {SERIAL} or USB port {PORT}"


def test_why_a_link_is_nobodys_depends_on_it_alone() -> None:
    """What else the config holds must not make it news."""
    for gadgets in ((ZERO,), (OTHER,), ()):
        plan = make_plan(
            DesiredState(gadgets=gadgets),
            ObservedState(links=(link(serial="X", port="1-9", random_mac=True),)),
        )
        (unknown,) = plan.unknown
        assert unknown.reason == (
            "no entry of the config has its MAC or USB serial or USB port; "
            "cdc_ether made the MAC up"
        )


# --- two links for one gadget --------------------------------------------------------------------


class Bench:
    """A kernel in which gadgets are served, with looks at everything or at what events named."""

    def __init__(self, *gadgets: GadgetSpec, unknown: UnknownPolicy = UnknownPolicy.REPORT) -> None:
        self.kernel = FakeKernel()
        self.firewall = FakeFirewall()
        self.desired = DesiredState(gadgets=gadgets, unknown=unknown)
        self.reconciler = Reconciler(
            links=self.kernel,
            firewall=self.firewall,
            forwarding=self.kernel,
            before_look=self.kernel.take_named,
        )
        self.status: Status | None = None
        self.events: list[Event] = []
        self.serve()

    def serve(self) -> Status:
        report = self.reconciler.run_pass(self.desired, everything=False)
        assert report.remaining.converged, report
        before = self.status
        self.status = make_status(self.desired, report, backend="fake", before=before)
        self.events = list(events_between(before, self.status, report))
        return self.status

    def plug(self, ifname: str = "usb0", mac: str = NEW_MAC, **usb: Any) -> int:  # noqa: ANN401
        ifindex = self.kernel.plug(ifname, mac, **usb)
        self.serve()
        return ifindex

    def told(self, kind: Kind) -> list[str]:
        return [event.message for event in self.events if event.kind is kind]


def test_better_sign_takes_the_gadget_over() -> None:
    bench = Bench(ZERO)
    by_port = bench.plug(port=PORT)
    assert bench.kernel.links[by_port].ifname == "ethusb1"

    by_mac = bench.plug("usb1", MAC, port="1-1.4")

    links = bench.kernel.links
    assert (links[by_mac].ifname, links[by_port].ifname) == ("ethusb1", f"otgd{by_port}")
    assert [str(a.interface) for a in links[by_mac].addresses] == ["10.0.11.1/24"]
    assert links[by_port].addresses == ()
    assert bench.told(Kind.UNKNOWN_LINK) == [
        f"otgd{by_port}: left alone: its USB port belongs to ethusb1, but another link has the "
        f"MAC of ethusb1, which counts for more (MAC {NEW_MAC}, driver cdc_ether)"
    ]


def test_address_is_taken_off_one_link_before_the_other_gets_it() -> None:
    bench = Bench(ZERO)
    bench.plug(port=PORT)
    bench.kernel.plug("usb1", MAC)
    observed = ObservedState(links=bench.kernel.observe_links())
    steps = [describe(step) for step in make_plan(bench.desired, observed).steps]
    assert [step for step in steps if "address 10" in step] == [
        "remove address 10.0.11.1/24 from ifindex 2",
        "add address 10.0.11.1/24 to ethusb1",
    ]


def test_loser_in_quarantine_is_shut_off_by_the_name_that_it_gets() -> None:
    bench = Bench(ZERO, unknown=UnknownPolicy.BLOCK)
    by_port = bench.plug(port=PORT)
    bench.kernel.plug("usb1", MAC)
    observed = ObservedState(
        links=bench.kernel.observe_links(), rules=bench.firewall.observe(), forwarding=True
    )
    steps = [describe(step) for step in make_plan(bench.desired, observed).steps]
    assert [step for step in steps if "quarantine" in step] == [
        f"add quarantine of otgd{by_port}"
    ], steps


def test_worse_sign_does_not_take_the_gadget_over() -> None:
    bench = Bench(ZERO)
    by_mac = bench.plug(mac=MAC)
    by_port = bench.plug("usb1", port=PORT)
    assert bench.kernel.links[by_mac].ifname == "ethusb1"
    assert bench.kernel.links[by_port].ifname == "usb1"
    assert bench.status is not None
    assert [x.ifname for x in bench.status.unknown] == ["usb1"]


def test_loser_is_still_told_after_a_look_at_another_gadget() -> None:
    bench = Bench(ZERO, OTHER)
    bench.plug(mac=MAC)
    bench.plug("usb1", port=PORT)
    bench.plug("usb2", OTHER.mac or "")
    assert bench.status is not None
    assert [x.rival_of for x in bench.status.unknown] == ["ethusb1"]
    assert bench.told(Kind.UNKNOWN_LINK) == []


def test_loser_gets_the_gadget_when_the_winner_goes() -> None:
    bench = Bench(ZERO)
    by_mac = bench.plug(mac=MAC)
    by_port = bench.plug("usb1", port=PORT)
    bench.kernel.unplug(by_mac)
    bench.serve()
    assert bench.kernel.links[by_port].ifname == "ethusb1"


@pytest.mark.parametrize(
    ("usb", "reason"),
    [
        (
            {"serial": SERIAL},
            f"USB serial {SERIAL} is on usb0 (ifindex 2) and usb1 (ifindex 3); "
            "unplug one or give it a serial of its own",
        ),
        (
            {"port": PORT},
            f"USB port {PORT} is on usb0 (ifindex 2) and usb1 (ifindex 3); "
            "match one of them by its MAC",
        ),
    ],
    ids=["serial", "port"],
)
def test_of_two_links_with_one_sign_neither_wins(usb: dict[str, str], reason: str) -> None:
    bench = Bench(ZERO)
    bench.kernel.plug("usb0", NEW_MAC, **usb)
    bench.kernel.plug("usb1", "5e:00:00:00:00:02", **usb)
    (gadget,) = bench.serve().gadgets
    assert (gadget.state, gadget.reason) == ("blocked", reason)
    assert {link.ifname for link in bench.kernel.links.values()} == {"usb0", "usb1"}


def test_served_link_keeps_the_gadget_from_a_second_with_its_sign() -> None:
    bench = Bench(ZERO)
    first = bench.plug(port=PORT)
    bench.plug("usb1", "5e:00:00:00:00:02", port=PORT)
    assert bench.kernel.links[first].ifname == "ethusb1"
    assert [e for e in bench.events if e.kind is Kind.GADGET_BLOCKED] == []


# --- what is told --------------------------------------------------------------------------------


def test_each_boot_with_a_new_mac_is_told_once() -> None:
    bench = Bench(ZERO)
    was = MAC
    for boot in range(1, 7):
        mac = f"5e:00:00:00:00:{boot:02x}"
        ifindex = bench.plug(mac=mac, port=PORT)
        assert bench.kernel.links[ifindex].ifname == "ethusb1"
        assert bench.told(Kind.GADGET_RECOGNIZED) == [
            f"ethusb1: known by its USB port 1-1.2; its MAC is {mac}, was {was}"
        ]
        bench.serve()
        assert bench.events == []
        bench.kernel.unplug(ifindex)
        bench.serve()
        assert bench.told(Kind.GADGET_RECOGNIZED) == []
        was = mac


def test_serial_is_named_where_that_is_the_sign() -> None:
    bench = Bench(ZERO)
    bench.plug(serial=SERIAL, port="1-1.4")
    (text,) = bench.told(Kind.GADGET_RECOGNIZED)
    assert text == f"ethusb1: known by its USB serial {SERIAL}; its MAC is {NEW_MAC}, was {MAC}"


def test_new_mac_on_the_same_link_is_told() -> None:
    bench = Bench(ZERO)
    ifindex = bench.plug(mac=MAC, port=PORT)
    bench.kernel.change(ifindex, mac=NEW_MAC)
    bench.serve()
    assert bench.told(Kind.GADGET_RECOGNIZED) == [
        f"ethusb1: known by its USB port 1-1.2; its MAC is {NEW_MAC}, was {MAC}"
    ]


def test_gadget_without_a_mac_in_the_config_is_told_from_its_second_mac_on() -> None:
    bench = Bench(replace(ZERO, mac=None))
    first = bench.plug(port=PORT)
    assert bench.told(Kind.GADGET_RECOGNIZED) == []
    bench.kernel.unplug(first)
    bench.plug(mac="5e:00:00:00:00:02", port=PORT)
    assert len(bench.told(Kind.GADGET_RECOGNIZED)) == 1


def test_gadget_shows_the_mac_of_its_link_and_the_sign() -> None:
    bench = Bench(ZERO)
    bench.plug(port=PORT, serial="other")
    assert bench.status is not None
    (gadget,) = bench.status.gadgets
    assert (gadget.mac, gadget.known_by, gadget.serial) == (NEW_MAC, "port", "other")
    assert (gadget.state, gadget.reason) == (
        "configured",
        "no way out: no interface but gadgets holds a default route",
    )
