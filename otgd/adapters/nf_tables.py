"""Which nf_tables tables there are, and the kernel's own word when one changes (nfnetlink).

One of the adapters; raw sockets, since no library here offers the events, and since this must work
before it is known whether libnftables is to be loaded. Only the family and the table's name are
read from a message.
"""

from __future__ import annotations

import errno
import os
import socket
import struct
from typing import TYPE_CHECKING

from otgd.errors import PermanentError, TransientError

if TYPE_CHECKING:
    from collections.abc import Iterator

NETLINK_NETFILTER = 12
NFNLGRP_NFTABLES = 7
NFNL_SUBSYS_NFTABLES = 10
"""Include/uapi/linux/netlink.h and netfilter/nfnetlink.h."""

NFT_MSG_GETTABLE = 1
NLM_F_REQUEST_DUMP = 0x301
NLMSG_ERROR = 2
NLMSG_DONE = 3

TABLE_ATTRIBUTE = 1
"""NFTA_TABLE_NAME, NFTA_CHAIN_TABLE, NFTA_RULE_TABLE, NFTA_SET_TABLE: always the first."""

FAMILIES = {"inet": 1, "ip": 2, "arp": 3, "netdev": 5, "bridge": 7, "ip6": 10}
_NLMSG = struct.Struct("=IHHII")
_NFGEN = struct.Struct("=BBH")
_NLA = struct.Struct("=HH")


class NftTrigger:
    """Fires when one of *tables*, pairs of family and name, changes; a ``TriggerPort``.

    Raises:
        TransientError: the socket cannot be had.
    """

    def __init__(self, *tables: tuple[str, str]) -> None:
        self._tables = {(FAMILIES[family], name.encode()) for family, name in tables}
        self.overflows = 0
        try:
            self._socket = socket.socket(
                socket.AF_NETLINK,
                socket.SOCK_RAW | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC,
                NETLINK_NETFILTER,
            )
            self._socket.bind((0, 1 << (NFNLGRP_NFTABLES - 1)))
        except OSError as err:
            raise TransientError(f"listen to nf_tables events: {err.strerror}") from err

    def fileno(self) -> int:
        """Return the descriptor to wait on; foreign tables' events make it readable too."""
        return self._socket.fileno()

    def drain(self) -> int:
        """Forget what is queued; return how many messages were about our tables.

        An overflow counts: it may have been about them.
        """
        count = 0
        while True:
            try:
                message = self._socket.recv(1 << 16)
            except BlockingIOError:
                return count
            except OSError as err:
                if err.errno != errno.ENOBUFS:
                    raise TransientError(f"nf_tables events: {err.strerror}") from err
                self.overflows += 1
                count += 1
            else:
                count += sum(table in self._tables for table in _tables_in(message))

    def touched(self) -> frozenset[int]:
        """Name no link: our rules are compared in every pass."""
        return frozenset()

    def close(self) -> None:
        """Give the descriptor back."""
        self._socket.close()


def list_tables() -> frozenset[tuple[str, str]]:
    """Return family and name of every table of a family that we know.

    Raises:
        PermanentError: the kernel has no nf_tables, or does not let us look.
    """
    request = _NLMSG.pack(
        _NLMSG.size + _NFGEN.size,
        NFNL_SUBSYS_NFTABLES << 8 | NFT_MSG_GETTABLE,
        NLM_F_REQUEST_DUMP,
        1,
        0,
    ) + _NFGEN.pack(0, 0, 0)
    found: set[tuple[int, bytes]] = set()
    kind = socket.SOCK_RAW | socket.SOCK_CLOEXEC
    try:
        with socket.socket(socket.AF_NETLINK, kind, NETLINK_NETFILTER) as sock:
            sock.send(request)
            while True:
                datagram = sock.recv(1 << 16)
                found.update(_tables_in(datagram))
                _, end, *_ = _NLMSG.unpack_from(datagram)
                if end == NLMSG_ERROR:
                    (code,) = struct.unpack_from("=i", datagram, _NLMSG.size)
                    raise OSError(-code, os.strerror(-code))
                if end == NLMSG_DONE:
                    break
    except OSError as err:
        raise PermanentError(f"list nf_tables: {err.strerror}") from err
    names = {number: name for name, number in FAMILIES.items()}
    return frozenset((names[f], table.decode()) for f, table in found if f in names)


def _tables_in(datagram: bytes) -> Iterator[tuple[int, bytes]]:
    """Yield (family, table) of each nf_tables message in *datagram*."""
    offset = 0
    while offset + _NLMSG.size <= len(datagram):
        length, kind, *_ = _NLMSG.unpack_from(datagram, offset)
        if length < _NLMSG.size:
            return
        if kind >> 8 == NFNL_SUBSYS_NFTABLES:
            family, *_ = _NFGEN.unpack_from(datagram, offset + _NLMSG.size)
            attributes = datagram[offset + _NLMSG.size + _NFGEN.size : offset + length]
            yield family, _attribute(attributes, TABLE_ATTRIBUTE)
        offset += _aligned(length)


def _attribute(attributes: bytes, wanted: int) -> bytes:
    offset = 0
    while offset + _NLA.size <= len(attributes):
        length, kind = _NLA.unpack_from(attributes, offset)
        if kind == wanted:
            return attributes[offset + _NLA.size : offset + length].rstrip(b"\0")
        offset += _aligned(max(length, _NLA.size))
    return b""


def _aligned(length: int) -> int:
    return (length + 3) & ~3
