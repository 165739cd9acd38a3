"""Ask the guests themselves: ARP, ping, and whether one plays DHCP server.

All links are asked at once and for a second at most. Answers are read by packet sockets, before
any packet filter: otgd's own guards drop a DHCP server that offers another subnet. Needs
CAP_NET_RAW and changes nothing: the ARP request has no sender's address (RFC 5227) and a lease
that is offered is never asked for.
"""

from __future__ import annotations

import os
import selectors
import socket
import struct
import time
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING

from otgd.diagnosis.facts import Probe

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from ipaddress import IPv4Address

PROBE_S = 1.0
REPEAT_S = 0.3

ETH_P_ALL = 0x0003
ETH_P_IP = 0x0800
ETH_P_ARP = 0x0806
"""Include/uapi/linux/if_ether.h."""

_BROADCAST = b"\xff" * 6
_ETHERNET = struct.Struct("!6s6sH")
_ARP = struct.Struct("!HHBBH6s4s6s4s")
_IP = struct.Struct("!BBHHHBBH4s4s")
_UDP = struct.Struct("!HHHH")
_BOOTP = struct.Struct("!BBBBIHH4s4s4s4s16s64s128s")
_ECHO = struct.Struct("!BBHHH")
_ANYBODY = bytes(4)
_DISCOVER = bytes((99, 130, 83, 99, 53, 1, 1, 55, 2, 1, 3, 255))
"""RFC 2132: the magic cookie; message type DISCOVER; wanted: mask and router; the end."""

