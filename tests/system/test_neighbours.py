"""Beside other programs that configure networks: each leaves gadgets' links alone."""

from __future__ import annotations

import json
from contextlib import contextmanager, nullcontext
from typing import TYPE_CHECKING

import pytest

from tests.lab.traffic import DhcpWatch
from tests.system.deadline import until
from tests.system.host import CONFIG, container_config

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.system.host import Host

pytestmark = pytest.mark.timeout(1200)  # the first one builds what is not in the cache

STRANGER = 9
"""A Zero that the config does not name: what a neighbour does with it, it would do with any."""

CATCH_ALL = "[Match]\nName=!eth0 lo\n[Network]\nDHCP=yes\nLinkLocalAddressing=ipv4\n"


def await_names(host: Host) -> None:
    """Wait until udev knows the gadgets' names: the files are there, and it was told."""
    last = host.system.root / "run/systemd/network/70-otgd-ethusb4.link"
    until(last.exists)
    until(lambda: host.system.unit("otgd-names.service", "ActiveState") == "inactive")


NM_UPLINK = (
    *("nmcli", "connection", "add", "type", "bridge", "ifname", "uplink0", "con-name", "uplink"),
    *("bridge.stp", "no"),
    *("ipv4.method", "manual", "ipv4.addresses", "192.0.2.2/24", "ipv4.gateway", "192.0.2.1"),
    *("ipv6.method", "disabled"),
)
"""An uplink of NetworkManager's own, with a default route."""


def start_network_manager(host: Host) -> None:
    # A macvlan whose lower link is in another namespace is beyond it.
    spare = "[keyfile]\nunmanaged-devices=interface-name:eth0\n"
    host.system.write("/etc/NetworkManager/conf.d/uplink.conf", spare)
    host.system.run("systemctl", "unmask", "NetworkManager.service")
    host.system.run("systemctl", "start", "NetworkManager.service")
    host.system.run(*NM_UPLINK)
    until(lambda: devices(host).get("uplink0") == "connected", what=lambda: devices(host))
    until(lambda: len(default_routes(host)) == 2, what=lambda: default_routes(host))


def devices(host: Host) -> dict[str, str]:
    """Return the state of each link as NetworkManager sees it."""
    out = host.system.run("nmcli", "--terse", "--fields", "DEVICE,STATE", "device")
    return dict(line.split(":", 1) for line in out.splitlines())


def connections(host: Host) -> list[str]:
    return host.system.run("nmcli", "--terse", "--fields", "NAME", "connection").splitlines()


def wired_connections(host: Host) -> int:
    """Count the profiles that NetworkManager made up."""
    return sum(name.startswith("Wired connection") for name in connections(host))


def default_routes(host: Host) -> list[dict[str, object]]:
    routes: list[dict[str, object]] = json.loads(
        host.system.run("ip", "-json", "route", "show", "default")
    )
    return routes


@contextmanager
def udevd_asleep(host: Host) -> Iterator[None]:
    """Keep udevd from looking at any device: events wait."""
    host.system.run("udevadm", "control", "--stop-exec-queue")
    yield
    host.system.run("udevadm", "control", "--start-exec-queue")


@pytest.mark.parametrize("late", [False, True], ids=["udev-first", "otgd-first"])
def test_network_manager_leaves_gadgets_alone(host: Host, *, late: bool) -> None:
    await_names(host)
    start_network_manager(host)
    before = default_routes(host)
    with DhcpWatch(host.guest(1)) as gadget, DhcpWatch(host.guest(STRANGER)) as stranger:
        with udevd_asleep(host) if late else nullcontext():
            host.plug_all(1, STRANGER)
            host.await_online(1)
        # That it is awake and greedy shows at the stranger's link, plugged in later.
        until(stranger.requests, what=lambda: devices(host))
        until(lambda: devices(host).get("ethusb1") == "unmanaged", what=lambda: devices(host))
        assert wired_connections(host) == 1
        assert host.addresses("ethusb1") == ["10.0.11.1/24"]
        assert default_routes(host) == before
        host.unplug(1)
        until(lambda: "ethusb1" not in devices(host))
        assert gadget.requests() == 0
    log = host.system.run("journalctl", "-u", "NetworkManager.service", "-o", "cat")
    assert "device (ethusb1): Activation" not in log
    assert default_routes(host) == before


def test_network_manager_lets_go_of_a_link_that_becomes_a_gadgets(host: Host) -> None:
    await_names(host)
    start_network_manager(host)
    host.plug(5, "usb0")
    until(lambda: devices(host).get("usb0", "").startswith("connecting"))
    host.system.write(CONFIG, container_config(count=5))
    host.system.run("systemctl", "reload", "otgd.service")
    until(lambda: devices(host).get("ethusb5") == "unmanaged", what=lambda: devices(host))
    host.await_online(5)
    assert host.addresses("ethusb5") == ["10.0.15.1/24"]


def test_networkd_leaves_gadgets_alone(host: Host) -> None:
    await_names(host)
    host.system.write("/etc/systemd/network/80-all.network", CATCH_ALL)
    host.system.run("systemctl", "start", "systemd-networkd.service")
    host.plug_all(1, STRANGER)
    host.await_online(1)
    until(lambda: any(a.startswith("169.254.") for a in host.addresses("usb0")))
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
