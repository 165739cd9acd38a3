"""A host that roams: the uplink moves, other networks come and go, gadgets claim to be the way."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.lab.deadline import until
from tests.lab.topology import HOST_UPLINK, INTERNET_UPLINK, Lab, guest_address
from tests.lab.traffic import ping

if TYPE_CHECKING:
    from tests.daemon.conftest import Launcher
    from tests.lab.daemon import Daemon

UP = ("configured", "reachable")
AT_ONCE_S = 1.0
HOST_WIRELESS = "198.18.0.2"
INTERNET_WIRELESS = "198.18.0.1"
ETH0 = f"default via {INTERNET_UPLINK} dev eth0 metric 100"
WLAN0 = f"default via {INTERNET_WIRELESS} dev wlan0 metric 600"


@pytest.fixture
def roaming(lab: Lab) -> Lab:
    """Give the host a second interface that leads to the Internet, without a default route."""
    lab.internet.run(
        *("ip", "-batch", "-"),
        stdin=f"""\
link add name wan2 type veth peer name lan2
addr add {INTERNET_WIRELESS}/24 dev wan2
link set wan2 up
link set lan2 up
link add name wlan0 link lan2 netns {lab.host.path} type macvlan mode private
""",
    )
    lab.host.run("ip", "address", "add", f"{HOST_WIRELESS}/24", "dev", "wlan0")
    lab.host.run("ip", "link", "set", "wlan0", "up")
    route(lab, "del default")
    route(lab, f"add {ETH0}")
    return lab


def route(lab: Lab, change: str) -> None:
    lab.host.run("ip", "route", *change.split())


def assert_uplink(lab: Lab, daemon: Daemon, name: str | None, *, not_: str) -> None:
    """Hold that *name* is the uplink within a second, and that no rule is left on another."""
    until(lambda: daemon.state()["uplink"] == name, AT_ONCE_S, what=daemon.stderr)
    rules = lab.firewall()
    assert f'"{not_}"' not in rules
    assert f"-o {not_} " not in rules
    assert lab.masquerades(1) == (1 if name else 0)
    if name:
        until(lambda: lab.online(1), what=daemon.stderr)


def test_auto_follows_the_default_route(roaming: Lab, launch: Launcher) -> None:
    lab = roaming
    daemon = launch(service="resync_s = 3600")
    lab.plug(1)
    daemon.wait_for("ethusb1", *UP)
    assert_uplink(lab, daemon, "eth0", not_="wlan0")

    route(lab, f"add {WLAN0}")
    route(lab, f"del {ETH0}")
    assert_uplink(lab, daemon, "wlan0", not_="eth0")

    route(lab, f"del {WLAN0}")
    assert_uplink(lab, daemon, None, not_="wlan0")
    entry = daemon.gadget("ethusb1")
    assert entry["state"] in UP
    assert entry["reason"] == "no way out: no interface but gadgets holds a default route"
    assert ping(lab.guest(1), "10.0.11.1")
    lab.plug(2)
    daemon.wait_for("ethusb2", *UP)
    until(lambda: ping(lab.guest(1), guest_address(2)))

    route(lab, f"add {ETH0}")
    assert_uplink(lab, daemon, "eth0", not_="wlan0")
    assert daemon.gadget("ethusb1")["reason"] == ""
    assert "repaired" not in daemon.stderr()


def test_auto_takes_the_route_with_the_lowest_metric(roaming: Lab, launch: Launcher) -> None:
    lab = roaming
    daemon = launch(service="resync_s = 3600")
    lab.plug(1)
    daemon.wait_for("ethusb1", *UP)
    route(lab, f"add {WLAN0}")
    route(lab, f"add {WLAN0.replace('600', '50')}")
    assert_uplink(lab, daemon, "wlan0", not_="eth0")
    route(lab, f"del {WLAN0.replace('600', '50')}")
    assert_uplink(lab, daemon, "eth0", not_="wlan0")


def test_list_takes_the_first_with_carrier_and_route(roaming: Lab, launch: Launcher) -> None:
    lab = roaming
    # What a network manager sees to: the kernel, too, leaves the way that lost its carrier.
    ignore = "/proc/sys/net/ipv4/conf/wlan0/ignore_routes_with_linkdown"
    lab.host.run_inside("sh", "-c", f"echo 1 > {ignore}")
    daemon = launch()
    lab.plug(1)
    daemon.wait_for("ethusb1", *UP)
    assert_uplink(lab, daemon, "eth0", not_="wlan0")
    config = launch.config(service="resync_s = 3600")
    daemon.reload(config.replace('"auto"', '["usb9", "wlan0", "eth0"]', 1))
    assert_uplink(lab, daemon, "eth0", not_="wlan0")
    first = WLAN0.replace("600", "50")
    route(lab, f"add {first}")
    assert_uplink(lab, daemon, "wlan0", not_="eth0")

    lab.internet.run("ip", "link", "set", "wan2", "down")  # the cable is pulled, the route stays
    assert_uplink(lab, daemon, "eth0", not_="wlan0")
    lab.internet.run("ip", "link", "set", "wan2", "up")
    assert_uplink(lab, daemon, "wlan0", not_="eth0")
    route(lab, f"del {first}")
    assert_uplink(lab, daemon, "eth0", not_="wlan0")
    route(lab, f"del {ETH0}")
    assert_uplink(lab, daemon, None, not_="eth0")
    fault = "no way out: none of usb9, wlan0, eth0 has carrier and a default route"
    assert daemon.gadget("ethusb1")["reason"] == fault


def test_gadget_that_offers_a_default_route_never_becomes_the_uplink(
    lab: Lab, launch: Launcher
) -> None:
    daemon = launch(service="resync_s = 3600")
    lab.plug_all(1, 2)
    for n in (1, 2):
        daemon.wait_for(f"ethusb{n}", *UP)
        until(lambda n=n: lab.online(n))  # type: ignore[misc] # n is bound on purpose
    rules = lab.firewall()
    route(lab, "add default via 10.0.11.2 metric 1")
    lab.plug(3)  # one whole pass later
    daemon.wait_for("ethusb3", *UP)
    assert daemon.state()["uplink"] == "eth0"
    lab.unplug(3)
    daemon.wait_for("ethusb3", "absent")
    assert lab.firewall() == rules

    route(lab, f"del default via {INTERNET_UPLINK}")
    until(lambda: daemon.state()["uplink"] is None, AT_ONCE_S)
    assert [lab.masquerades(n) for n in (1, 2)] == [0, 0]


@pytest.mark.parametrize(
    ("overlap", "cure", "what"),
    [
        ("address add 10.0.8.1/21 dev lan0", "address del 10.0.8.1/21 dev lan0", "address"),
        ("address add 10.0.11.99/32 dev lan0", "address del 10.0.11.99/32 dev lan0", "address"),
        ("route add 10.0.11.128/25 dev lan0", "route del 10.0.11.128/25 dev lan0", "route"),
        ("route add 10.0.0.0/16 dev lan0", "link del lan0", "route"),
    ],
    ids=["wider address", "address inside", "route inside", "wider route"],
)
def test_network_that_comes_to_overlap_blocks_until_it_goes(
    lab: Lab, launch: Launcher, overlap: str, cure: str, what: str
) -> None:
    lab.host.run("ip", "link", "add", "name", "lan0", "type", "bridge")
    lab.host.run("ip", "link", "set", "lan0", "up")
    daemon = launch(service="resync_s = 3600")
    lab.plug(1)
    daemon.wait_for("ethusb1", *UP)
    until(lambda: lab.online(1))

    lab.host.run("ip", *overlap.split())
    entry = daemon.wait_for("ethusb1", "blocked", deadline_s=AT_ONCE_S)
    assert entry["reason"].startswith(f"subnet 10.0.11.0/24 overlaps the {what} ")
    assert entry["reason"].endswith(" of lan0")
    assert lab.addresses("ethusb1") == []
    assert lab.masquerades(1) == 0

    lab.host.run("ip", *cure.split())
    daemon.wait_for("ethusb1", *UP, deadline_s=AT_ONCE_S)
    until(lambda: lab.online(1))
    assert HOST_UPLINK in lab.host.run("ip", "address", "show", "eth0")
