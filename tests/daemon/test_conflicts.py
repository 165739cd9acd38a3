"""Two want the same thing: nobody loses what he has, and the reason is told."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import pytest

from tests.lab.deadline import until
from tests.lab.topology import FAR_SIDE, Cable, Lab, mac
from tests.lab.traffic import PingStream

if TYPE_CHECKING:
    from tests.daemon.conftest import Launcher

UP = ("configured", "reachable")


def test_second_link_with_a_gadgets_mac_takes_nothing_from_the_first(
    lab: Lab, launch: Launcher
) -> None:
    daemon = launch()
    lab.plug(1)
    daemon.wait_for("ethusb1", *UP)
    rules, ifindex = lab.firewall(), lab.links()["ethusb1"]["ifindex"]
    with PingStream(lab.guest(1), FAR_SIDE) as stream:
        until(lambda: stream.answers)
        since_s = time.monotonic()
        lab.plug(2, "twin0", host_mac=mac(1))
        unknown = until(lambda: daemon.state()["unknown"], what=daemon.stderr)
        seen = stream.answers
        until(lambda: stream.answers > seen + 20)
        assert stream.lost_since(since_s, grace_s=0.1) == []
    assert [link["ifname"] for link in unknown] == ["twin0"]
    assert "ethusb1" in unknown[0]["reason"]
    assert lab.addresses("twin0") == []
    assert lab.firewall() == rules
    assert daemon.gadget("ethusb1")["ifindex"] == ifindex
    assert daemon.gadget("ethusb1")["state"] in UP


def test_of_two_links_with_one_mac_at_start_neither_is_chosen(lab: Lab, launch: Launcher) -> None:
    lab.plug_all(Cable(n=1, ifname="usb0"), Cable(n=2, ifname="twin0", host_mac=mac(1)))
    daemon = launch()
    entry = daemon.gadget("ethusb1")
    assert entry["state"] == "blocked"
    assert "usb0" in entry["reason"]
    assert "twin0" in entry["reason"]
    assert lab.addresses("usb0") == lab.addresses("twin0") == []
    assert lab.masquerades(1) == 0

    lab.unplug(2)
    daemon.wait_for("ethusb1", *UP)
    until(lambda: lab.online(1))


@pytest.mark.parametrize("kind", ["name", "altname"])
def test_taken_name_blocks_until_it_is_free(lab: Lab, launch: Launcher, kind: str) -> None:
    if kind == "name":
        taken = free = "ethusb1"
        lab.host.run("ip", "link", "add", "name", taken, "type", "bridge")
    else:
        free = "other0"
        lab.host.run("ip", "link", "add", "name", free, "type", "bridge")
        lab.host.run("ip", "link", "property", "add", "dev", free, "altname", "ethusb1")
    holder = lab.links()[free]
    daemon = launch()
    lab.plug_all(Cable(n=1, ifname="usb0"), 2)
    entry = daemon.wait_for("ethusb1", "blocked")
    assert "ethusb1 is taken" in entry["reason"]
    assert lab.addresses("usb0") == []
    assert lab.masquerades(1) == 0
    daemon.wait_for("ethusb2", *UP)
    until(lambda: lab.online(2))
    assert lab.links()[free] == holder

    lab.host.run("ip", "link", "delete", free)
    daemon.wait_for("ethusb1", *UP)
    until(lambda: lab.online(1))


def test_subnet_of_another_interface_blocks_until_it_is_free(lab: Lab, launch: Launcher) -> None:
    daemon = launch()
    lab.host.run("ip", "link", "add", "name", "lan0", "type", "bridge")
    lab.host.run("ip", "address", "add", "10.0.8.1/21", "dev", "lan0")
    lab.plug_all(1, 2)
    entry = daemon.wait_for("ethusb1", "blocked")
    assert "lan0" in entry["reason"]
    assert lab.masquerades(1) == 0
    lab.host.run("ip", "link", "delete", "lan0")
    for n in (1, 2):
        daemon.wait_for(f"ethusb{n}", *UP)
        until(lambda n=n: lab.online(n))  # type: ignore[misc] # n is bound on purpose


def test_lost_uplink_is_told_and_its_return_cures(lab: Lab, launch: Launcher) -> None:
    daemon = launch()
    lab.plug(1)
    daemon.wait_for("ethusb1", *UP)
    until(lambda: lab.online(1))
    lab.host.run("ip", "route", "delete", "default")
    until(lambda: daemon.state()["uplink"] is None)
    assert lab.masquerades(1) == 0
    assert daemon.gadget("ethusb1")["masquerade"] is False
    assert lab.addresses("ethusb1") == ["10.0.11.1/24"]
    lab.host.run("ip", "route", "add", "default", "via", "198.51.100.1")
    until(lambda: daemon.state()["uplink"] == "eth0")
    until(lambda: lab.online(1))


def test_default_route_through_a_gadget_is_no_uplink(lab: Lab, launch: Launcher) -> None:
    daemon = launch()
    lab.plug(1)
    daemon.wait_for("ethusb1", *UP)
    lab.host.run("ip", "route", "add", "default", "via", "10.0.11.2", "metric", "1")
    lab.host.run("ip", "route", "delete", "default", "via", "198.51.100.1")
    until(lambda: daemon.state()["uplink"] is None)
