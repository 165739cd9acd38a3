"""An unlisted gadget link: reported by default, kept down and mute with ``unknown = "block"``.

Somebody on the host (a network manager) wants the link up, and what is plugged in is hostile: it
offers an address and a way to the Internet (https://github.com/samyk/poisontap).
"""

from __future__ import annotations

import os
import socket
import threading
from contextlib import contextmanager
from typing import TYPE_CHECKING

from tests.lab.deadline import until
from tests.lab.topology import Lab, mac
from tests.lab.traffic import PingStream, ping

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.daemon.conftest import Launcher
    from tests.lab.daemon import Daemon
    from tests.lab.namespaces import Namespace

UP = ("configured", "reachable")
AT_ONCE_S = 1.0
BLOCK = 'unknown = "block"'
ROGUE = "10.0.13.2"
VICTIM = "10.0.13.1"
MANAGER = f"""\
link set usb0 up
addr add {VICTIM}/24 dev usb0
"""
HALVES = ("0.0.0.0/1", "128.0.0.0/1")
_ETH_P_ALL = 3


class Capture:
    """Every frame that a link of a namespace gets from its far end."""

    def __init__(self, namespace: Namespace, ifname: str) -> None:
        with namespace.entered():
            self._sock = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(_ETH_P_ALL))
        self._sock.bind((ifname, _ETH_P_ALL))
        self._sock.settimeout(0.05)
        self._frames: list[bytes] = []
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._listen, name="capture", daemon=True)
        self._thread.start()

    def _listen(self) -> None:
        while not self._stop.is_set():
            try:
                frame, (_, _, kind, *_) = self._sock.recvfrom(2048)
            except (TimeoutError, OSError):
                continue
            if kind != socket.PACKET_OUTGOING:
                self._frames.append(frame)

    @property
    def ipv4(self) -> list[bytes]:
        """Frames with IPv4 in them."""
        return [frame for frame in self._frames if frame[12:14] == b"\x08\x00"]

    @property
    def frames(self) -> list[bytes]:
        """All frames but IPv6 neighbour chatter, which every link makes as it comes up."""
        return [frame for frame in self._frames if frame[12:14] != b"\x86\xdd"]

    def close(self) -> None:
        """Stop listening."""
        self._stop.set()
        self._thread.join()
        self._sock.close()


@contextmanager
def capture(namespace: Namespace, ifname: str) -> Iterator[Capture]:
    listening = Capture(namespace, ifname)
    try:
        yield listening
    finally:
        listening.close()


def manage(lab: Lab) -> None:
    """Do to the link what a network manager does."""
    lab.host.run("ip", "-batch", "-", stdin=MANAGER)


def is_up(lab: Lab) -> bool:
    return "UP" in lab.links()["usb0"]["flags"]


def plug_rogue(lab: Lab, daemon: Daemon) -> None:
    lab.plug(3, "usb0")
    until(lambda: [link["ifname"] for link in daemon.state()["unknown"]] == ["usb0"])


def discover(lab: Lab) -> bool:
    """Ask for an address as DHCP clients do, past the IP stack; tell whether it could be sent."""
    with lab.host.entered():
        sock = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(_ETH_P_ALL))
    with sock:
        frame = b"\xff" * 6 + bytes.fromhex(mac(3).replace(":", "")) + b"\x08\x00" + b"\x45" * 60
        try:
            sock.bind(("usb0", _ETH_P_ALL))
            sock.send(frame)
        except OSError:
            return False
    return True


@contextmanager
def dhcp_server(lab: Lab) -> Iterator[socket.socket]:
    """Wait for DHCP requests on the host."""
    with lab.host.entered():
        sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    with sock:
        sock.bind(("", 67))
        sock.settimeout(0.3)
        yield sock


def is_asked(lab: Lab, server: socket.socket) -> bool:
    """Have the rogue ask for an address; tell whether the request arrives."""
    with lab.guest(3).entered():
        client = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    with client:
        client.setsockopt(socket.SOL_SOCKET, socket.SO_BROADCAST, 1)
        client.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, b"usb0")
        client.sendto(b"discover", ("255.255.255.255", 67))
    try:
        return server.recv(99) == b"discover"
    except TimeoutError:
        return False


def test_the_lab_lets_a_rogue_do_it(lab: Lab) -> None:
    """Show that the lab can tell: without this the next tests could not fail."""
    lab.plug(3, "usb0")
    with capture(lab.guest(3), "usb0") as seen, dhcp_server(lab) as server:
        manage(lab)
        until(lambda: ping(lab.guest(3), VICTIM))
        assert is_asked(lab, server)
        assert discover(lab)
        until(lambda: any(b"\x45" * 60 in frame for frame in seen.frames))


