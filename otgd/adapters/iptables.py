"""Firewall rules in the legacy xtables tables, through python-iptables (``iptc``).

Layout and reading back are ``otgd.firewall.xtables``; this module moves lines between it and the
kernel.

- A transaction is one commit per table that changes, all of them prepared before the first. The
  kernel swaps a whole table at a commit, so no packet meets half of one.
- ``iptc`` ignores the lock that iptables(8) takes, and without it a foreign change between our
  read and our commit may be lost: ``apply`` takes it, and never waits for it.
- Table objects are snapshots that the whole process shares: each use begins with a refresh.
- Reading a line's parameters makes ``iptc`` point file descriptor 1 to a pipe for a moment: use it
  from one thread only. Lines once read are remembered by their bytes, so this is rare (and 170 µs
  a line is saved).
- A transaction over several tables is not one to the kernel: should a later commit fail, the
  earlier ones stand until the next pass. Guards come first, masquerade last.
- Only IPv4 passes these tables. Isolation does not reach IPv6, and a quarantine does not stop ARP,
  IPv6 or what packet sockets send (DHCP clients); the nftables backend stops these.
"""

from __future__ import annotations

import ctypes
import fcntl
import os
import struct
from collections import Counter
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from otgd.errors import PermanentError, TransientError
from otgd.firewall.lean_import import import_iptc
from otgd.firewall.ruleset import changed
from otgd.firewall.xtables import PREFIX, TABLES, Foreign, Line, lay_out, read_back

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Iterator

    from otgd.firewall.xtables import Content, Layout
    from otgd.model import Rule

_ATTEMPTS = 8
_MEMORY_LINES = 10_000
_EXTENSION = struct.Struct("=H29sB")  # struct xt_entry_match and xt_entry_target, x_tables.h
_TABLES_IN_USE = Path("/proc/thread-self/net/ip_tables_names")
_CHANGED_MEANWHILE = "Resource temporarily unavailable"
_LOOK_AGAIN = (
    _CHANGED_MEANWHILE,  # EAGAIN: somebody without the lock committed since we looked
    "Invalid argument",  # EINVAL: or between our commit and its restoring of counters (libiptc.c)
)
_CAUSES = {
    "Permission denied": "needs CAP_NET_ADMIN and CAP_NET_RAW",
    "Operation not permitted": "needs CAP_NET_ADMIN and CAP_NET_RAW",
    "iptables who?": "the kernel has no legacy iptables; use the nftables backend",
    "Table does not exist": "the kernel has no such legacy table; use the nftables backend",
}


class IptablesFirewall:
    """Keeps ``FirewallPort`` with chains of our own in raw, mangle and nat."""

    name = "iptables"

    def __init__(self) -> None:
        self._kernel: _Kernel | None = None

    def observe(self) -> frozenset[Rule]:
        """Return our rules that are in force, and strays; loads no table that is not in use."""
        with _translated("read legacy iptables"):
            kernel = self._loaded()
            return read_back({name: kernel.table(name).content() for name in _in_use()})

    def apply(self, *, remove: Collection[Rule], add: Collection[Rule]) -> None:
        """Commit the change, table by table in the order of ``otgd.firewall.xtables.TABLES``."""
        with _translated("change legacy iptables"):
            kernel = self._loaded()
            with _xtables_lock():
                for left in reversed(range(_ATTEMPTS)):
                    try:
                        _change(kernel, remove=remove, add=add)
                    except kernel.error as err:
                        if not left or not any(sign in str(err) for sign in _LOOK_AGAIN):
                            raise
                    else:
                        return

    def tidy(self) -> None:
        """Do nothing: a chain goes with its last rule."""

    def _loaded(self) -> _Kernel:
        if self._kernel is None:
            self._kernel = _Kernel()
        return self._kernel


def _change(kernel: _Kernel, *, remove: Collection[Rule], add: Collection[Rule]) -> None:
    tables = {name: kernel.table(name) for name in _in_use()}
    held = {name: table.content() for name, table in tables.items()}
    wanted = lay_out(changed(read_back(held), remove=remove, add=add))
    prepared = []
    for name in TABLES:
        if held.get(name, {}) == wanted[name]:
            continue
        table = tables.get(name) or kernel.table(name)
        table.become(wanted[name])
        prepared.append(table)
    for table in prepared:
        table.commit()


def _in_use() -> tuple[str, ...]:
    """Return which of our tables exist here: reading another one would make the kernel load it."""
    try:
        names = _TABLES_IN_USE.read_text(encoding="ascii").split()
    except PermissionError:  # 0440: a user with capabilities but not root
        return TABLES
    return tuple(name for name in TABLES if name in names)


