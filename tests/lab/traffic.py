"""Packets between the lab's machines: one echo, a never-ending ping, TCP, who asks for DHCP.

Everything is a plain socket opened inside a namespace, so a test can send every few milliseconds
without starting a program.
"""

from __future__ import annotations

import hashlib
import os
import socket
import struct
import threading
import time
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from itertools import count, pairwise
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from types import TracebackType
    from typing import Self

    from tests.lab.namespaces import Namespace

_ECHO_REQUEST = 8
_ECHO_REPLY = 0
ETH_P_IP = 0x0800
DHCP_SERVER_PORT = 67  # RFC 2131, section 4.1
TCP_PATIENCE_S = 30
_identifiers = count(os.getpid())


def _checksum(packet: bytes) -> int:
    """Sum up as RFC 1071 wants it."""
    total: int = sum(struct.unpack(f"!{len(packet) // 2}H", packet))
    total = (total >> 16) + (total & 0xFFFF)
    return ~(total + (total >> 16)) & 0xFFFF


def _echo_request(identifier: int, sequence: int) -> bytes:
    bare = struct.pack("!BBHHH", _ECHO_REQUEST, 0, 0, identifier, sequence)
    return struct.pack("!BBHHH", _ECHO_REQUEST, 0, _checksum(bare), identifier, sequence)


def _answered(packet: bytes, identifier: int) -> int | None:
    """Return the sequence number that *packet*, an IP packet, answers."""
    header_bytes = (packet[0] & 0x0F) * 4
    kind, _, _, to, sequence = struct.unpack_from("!BBHHH", packet, header_bytes)
    return int(sequence) if (kind, to) == (_ECHO_REPLY, identifier) else None


def _icmp_socket(namespace: Namespace, timeout_s: float) -> socket.socket:
    with namespace.entered():
        sock = socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_ICMP)
    sock.settimeout(timeout_s)
    return sock


def ping(namespace: Namespace, target: str, *, timeout_s: float = 0.5) -> bool:
    """Send one echo request and tell whether *target* answered it in time."""
    identifier = next(_identifiers) & 0xFFFF
    with _icmp_socket(namespace, timeout_s) as sock:
        try:
            sock.sendto(_echo_request(identifier, 1), (target, 0))
        except OSError:
            return False
        end = time.monotonic() + timeout_s
        while time.monotonic() < end:
            try:
                packet, (source, _) = sock.recvfrom(2048)
            except TimeoutError:
                return False
            if source == target and _answered(packet, identifier) is not None:
                return True
    return False


class PingStream:
    """A guest that never stops pinging: one flow, an echo request every *interval_s*.

    All requests share one identifier, so connection tracking sees a single flow, and what happens
    to the first packet is what happens to all of them.
    """

    def __init__(self, namespace: Namespace, target: str, *, interval_s: float = 0.005) -> None:
        self._sock = _icmp_socket(namespace, interval_s)
        self._target = target
        self._interval_s = interval_s
        self._identifier = next(_identifiers) & 0xFFFF
        self._sent_s: dict[int, float] = {}
        self._answered_s: dict[int, float] = {}
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name=f"ping {target}", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._stop.set()
        self._thread.join()
        self._sock.close()

    @property
    def answers(self) -> int:
        """How many requests were answered so far."""
        return len(self._answered_s)

    def lost_since(self, moment_s: float, *, grace_s: float = 0.5) -> list[int]:
        """Return the requests sent after *moment_s* (monotonic) that nobody answered.

        Those younger than *grace_s* may still be under way and do not count.
        """
        newest_s = time.monotonic() - grace_s
        sent = list(self._sent_s.copy().items())
        return [n for n, at in sent if moment_s <= at <= newest_s and n not in self._answered_s]

    def longest_gap_s(self) -> float:
        """Return the longest time without an answer since the first one."""
        times = [*self._answered_s.values(), time.monotonic()]
        return max((b - a for a, b in pairwise(times)), default=0.0)

    def _run(self) -> None:
        for sequence in count(1):
            if self._stop.is_set():
                return
            try:
                self._sock.sendto(
                    _echo_request(self._identifier, sequence & 0xFFFF), (self._target, 0)
                )
                self._sent_s[sequence & 0xFFFF] = time.monotonic()
            except OSError:  # no route yet: the guest's link is down
                self._stop.wait(self._interval_s)
            self._receive(until_s=time.monotonic() + self._interval_s)

    def _receive(self, *, until_s: float) -> None:
        while (left_s := until_s - time.monotonic()) > 0:
            self._sock.settimeout(left_s)
            try:
                packet = self._sock.recv(2048)
            except TimeoutError:
                return
            sequence = _answered(packet, self._identifier)
            if sequence is not None:
                self._answered_s[sequence] = time.monotonic()


