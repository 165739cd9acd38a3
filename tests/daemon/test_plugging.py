"""Plug a gadget in and its network is there; pull it out and nothing is left."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import pytest

from tests.lab.deadline import until
from tests.lab.topology import (
    FAR_SIDE,
    HOST_UPLINK,
    Cable,
    Lab,
    guest_address,
    host_address,
    mac,
)
from tests.lab.traffic import PingStream, ping, tcp_transfer

if TYPE_CHECKING:
    from tests.daemon.conftest import Launcher
    from tests.lab.daemon import Daemon

ALL = (1, 2, 3, 4)
KERNEL_NAMES: dict[str, tuple[str, ...]] = {
    "usb": ("usb0", "usb1", "usb2", "usb3"),
    "eth": ("eth1", "eth2", "eth3", "eth4"),
    "enx": tuple(f"enx{mac(n).replace(':', '')}" for n in ALL),
    "final": ("ethusb1", "ethusb2", "ethusb3", "ethusb4"),
}
CROSSWISE: dict[str, tuple[str, ...]] = {"crosswise": ("ethusb2", "ethusb1", "ethusb4", "ethusb3")}

FOREIGN_RULES = """\
*raw
-A PREROUTING -s 192.0.2.1 -m comment --comment foreign -j ACCEPT
COMMIT
*mangle
-A FORWARD -s 192.0.2.1 -m comment --comment foreign -j ACCEPT
COMMIT
*nat
:FOREIGN - [0:0]
-A POSTROUTING -s 192.0.2.0/24 -m comment --comment foreign -j MASQUERADE
-A FOREIGN -s 10.0.11.0/24 -m comment --comment foreign -j RETURN
COMMIT
*filter
-A INPUT -i usb+ -m comment --comment foreign -j ACCEPT
-A FORWARD -i ethusb1 -d 192.0.2.0/24 -m comment --comment foreign -j REJECT
COMMIT
"""
FOREIGN_TABLE = """\
table ip foreign {
    chain postrouting {
        type nat hook postrouting priority srcnat
        ip saddr 192.0.2.0/24 masquerade comment "foreign"
    }
}
"""


def add_foreign_objects(lab: Lab) -> None:
    """Have an administrator's rules and addresses on the host."""
    lab.host.run_inside("iptables-legacy-restore", stdin=FOREIGN_RULES)
    lab.host.run_inside("nft", "-f", "-", stdin=FOREIGN_TABLE)
    lab.host.run("ip", "address", "add", "192.0.2.7/32", "dev", "lo")
    lab.host.run("ip", "address", "add", "192.0.2.8/24", "dev", "eth0")


def foreign_rules(lab: Lab) -> list[str]:
    return [line for line in lab.firewall().splitlines() if "foreign" in line.lower()]


def assert_connected(lab: Lab, daemon: Daemon, *numbers: int) -> None:
    """Hold everything that a plugged gadget is promised."""
    for n in numbers:
        name = f"ethusb{n}"
        entry = daemon.wait_for(name, "configured", "reachable")
        assert entry["mac"] == mac(n)
        assert entry["ifindex"] == lab.links()[name]["ifindex"]
        assert entry["addresses"] == lab.addresses(name) == [f"{host_address(n)}/24"]
        assert entry["masquerade"] is True
        assert lab.links()[name]["address"] == mac(n)
        assert lab.masquerades(n) == 1
    for n in numbers:
        until(lambda n=n: lab.online(n), 5)  # type: ignore[misc] # n is bound on purpose
        neighbour = numbers[(numbers.index(n) + 1) % len(numbers)]
        assert ping(lab.guest(n), guest_address(neighbour))


def test_gadgets_plugged_after_start_are_connected(lab: Lab, launch: Launcher) -> None:
    daemon = launch()
    lab.plug_all(*ALL)
    assert_connected(lab, daemon, *ALL)


@pytest.mark.parametrize(
    "names", (KERNEL_NAMES | CROSSWISE).values(), ids=list(KERNEL_NAMES | CROSSWISE)
)
def test_gadgets_plugged_before_start_are_connected_when_ready(
    lab: Lab, launch: Launcher, names: tuple[str, ...]
) -> None:
    lab.plug_all(*(Cable(n=n, ifname=name) for n, name in zip(ALL, names, strict=True)))
    daemon = launch()
    states = {gadget["name"]: gadget["state"] for gadget in daemon.state()["gadgets"]}
    assert set(states.values()) <= {"configured", "reachable"}, states
    assert_connected(lab, daemon, *ALL)


@pytest.mark.parametrize("names", KERNEL_NAMES.values(), ids=KERNEL_NAMES)
def test_gadgets_are_connected_whatever_the_kernel_calls_them(
    lab: Lab, launch: Launcher, names: tuple[str, ...]
) -> None:
    daemon = launch()
    lab.plug_all(*(Cable(n=n, ifname=name) for n, name in zip(ALL, names, strict=True)))
    assert_connected(lab, daemon, *ALL)


def test_tcp_goes_through_the_masquerade_unharmed(lab: Lab, launch: Launcher) -> None:
    daemon = launch()
    lab.plug_all(1, 2)
    assert_connected(lab, daemon, 1, 2)
    out = tcp_transfer(lab.guest(1), lab.internet, FAR_SIDE)
    assert out.intact
    assert out.client == HOST_UPLINK


def test_gadgets_see_each_other_unmasqueraded(lab: Lab, launch: Launcher) -> None:
    daemon = launch()
    lab.plug_all(1, 2)
    assert_connected(lab, daemon, 1, 2)
    across = tcp_transfer(lab.guest(1), lab.guest(2), guest_address(2))
    assert across.intact
    assert across.client == guest_address(1)