class _Kernel:
    """The library, loaded, and what it was taught."""

    def __init__(self) -> None:
        iptc = import_iptc()
        if not _TABLES_IN_USE.exists():  # the module is not loaded; the only process ever started
            with suppress(OSError):  # no modprobe here
                iptc.util.load_kernel("ip_tables")
        if not _TABLES_IN_USE.exists():
            raise PermanentError(f"load ip_tables: {_CAUSES['iptables who?']}")
        self.iptc: Any = iptc
        self.error: type[Exception] = iptc.IPTCError
        # To learn whether a target is a chain, iptc's rules load all five tables; ours need not.
        self.rule: Any = type("Rule", (iptc.Rule,), {"tables": ()})
        self.read: dict[bytes, Line | Foreign] = {}
        self.written: dict[Line, Any] = {}

    def table(self, name: str) -> _Table:
        return _Table(self, name)


class _Table:
    """A snapshot of one table; changes are in force after ``commit``."""

    def __init__(self, kernel: _Kernel, name: str) -> None:
        self._kernel = kernel
        self._name = name
        # A new object takes its snapshot itself, but only a refresh is sure to be of now.
        self._table = kernel.iptc.Table(name, autocommit=False)
        self._table.refresh()
        self._entries = {
            chain.name: tuple(self._entries_of(chain.name)) for chain in self._table.chains
        }

    def content(self) -> Content:
        """Return all of our chains, and of the others what leads into ours."""
        found = {
            chain: tuple(line for line, _ in entries) for chain, entries in self._entries.items()
        }
        return {chain: lines for chain, lines in found.items() if lines or _is_ours(chain)}

    def commit(self) -> None:
        self._table.commit()

    def become(self, wanted: Layout) -> None:
        """Turn the snapshot into *wanted*; lines that stay keep their counters."""
        doomed = [chain for chain in self._entries if _is_ours(chain) and chain not in wanted]
        for chain in wanted:
            if not self._table.is_chain(chain):
                self._table.create_chain(chain)
        for chain in (*wanted, *(chain for chain in self._entries if chain not in wanted)):
            self._edit(chain, wanted.get(chain, ()))
        for chain in doomed:
            self._table.delete_chain(chain)

    def _edit(self, chain: str, wanted: tuple[Line, ...]) -> None:
        entries = self._entries.get(chain, ())
        needless = Counter(line for line, _ in entries) - Counter[Line | Foreign](wanted)
        kept = []
        for line, entry in entries:
            if needless[line]:
                needless[line] -= 1
                rule = self._kernel.rule(entry, self._kernel.iptc.Chain(self._table, chain))
                self._table.delete_entry(chain, rule.rule, rule.mask)  # the first that is equal
            else:
                kept.append(line)
        if not _is_subsequence(kept, wanted):
            self._table.flush_entries(chain)
            kept = []
        for position, line in enumerate(wanted):
            if kept[position : position + 1] != [line]:
                self._table.insert_entry(chain, self._encode(line), position)
                kept.insert(position, line)

    def _entries_of(self, chain: str) -> Iterator[tuple[Line | Foreign, Any]]:
        entry = self._table.first_rule(chain)
        while entry:
            target = (self._table.get_target(entry) or b"").decode()
            if _is_ours(chain) or _is_ours(target):
                yield self._decode(chain, entry, target), entry
            entry = self._table.next_rule(entry)

    def _decode(self, chain: str, entry: Any, target: str) -> Line | Foreign:  # noqa: ANN401 - untyped library
        key = _fingerprint(entry, target)
        known = self._kernel.read.get(key)
        if known is None:
            rule = self._kernel.rule(entry, self._kernel.iptc.Chain(self._table, chain))
            known = _as_line(self._kernel.iptc.easy.decode_iptc_rule(rule))
            _remember(self._kernel.read, key, known)
        return known

    def _encode(self, line: Line) -> Any:  # noqa: ANN401 - untyped library
        known = self._kernel.written.get(line)
        if known is None:
            known = _as_rule(line, self._kernel.rule()).rule
            _remember(self._kernel.written, line, known)
        return known


def _remember(memory: dict[Any, Any], key: object, value: object) -> None:
    if len(memory) >= _MEMORY_LINES:
        memory.clear()
    memory[key] = value


