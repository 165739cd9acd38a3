"""Probes against real links: who answers, who does not, and how long it takes."""

from __future__ import annotations

import socket
import threading
import time
from ipaddress import IPv4Address
from typing import TYPE_CHECKING

import pytest

from otgd.diagnosis.facts import Probe
from otgd.diagnosis.probes import Target, probe
from tests.lab.deadline import until
from tests.lab.namespaces import Namespace, run

if TYPE_CHECKING:
    from collections.abc import Iterator

GUEST = IPv4Address("10.0.11.2")
MAC = "00:22:82:ff:ff:01"
GUEST_MAC = "00:22:82:ff:ff:11"
LIMIT_S = 0.3


@pytest.fixture
def guest(netns: None) -> Iterator[Namespace]:
    """Return a guest at the end of ethusb1; the host has its address there."""
    del netns
    machine = Namespace()
    try:
        cable = f"link add ethusb1 address {MAC} type veth peer usb0 address {GUEST_MAC}"
        run("ip", *cable.split(), "netns", machine.path)
        run("ip", "address", "add", "10.0.11.1/24", "dev", "ethusb1")
        run("ip", "link", "set", "ethusb1", "up")
        machine.run("ip", "address", "add", f"{GUEST}/24", "dev", "usb0")
        machine.run("ip", "link", "set", "usb0", "up")
        until(lambda: "LOWER_UP" in run("ip", "link", "show", "ethusb1"))
        yield machine
    finally:
        machine.close()


def target(ifname: str = "ethusb1", *, ping: bool = True) -> Target:
    return Target(ifname=ifname, mac=MAC, guest=GUEST, ping=ping)


@pytest.mark.usefixtures("guest")
def test_guest_answers() -> None:
    assert probe([target()], limit_s=LIMIT_S) == {"ethusb1": Probe(mac=GUEST_MAC, echoed=True)}


@pytest.mark.usefixtures("guest")
def test_arp_needs_no_address_of_the_host() -> None:
    run("ip", "address", "flush", "dev", "ethusb1")
    answer = probe([target(ping=False)], limit_s=LIMIT_S)
    assert answer == {"ethusb1": Probe(mac=GUEST_MAC)}


def test_probe_leaves_no_trace_in_the_guest(guest: Namespace) -> None:
    probe([target(ping=False)], limit_s=LIMIT_S)
    assert guest.run("ip", "neighbour", "show", "dev", "usb0") == ""


def test_silence_is_waited_for_no_longer_than_the_limit(guest: Namespace) -> None:
    guest.run("ip", "link", "set", "usb0", "arp", "off")
    start_s = time.monotonic()
    assert probe([target()] * 3, limit_s=LIMIT_S) == {"ethusb1": Probe()}
    assert LIMIT_S <= time.monotonic() - start_s < 3 * LIMIT_S


def test_answer_for_another_address_is_none(guest: Namespace) -> None:
    guest.run("ip", "address", "flush", "dev", "usb0")
    with guest.entered():
        sock = socket.socket(socket.AF_PACKET, socket.SOCK_RAW)
    mac = bytes.fromhex(GUEST_MAC.replace(":", ""))
    other = IPv4Address("10.0.11.77").packed
    head = b"\xff" * 6 + mac + bytes.fromhex("0806 0001 0800 06 04 0002")
    stop = threading.Event()

    def announce() -> None:
        while not stop.wait(0.02):
            sock.send(head + mac + other + b"\xff" * 6 + other)

    with sock:
        sock.bind(("usb0", 0))
        thread = threading.Thread(target=announce)
        thread.start()
        answer = probe([target()], limit_s=LIMIT_S)
        stop.set()
        thread.join()
    assert answer == {"ethusb1": Probe()}


@pytest.mark.usefixtures("guest")
def test_link_that_is_gone_is_left_out() -> None:
    assert list(probe([target("ethusb2"), target()], limit_s=LIMIT_S)) == ["ethusb1"]


@pytest.mark.usefixtures("netns")
def test_nobody_to_ask_takes_no_time() -> None:
    assert probe([], limit_s=60) == {}
