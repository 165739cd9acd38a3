"""What the rules of each backend do to real packets.

::

    guest 1 10.0.1.2 ── ethusb1 10.0.1.1 ┐
    guest 2 10.0.2.2 ── ethusb2 10.0.2.1 ┤ host ├ eth0 192.0.2.1 ── 192.0.2.2 far
    rogue   10.0.3.2 ── usb0    10.0.3.1 ┘

Packets on one path arrive in order, so that something is dropped shows without waiting: what was
sent after it arrives first. Each drop is preceded by proof that the packet passes without rules.
"""

from __future__ import annotations

import select
import socket
import threading
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from otgd.adapters.iptables import IptablesFirewall
from otgd.adapters.nftables import NftablesFirewall
from otgd.model import FORWARD_MARK, Quarantine
from tests.contract.test_firewall import forward, gadget, guard, masquerade, put
from tests.lab.namespaces import Namespace, run

if TYPE_CHECKING:
    from collections.abc import Iterator

    from otgd.ports import FirewallPort

_DEADLINE_S = 5.0
_IP_TRANSPARENT = 19  # send from any address; include/uapi/linux/in.h
FAR = ("192.0.2.2", 7)
GUEST_1, GUEST_2, ROGUE = ("10.0.1.2", 7), ("10.0.2.2", 7), ("10.0.3.2", 7)


class Lab:
    """The machines of the picture, each with a UDP socket; the host is the test's own namespace."""

    def __init__(self) -> None:
        self.machines = {
            address: self._connect(ifname, f"{prefix}.1", address[0])
            for ifname, prefix, address in (
                ("ethusb1", "10.0.1", GUEST_1),
                ("ethusb2", "10.0.2", GUEST_2),
                ("usb0", "10.0.3", ROGUE),
                ("eth0", "192.0.2", FAR),
            )
        }
        Path("/proc/sys/net/ipv4/ip_forward").write_text("1", encoding="ascii")
        for knob in Path("/proc/sys/net/ipv4/conf").glob("*/rp_filter"):
            knob.write_text("0", encoding="ascii")
        self.boxes = {address: self.open(address) for address in self.machines}
        self.host = udp()

    @staticmethod
    def _connect(ifname: str, host: str, guest: str) -> Namespace:
        machine = Namespace()
        far_end = ("peer", "name", "usb0", "netns", machine.path)
        run("ip", "link", "add", ifname, "type", "veth", *far_end)
        run("ip", "addr", "add", f"{host}/24", "dev", ifname)
        run("ip", "link", "set", ifname, "up")
        machine.run("ip", "addr", "add", f"{guest}/24", "dev", "usb0")
        machine.run("ip", "link", "set", "usb0", "up")
        machine.run("ip", "route", "add", "default", "via", host)
        return machine

    def open(self, machine: tuple[str, int], *, source: str = "", port: int = 7) -> socket.socket:
        """Open a socket in a machine; *source* need not be an address of it."""
        with self.machines[machine].entered():
            box = udp()
        box.setsockopt(socket.IPPROTO_IP, _IP_TRANSPARENT, 1)
        box.bind((source or machine[0], port))
        return box

    def ping(self, machine: tuple[str, int], target: str) -> bool:
        said = self.machines[machine].run("ping", "-n", "-c1", "-W2", target, check=False)
        return " 1 received" in said

    def close(self) -> None:
        for box in (*self.boxes.values(), self.host):
            box.close()
        for machine in self.machines.values():
            machine.close()


def udp() -> socket.socket:
    box = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    box.settimeout(_DEADLINE_S)
    return box


def received(box: socket.socket) -> tuple[str, str]:
    """Return the next datagram and the address that it comes from."""
    text, (address, _port) = box.recvfrom(100)
    return text.decode(), address


def pending(box: socket.socket) -> bool:
    return bool(select.select([box], [], [], 0)[0])


@pytest.fixture
def lab(request: pytest.FixtureRequest) -> Iterator[Lab]:
    request.getfixturevalue("netns")
    made = Lab()
    try:
        for machine in made.machines:  # neighbours are known from here on
            gateway = machine[0].rpartition(".")[0] + ".1"
            assert made.ping(machine, gateway)
        yield made
    finally:
        made.close()


@pytest.fixture(params=[IptablesFirewall, NftablesFirewall], ids=["iptables", "nftables"])
def firewall(request: pytest.FixtureRequest, lab: Lab) -> FirewallPort:  # noqa: ARG001 - after it
    port: FirewallPort = request.param()
    return port


