"""LinkPort's contract, kept by the fake and by the real kernel in a fresh namespace."""

from __future__ import annotations

import sys
from ipaddress import IPv4Address, IPv4Interface, IPv4Network
from typing import TYPE_CHECKING, Protocol

import pytest

from otgd.adapters.links import OWNER, NetlinkLinks
from otgd.errors import PermanentError
from otgd.model import LOOPBACK, ObservedAddress, ObservedLink
from tests.fake_kernel import FakeKernel
from tests.lab.namespaces import run
from tests.lab.sysfs import usb_tree

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from otgd.ports import LinkPort

MAC = "00:22:82:ff:ff:01"
OTHER_MAC = "00:22:82:ff:ff:02"
ADDRESS = IPv4Interface("10.0.11.1/24")
HUB = IPv4Interface("10.0.10.1/32")


class World(Protocol):
    """One kernel: what the port sees, and what others do to it."""

    port: LinkPort

    def plug(self, ifname: str, mac: str) -> int: ...
    def unplug(self, ifindex: int) -> None: ...
    def foreign_address(self, ifindex: int, interface: str) -> None: ...
    def default_route(self, ifindex: int, metric: int) -> None: ...
    def altname(self, ifindex: int, name: str) -> None: ...
    def flush_routes(self, ifindex: int) -> None: ...


class FakeWorld:
    def __init__(self) -> None:
        self.kernel = FakeKernel()
        self.kernel.loopback()
        self.port: LinkPort = self.kernel

    def plug(self, ifname: str, mac: str) -> int:
        return self.kernel.plug(ifname, mac, driver="veth")

    def unplug(self, ifindex: int) -> None:
        self.kernel.unplug(ifindex)

    def foreign_address(self, ifindex: int, interface: str) -> None:
        self.kernel.foreign_address(ifindex, interface)

    def default_route(self, ifindex: int, metric: int) -> None:
        self.kernel.default_route(ifindex, metric)

    def altname(self, ifindex: int, name: str) -> None:
        self.kernel.change(ifindex, altnames=(name,))

    def flush_routes(self, ifindex: int) -> None:
        self.kernel.flush_routes(ifindex)


class RealWorld:
    def __init__(self) -> None:
        self.links = NetlinkLinks()
        self.port: LinkPort = self.links

    def plug(self, ifname: str, mac: str) -> int:
        peer = f"p{len(self.links.observe_links())}"
        run("ip", "link", "add", ifname, "address", mac, "type", "veth", "peer", "name", peer)
        run("ip", "link", "set", peer, "up")
        return next(x.ifindex for x in self.links.observe_links() if x.ifname == ifname)

    def unplug(self, ifindex: int) -> None:
        run("ip", "link", "del", self._name(ifindex))

    def foreign_address(self, ifindex: int, interface: str) -> None:
        run("ip", "addr", "add", interface, "dev", self._name(ifindex))

    def default_route(self, ifindex: int, metric: int) -> None:
        # metric 0 is the kernel's highest precedence; ip(8) writes none then
        command = ("ip", "route", "add", "default", "dev", self._name(ifindex))
        run(*command, "metric", str(metric))

    def altname(self, ifindex: int, name: str) -> None:
        run("ip", "link", "property", "add", "dev", self._name(ifindex), "altname", name)

    def flush_routes(self, ifindex: int) -> None:
        run("ip", "route", "flush", "dev", self._name(ifindex), "proto", str(OWNER))

    def _name(self, ifindex: int) -> str:
        return next(x.ifname for x in self.links.observe_links() if x.ifindex == ifindex)


@pytest.fixture(params=["fake", "kernel"])
def world(request: pytest.FixtureRequest) -> Iterator[World]:
    if request.param == "fake":
        yield FakeWorld()
        return
    request.getfixturevalue("netns")
    real = RealWorld()
    yield real
    real.links.close()


def see(world: World, ifindex: int) -> ObservedLink:
    return next(link for link in world.port.observe_links() if link.ifindex == ifindex)


