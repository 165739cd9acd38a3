"""Who answers on the links: the kernel's IPv4 neighbour table over rtnetlink.

One of the adapters; knows rtnetlink, the model and the errors. It sends no ARP itself: the kernel
does, a few requests a second apart (``net.ipv4.neigh.*.mcast_solicit``, ``ucast_solicit``), and
tells how that ended. Entries that somebody made by hand are left alone.
"""

from __future__ import annotations

import ctypes
import errno
import socket
import struct
from contextlib import contextmanager
from ipaddress import IPv4Address
from socket import AF_INET, AF_UNSPEC
from typing import TYPE_CHECKING

from otgd.errors import PermanentError, TransientError
from otgd.model import Neighbour, Traffic
from otgd.netlink.rtnetlink import (
    HEADER,
    RTM_DELNEIGH,
    RTM_GETLINK,
    RTM_GETNEIGH,
    RTM_NEWNEIGH,
    Request,
    Rtnetlink,
)

if TYPE_CHECKING:
    from collections.abc import Iterator

RTMGRP_NEIGH = 0x4
"""Include/uapi/linux/rtnetlink.h."""

NUD_INCOMPLETE = 0x01
NUD_REACHABLE = 0x02
NUD_STALE = 0x04
NUD_DELAY = 0x08
NUD_PROBE = 0x10
NUD_FAILED = 0x20
NUD_NOARP = 0x40
NUD_PERMANENT = 0x80
NTF_USE = 0x01
NDA_DST = 1
"""Include/uapi/linux/neighbour.h."""

_MEANING = {
    NUD_INCOMPLETE: Neighbour.ASKING,
    NUD_REACHABLE: Neighbour.ANSWERS,
    NUD_STALE: Neighbour.HEARD,
    NUD_DELAY: Neighbour.HEARD,
    NUD_PROBE: Neighbour.ASKING,
    NUD_FAILED: Neighbour.SILENT,
    NUD_NOARP: Neighbour.FIXED,
    NUD_PERMANENT: Neighbour.FIXED,
}

EVENT_BYTES = 4096
_ENTRY = struct.Struct("=BxxxiHBB")
_ATTRIBUTE = struct.Struct("=HH")
_IPV4 = struct.Struct("!I")
_PACKETS = struct.Struct("=QQ")
"""struct ndmsg; struct rtattr; an address; the begin of struct rtnl_link_stats64."""

_SO_ATTACH_FILTER = 26
_ONLY_IPV4 = (
    (0x30, 0, 0, HEADER.size),  # ldb ndm_family
    (0x15, 0, 1, AF_INET),  # jeq AF_INET, else skip one
    (0x06, 0, 0, 0xFFFFFFFF),  # ret everything
    (0x06, 0, 0, 0),  # ret nothing
)
"""struct sock_filter, include/uapi/linux/filter.h; IPv6 is full of neighbours, not our matter."""