def test_report_is_the_default_and_touches_nothing(lab: Lab, launch: Launcher) -> None:
    daemon = launch(count=2)
    rules = lab.firewall()
    plug_rogue(lab, daemon)
    manage(lab)
    until(lambda: ping(lab.guest(3), VICTIM))
    lab.plug(1)
    daemon.wait_for("ethusb1", *UP)
    lab.unplug(1)
    daemon.wait_for("ethusb1", "absent")
    assert is_up(lab)
    assert lab.addresses("usb0") == [f"{VICTIM}/24"]
    until(lambda: lab.firewall() == rules)


def test_blocked_link_goes_down_again_and_is_mute_meanwhile(
    lab: Lab, launch: Launcher, backend: str
) -> None:
    daemon = launch(count=2, hotplug=BLOCK, service="resync_s = 3600")
    lab.plug(1)
    daemon.wait_for("ethusb1", *UP)
    until(lambda: lab.online(1))
    plug_rogue(lab, daemon)
    with capture(lab.guest(3), "usb0") as seen, dhcp_server(lab) as server:
        with daemon.paused():  # so that the link stays up for as long as we look
            manage(lab)
            until(lambda: "LOWER_UP" in lab.links()["usb0"]["flags"])
            with PingStream(lab.guest(3), VICTIM) as stream:
                for _ in range(20):
                    assert not ping(lab.host, ROGUE, timeout_s=0.02)
                    discover(lab)
                assert stream.answers == 0
            assert not ping(lab.guest(3), "198.51.100.2", timeout_s=0.2)
            assert not is_asked(lab, server)
        until(lambda: not is_up(lab), AT_ONCE_S, what=daemon.stderr)
        # Legacy tables see IPv4 of the host's own stack only; there ARP and packet sockets pass
        # for as long as the link is up.
        assert (seen.frames if backend == "nftables" else _by_stack(seen.ipv4)) == []
    assert lab.online(1)


def _by_stack(frames: list[bytes]) -> list[bytes]:
    return [frame for frame in frames if b"\x45" * 60 not in frame]


def test_rogue_gets_no_route_and_no_uplink(lab: Lab, launch: Launcher) -> None:
    daemon = launch(count=2, hotplug=BLOCK, service="resync_s = 3600")
    lab.plug(1)
    daemon.wait_for("ethusb1", *UP)
    plug_rogue(lab, daemon)
    with daemon.paused():
        manage(lab)
        for destination in ("default", *HALVES):
            way = ("via", ROGUE, "metric", "1")
            lab.host.run("ip", "route", "add", destination, *way)
    until(lambda: "usb0" not in lab.host.run("ip", "route"), AT_ONCE_S, what=daemon.stderr)
    assert daemon.state()["uplink"] == "eth0"
    until(lambda: lab.online(1))


def test_somebody_who_insists_is_met_rarely_and_told_once(lab: Lab, launch: Launcher) -> None:
    daemon = launch(count=2, hotplug=BLOCK, service="resync_s = 3600")
    plug_rogue(lab, daemon)
    script = "while :; do ip link set usb0 up; done"
    with open(os.devnull, "wb") as nowhere:  # noqa: PTH123 - a device
        insisting = lab.host.start("sh", "-c", script, env=dict(os.environ), stderr=nowhere)
    try:
        fight = "set usb0 down: somebody keeps undoing it"
        until(lambda: fight in daemon.stderr(), what=daemon.stderr)
        with PingStream(lab.guest(3), VICTIM) as stream:
            woken = daemon.wakeups()
            for _ in range(5):
                lab.plug(1)
                daemon.wait_for("ethusb1", *UP)
                until(lambda: lab.online(1))
                lab.unplug(1)
                daemon.wait_for("ethusb1", "absent")
            assert stream.answers == 0
        assert daemon.wakeups() - woken < 1000
        assert daemon.stderr().count(fight) == 1
    finally:
        insisting.kill()
        insisting.wait()
    until(lambda: not is_up(lab), 5)


def test_entry_for_it_lifts_the_block(lab: Lab, launch: Launcher) -> None:
    daemon = launch(count=2, hotplug=BLOCK)
    rules = lab.firewall()
    plug_rogue(lab, daemon)
    assert lab.firewall() != rules
    daemon.reload(launch.config(count=3, hotplug=BLOCK))
    daemon.wait_for("ethusb3", *UP)
    until(lambda: lab.online(3))
    lab.unplug(3)
    daemon.wait_for("ethusb3", "absent")
    until(lambda: lab.firewall() == rules)