def test_a_plugged_link_is_seen_bare_and_down(world: World) -> None:
    ifindex = world.plug("usb0", MAC)

    link = see(world, ifindex)

    assert (link.ifname, link.mac, link.driver, link.port) == ("usb0", MAC, "veth", "")
    assert (link.up, link.addresses, link.random_mac, link.altnames) == (False, (), False, ())
    assert link.initialized


def test_links_come_by_ifindex(world: World) -> None:
    for number in (3, 1, 2):
        world.plug(f"usb{number}", f"00:22:82:ff:ff:0{number}")

    indexes = [link.ifindex for link in world.port.observe_links()]

    assert indexes == sorted(indexes)


def test_named_links_are_seen_alone_and_those_that_are_gone_left_out(world: World) -> None:
    first, second = world.plug("usb0", MAC), world.plug("usb1", OTHER_MAC)
    world.port.add_address(second, ADDRESS)
    world.unplug(first)

    assert world.port.observe_links({first, second, 4242}) == (see(world, second),)
    assert world.port.observe_links(()) == ()
    assert see(world, second).addresses == (ObservedAddress(interface=ADDRESS, owned=True),)


def test_a_renamed_link_has_its_name(world: World) -> None:
    ifindex = world.plug("usb0", MAC)

    world.port.rename(ifindex, "ethusb1")
    world.port.rename(ifindex, "ethusb1")

    assert see(world, ifindex).ifname == "ethusb1"


def test_a_link_that_is_up_is_renamed_and_stays_up_with_its_address(world: World) -> None:
    ifindex = world.plug("usb0", MAC)
    world.port.add_address(ifindex, ADDRESS)
    world.port.set_up(ifindex)

    world.port.rename(ifindex, "ethusb1")

    link = see(world, ifindex)
    assert (link.ifname, link.up) == ("ethusb1", True)
    assert link.addresses == (ObservedAddress(interface=ADDRESS, owned=True),)


def test_a_taken_name_is_refused(world: World) -> None:
    ifindex = world.plug("usb0", MAC)
    world.plug("ethusb1", OTHER_MAC)

    with pytest.raises(PermanentError, match="taken"):
        world.port.rename(ifindex, "ethusb1")


@pytest.mark.parametrize("owner", ["itself", "another"])
def test_an_alternative_name_is_taken_too(world: World, owner: str) -> None:
    ifindex = world.plug("usb0", MAC)
    holder = ifindex if owner == "itself" else world.plug("usb1", OTHER_MAC)
    world.altname(holder, "ethusb1")
    assert see(world, holder).altnames == ("ethusb1",)

    with pytest.raises(PermanentError, match="taken"):
        world.port.rename(ifindex, "ethusb1")

    world.port.remove_altname(holder, "ethusb1")
    world.port.remove_altname(holder, "ethusb1")
    world.port.rename(ifindex, "ethusb1")
    assert see(world, ifindex).ifname == "ethusb1"
    assert see(world, holder).altnames == ()


def test_an_added_address_is_ours_and_a_foreign_one_is_not(world: World) -> None:
    ifindex = world.plug("usb0", MAC)
    world.foreign_address(ifindex, "192.168.7.1/24")

    world.port.add_address(ifindex, ADDRESS)
    world.port.add_address(ifindex, ADDRESS)

    assert see(world, ifindex).addresses == (
        ObservedAddress(interface=IPv4Interface("192.168.7.1/24")),
        ObservedAddress(interface=ADDRESS, owned=True),
    )


def test_a_foreign_address_stays_foreign_when_we_add_the_same(world: World) -> None:
    ifindex = world.plug("usb0", MAC)
    world.foreign_address(ifindex, str(ADDRESS))

    world.port.add_address(ifindex, ADDRESS)

    assert see(world, ifindex).addresses == (ObservedAddress(interface=ADDRESS, owned=False),)


