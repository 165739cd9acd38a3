"""The little of nfnetlink that no library here offers: tables, generation, whom an event is about.

Plain sockets and struct, since this must work before it is known whether libnftables is to be
loaded. Of a message only the family and the table's name are read. Knows nothing of gadgets.
"""

from __future__ import annotations

import os
import socket
import struct
import weakref
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

NETLINK_NETFILTER = 12
NFNLGRP_NFTABLES = 7
FAMILIES = {"inet": 1, "ip": 2, "arp": 3, "netdev": 5, "bridge": 7, "ip6": 10}
"""Include/uapi/linux/netlink.h, netfilter/nfnetlink.h, netfilter.h."""

_SUBSYS_NFTABLES = 10
_MSG_NEWTABLE = 0
_MSG_GETTABLE = 1
_MSG_NEWGEN = 15
_MSG_GETGEN = 16
_TABLE_NAME = 1  # NFTA_TABLE_NAME, NFTA_CHAIN_TABLE, NFTA_RULE_TABLE, ...: always the first
_GENERATION_ID = 1
_NLM_F_REQUEST = 0x1
_NLM_F_DUMP = 0x300
_NLMSG_ERROR = 2
_NLMSG_DONE = 3
_BUFFER_BYTES = 1 << 16
_NLMSG = struct.Struct("=IHHII")
_NFGEN = struct.Struct("=BBH")
_ATTRIBUTE = struct.Struct("=HH")
_ERROR = struct.Struct("=i")
_BE32 = struct.Struct(">I")


class NfTables:
    """Questions to nf_tables of the network namespace in which this was made.

    To be kept: closing such a socket makes the kernel finish all it had put off, which takes 10 ms
    after a table was deleted (nft_rcv_nl_event). It closes with the last reference.

    Raises:
        OSError: the kernel has no nf_tables, or does not let us ask.
    """

    def __init__(self) -> None:
        kind = socket.SOCK_RAW | socket.SOCK_CLOEXEC
        self._socket = socket.socket(socket.AF_NETLINK, kind, NETLINK_NETFILTER)
        weakref.finalize(self, self._socket.close)
        self._buffer = bytearray(_BUFFER_BYTES)

    def close(self) -> None:
        """Give the descriptor back."""
        self._socket.close()

    def generation(self) -> int:
        """Return the number that grows by one with every transaction, whoever makes it."""
        for kind, body in self._ask(_MSG_GETGEN, _NLM_F_REQUEST):
            if kind == _SUBSYS_NFTABLES << 8 | _MSG_NEWGEN:
                return int(_BE32.unpack(_attribute(body[_NFGEN.size :], _GENERATION_ID))[0])
        raise OSError(0, "no generation told")

    def tables(self) -> frozenset[tuple[str, str]]:
        """Return family and name of every table."""
        names = {number: name for name, number in FAMILIES.items()}
        answers = self._ask(_MSG_GETTABLE, _NLM_F_REQUEST | _NLM_F_DUMP)
        found = (_table(body) for _, body in answers)
        return frozenset((names[f], name.decode()) for f, name in found if f in names)

    def _ask(self, message: int, flags: int) -> Iterator[tuple[int, bytes]]:
        """Yield type and body of each answer."""
        kind = _SUBSYS_NFTABLES << 8 | message
        length = _NLMSG.size + _NFGEN.size
        self._socket.send(_NLMSG.pack(length, kind, flags, 1, 0) + _NFGEN.pack(0, 0, 0))
        while True:
            length = self._socket.recv_into(self._buffer)
            for kind, body in messages_in(bytes(memoryview(self._buffer)[:length])):
                if kind == _NLMSG_DONE:
                    return
                if kind == _NLMSG_ERROR:
                    code = -_ERROR.unpack_from(body)[0]
                    raise OSError(code, os.strerror(code))
                yield kind, body
            if not flags & _NLM_F_DUMP:
                return


def messages_in(datagram: bytes) -> Iterator[tuple[int, bytes]]:
    """Yield type and body of each netlink message in *datagram*."""
    offset = 0
    while offset + _NLMSG.size <= len(datagram):
        length, kind, *_ = _NLMSG.unpack_from(datagram, offset)
        if length < _NLMSG.size:
            return
        yield kind, datagram[offset + _NLMSG.size : offset + length]
        offset += (length + 3) & ~3


def tables_in(datagram: bytes) -> Iterator[tuple[int, bytes]]:
    """Yield the family's number and the table of each nf_tables message in *datagram*."""
    for kind, body in messages_in(datagram):
        if kind >> 8 == _SUBSYS_NFTABLES and len(body) >= _NFGEN.size:
            yield _table(body)


def _table(body: bytes) -> tuple[int, bytes]:
    family, *_ = _NFGEN.unpack_from(body)
    return family, _attribute(body[_NFGEN.size :], _TABLE_NAME).rstrip(b"\0")


def _attribute(attributes: bytes, wanted: int) -> bytes:
    offset = 0
    while offset + _ATTRIBUTE.size <= len(attributes):
        length, kind = _ATTRIBUTE.unpack_from(attributes, offset)
        if kind == wanted:
            return attributes[offset + _ATTRIBUTE.size : offset + length]
        offset += (max(length, _ATTRIBUTE.size) + 3) & ~3
    return b""
