"""Which nf_tables tables there are, and the kernel's own word when one changes.

One of the adapters, over ``otgd.netlink.nfnetlink``.
"""

from __future__ import annotations

import errno
import socket
from contextlib import closing

from otgd.errors import PermanentError, TransientError
from otgd.netlink.nfnetlink import (
    FAMILIES,
    NETLINK_NETFILTER,
    NFNLGRP_NFTABLES,
    NfTables,
    tables_in,
)


class NftTrigger:
    """Fires when one of *tables*, pairs of family and name, changes; a ``TriggerPort``.

    Raises:
        TransientError: the socket cannot be had.
    """

    newcomers_only = False

    def __init__(self, *tables: tuple[str, str]) -> None:
        self._tables = {(FAMILIES[family], name.encode()) for family, name in tables}
        self._names = {name for _, name in self._tables}
        self._buffer = bytearray(1 << 16)
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
                length = self._socket.recv_into(self._buffer)
            except BlockingIOError:
                return count
            except OSError as err:
                if err.errno != errno.ENOBUFS:
                    raise TransientError(f"nf_tables events: {err.strerror}") from err
                self.overflows += 1
                count += 1
            else:
                message = bytes(memoryview(self._buffer)[:length])
                # A transaction is a hundred messages; most are not worth taking apart.
                if any(name in message for name in self._names):
                    count += sum(table in self._tables for table in tables_in(message))

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
    try:
        with closing(NfTables()) as kernel:
            return kernel.tables()
    except OSError as err:
        raise PermanentError(f"list nf_tables: {err.strerror}") from err