def test_an_address_is_removed_once_and_again(world: World) -> None:
    ifindex = world.plug("usb0", MAC)
    world.port.add_address(ifindex, ADDRESS)

    world.port.remove_address(ifindex, ADDRESS)
    world.port.remove_address(ifindex, ADDRESS)

    assert see(world, ifindex).addresses == ()


@pytest.mark.parametrize("address", ["10.0.11.1/31", "10.0.11.1/8", "10.0.11.1/30"])
def test_every_prefix_length_comes_back(world: World, address: str) -> None:
    ifindex = world.plug("usb0", MAC)

    world.port.add_address(ifindex, IPv4Interface(address))

    assert see(world, ifindex).addresses[0].interface == IPv4Interface(address)


def test_a_link_goes_up_and_down(world: World) -> None:
    ifindex = world.plug("usb0", MAC)

    world.port.set_up(ifindex)
    assert see(world, ifindex).up
    assert see(world, ifindex).carrier

    world.port.set_up(ifindex, up=False)
    assert not see(world, ifindex).up


def test_what_is_done_to_a_link_that_is_gone_fails_or_is_done_already(world: World) -> None:
    ifindex = world.plug("usb0", MAC)
    world.unplug(ifindex)

    changes: tuple[Callable[[], None], ...] = (
        lambda: world.port.rename(ifindex, "ethusb1"),
        lambda: world.port.add_address(ifindex, ADDRESS),
        lambda: world.port.set_up(ifindex),
    )
    for change in changes:
        with pytest.raises(PermanentError, match="gone"):
            change()
    world.port.remove_address(ifindex, ADDRESS)
    world.port.remove_altname(ifindex, "ethusb1")


def test_routes_are_those_of_addresses_and_of_others(world: World) -> None:
    ifindex = world.plug("usb0", MAC)
    world.port.add_address(ifindex, ADDRESS)
    world.port.set_up(ifindex)
    world.default_route(ifindex, 100)

    routes = {(r.destination, r.ifindex, r.metric) for r in world.port.observe_routes()}

    assert routes == {
        (IPv4Network("10.0.11.0/24"), ifindex, 0),
        (IPv4Network("0.0.0.0/0"), ifindex, 100),
    }


# --- routes of ours ------------------------------------------------------------------------------


def routes(world: World, ifindex: int) -> list[tuple[str, bool]]:
    """The sources of the routes to the gadget's subnet, the one that counts first, and if ours."""
    return [
        (str(route.source), route.owned)
        for route in world.port.observe_routes(ifindex)
        if route.destination == ADDRESS.network and route.ifindex == ifindex
    ]


@pytest.fixture
def member(world: World) -> int:
    """A gadget's link, up and with its address, and the hub address on lo."""
    ifindex = world.plug("usb0", MAC)
    world.port.add_address(LOOPBACK, HUB)
    world.port.add_address(ifindex, ADDRESS)
    world.port.set_up(ifindex)
    return ifindex


KERNELS = (str(ADDRESS.ip), False)
OURS = (str(HUB.ip), True)


def test_a_hub_address_on_lo_is_ours_and_goes_like_any_other(world: World) -> None:
    world.port.add_address(LOOPBACK, HUB)
    assert ObservedAddress(interface=HUB, owned=True) in see(world, LOOPBACK).addresses

    world.port.remove_address(LOOPBACK, HUB)
    assert [str(a.interface) for a in see(world, LOOPBACK).addresses] == ["127.0.0.1/8"]


def test_a_route_of_ours_comes_before_the_kernels_and_leaves_it_behind(
    world: World, member: int
) -> None:
    assert routes(world, member) == [KERNELS]

    world.port.add_route(member, ADDRESS.network, HUB.ip)
    world.port.add_route(member, ADDRESS.network, HUB.ip)
    assert routes(world, member) == [OURS, KERNELS]
    assert {r.metric for r in world.port.observe_routes(member)} == {0}

    world.port.remove_route(member, ADDRESS.network, HUB.ip)
    world.port.remove_route(member, ADDRESS.network, HUB.ip)
    assert routes(world, member) == [KERNELS]


