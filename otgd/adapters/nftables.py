"""Firewall rules in nftables, through python3-nftables (libnftables).

Layout and reading back are ``otgd.nft``; this module runs its commands. libnftables sends all the
commands of one call as one transaction, and buffers what it prints. Nothing locks the tables, so a
command may refer to what was changed since we looked; then we look again.
"""

from __future__ import annotations

import errno
import importlib
import os
import socket
from typing import TYPE_CHECKING, Any

from otgd.errors import PermanentError, TransientError
from otgd.nft import FAMILIES, TABLE, lay_out, parse, read_back, transition
from otgd.ruleset import changed

if TYPE_CHECKING:
    from collections.abc import Collection

    from otgd.model import Rule
    from otgd.nft import Table

_ATTEMPTS = 3
_NETLINK_NETFILTER = 12  # include/uapi/linux/netlink.h; Python names it from 3.13 on only
_GONE = (errno.ENOENT, errno.ENODEV)
_BUSY = (errno.EBUSY, errno.EAGAIN, errno.EINTR, errno.ENOBUFS, errno.ENOMEM, errno.EEXIST)
_DENIED = (errno.EPERM, errno.EACCES)
_UNKNOWN = (errno.EPROTONOSUPPORT, errno.EAFNOSUPPORT, errno.EOPNOTSUPP, errno.EINVAL)


class NftablesFirewall:
    """Keeps ``FirewallPort`` with tables of our own."""

    name = "nftables"

    def __init__(self) -> None:
        self._nft: Any = None

    def observe(self) -> frozenset[Rule]:
        """Return our rules that are in force, and strays."""
        return read_back(self._held())

    def apply(self, *, remove: Collection[Rule], add: Collection[Rule]) -> None:
        """Make the change in one transaction of nf_tables, whatever it is made of."""
        for _ in range(_ATTEMPTS):
            held = self._held()
            wanted = lay_out(changed(read_back(held), remove=remove, add=add))
            commands = transition(held, wanted)
            if not commands:
                return
            error = self._run(commands)[1]
            if not error:
                return
            if not _is(error, *_GONE, *_BUSY):
                raise _translated("change nftables", error)
        raise TransientError(f"change nftables: {_brief(error)}")

    def _held(self) -> dict[str, Table]:
        held = {}
        for family in FAMILIES:
            text, error = self._run(f"list table {family} {TABLE}")
            if not error:
                held[family] = parse(text)
            elif not _is(error, *_GONE):
                raise _translated("read nftables", error)
        return held

    def _run(self, commands: str) -> tuple[str, str]:
        """Return output and error."""
        if self._nft is None:
            self._nft = _library()
        code, output, error = self._nft.cmd(commands)
        return output, (error or f"code {code}") if code else ""


def _library() -> Any:  # noqa: ANN401 - untyped library
    """Load libnftables and open its socket, in the network namespace of now.

    Raises:
        PermanentError: the library or the kernel's side is missing.
    """
    try:
        # Where there is no such socket, libnftables ends the whole process.
        socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, _NETLINK_NETFILTER).close()
    except OSError as err:
        raise PermanentError(f"open nftables: the kernel has no nf_tables ({err})") from err
    try:
        nft = importlib.import_module("nftables").Nftables()
    except (ImportError, OSError) as err:
        raise PermanentError(f"load nftables: {err}; install python3-nftables") from err
    nft.set_numeric_prio_output(True)
    return nft


def _is(error: str, *numbers: int) -> bool:
    return any(os.strerror(number) in error for number in numbers)


def _brief(error: str) -> str:
    return error.strip().partition("\n")[0].removeprefix("Error: ")


def _translated(operation: str, error: str) -> TransientError | PermanentError:
    if _is(error, *_BUSY):
        return TransientError(f"{operation}: {_brief(error)}")
    if _is(error, *_DENIED):
        return PermanentError(f"{operation}: needs CAP_NET_ADMIN")
    if "cache initialization failed" in error and _is(error, *_UNKNOWN):
        return PermanentError(f"{operation}: the kernel has no nf_tables ({_brief(error)})")
    return PermanentError(f"{operation}: {_brief(error)}")
