"""Firewall rules in nftables, through python3-nftables (libnftables).

Layout and reading back are ``otgd.firewall.nft``; this module runs its commands. libnftables sends
all the commands of one call as one transaction, and buffers what it prints. Nothing locks the
tables, so a command may refer to what was changed since we looked; then we look again.
"""

from __future__ import annotations

import errno
import importlib
import os
import socket
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from otgd.errors import PermanentError, TransientError
from otgd.firewall.nft import FAMILIES, TABLE, amendment, lay_out, parse, read_back, transition
from otgd.firewall.ruleset import changed, way_out
from otgd.model import Quarantine, Stray
from otgd.netlink.nfnetlink import NETLINK_NETFILTER, NfTables

if TYPE_CHECKING:
    from collections.abc import Callable, Collection
    from ipaddress import IPv4Network

    from otgd.firewall.nft import Table
    from otgd.model import Rule

_ATTEMPTS = 3
_GONE = (errno.ENOENT, errno.ENODEV)
_BUSY = (errno.EBUSY, errno.EAGAIN, errno.EINTR, errno.ENOBUFS, errno.ENOMEM, errno.EEXIST)
_DENIED = (errno.EPERM, errno.EACCES)
_UNKNOWN = (errno.EPROTONOSUPPORT, errno.EAFNOSUPPORT, errno.EOPNOTSUPP, errno.EINVAL)


class NftablesFirewall:
    """Keeps ``FirewallPort`` with tables of our own.

    nf_tables counts transactions, whoever makes them. While that count is what it was after our
    last look or transaction, the tables are as we know them and need not be listed again: so a
    plug costs the same with one gadget and with hundreds.
    """

    name = "nftables"

    def __init__(self) -> None:
        self._nft: Any = None
        self._kernel: NfTables | None = None
        self._known: _Known | None = None

    def observe(self) -> frozenset[Rule]:
        """Return our rules that are in force, and strays; the same object while nothing changed."""
        return self._look().rules

    def apply(self, *, remove: Collection[Rule], add: Collection[Rule]) -> None:
        """Make the change in one transaction of nf_tables, the making of a table in two."""
        self._transact(lambda known: self._prepare(known, remove=remove, add=add))

    def tidy(self) -> None:
        """Delete a table without rules; what a foreign hand did to it is left for a pass."""
        self._transact(_unframed)

    def _transact(self, prepare: Callable[[_Known], tuple[list[str], _Known | None]]) -> None:
        """Run the commands that *prepare* makes of what is known; again if that was too old."""
        for _ in range(_ATTEMPTS):
            known = self._look()
            transactions, after = prepare(known)
            if not transactions:
                return
            error = self._run_all(transactions)
            if not error:
                # So many transactions more are ours; if there are others, look again.
                generation = known.generation + len(transactions)
                alone = self._generation() == generation
                self._known = replace(after, generation=generation) if after and alone else None
                return
            self._known = None
            if not _is(error, *_GONE, *_BUSY):
                raise _translated("change nftables", error)
        raise TransientError(f"change nftables: {_brief(error)}")

    def _run_all(self, transactions: list[str]) -> str:
        """Run one after the other; return the error of one that failed, with nothing changed."""
        for number, commands in enumerate(transactions):
            error = self._run(commands)[1]
            if error:
                if number:  # half of a table is there
                    self._run(f"delete table inet {TABLE}")
                return error
        return ""

    def _prepare(
        self, known: _Known, *, remove: Collection[Rule], add: Collection[Rule]
    ) -> tuple[list[str], _Known | None]:
        """Return transactions, and what will be known after them if it is known already."""
        if known.has_strays:
            held = self._held()
            laid_out = lay_out(changed(read_back(held), remove=remove, add=add))
            return transition(held, laid_out), None
        # Without strays the tables are what our rules make of them; they need not be listed.
        gadgets = {_gadget(rule) for rule in (*remove, *add)} | known.competitors(add)
        if "" not in gadgets:
            mine = [rule for name in gadgets for rule in known.by_gadget.get(name, ())]
            wanted = changed(mine, remove=remove, add=add)
            commands = amendment(mine, wanted) if known.framed else None
            if commands is not None:
                return commands, known.amended(mine, wanted)
        rules = changed(known.rules, remove=remove, add=add)
        held = lay_out(known.rules, framed=known.framed)
        laid_out = lay_out(rules, framed=known.framed)
        after = _Known.of(rules, framed="inet" in laid_out)
        return transition(held, laid_out), after

    def _look(self) -> _Known:
        generation = self._generation()
        if self._known is None or self._known.generation != generation:
            held = self._held()
            known = _Known.of(read_back(held), framed="inet" in held)
            self._known = replace(known, generation=generation)
        return self._known

    def _generation(self) -> int:
        try:
            if self._kernel is None:
                self._kernel = NfTables()
            return self._kernel.generation()
        except OSError as err:
            cause = "needs CAP_NET_ADMIN" if err.errno in _DENIED else str(err.strerror)
            raise PermanentError(f"read nftables: {cause}") from err

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