def test_a_gadget_reaches_the_uplink_under_the_uplinks_address(
    lab: Lab, firewall: FirewallPort
) -> None:
    guest, far = lab.boxes[GUEST_1], lab.boxes[FAR]
    guest.sendto(b"unmasked", FAR)
    assert received(far) == ("unmasked", "10.0.1.2")

    put(firewall, *gadget(1), *gadget(2))
    with lab.open(GUEST_1, port=8) as fresh:  # a flow keeps the address that it began with
        fresh.sendto(b"masked", FAR)
        text, sender = far.recvfrom(100)
        assert (text, sender[0]) == (b"masked", "192.0.2.1")
        far.sendto(b"reply", sender)
        assert received(fresh) == ("reply", "192.0.2.2")
    assert lab.ping(GUEST_1, "192.0.2.2")


def test_gadgets_reach_each_other_under_their_own_addresses(
    lab: Lab, firewall: FirewallPort
) -> None:
    put(firewall, *gadget(1), *gadget(2))
    lab.boxes[GUEST_1].sendto(b"hello", GUEST_2)
    assert received(lab.boxes[GUEST_2]) == ("hello", "10.0.1.2")
    lab.boxes[GUEST_2].sendto(b"hello yourself", GUEST_1)
    assert received(lab.boxes[GUEST_1]) == ("hello yourself", "10.0.2.2")


@pytest.mark.parametrize("source", ["10.0.2.2", "10.0.9.9", "192.0.2.1", "8.8.8.8"])
@pytest.mark.parametrize("target", [FAR, GUEST_2], ids=["to-uplink", "to-peer"])
def test_a_spoofed_source_goes_nowhere(
    lab: Lab, firewall: FirewallPort, source: str, target: tuple[str, int]
) -> None:
    receiver = lab.boxes[target]
    with lab.open(GUEST_1, source=source) as liar:
        if source not in {target[0], "192.0.2.1"}:  # the kernel drops the host's own by itself
            liar.sendto(b"lie", target)
            if source != "10.0.2.2" or target == FAR:
                assert received(receiver) == ("lie", source)
        put(firewall, *gadget(1), *gadget(2))
        liar.sendto(b"lie", target)
    lab.boxes[GUEST_1].sendto(b"truth", target)
    assert received(receiver)[0] == "truth"
    assert not pending(receiver)


def test_an_isolated_gadget_has_the_uplink_and_the_host_but_no_peer(
    lab: Lab, firewall: FirewallPort
) -> None:
    first, second = lab.boxes[GUEST_1], lab.boxes[GUEST_2]
    first.sendto(b"before", GUEST_2)
    assert received(second)[0] == "before"

    put(firewall, *gadget(1), masquerade(2), guard(2), forward(2, to_peers=False))
    first.sendto(b"to the isolated", GUEST_2)
    second.sendto(b"from the isolated", GUEST_1)
    for machine, box in ((GUEST_1, first), (GUEST_2, second)):
        lab.host.sendto(b"from the host", machine)
        assert received(box)[0] == "from the host"
        assert not pending(box)
        assert lab.ping(machine, "192.0.2.2")


def test_a_gadget_without_the_uplink_has_host_and_peers(lab: Lab, firewall: FirewallPort) -> None:
    first, far = lab.boxes[GUEST_1], lab.boxes[FAR]
    first.sendto(b"before", FAR)
    assert received(far)[0] == "before"

    put(firewall, *gadget(2), guard(1), forward(1, to_uplink=False))
    with lab.open(GUEST_1, port=8) as fresh:
        fresh.sendto(b"refused", FAR)
    lab.host.sendto(b"from the host", FAR)
    assert received(far) == ("from the host", "192.0.2.1")
    assert not pending(far)
    assert lab.ping(GUEST_1, "10.0.1.1")
    assert lab.ping(GUEST_1, "10.0.2.2")


def test_a_refused_gadget_may_answer_who_asks_from_the_uplink(
    lab: Lab, firewall: FirewallPort
) -> None:
    put(firewall, guard(1), forward(1, to_uplink=False))
    lab.boxes[FAR].sendto(b"question", GUEST_1)
    assert received(lab.boxes[GUEST_1]) == ("question", "192.0.2.2")
    lab.boxes[GUEST_1].sendto(b"answer", FAR)
    assert received(lab.boxes[FAR]) == ("answer", "10.0.1.2")