def test_the_newest_route_of_ours_counts(world: World, member: int) -> None:
    other = IPv4Interface("10.0.9.1/32")
    world.port.add_address(LOOPBACK, other)
    world.port.add_route(member, ADDRESS.network, HUB.ip)

    world.port.add_route(member, ADDRESS.network, other.ip)
    assert routes(world, member) == [(str(other.ip), True), OURS, KERNELS]
    world.port.add_route(member, ADDRESS.network, HUB.ip)
    assert routes(world, member) == [OURS, (str(other.ip), True), KERNELS]


def test_routes_of_one_link_are_seen_alone(world: World, member: int) -> None:
    second = world.plug("usb1", OTHER_MAC)
    world.port.add_address(second, IPv4Interface("10.0.12.1/24"))
    world.port.set_up(second)
    world.port.add_route(member, ADDRESS.network, HUB.ip)

    assert {route.ifindex for route in world.port.observe_routes(member)} == {member}
    assert {route.ifindex for route in world.port.observe_routes(second)} == {second}
    assert world.port.observe_routes(4242) == ()


@pytest.mark.parametrize("what", ["down", "last address", "hub", "flush", "unplug"])
def test_a_route_of_ours_goes_with_what_it_stands_on(world: World, member: int, what: str) -> None:
    world.port.add_route(member, ADDRESS.network, HUB.ip)
    match what:
        case "down":
            world.port.set_up(member, up=False)
            world.port.set_up(member)
        case "last address":
            world.port.remove_address(member, ADDRESS)
            world.port.add_address(member, ADDRESS)
        case "hub":
            world.port.remove_address(LOOPBACK, HUB)
        case "flush":
            world.flush_routes(member)
        case _:
            world.unplug(member)

    assert routes(world, member) == ([] if what == "unplug" else [KERNELS])


def test_a_route_outlives_its_subnets_address_while_the_link_has_another(
    world: World, member: int
) -> None:
    world.port.add_route(member, ADDRESS.network, HUB.ip)
    world.foreign_address(member, "192.168.7.1/24")

    world.port.remove_address(member, ADDRESS)
    assert routes(world, member) == [OURS]
    world.port.add_address(member, ADDRESS)
    assert routes(world, member) == [OURS, KERNELS]


def test_a_route_is_refused_on_a_link_that_is_down_and_from_nobodys_address(
    world: World, member: int
) -> None:
    with pytest.raises(PermanentError, match="Invalid argument"):
        world.port.add_route(member, ADDRESS.network, IPv4Address("10.0.99.1"))
    world.port.set_up(member, up=False)
    with pytest.raises(PermanentError, match="down"):
        world.port.add_route(member, ADDRESS.network, HUB.ip)
    world.unplug(member)
    with pytest.raises(PermanentError, match="gone"):
        world.port.add_route(member, ADDRESS.network, HUB.ip)
    world.port.remove_route(member, ADDRESS.network, HUB.ip)


@pytest.mark.usefixtures("netns")
def test_a_route_of_ours_behind_anothers_is_moved_before_it() -> None:
    real = RealWorld()
    ifindex = real.plug("usb0", MAC)
    for index, address in ((LOOPBACK, HUB), (ifindex, ADDRESS)):
        real.port.add_address(index, address)
    real.port.set_up(ifindex)
    real.port.add_route(ifindex, ADDRESS.network, HUB.ip)
    run("ip", "route", "prepend", "10.0.11.0/24", "dev", "usb0", "src", "10.0.11.1")
    assert routes(real, ifindex) == [KERNELS, OURS, KERNELS]

    real.port.add_route(ifindex, ADDRESS.network, HUB.ip)

    assert routes(real, ifindex) == [OURS, KERNELS, KERNELS]
    real.links.close()


