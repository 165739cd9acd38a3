"""Beside other programs that configure networks: each leaves gadgets' links alone."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

from tests.lab.deadline import until
from tests.system.host import CONFIG, container_config

if TYPE_CHECKING:
    from tests.system.host import Host

pytestmark = pytest.mark.timeout(1200)  # the first one builds what is not in the cache

STRANGER = 9
"""A Zero that the config does not name: what a neighbour does with it, it would do with any."""

CATCH_ALL = "[Match]\nName=!eth0 lo\n[Network]\nDHCP=yes\nLinkLocalAddressing=ipv4\n"


def await_names(host: Host) -> None:
    """Wait until udev knows the gadgets' names."""
    last = host.system.root / "run/systemd/network/70-otgd-ethusb4.link"
    until(last.exists)


def start_network_manager(host: Host) -> None:
    # A macvlan whose lower link is in another namespace is beyond it.
    spare = "[keyfile]\nunmanaged-devices=interface-name:eth0\n"
    host.system.write("/etc/NetworkManager/conf.d/uplink.conf", spare)
    host.system.run("systemctl", "unmask", "NetworkManager.service")
    host.system.run("systemctl", "start", "NetworkManager.service")


def devices(host: Host) -> dict[str, str]:
    """Return the state of each link as NetworkManager sees it."""
    out = host.system.run("nmcli", "--terse", "--fields", "DEVICE,STATE", "device")
    return dict(line.split(":", 1) for line in out.splitlines())


def connections(host: Host) -> list[str]:
    return host.system.run("nmcli", "--terse", "--fields", "NAME", "connection").splitlines()


def default_route(host: Host) -> list[dict[str, object]]:
    routes: list[dict[str, object]] = json.loads(
        host.system.run("ip", "-json", "route", "show", "default")
    )
    return routes


def test_network_manager_leaves_gadgets_alone(host: Host) -> None:
    await_names(host)
    start_network_manager(host)
    before = default_route(host)
    host.plug_all(1, STRANGER)
    host.await_online(1)
    # That it is awake and greedy shows at the stranger's link.
    until(lambda: any("Wired connection" in name for name in connections(host)))
    assert devices(host)["ethusb1"] == "unmanaged"
    assert host.addresses("ethusb1") == ["10.0.11.1/24"]
    assert sum("Wired connection" in name for name in connections(host)) == 1
    host.unplug(1)
    until(lambda: "ethusb1" not in devices(host))
    assert default_route(host) == before


def test_network_manager_lets_go_of_a_link_that_becomes_a_gadgets(host: Host) -> None:
    await_names(host)
    start_network_manager(host)
    host.plug(5, "usb0")
    until(lambda: devices(host).get("usb0", "").startswith("connecting"))
    host.system.write(CONFIG, container_config(count=5))
    host.system.run("systemctl", "reload", "otgd.service")
    until(lambda: devices(host).get("ethusb5") == "unmanaged", 20, what=lambda: devices(host))
    host.await_online(5)
    assert host.addresses("ethusb5") == ["10.0.15.1/24"]


def test_networkd_leaves_gadgets_alone(host: Host) -> None:
    await_names(host)
    host.system.write("/etc/systemd/network/80-all.network", CATCH_ALL)
    host.system.run("systemctl", "start", "systemd-networkd.service")
    host.plug_all(1, STRANGER)
    host.await_online(1)
    until(lambda: any(a.startswith("169.254.") for a in host.addresses("usb0")), 30)
    assert host.addresses("ethusb1") == ["10.0.11.1/24"]
    assert "unmanaged" in host.system.run("networkctl", "--no-legend", "list", "ethusb1")


def test_dhcpcd_leaves_gadgets_alone(host: Host) -> None:
    await_names(host)
    host.system.run("systemctl", "unmask", "dhcpcd.service")
    host.system.run("systemctl", "start", "dhcpcd.service")
    host.plug_all(1, STRANGER)
    host.await_online(1)
    log = ("journalctl", "-u", "dhcpcd.service", "-o", "cat")
    until(lambda: "usb0: soliciting" in host.system.run(*log), what=lambda: host.system.run(*log))
    assert "ethusb" not in host.system.run(*log)
    assert host.addresses("ethusb1") == ["10.0.11.1/24"]