def _fingerprint(entry: Any, target: str) -> bytes:  # noqa: ANN401 - untyped library
    """Return the entry's bytes without those that mean nothing.

    Counters and ``comefrom`` change by themselves. Behind an extension's name the kernel writes
    nothing (xt_obj_to_user), so there is what libiptc's memory held before. The value of a jump
    or verdict is an offset; *target* tells what it leads to.
    """
    image = ctypes.string_at(ctypes.addressof(entry), entry.next_offset)
    kind = type(entry)
    parts = [target.encode(), image[: kind.nfcache.offset]]
    at = kind.elems.offset
    while at < len(image):
        size, name, revision = _EXTENSION.unpack_from(image, at)
        name = name.partition(b"\0")[0]
        parts += [name, bytes([revision])]
        if name:
            parts.append(image[at + _EXTENSION.size : at + size])
        at += size
    return b"\0".join(parts)


def _is_subsequence(part: Iterable[object], whole: Iterable[object]) -> bool:
    rest = iter(whole)
    return all(item in rest for item in part)


def _is_ours(chain: str) -> bool:
    return chain.startswith(PREFIX)


_PLAIN_FIELDS = {
    "src": "source",
    "dst": "destination",
    "in-interface": "in_interface",
    "out-interface": "out_interface",
}


def _as_line(words: dict[str, Any]) -> Line | Foreign:
    """Understand what ``iptc.easy`` says of a rule, or nothing of it."""
    words.pop("counters", None)
    fields: dict[str, Any] = {}
    for word, value in words.items():
        match word, value:
            case (("src" | "dst" | "in-interface" | "out-interface"), str()):
                fields[_PLAIN_FIELDS[word]] = value
            case "comment", {"comment": str(text), **rest} if not rest:
                fields["comment"] = text
            case "conntrack", {"ctstate": str(states), **rest} if not rest:
                fields["ctstate"] = states
            case "target", {"goto": str(chain), **rest} if not rest:
                fields |= {"target": chain, "goto": True}
            case "target", {"MARK": {"set-xmark": str(mark), **options}, **rest} if not (
                options or rest
            ):
                fields |= {"target": "MARK", "set_xmark": mark}
            case "target", str(target):
                fields["target"] = target
            case _:
                return Foreign(text=str(words))
    if "target" not in fields or "comment" not in fields:
        return Foreign(text=str(words))
    return Line(**fields)


def _as_rule(line: Line, rule: Any) -> Any:  # noqa: ANN401 - untyped library
    """Fill an iptc rule; chains are targets under the name of the standard one."""
    if line.source:
        rule.src = line.source
    if line.destination:
        rule.dst = line.destination
    if line.in_interface:
        rule.in_interface = _literal(line.in_interface)
    if line.out_interface:
        rule.out_interface = _literal(line.out_interface)
    if line.ctstate:
        rule.create_match("conntrack").set_parameter("ctstate", line.ctstate)
    rule.create_match("comment").set_parameter("comment", line.comment)
    if _is_ours(line.target):
        rule.create_target("", goto=line.goto).standard_target = line.target
    else:
        target = rule.create_target(line.target)
        if line.set_xmark:
            target.set_parameter("set-xmark", line.set_xmark)
    rule.final_check()  # MASQUERADE's number of ranges is set here and nowhere else
    return rule


def _literal(ifname: str) -> str:
    """Refuse a name that iptables takes for a pattern or a negation."""
    if ifname.startswith("!") or ifname.endswith("+"):
        raise PermanentError(f"write a rule for {ifname}: iptables cannot name this link")
    return ifname


@contextmanager
def _xtables_lock() -> Iterator[None]:
    """Hold the lock of iptables(8); its file is as in iptables/xshared.c."""
    path = os.environ.get("XTABLES_LOCKFILE", "/run/xtables.lock")
    try:
        handle = os.open(path, os.O_RDONLY | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as err:
        raise PermanentError(f"open {path}: {err.strerror}") from err
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield
    except BlockingIOError as err:
        raise TransientError(f"lock {path}: another program is changing iptables") from err
    finally:
        os.close(handle)


@contextmanager
def _translated(operation: str) -> Iterator[None]:
    """Turn whatever iptc raises into what helps; it has no common base for its exceptions."""
    try:
        yield
    except (PermanentError, TransientError):
        raise
    except (OSError, ValueError, AttributeError) as err:
        raise PermanentError(f"{operation}: {err}") from err
    except Exception as err:
        if type(err).__module__.partition(".")[0] != "iptc":
            raise
        text = str(err)
        if _CHANGED_MEANWHILE in text:
            raise TransientError(f"{operation}: {text}") from err
        cause = next((cause for sign, cause in _CAUSES.items() if sign in text), text)
        raise PermanentError(f"{operation}: {cause}") from err