@pytest.mark.usefixtures("netns")
def test_the_mark_is_the_kernels_ifa_proto() -> None:
    real = RealWorld()
    ifindex = real.plug("usb0", MAC)

    real.port.add_address(ifindex, ADDRESS)

    shown = run("ip", "-d", "addr", "show", "dev", "usb0")
    assert f"proto {OWNER}" in shown or f"proto {OWNER:#x}" in shown or "proto" not in shown
    assert see(real, ifindex).addresses[0].owned
    real.links.close()


@pytest.mark.usefixtures("netns")
def test_blackhole_multipath_and_other_tables_are_told_apart() -> None:
    real = RealWorld()
    first, second = real.plug("usb0", MAC), real.plug("usb1", OTHER_MAC)
    for ifindex in (first, second):
        real.port.set_up(ifindex)
    run("ip", "route", "add", "blackhole", "10.9.0.0/16")
    run("ip", "route", "add", "10.8.0.0/16", "dev", "usb0", "table", "77")
    hops = ("nexthop", "dev", "usb0", "nexthop", "dev", "usb1")
    run("ip", "route", "add", "10.7.0.0/16", *hops)

    routes = {(str(r.destination), r.ifindex) for r in real.port.observe_routes()}

    assert routes == {("10.7.0.0/16", first), ("10.7.0.0/16", second)}
    real.links.close()


@pytest.mark.usefixtures("netns")
def test_without_the_capability_the_error_names_it() -> None:
    real = RealWorld()
    ifindex = real.plug("usb0", MAC)
    real.links.close()
    code = (
        "from otgd.adapters.links import NetlinkLinks\n"
        "from otgd.errors import PermanentError\n"
        "try:\n"
        f"    NetlinkLinks().set_up({ifindex})\n"
        "except PermanentError as err:\n"
        "    print(err)\n"
    )
    drop = ("setpriv", "--bounding-set", "-net_admin", "--inh-caps", "-net_admin")
    assert "CAP_NET_ADMIN" in run(*drop, sys.executable, "-c", code)


@pytest.mark.usefixtures("netns")
def test_driver_port_and_serial_come_from_sysfs(tmp_path: Path) -> None:
    """A veth has no USB device, so a tree beside the real one says what sysfs says of such."""
    real = RealWorld()
    ifindexes = [real.plug(f"usb{n}", f"00:22:82:ff:ff:0{n}") for n in (1, 2, 3)]
    usb_tree(tmp_path, "usb1", port="1-1.2", serial="d4c3b2a1")
    usb_tree(tmp_path, "usb2", port="1-1.3", serial="")
    links = NetlinkLinks(sysfs=tmp_path / "class/net")

    seen = links.observe_links(ifindexes)

    assert [(x.driver, x.port, x.serial) for x in seen] == [
        ("cdc_ether", "1-1.2", "d4c3b2a1"),
        ("cdc_ether", "1-1.3", ""),
        ("veth", "", ""),
    ]
    links.close()
    real.links.close()


@pytest.mark.usefixtures("netns")
def test_where_udev_runs_a_link_waits_for_it_unless_it_wants_our_name(tmp_path: Path) -> None:
    data, files = tmp_path / "data", tmp_path / "network"
    data.mkdir()
    files.mkdir()
    real = RealWorld()
    agreed, waiting = real.plug("usb0", MAC), real.plug("usb1", OTHER_MAC)
    links = NetlinkLinks(udev=True, udev_data=data, link_files=files)

    def initialized() -> set[int]:
        return {x.ifindex for x in links.observe_links({agreed, waiting}) if x.initialized}

    assert initialized() == set()
    (files / "70-otgd-ethusb1.link").write_text(f"[Match]\nMACAddress={MAC}\n[Link]\nName=x\n")
    (files / "99-other.link").write_text(f"[Match]\nMACAddress={OTHER_MAC}\n")
    assert initialized() == {agreed}
    (data / f"n{waiting}").touch()
    assert initialized() == {agreed, waiting}
    (files / "70-otgd-ethusb1.link").unlink()
    assert initialized() == {waiting}
    links.close()
    real.links.close()
