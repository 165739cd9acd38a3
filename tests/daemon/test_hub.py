"""With ``[swarm]`` the host speaks to its members from one address that outlives every cable."""

from __future__ import annotations

import json
import signal
import time
from typing import TYPE_CHECKING, Any

import pytest

from tests.lab.deadline import until
from tests.lab.otgctl import Otgctl
from tests.lab.topology import FAR_SIDE, guest_address, host_address
from tests.lab.traffic import PingStream, ping, tcp_transfer

if TYPE_CHECKING:
    from tests.daemon.conftest import Launcher
    from tests.lab.daemon import Daemon
    from tests.lab.topology import Lab

HUB = "10.0.10.1"
SWARM = f'[swarm]\nhub_address = "{HUB}"\n'
UP = ("configured", "reachable")
RARE = "resync_s = 3600"


def source(lab: Lab, n: int) -> str:
    """Say from which address the host would speak to gadget *n* now; empty if by no cable."""
    out = lab.host.run("ip", "-json", "route", "get", guest_address(n), check=False)
    found = json.loads(out)[0] if out else {}
    return str(found["prefsrc"]) if found.get("dev") == f"ethusb{n}" else ""


def routes(lab: Lab) -> list[dict[str, Any]]:
    """Return the host's routes that carry otgd's mark."""
    listed = json.loads(lab.host.run("ip", "-json", "route", "show", "table", "all") or "[]")
    return [route for route in listed if str(route.get("protocol")) == "111"]


def on_hub(lab: Lab, *numbers: int) -> bool:
    return all(source(lab, n) == HUB for n in numbers)


@pytest.fixture
def two(lab: Lab, launch: Launcher) -> Daemon:
    """The daemon with two gadgets in a swarm, and no look but those that events ask for."""
    daemon = launch(more=SWARM, service=RARE)
    lab.plug_all(1, 2)
    for n in (1, 2):
        daemon.wait_for(f"ethusb{n}", "reachable")
    return daemon


@pytest.mark.usefixtures("two")
def test_everybody_reaches_everybody_and_the_host_speaks_from_the_hub(lab: Lab) -> None:
    first, second = lab.guest(1), lab.guest(2)
    assert on_hub(lab, 1, 2)
    assert ping(lab.host, guest_address(1))
    assert ping(first, HUB)
    assert ping(first, host_address(1))
    assert ping(first, guest_address(2))
    assert ping(first, FAR_SIDE)
    assert tcp_transfer(lab.host, second, guest_address(2)).client == HUB
    assert tcp_transfer(first, second, guest_address(2)).client == guest_address(1)
    assert tcp_transfer(first, lab.host, HUB).client == guest_address(1)


def test_state_and_status_show_the_hub(lab: Lab, two: Daemon) -> None:
    assert two.state()["hub"] == {"address": HUB, "reason": ""}
    assert f"hub {HUB}" in Otgctl(lab.host, two.config_file.parent)("status").out


DAMAGE = {
    "hub deleted": f"ip address delete {HUB}/32 dev lo",
    "lo flushed": "ip address flush dev lo scope global",
    "lo down": "ip link set lo down",
    "route deleted": "ip route delete 10.0.11.0/24 proto 111",
    "routes flushed": "ip route flush dev ethusb1",
    "routes of ours flushed": "ip route flush proto 111",
    "another route before it": "ip route prepend 10.0.11.0/24 dev ethusb1 src 10.0.11.1",
    "address deleted": "ip address delete 10.0.11.1/24 dev ethusb1",
    "link down": "ip link set ethusb1 down",
    "link down and up": "ip link set ethusb1 down; ip link set ethusb1 up",
    "renamed": "ip link set ethusb1 down name usb7",
}


@pytest.mark.parametrize("damage", DAMAGE.values(), ids=DAMAGE)
def test_damage_is_repaired_at_once(lab: Lab, two: Daemon, damage: str) -> None:
    lab.host.run_inside("sh", "-c", damage)
    until(lambda: on_hub(lab, 1, 2), 2, what=lambda: (lab.routes(), two.stderr()))
    until(lambda: ping(lab.guest(1), HUB), 2, what=two.stderr)
    assert lab.addresses("lo").count(f"{HUB}/32") == 1
    assert lab.online(1)