@dataclass(frozen=True, slots=True, kw_only=True)
class Transfer:
    """What a TCP transfer showed.

    Attributes:
        intact: the server got every byte unchanged, and its own answer came back unchanged.
        client: the client's address as the server saw it.
    """

    intact: bool
    client: str


def tcp_transfer(
    client: Namespace, server: Namespace, address: str, *, size_bytes: int = 2_000_000
) -> Transfer:
    """Send random bytes from *client* to *address* in *server*, which sends them back."""
    content = os.urandom(size_bytes)
    with server.entered():
        listener = socket.create_server((address, 0))
    listener.settimeout(10)
    seen: list[str] = []

    def serve() -> None:
        connection, (peer, _) = listener.accept()
        with connection:
            connection.settimeout(10)
            seen.append(peer)
            received = b"".join(iter(lambda: connection.recv(65536), b""))
            connection.sendall(hashlib.sha256(received).digest() + received)

    thread = threading.Thread(target=serve, name="tcp server", daemon=True)
    with listener:
        thread.start()
        with client.entered():
            sock = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
        with sock:
            sock.settimeout(10)
            sock.connect((address, listener.getsockname()[1]))
            sock.sendall(content)
            sock.shutdown(socket.SHUT_WR)
            answer = b"".join(iter(lambda: sock.recv(65536), b""))
        thread.join()
    return Transfer(intact=answer == hashlib.sha256(content).digest() + content, client=seen[0])


class Conversation:
    """One TCP connection from *client* to *address* in *server*, which says everything back."""

    def __init__(self, client: Namespace, server: Namespace, address: str) -> None:
        with ExitStack() as stack:
            with server.entered():
                listener = stack.enter_context(socket.create_server((address, 0)))
            with client.entered():
                self._near = stack.enter_context(socket.socket())
            for each in (listener, self._near):
                each.settimeout(TCP_PATIENCE_S)
            self._near.connect(listener.getsockname())
            self._far, (self.seen_as, _) = listener.accept()
            stack.enter_context(self._far)
            self._far.settimeout(TCP_PATIENCE_S)
            self._stack = stack.pop_all()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._stack.close()

    def goes_on(self) -> bool:
        """Tell whether what is said now arrives at the far end and comes back unchanged."""
        word = os.urandom(64)
        try:
            self._near.sendall(word)
            self._far.sendall(self._far.recv(len(word), socket.MSG_WAITALL))
            return self._near.recv(len(word), socket.MSG_WAITALL) == word
        except OSError:
            return False


class DhcpWatch:
    """Hears every request for an address that arrives in *namespace*, from the first one on."""

    def __init__(self, namespace: Namespace) -> None:
        with namespace.entered():
            self._sock = socket.socket(
                socket.AF_PACKET, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK, socket.htons(ETH_P_IP)
            )
        self._heard = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._sock.close()

    def requests(self) -> int:
        """Count the requests so far."""
        with suppress(BlockingIOError):
            while True:
                packet = self._sock.recv(2048)
                header_bytes = (packet[0] & 0x0F) * 4
                (port,) = struct.unpack_from("!H", packet, header_bytes + 2)
                self._heard += (packet[9], port) == (socket.IPPROTO_UDP, DHCP_SERVER_PORT)
        return self._heard
