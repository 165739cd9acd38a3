"""A real dockerd on the host: started before otgd, after it, and again while it runs."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import pytest

from tests.lab.deadline import until
from tests.lab.debian import FLAVOURS, DebianHost
from tests.lab.topology import FAR_SIDE, Lab, guest_address
from tests.lab.traffic import PingStream, ping, tcp_transfer

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.daemon.conftest import Launcher

pytestmark = pytest.mark.parametrize("flavour", FLAVOURS)
SERVICE = "resync_s = 0.3"  # legacy tables tell nothing: Docker's new chains are seen at a resync
ISOLATED = "[gadget.ethusb3]\nisolate = true"


@pytest.fixture
def debian(lab: Lab, tmp_path: Path, flavour: str) -> Iterator[DebianHost]:
    """Return a Debian without forwarding, so that dockerd switches it on and sets DROP."""
    lab.host.run_inside("sh", "-c", "echo 0 > /proc/sys/net/ipv4/ip_forward")
    host = DebianHost(lab.host, tmp_path, flavour=flavour)
    yield host
    host.close()


def rules(lab: Lab, chain: str = "") -> list[str]:
    """Return what ``iptables -S`` shows Docker; it fails where it cannot read the table."""
    return lab.host.run_inside("iptables", "-S", *chain.split()).splitlines()


def ours(lab: Lab) -> list[str]:
    """Return the chains that hold the rule that lets gadgets through."""
    return [rule.split()[1] for rule in rules(lab) if "--comment otgd" in rule]


def assert_swarm_works(lab: Lab) -> None:
    """Hold that guests reach the Internet and each other, but for the isolated third."""
    for n in (1, 2, 3):
        until(lambda n=n: lab.online(n), what=lambda: rules(lab))  # type: ignore[misc] # bound
    until(lambda: ping(lab.guest(1), guest_address(2)), what=lambda: rules(lab))
    assert tcp_transfer(lab.guest(1), lab.internet, FAR_SIDE, size_bytes=100_000).intact
    assert tcp_transfer(lab.guest(2), lab.guest(1), guest_address(1), size_bytes=100_000).intact
    assert not ping(lab.guest(3), guest_address(1), timeout_s=0.2)
    assert not ping(lab.guest(1), guest_address(3), timeout_s=0.2)


def test_docker_drops_what_nobody_lets_through(lab: Lab, debian: DebianHost, backend: str) -> None:
    """Show that the lab can tell: without this the next tests could not fail."""
    debian.start_docker()
    assert "-P FORWARD DROP" in rules(lab)
    lab.plug(1)
    lab.host.run("ip", "address", "add", "10.0.11.1/24", "dev", "usb0")
    lab.host.run("ip", "link", "set", "usb0", "up")
    rule = ("POSTROUTING", "-s", "10.0.11.0/24", "-j", "MASQUERADE")
    lab.host.run_inside("iptables", "-t", "nat", "-A", *rule)
    if backend == "nftables":
        accept = "add table inet t; add chain inet t f { type filter hook forward priority 0; }; "
        lab.host.run_inside("nft", accept + "add rule inet t f accept")
    else:
        other = "legacy" if "nf_tables" in lab.host.run_inside("iptables", "-V") else "nft"
        lab.host.run_inside(f"iptables-{other}", "-I", "FORWARD", "-j", "ACCEPT")
    until(lambda: ping(lab.guest(1), "10.0.11.1"))
    assert not ping(lab.guest(1), FAR_SIDE, timeout_s=0.3)


def test_docker_started_before(lab: Lab, launch: Launcher, debian: DebianHost) -> None:
    debian.start_docker()
    assert "-P FORWARD DROP" in rules(lab)
    launch(service=SERVICE, more=ISOLATED)
    lab.plug_all(1, 2, 3)
    assert_swarm_works(lab)
    assert ours(lab) == ["DOCKER-USER"]


def test_docker_started_after(lab: Lab, launch: Launcher, debian: DebianHost) -> None:
    daemon = launch(service=SERVICE, more=ISOLATED)
    debian.start_docker()  # forwarding is off until the first gadget comes
    assert "-P FORWARD DROP" in rules(lab)
    lab.plug_all(1, 2, 3)
    assert_swarm_works(lab)
    assert len(ours(lab)) == 1
    assert "FORWARD" not in daemon.gadget("ethusb1")["reason"]


def test_docker_restarted_and_gone(lab: Lab, launch: Launcher, debian: DebianHost) -> None:
    docker = debian.start_docker()
    launch(service=SERVICE, more=ISOLATED)
    lab.plug_all(1, 2, 3)
    assert_swarm_works(lab)
    with PingStream(lab.guest(1), FAR_SIDE) as stream:
        until(lambda: stream.answers)
        since_s = time.monotonic()
        debian.stop(docker)
        docker = debian.start_docker()
        assert stream.lost_since(since_s) == []
    assert_swarm_works(lab)
    assert ours(lab) == ["DOCKER-USER"]

    # What an administrator may do meanwhile; Docker mends its own part at the next start.
    debian.stop(docker)
    lab.host.run_inside("iptables", "-F")
    debian.start_docker()
    assert_swarm_works(lab)
    assert len(ours(lab)) == 1