def test_an_unplugged_gadget_leaves_nothing_and_the_others_connection_lives(
    lab: Lab, two: Daemon
) -> None:
    with PingStream(lab.guest(2), HUB) as stream:
        until(lambda: stream.answers > 20)
        began = time.monotonic()
        lab.unplug(1)
        until(lambda: two.gadget("ethusb1")["state"] == "absent")
        answers = stream.answers
        until(lambda: stream.answers > answers + 20)
        assert not stream.lost_since(began)
    assert "10.0.11." not in lab.routes()
    assert [route["dev"] for route in routes(lab)] == ["ethusb2"]
    lab.plug(1)
    until(lambda: on_hub(lab, 1, 2), what=two.stderr)


def test_a_connection_through_the_hub_outlives_every_cable(lab: Lab, two: Daemon) -> None:
    """The same guest by its cable out and in again: same address, same flow."""
    with PingStream(lab.guest(1), HUB) as stream:
        until(lambda: stream.answers > 5)
        lab.unplug(1, 2)
        until(lambda: two.gadget("ethusb2")["state"] == "absent")
        assert lab.addresses("lo").count(f"{HUB}/32") == 1
        lab.plug(1)
        answers = stream.answers
        until(lambda: stream.answers > answers + 5, what=two.stderr)


def join_overlay(lab: Lab, n: int) -> None:
    """Put a VXLAN like Docker's overlay between host (0) or guest *n* and the other two nodes.

    Like a node of the swarm it takes packets from nodes alone: from the hub and the guests.
    """
    nodes = {0: HUB, 1: guest_address(1), 2: guest_address(2)}
    peers = [address for node, address in nodes.items() if node != n]
    machine = lab.guest(n) if n else lab.host
    machine.run("ip", "link", "add", "ov0", "type", "vxlan", "id", "42", "dstport", "4789")
    machine.run("ip", "address", "add", f"10.20.0.{n + 1}/24", "dev", "ov0")
    machine.run("ip", "link", "set", "ov0", "up")
    for peer in peers:
        flood = ("bridge", "fdb", "append", "00:00:00:00:00:00", "dev", "ov0", "dst", peer)
        machine.run(*flood)
    rules = f"""\
table ip node {{
    chain input {{
        type filter hook input priority 0;
        udp dport 4789 ip saddr != {{ {", ".join(peers)} }} drop
    }}
}}
"""
    machine.run("nft", "-f", "-", stdin=rules)


def test_an_overlay_works_for_every_node_and_outlives_a_cable(lab: Lab, two: Daemon) -> None:
    for node in (0, 1, 2):
        join_overlay(lab, node)
    until(lambda: ping(lab.host, "10.20.0.2"))
    until(lambda: ping(lab.host, "10.20.0.3"))
    until(lambda: ping(lab.guest(1), "10.20.0.3"))
    with PingStream(lab.guest(2), "10.20.0.1") as stream:
        until(lambda: stream.answers > 20)
        began = time.monotonic()
        lab.unplug(1)
        until(lambda: two.gadget("ethusb1")["state"] == "absent")
        lab.plug(1)
        two.wait_for("ethusb1", "reachable")
        until(lambda: ping(lab.host, "10.20.0.2"), what=two.stderr)
        until(lambda: ping(lab.guest(1), "10.20.0.3"), what=two.stderr)
        answers = stream.answers
        until(lambda: stream.answers > answers + 20)
        assert not stream.lost_since(began)


def test_without_a_hub_the_overlay_is_silently_broken(lab: Lab, launch: Launcher) -> None:
    """What the hub is there for: packets leave with the cable's address, which is no node's."""
    lab.host.run("ip", "address", "add", f"{HUB}/32", "dev", "lo")
    daemon = launch(service=RARE)
    lab.plug_all(1, 2)
    for n in (1, 2):
        daemon.wait_for(f"ethusb{n}", "reachable")
    for node in (0, 1, 2):
        join_overlay(lab, node)
    until(lambda: ping(lab.guest(1), "10.20.0.3"))
    assert not ping(lab.host, "10.20.0.2")


