"""The administrator's own firewall on the host: ufw, whose FORWARD is closed, and firewalld.

ufw writes through iptables, so one rule lets gadgets through. firewalld rejects in a native table
of its own, which nobody else can overrule and otgd does not touch: the administrator tells it that
gadgets may be forwarded, once, by their names.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.lab.deadline import until
from tests.lab.debian import FLAVOURS, DebianHost
from tests.lab.topology import FAR_SIDE, Lab, guest_address, host_address
from tests.lab.traffic import ping, tcp_transfer

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.daemon.conftest import Launcher

UP = ("configured", "reachable")
SERVICE = "resync_s = 0.3"


@pytest.fixture(params=FLAVOURS)
def debian(lab: Lab, tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[DebianHost]:
    host = DebianHost(lab.host, tmp_path, flavour=str(request.param))
    yield host
    host.close()


def assert_forwarded(lab: Lab) -> None:
    """Hold that guests reach the Internet and each other."""
    for n in (1, 2):
        until(lambda n=n: ping(lab.guest(n), FAR_SIDE))  # type: ignore[misc] # n is bound on purpose
    until(lambda: ping(lab.guest(1), guest_address(2)))
    assert tcp_transfer(lab.guest(1), lab.internet, FAR_SIDE, size_bytes=100_000).intact


def test_ufw(lab: Lab, launch: Launcher, debian: DebianHost) -> None:
    debian.run("ufw", "--force", "enable")
    assert "-P FORWARD DROP" in lab.host.run_inside("iptables", "-S")
    daemon = launch(service=SERVICE)
    lab.plug_all(1, 2)
    for n in (1, 2):
        daemon.wait_for(f"ethusb{n}", *UP)
    assert_forwarded(lab)
    debian.run("ufw", "reload")
    assert_forwarded(lab)
    debian.run("ufw", "disable")
    assert_forwarded(lab)
    debian.run("ufw", "--force", "enable")  # while it runs
    assert_forwarded(lab)
    assert "Status: active" in debian.run("ufw", "status")
    assert lab.host.run_inside("iptables", "-S").count("--comment otgd") == 1


@pytest.mark.parametrize("debian", ["nft"], indirect=True)
def test_firewalld(lab: Lab, launch: Launcher, debian: DebianHost) -> None:
    debian.run("mkdir", "-p", "/run/dbus")
    debian.start("dbus-daemon", "--system", "--nofork", "--nopidfile")
    until(lambda: debian.run("sh", "-c", "ls /run/dbus"))
    firewalld = debian.start("firewalld", "--nofork", "--nopid")
    until(lambda: debian.run("sh", "-c", "firewall-cmd --state || true") == "running\n", 30)
    theirs = table(lab)
    daemon = launch(service=SERVICE)
    lab.plug_all(1, 2)
    for n in (1, 2):
        daemon.wait_for(f"ethusb{n}", *UP)
        until(lambda n=n: ping(lab.guest(n), host_address(n)))  # type: ignore[misc] # n is bound
    assert not ping(lab.guest(1), FAR_SIDE, timeout_s=0.2)
    assert table(lab) == theirs

    interfaces = [f"--add-interface=ethusb{n}" for n in (1, 2)]
    for interface in interfaces:
        debian.run("firewall-cmd", "--zone=trusted", interface)
    assert_forwarded(lab)
    lab.unplug(1)
    daemon.wait_for("ethusb1", "absent")
    lab.plug(1)  # a zone goes by the name, so it is in force before the link is
    daemon.wait_for("ethusb1", *UP)
    assert_forwarded(lab)

    debian.run("firewall-cmd", "--runtime-to-permanent")
    debian.run("firewall-cmd", "--complete-reload")
    assert_forwarded(lab)
    debian.stop(firewalld)
    assert_forwarded(lab)


def table(lab: Lab) -> str:
    """Return firewalld's table, with the handles that tell whether a rule was made anew."""
    return lab.host.run_inside("nft", "--stateless", "--handle", "list", "table inet firewalld")