_MINIMUM_BYTES = 300
"""RFC 1542, 2.1: what is shorter, some servers do not take for BOOTP."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """Whom to ask.

    Attributes:
        ping: whether the host has its address there, without which it cannot ping.
    """

    ifname: str
    mac: str
    guest: IPv4Address
    ping: bool


class _Line:
    """One link under probe."""

    def __init__(self, target: Target, stack: ExitStack) -> None:
        self._target = target
        self._guest = target.guest.packed
        self._mac = bytes.fromhex(target.mac.replace(":", ""))
        self._number = struct.unpack("!I", os.urandom(4))[0]
        kind = socket.SOCK_RAW | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC
        self.socket = stack.enter_context(socket.socket(socket.AF_PACKET, kind, 0))
        self.socket.bind((target.ifname, ETH_P_ALL))
        self._icmp = stack.enter_context(socket.socket(socket.AF_INET, kind, socket.IPPROTO_ICMP))
        self._icmp.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, target.ifname.encode())
        self._found = {"mac": "", "dhcp_server": ""}
        self._echoed = False

    @property
    def probe(self) -> Probe:
        return Probe(echoed=self._echoed, **self._found)

    def ask(self) -> None:
        """Send what has no answer yet; a link that goes away while we ask answers nothing."""
        with suppress(OSError):
            if not self._found["mac"]:
                self.socket.send(_arp_request(self._mac, self._guest))
            if not self._found["dhcp_server"]:
                self.socket.send(_dhcp_discover(self._mac, self._number))
        with suppress(OSError):
            if self._target.ping and not self._echoed:
                request = _echo_request(self._number & 0xFFFF)
                self._icmp.sendto(request, (str(self._target.guest), 0))

    def listen(self) -> None:
        """Take in what has come."""
        with suppress(OSError):
            while True:
                frame = self.socket.recv(2048)
                with suppress(struct.error, IndexError):  # cut short; whatever it is, no answer
                    self._understand(frame)

    def _understand(self, frame: bytes) -> None:
        _, _, kind = _ETHERNET.unpack_from(frame)
        body = frame[_ETHERNET.size :]
        if kind == ETH_P_ARP:
            *_, operation, sender, address, _, _ = _ARP.unpack_from(body)
            if operation == 2 and address == self._guest:
                self._found["mac"] = sender.hex(":")
        elif kind == ETH_P_IP:
            header_bytes = (body[0] & 0x0F) * 4
            _, _, _, _, _, _, protocol, _, source, _ = _IP.unpack_from(body)
            self._understand_ip(protocol, source, body[header_bytes:])

    def _understand_ip(self, protocol: int, source: bytes, payload: bytes) -> None:
        if protocol == socket.IPPROTO_ICMP and source == self._guest:
            kind, _, _, identifier, _ = _ECHO.unpack_from(payload)
            self._echoed |= (kind, identifier) == (0, self._number & 0xFFFF)
        elif protocol == socket.IPPROTO_UDP:
            sender_port, port, _, _ = _UDP.unpack_from(payload)
            operation, _, _, _, number, *_ = _BOOTP.unpack_from(payload, _UDP.size)
            if (sender_port, port, operation, number) == (67, 68, 2, self._number):
                self._found["dhcp_server"] = socket.inet_ntoa(source)


def probe(targets: Sequence[Target], *, limit_s: float = PROBE_S) -> Mapping[str, Probe]:
    """Ask all *targets* at once; return what each answered within *limit_s*, by link's name.

    A link that goes away before it is asked is left out.
    """
    with ExitStack() as stack:
        lines = {}
        selector = stack.enter_context(selectors.DefaultSelector())
        for target in targets:
            with suppress(OSError):
                line = lines[target.ifname] = _Line(target, stack)
                selector.register(line.socket, selectors.EVENT_READ, line)
        _converse(list(lines.values()), selector, limit_s)
        return {ifname: line.probe for ifname, line in lines.items()}


def _converse(lines: Sequence[_Line], selector: selectors.BaseSelector, limit_s: float) -> None:
    end_s = time.monotonic() + limit_s
    ask_s = 0.0
    while lines and (now_s := time.monotonic()) < end_s:
        if now_s >= ask_s:
            ask_s = now_s + REPEAT_S
            for line in lines:
                line.ask()
        for key, _ in selector.select(max(0.0, min(ask_s, end_s) - time.monotonic())):
            key.data.listen()


def _checksum(header: bytes) -> int:
    """Sum up as RFC 1071 wants it."""
    total: int = sum(struct.unpack(f"!{len(header) // 2}H", header))
    total = (total >> 16) + (total & 0xFFFF)
    return ~(total + (total >> 16)) & 0xFFFF


def _arp_request(mac: bytes, guest: bytes) -> bytes:
    body = _ARP.pack(1, ETH_P_IP, 6, 4, 1, mac, _ANYBODY, bytes(6), guest)
    return _ETHERNET.pack(_BROADCAST, mac, ETH_P_ARP) + body


def _echo_request(identifier: int) -> bytes:
    bare = _ECHO.pack(8, 0, 0, identifier, 1)
    return _ECHO.pack(8, 0, _checksum(bare), identifier, 1)


def _dhcp_discover(mac: bytes, number: int) -> bytes:
    """Return a whole frame, since a host without a fitting address cannot send it otherwise."""
    nowhere = (_ANYBODY,) * 4
    answer_all = 0x8000
    bootp = _BOOTP.pack(1, 1, 6, 0, number, 0, answer_all, *nowhere, mac.ljust(16, b"\0"), b"", b"")
    bootp = (bootp + _DISCOVER).ljust(_MINIMUM_BYTES, b"\0")
    udp = _UDP.pack(68, 67, _UDP.size + len(bootp), 0) + bootp
    length = _IP.size + len(udp)
    ends = (_ANYBODY, b"\xff" * 4)
    checksum = _checksum(_IP.pack(0x45, 0, length, 0, 0, 64, socket.IPPROTO_UDP, 0, *ends))
    ip = _IP.pack(0x45, 0, length, 0, 0, 64, socket.IPPROTO_UDP, checksum, *ends)
    return _ETHERNET.pack(_BROADCAST, mac, ETH_P_IP) + ip + udp