def test_reload_brings_the_hub_and_takes_it_back_without_a_lost_packet(
    lab: Lab, launch: Launcher
) -> None:
    daemon = launch(service=RARE)
    lab.plug_all(1, 2)
    for n in (1, 2):
        daemon.wait_for(f"ethusb{n}", "reachable")
    before = lab.routes(), lab.addresses("lo")
    with PingStream(lab.guest(1), FAR_SIDE) as stream:
        until(lambda: stream.answers > 10)
        began = time.monotonic()
        daemon.reload(launch.config(more=SWARM, service=RARE))
        assert on_hub(lab, 1, 2)
        members = f'{SWARM}members = ["ethusb2"]\n'
        daemon.reload(launch.config(more=members, service=RARE))
        assert [source(lab, n) for n in (1, 2)] == ["10.0.11.1", HUB]
        other = SWARM.replace(HUB, "10.0.9.1")
        daemon.reload(launch.config(more=other, service=RARE))
        assert [source(lab, n) for n in (1, 2)] == ["10.0.9.1", "10.0.9.1"]
        assert lab.addresses("lo")[-1:] == ["10.0.9.1/32"]
        daemon.reload(launch.config(service=RARE))
        answers = stream.answers
        until(lambda: stream.answers > answers + 10)
        assert not stream.lost_since(began)
    assert (lab.routes(), lab.addresses("lo")) == before
    assert "hub" in daemon.state()
    assert daemon.state()["hub"] is None


@pytest.mark.parametrize("goes", ["membership", "swarm"])
def test_what_a_killed_daemon_left_is_taken_back_by_the_next(
    lab: Lab, launch: Launcher, two: Daemon, goes: str
) -> None:
    two.kill()
    assert on_hub(lab, 1, 2)
    more = f'{SWARM}members = ["ethusb2"]\n' if goes == "membership" else ""
    two.config_file.write_text(launch.config(more=more))
    two.start_and_wait()
    kept = [2] if goes == "membership" else []
    assert [n for n in (1, 2) if source(lab, n) == HUB] == kept
    assert source(lab, 1) == "10.0.11.1"
    assert len(routes(lab)) == len(kept)
    assert lab.addresses("lo").count(f"{HUB}/32") == len(kept)


def test_a_restart_after_sigkill_adopts_what_is_there(lab: Lab, two: Daemon) -> None:
    with PingStream(lab.guest(1), HUB) as stream:
        until(lambda: stream.answers > 10)
        began = time.monotonic()
        before = lab.routes(), lab.addresses("lo")
        two.kill()
        two.start_and_wait()
        assert (lab.routes(), lab.addresses("lo")) == before
        answers = stream.answers
        until(lambda: stream.answers > answers + 10)
        assert not stream.lost_since(began)


def test_a_cable_that_went_while_nobody_looked_has_left_nothing(lab: Lab, two: Daemon) -> None:
    two.kill()
    lab.unplug(1)
    lab.host.run("ip", "route", "flush", "proto", "111")
    two.start_and_wait()
    assert on_hub(lab, 2)
    assert [route["dev"] for route in routes(lab)] == ["ethusb2"]


def test_a_release_at_stop_takes_hub_and_routes_back(lab: Lab, launch: Launcher) -> None:
    before = lab.routes(), lab.addresses("lo")
    daemon = launch(more=SWARM, service='on_stop = "release"')
    lab.plug(1)
    daemon.wait_for("ethusb1", *UP)
    assert on_hub(lab, 1)
    assert daemon.terminate() == 0
    assert lab.addresses("lo") == before[1]
    assert lab.routes() == before[0]


def test_otgctl_release_takes_one_gadgets_route_back_then_all(lab: Lab, two: Daemon) -> None:
    two.signal(signal.SIGTERM)
    two.wait()
    assert on_hub(lab, 1, 2)
    otgctl = Otgctl(lab.host, two.config_file.parent)
    one = otgctl("release", "ethusb1")
    assert "done: remove the route of 10.0.11.0/24 to ethusb1 from 10.0.10.1" in one.out
    assert [route["dev"] for route in routes(lab)] == ["ethusb2"]
    assert on_hub(lab, 2)
    everything = otgctl("release")
    assert f"done: remove address {HUB}/32 from lo" in everything.out
    assert (routes(lab), lab.addresses("lo").count(f"{HUB}/32")) == ([], 0)