class KernelNeighbours:
    """This network namespace's IPv4 neighbours; implements ``NeighbourPort``."""

    def __init__(self) -> None:
        kind = socket.SOCK_RAW | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC
        with _translated("listen to neighbour events"):
            self._events = socket.socket(socket.AF_NETLINK, kind, socket.NETLINK_ROUTE)
            _attach(self._events, _ONLY_IPV4)
            self._events.bind((0, RTMGRP_NEIGH))
            self._netlink = Rtnetlink()

    def fileno(self) -> int:
        """Return the descriptor that is readable when there are changes."""
        return self._events.fileno()

    def changes(self) -> list[tuple[int, IPv4Address, Neighbour]] | None:
        """Return what was told since the last call, oldest first; None when some of it is lost."""
        told: list[tuple[int, IPv4Address, Neighbour]] = []
        lost = False
        while True:
            try:
                told += _read(self._events.recv(EVENT_BYTES))
            except BlockingIOError:
                return None if lost else told
            except OSError as err:
                if err.errno != errno.ENOBUFS:
                    raise TransientError(f"neighbour events: {err.strerror}") from err
                lost = True

    def probe(self, ifindex: int, address: IPv4Address) -> Neighbour:
        """Have the kernel ask *address* a few times, unless it knows; return what is known now."""
        with _translated(f"ask {address} on ifindex {ifindex}"):
            known = self._look(ifindex, address)
            match known:
                case Neighbour.UNKNOWN | Neighbour.SILENT:
                    # As if there were a packet for it: a request by broadcast, at once.
                    self._change(ifindex, address, flags=NTF_USE, create=True)
                case Neighbour.HEARD:
                    # Used, it would be asked only 5 s later (delay_first_probe_time).
                    self._change(ifindex, address, state=NUD_PROBE)
                case _:
                    return known
        return Neighbour.ASKING

    def _look(self, ifindex: int, address: IPv4Address) -> Neighbour:
        try:
            entry = self._netlink.ask(
                Request(
                    kind=RTM_GETNEIGH,
                    fields={"family": AF_INET, "ifindex": ifindex},
                    attributes=[("NDA_DST", str(address))],
                )
            )
        except OSError as err:
            if err.errno != errno.ENOENT:
                raise
            return Neighbour.UNKNOWN
        if entry is None:
            raise OSError(errno.ENODEV, "the link is gone")
        return _MEANING.get(entry["state"], Neighbour.UNKNOWN)

    def _change(
        self,
        ifindex: int,
        address: IPv4Address,
        *,
        state: int = 0,
        flags: int = 0,
        create: bool = False,
    ) -> None:
        self._netlink.change(
            Request(
                kind=RTM_NEWNEIGH,
                fields={"family": AF_INET, "ifindex": ifindex, "state": state, "flags": flags},
                attributes=[("NDA_DST", str(address))],
                create=create,
            )
        )

    def traffic(self, ifindex: int) -> Traffic | None:
        """Return what the link has carried, or None where there is no such link (any more)."""
        request = Request(kind=RTM_GETLINK, fields={"family": AF_UNSPEC, "index": ifindex})
        with _translated(f"read the counters of ifindex {ifindex}"):
            link = self._netlink.ask(request)
        if link is None:
            return None
        received, sent = _PACKETS.unpack_from(link.get_attr("IFLA_STATS64"))
        return Traffic(received=received, sent=sent)

    def close(self) -> None:
        """Give both sockets back."""
        self._events.close()
        self._netlink.close()


def _read(event: bytes) -> Iterator[tuple[int, IPv4Address, Neighbour]]:
    """Yield what one event tells; the kernel sends one a datagram."""
    _, kind, *_ = HEADER.unpack_from(event)
    _, ifindex, state, _, _ = _ENTRY.unpack_from(event, HEADER.size)
    offset = HEADER.size + _ENTRY.size
    while offset + _ATTRIBUTE.size <= len(event):
        length, attribute = _ATTRIBUTE.unpack_from(event, offset)
        if attribute == NDA_DST:
            (number,) = _IPV4.unpack_from(event, offset + _ATTRIBUTE.size)
            gone = kind == RTM_DELNEIGH
            known = Neighbour.UNKNOWN if gone else _MEANING.get(state, Neighbour.UNKNOWN)
            yield ifindex, IPv4Address(number), known
        offset += max(_ATTRIBUTE.size, (length + 3) & ~3)


def _attach(sock: socket.socket, program: tuple[tuple[int, int, int, int], ...]) -> None:
    """Have the kernel drop what *program* (classic BPF) does not let through."""
    code = ctypes.create_string_buffer(b"".join(struct.pack("=HBBI", *line) for line in program))
    header = struct.pack("@HP", len(program), ctypes.addressof(code))
    sock.setsockopt(socket.SOL_SOCKET, _SO_ATTACH_FILTER, header)


@contextmanager
def _translated(operation: str) -> Iterator[None]:
    """Turn the kernel's refusals into our errors, once."""
    try:
        yield
    except OSError as err:
        kind = PermanentError if err.errno in (errno.ENODEV, errno.EPERM) else TransientError
        raise kind(f"{operation}: {err.strerror}") from err