@dataclass(slots=True)
class _Known:
    """What the tables hold at a *generation*.

    Attributes:
        gadgets_by_way: who is masqueraded, by subnet and uplink.
        has_strays: there is more, or less, in them than these rules make.
        framed: ``table inet otgd`` is there, perhaps empty.
    """

    rules: frozenset[Rule]
    by_gadget: dict[str, frozenset[Rule]]
    gadgets_by_way: dict[tuple[IPv4Network, str], str]
    has_strays: bool
    framed: bool
    generation: int = 0

    @classmethod
    def of(cls, rules: frozenset[Rule], *, framed: bool) -> _Known:
        by_gadget: dict[str, set[Rule]] = {}
        for rule in rules:
            by_gadget.setdefault(_gadget(rule), set()).add(rule)
        return cls(
            rules,
            {name: frozenset(theirs) for name, theirs in by_gadget.items()},
            _by_way(rules),
            has_strays=any(isinstance(rule, Stray) for rule in rules),
            framed=framed,
        )

    def competitors(self, add: Collection[Rule]) -> set[str]:
        """Return the gadgets that lose their masquerade to one of the rules."""
        ways = (way_out(rule) for rule in add)
        return {self.gadgets_by_way[way] for way in ways if way in self.gadgets_by_way}

    def amended(self, before: Collection[Rule], after: frozenset[Rule]) -> _Known:
        """Return what is known one transaction later; the old value is of no use any more."""
        by_gadget = self.by_gadget
        for name in {_gadget(rule) for rule in (*before, *after)}:
            theirs = frozenset(rule for rule in after if _gadget(rule) == name)
            if theirs:
                by_gadget[name] = theirs
            else:
                by_gadget.pop(name, None)
        by_way = self.gadgets_by_way
        for way in _by_way(before):
            by_way.pop(way, None)
        by_way |= _by_way(after)
        rules = self.rules.difference(before).union(after)
        return _Known(rules, by_gadget, by_way, has_strays=False, framed=True)


def _unframed(known: _Known) -> tuple[list[str], _Known | None]:
    """Return the transaction that deletes an empty table, and what is known after it."""
    if known.has_strays:
        return [], None
    held, needed = lay_out(known.rules, framed=known.framed), lay_out(known.rules)
    return transition(held, needed), _Known.of(known.rules, framed="inet" in needed)


def _by_way(rules: Collection[Rule]) -> dict[tuple[IPv4Network, str], str]:
    return {way: _gadget(rule) for rule in rules if (way := way_out(rule))}


def _gadget(rule: Rule) -> str:
    return "" if isinstance(rule, Quarantine | Stray) else rule.gadget


def _library() -> Any:  # noqa: ANN401 - untyped library
    """Load libnftables and open its socket, in the network namespace of now.

    Raises:
        PermanentError: the library or the kernel's side is missing.
    """
    try:
        # Where there is no such socket, libnftables ends the whole process.
        socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, NETLINK_NETFILTER).close()
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