STRICT_HOST = f"""
table inet strict {{
    chain forward {{
        type filter hook forward priority filter; policy drop;
        meta mark & {FORWARD_MARK} != 0 accept
    }}
    chain late {{
        type filter hook postrouting priority 300;
        meta mark & {FORWARD_MARK} != 0 drop
    }}
}}
"""


def test_one_rule_on_the_mark_lets_a_hosts_drop_pass_just_what_is_allowed(
    lab: Lab, firewall: FirewallPort
) -> None:
    run("nft", "-f", "-", stdin=STRICT_HOST)
    assert not lab.ping(GUEST_1, "10.0.2.2")

    put(firewall, *gadget(1), *gadget(2))
    assert lab.ping(GUEST_1, "192.0.2.2")
    assert lab.ping(GUEST_1, "10.0.2.2")

    lab.boxes[FAR].sendto(b"a flow that the uplink begins", GUEST_1)
    lab.boxes[ROGUE].sendto(b"from no gadget", GUEST_1)
    lab.host.sendto(b"from the host", GUEST_1)
    assert received(lab.boxes[GUEST_1])[0] == "from the host"
    assert not pending(lab.boxes[GUEST_1])


def test_a_quarantined_link_neither_gets_nor_gives_a_datagram(
    lab: Lab, firewall: FirewallPort
) -> None:
    rogue, far = lab.boxes[ROGUE], lab.boxes[FAR]
    rogue.sendto(b"before", FAR)
    assert received(far)[0] == "before"
    far.sendto(b"before", ROGUE)
    assert received(rogue)[0] == "before"

    put(firewall, Quarantine(ifname="usb0"))
    rogue.sendto(b"out", FAR)
    far.sendto(b"in", ROGUE)
    with suppress(OSError):  # the sender may be told
        lab.host.sendto(b"in", ROGUE)
    lab.host.sendto(b"marker", FAR)
    assert received(far)[0] == "marker"
    assert not pending(far)

    firewall.apply(remove=[Quarantine(ifname="usb0")], add=())
    lab.host.sendto(b"free again", ROGUE)
    assert received(rogue)[0] == "free again"
    assert not pending(rogue)


def arp_answered(lab: Lab) -> bool:
    rogue = lab.machines[ROGUE]
    rogue.run("ip", "neigh", "flush", "all")
    lab.ping(ROGUE, "10.0.3.1")
    return "lladdr" in rogue.run("ip", "neigh", "show", "10.0.3.1")


def ipv6_answered(lab: Lab) -> bool:
    return lab.ping(ROGUE, "fd00::1")


@pytest.fixture
def ipv6(lab: Lab) -> None:
    run("ip", "addr", "add", "fd00::1/64", "dev", "usb0", "nodad")
    lab.machines[ROGUE].run("ip", "addr", "add", "fd00::2/64", "dev", "usb0", "nodad")


@pytest.mark.usefixtures("ipv6")
def test_nftables_quarantines_arp_and_ipv6_too(lab: Lab) -> None:
    assert arp_answered(lab)
    assert ipv6_answered(lab)
    put(NftablesFirewall(), Quarantine(ifname="usb0"))
    assert not arp_answered(lab)
    assert not ipv6_answered(lab)


@pytest.mark.usefixtures("ipv6")
def test_legacy_iptables_cannot_quarantine_arp_and_ipv6(lab: Lab) -> None:
    put(IptablesFirewall(), Quarantine(ifname="usb0"))
    assert arp_answered(lab)
    assert ipv6_answered(lab)
    assert not lab.ping(ROGUE, "10.0.3.1")


def test_no_lie_slips_through_while_the_rules_change(lab: Lab, firewall: FirewallPort) -> None:
    far = lab.boxes[FAR]
    put(firewall, *gadget(1))
    sent, done = 0, threading.Event()

    def lie() -> None:
        nonlocal sent
        with lab.open(GUEST_1, source="10.0.2.2") as liar:
            while not done.is_set():
                liar.sendto(b"lie", FAR)
                sent += 1

    thread = threading.Thread(target=lie)
    thread.start()
    try:
        for _ in range(30):
            put(firewall, *gadget(2), Quarantine(ifname="usb0"))
            firewall.apply(remove=[*gadget(2), Quarantine(ifname="usb0")], add=())
    finally:
        done.set()
        thread.join()
    assert sent > 100
    lab.boxes[GUEST_1].sendto(b"truth", FAR)
    assert received(far)[0] == "truth"