def test_unplug_leaves_nothing_and_foreign_objects_are_as_before(
    lab: Lab, launch: Launcher
) -> None:
    add_foreign_objects(lab)
    rules, routes, links = lab.firewall(), lab.routes(), lab.links()
    foreign = foreign_rules(lab)
    assert len(foreign) == 9

    daemon = launch()
    lab.plug_all(*ALL)
    assert_connected(lab, daemon, *ALL)
    assert foreign_rules(lab) == foreign
    lab.unplug(2)
    daemon.wait_for("ethusb2", "absent")
    assert lab.masquerades(2) == 0
    assert [lab.masquerades(n) for n in (1, 3, 4)] == [1, 1, 1]
    assert "10.0.12." not in lab.firewall()
    assert_connected(lab, daemon, 1, 3, 4)

    lab.unplug(1, 3, 4)
    for n in (1, 3, 4):
        daemon.wait_for(f"ethusb{n}", "absent")
    assert lab.routes() == routes
    assert lab.links() == links
    gone = [(g["ifindex"], g["addresses"], g["masquerade"]) for g in daemon.state()["gadgets"]]
    assert gone == [(None, [], False)] * 4
    assert [lab.masquerades(n) for n in ALL] == [0] * 4
    until(lambda: lab.firewall() == rules)


def test_foreign_address_on_a_gadget_link_stays(lab: Lab, launch: Launcher) -> None:
    daemon = launch()
    lab.plug(1)
    daemon.wait_for("ethusb1", "configured", "reachable")
    lab.host.run("ip", "address", "add", "192.0.2.9/32", "dev", "ethusb1")
    daemon.reload()
    assert lab.addresses("ethusb1") == ["10.0.11.1/24", "192.0.2.9/32"]


def test_gadget_that_is_plugged_again_is_connected_again(lab: Lab, launch: Launcher) -> None:
    daemon = launch()
    for name in ("usb0", "eth7", "usb0"):
        lab.plug(1, name)
        assert_connected(lab, daemon, 1)
        lab.unplug(1)
        daemon.wait_for("ethusb1", "absent")


def test_a_flow_older_than_its_masquerade_is_broken_for_good(lab: Lab) -> None:
    """Show that the lab can tell: without this the next test could not fail."""
    add_foreign_objects(lab)
    lab.plug(1, "usb0")
    lab.host.run("ip", "address", "add", "10.0.11.1/24", "dev", "usb0")
    lab.host.run("ip", "link", "set", "usb0", "up")
    lab.host.run_inside("sh", "-c", "echo 1 > /proc/sys/net/ipv4/ip_forward")
    with PingStream(lab.guest(1), FAR_SIDE) as stream:
        until(lambda: ping(lab.guest(1), host_address(1)))
        seen_s = time.monotonic()
        until(lambda: len(stream.lost_since(seen_s, grace_s=0.0)) >= 3)  # they were forwarded
        rule = ("-t", "nat", "-A", "POSTROUTING", "-s", "10.0.11.0/24", "-j", "MASQUERADE")
        lab.host.run_inside("iptables-legacy", *rule)
        until(lambda: ping(lab.guest(1), FAR_SIDE))
        since_s = time.monotonic()
        until(lambda: len(stream.lost_since(since_s, grace_s=0.2)) >= 20)
        assert stream.answers == 0


def test_a_guest_that_never_stops_pinging_is_masqueraded_from_its_first_packet(
    lab: Lab, launch: Launcher
) -> None:
    add_foreign_objects(lab)
    daemon = launch()
    lab.plug(2)
    assert_connected(lab, daemon, 2)  # forwarding is on by now
    for _ in range(10):
        with PingStream(lab.guest(1), FAR_SIDE, interval_s=0.001) as stream:
            lab.plug(1)
            until(lambda stream=stream: stream.answers >= 20)  # type: ignore[misc] # bound
        lab.unplug(1)
        daemon.wait_for("ethusb1", "absent")


def test_gadget_without_masquerade_reaches_the_host_only(lab: Lab, launch: Launcher) -> None:
    daemon = launch(more="[gadget.ethusb2]\nmasquerade = false")
    lab.plug_all(1, 2)
    assert_connected(lab, daemon, 1)
    daemon.wait_for("ethusb2", "configured", "reachable")
    until(lambda: ping(lab.guest(2), host_address(2)))
    assert ping(lab.guest(2), guest_address(1))
    assert not ping(lab.guest(2), FAR_SIDE)
    assert lab.masquerades(2) == 0
    assert daemon.gadget("ethusb2")["masquerade"] is False


def test_isolated_gadget_reaches_the_uplink_but_no_other_gadget(lab: Lab, launch: Launcher) -> None:
    daemon = launch(more="[gadget.ethusb2]\nisolate = true")
    lab.plug_all(1, 2, 3)
    assert_connected(lab, daemon, 1, 3)
    until(lambda: lab.online(2))
    assert not ping(lab.guest(2), guest_address(1))
    assert not ping(lab.guest(1), guest_address(2))


def test_gadget_that_the_config_does_not_name_gets_nothing(lab: Lab, launch: Launcher) -> None:
    daemon = launch(count=2)
    rules = lab.firewall()
    lab.plug(3, "usb0")
    unknown = until(lambda: daemon.state()["unknown"], what=daemon.stderr)
    assert [(link["ifname"], link["mac"]) for link in unknown] == [("usb0", mac(3))]
    assert lab.addresses("usb0") == []
    assert "UP" not in lab.links()["usb0"]["flags"]
    assert lab.firewall() == rules
    assert not ping(lab.guest(3), host_address(3))
    lab.unplug(3)
    until(lambda: daemon.state()["unknown"] == [])