def test_somebody_elses_hub_address_is_used_and_left_alone(lab: Lab, launch: Launcher) -> None:
    lab.host.run("ip", "address", "add", f"{HUB}/32", "dev", "lo")
    daemon = launch(more=SWARM, service=RARE)
    lab.plug(1)
    daemon.wait_for("ethusb1", *UP)
    assert on_hub(lab, 1)
    daemon.reload(launch.config(service=RARE))
    assert source(lab, 1) == "10.0.11.1"
    assert lab.addresses("lo").count(f"{HUB}/32") == 1


def test_a_hub_in_the_lan_is_left_away_and_told_until_the_lan_goes(lab: Lab, two: Daemon) -> None:
    """Else the host would take packets for its own that are for the LAN's router."""
    lab.host.run("ip", "address", "add", "10.0.10.7/24", "dev", "eth0")
    until(lambda: two.state()["hub"]["reason"], what=two.stderr)
    fault = f"hub address {HUB} is in the address 10.0.10.0/24 of eth0"
    assert two.state()["hub"] == {"address": HUB, "reason": fault}
    assert two.gadget("ethusb1")["reason"] == fault
    until(lambda: fault in two.manager.values("STATUS")[-1])
    assert fault in two.stderr()
    otgctl = Otgctl(lab.host, two.config_file.parent)
    assert f"Not possible: {fault}" in otgctl("plan").lines
    assert otgctl("plan", "--json").document["hub_fault"] == fault
    assert f"no hub: {fault}" in otgctl("status").out
    assert fault in otgctl("doctor").out
    assert f"{HUB}/32" not in lab.addresses("lo")
    assert [source(lab, n) for n in (1, 2)] == ["10.0.11.1", "10.0.12.1"]
    assert lab.online(1)
    lab.host.run("ip", "address", "del", "10.0.10.7/24", "dev", "eth0")
    until(lambda: on_hub(lab, 1, 2), what=two.stderr)
    until(lambda: not two.state()["hub"]["reason"])


def test_a_gadget_that_is_no_member_is_spoken_to_from_its_cable(lab: Lab, launch: Launcher) -> None:
    daemon = launch(more=f'{SWARM}members = ["ethusb1"]\n', service=RARE)
    lab.plug_all(1, 2)
    for n in (1, 2):
        daemon.wait_for(f"ethusb{n}", "reachable")
    assert [source(lab, n) for n in (1, 2)] == [HUB, "10.0.12.1"]
    assert ping(lab.guest(2), HUB)


@pytest.mark.parametrize("rp_filter", ["0", "1", "2"])
def test_a_guest_answers_whatever_it_thinks_of_sources(
    lab: Lab, two: Daemon, rp_filter: str
) -> None:
    """The host's ARP requests may name the hub, which is in no subnet of the guest's."""
    filters = "/proc/sys/net/ipv4/conf/usb0/rp_filter"
    lab.guest(1).run_inside("sh", "-c", f"echo {rp_filter} > {filters}")
    lab.host.run("ip", "neigh", "flush", "dev", "ethusb1", check=False)  # one may be gone
    assert ping(lab.host, guest_address(1)) or ping(lab.host, guest_address(1))
    lab.host.run("ip", "neigh", "flush", "dev", "ethusb1", check=False)  # one may be gone
    two.wait_for("ethusb1", "reachable")


def test_a_guest_with_no_route_to_the_hub_is_reachable_but_not_from_it(
    lab: Lab, two: Daemon
) -> None:
    """Why a member needs its default route by the cable; otgctl swarm preflight looks for it."""
    lab.guest(1).run("ip", "route", "del", "default")
    assert not ping(lab.host, guest_address(1))
    assert ping(lab.guest(1), host_address(1))
    two.wait_for("ethusb1", "reachable")


def test_without_swarm_nothing_of_it_is_there(lab: Lab, launch: Launcher) -> None:
    daemon = launch()
    lab.plug(1)
    daemon.wait_for("ethusb1", *UP)
    assert routes(lab) == []
    assert lab.addresses("lo") == ["127.0.0.1/8"]
    assert source(lab, 1) == "10.0.11.1"
