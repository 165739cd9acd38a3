"""How our rules are laid out in nftables, and read back from its listing; pure.

``table inet otgd`` has fixed chains that look links and sources up in sets, so a gadget is a few
elements, each with a comment that names it, and a packet costs the same whatever their number.
It is made for the first gadget and stays, empty, when the last one goes: elements cost a third.
``table netdev otgd`` exists only while a link is quarantined: two chains per link that drop.

The text made here is what nft(8) lists, so one parser reads both. Reading back is strict: from
the telling elements it guesses the rules, lays those out again and compares. A rule is in force if
that gives exactly what the table holds; all else is a ``Stray``. The forms used are the same in
the listings of nftables 1.0.6 and later (priorities are asked for as numbers).

Isolation and a refused uplink hold for IPv6 too; only IPv4 is ever marked as allowed. A link counts
as a gadget's when it has a SourceGuard or a Forward.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from ipaddress import IPv4Network
from typing import TYPE_CHECKING

from otgd.errors import PermanentError
from otgd.model import FORWARD_MARK, Forward, Masquerade, Quarantine, SourceGuard, Stray

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Iterator, Mapping

    from otgd.model import Rule

FAMILIES = ("inet", "netdev")
"""The families in which a table of ours may exist; its name is ``TABLE`` in each."""

TABLE = "otgd"
_COMMENT = 'comment "kept by otgd, changes are undone"'
_REFUSED = " refused"

_SETS = {
    "set guarded": ["type ifname"],
    "set sources": ["type ifname . ipv4_addr", "flags interval"],
    "set links": ["type ifname"],
    "set isolated": ["type ifname"],
    "set open": ["type ifname"],
    "map uplinks": ["type ifname . ifname : verdict"],
    "set masqueraded": ["type ipv4_addr . ifname", "flags interval"],
}
_CHAINS = {
    "chain prerouting": [
        "type filter hook prerouting priority -300; policy accept;",
        "iifname @guarded iifname . ip saddr != @sources drop",
    ],
    "chain forward": [
        "type filter hook forward priority -150; policy accept;",
        "iifname . oifname vmap @uplinks",
        "iifname @links oifname @links goto peers",
    ],
    "chain peers": [
        "iifname @isolated drop",
        "oifname @isolated drop",
        "iifname @open goto allow",
        "oifname @open goto allow",
    ],
    "chain replies": ["ct state established,related goto allow"],
    "chain refuse": ["ct state invalid,new drop"],
    "chain allow": [f"meta nfproto ipv4 meta mark set meta mark | {FORWARD_MARK:#010x}"],
    "chain nat": [
        "type nat hook postrouting priority 100; policy accept;",
        "ip saddr . oifname @masqueraded masquerade",
    ],
    "chain postrouting": [
        "type filter hook postrouting priority 150; policy accept;",
        f"meta mark set meta mark & {~FORWARD_MARK & 0xFFFFFFFF:#010x}",
    ],
}
_HEAD = {"": [_COMMENT]}
_KINDS: Mapping[str, tuple[type[Rule], ...]] = {
    "set guarded": (SourceGuard,),
    "set sources": (SourceGuard,),
    "set links": (SourceGuard, Forward),
    "set isolated": (Forward,),
    "set open": (Forward,),
    "map uplinks": (Forward,),
    "set masqueraded": (Masquerade,),
}


@dataclass(frozen=True, slots=True)
class Table:
    """A table, as it shall be or as it is listed.

    Attributes:
        blocks: lines of each set, map and chain without elements; ``""`` has the table's own.
        elements: elements of each set and map, as listed.
    """

    blocks: dict[str, list[str]]
    elements: dict[str, frozenset[str]]


# --- rules → tables ------------------------------------------------------------------------------


def lay_out(rules: Collection[Rule], *, framed: bool = False) -> dict[str, Table]:
    """Return the tables that hold *rules*, by family; none for a family without rules.

    If *framed*, ``table inet otgd`` is there in any case.
    """
    tables = {}
    if framed or any(not isinstance(rule, Quarantine) for rule in rules):
        tables["inet"] = Table({**_HEAD, **_SETS, **_CHAINS}, _elements(rules))
    quarantines = [rule.ifname for rule in rules if isinstance(rule, Quarantine)]
    if quarantines:
        tables["netdev"] = Table(_HEAD | _quarantine_chains(quarantines), {})
    return tables


def _elements(rules: Iterable[Rule]) -> dict[str, frozenset[str]]:
    elements: dict[str, set[str]] = {name: set() for name in _SETS}
    for rule in rules:
        for name, element in _elements_of(rule):
            elements[name].add(element)
    for name, texts in elements.items():
        if len({key(text) for text in texts}) < len(texts):
            raise PermanentError(f"fill {name}: two gadgets with one link or one subnet")
    return {name: frozenset(texts) for name, texts in elements.items()}


def _elements_of(rule: Rule) -> Iterator[tuple[str, str]]:
    match rule:
        case Masquerade():
            key = f"{_network(rule.subnet)} . {_quoted(rule.uplink)}"
            yield "set masqueraded", _element(key, rule.gadget)
        case SourceGuard():
            link = _quoted(rule.ifname)
            yield "set guarded", _element(link, rule.gadget)
            yield "set sources", _element(f"{link} . {_network(rule.subnet)}", rule.gadget)
            yield "set links", _element(link, rule.gadget)
        case Forward():
            link = _quoted(rule.ifname)
            silent = not rule.uplink and not rule.to_uplink  # what no other element tells
            comment = rule.gadget + (_REFUSED if silent else "")
            yield "set links", _element(link, rule.gadget)
            yield f"set {'open' if rule.to_peers else 'isolated'}", _element(link, comment)
            yield from _uplink_elements(rule)
        case _:
            return


def _uplink_elements(rule: Forward) -> Iterator[tuple[str, str]]:
    if not rule.uplink:
        return
    there = f"{_quoted(rule.ifname)} . {_quoted(rule.uplink)}"
    back = f"{_quoted(rule.uplink)} . {_quoted(rule.ifname)}"
    if rule.to_uplink:
        yield "map uplinks", _element(there, rule.gadget, "allow")
        yield "map uplinks", _element(back, rule.gadget, "replies")
    else:
        yield "map uplinks", _element(there, rule.gadget, "refuse")


def _element(key: str, comment: str, chain: str = "") -> str:
    return f"{key} comment {_quoted(comment)}" + (f" : goto {chain}" if chain else "")


def _network(subnet: IPv4Network) -> str:
    return str(subnet.network_address if subnet.prefixlen == subnet.max_prefixlen else subnet)


def _quoted(name: str) -> str:
    """Quote a name, or refuse one that nft(8) takes for a pattern or cannot write."""
    if re.search(r'["\\\n]|\*$', name) or len(name.encode()) > 128:
        raise PermanentError(f"write a rule for {name}: nftables cannot name this")
    return f'"{name}"'


def _quarantine_chains(ifnames: Iterable[str]) -> dict[str, list[str]]:
    return {
        f"chain {hook}_{_identifier(name)}": [
            f"type filter hook {hook} device {_quoted(name)} priority -500; policy drop;"
        ]
        for name in ifnames
        for hook in ("ingress", "egress")
    }


def _identifier(name: str) -> str:
    """Spell a link's name with what nft(8) allows in a chain's; no link's name has a slash."""
    return re.sub(r"[^A-Za-z0-9_.]", lambda odd: f"/{odd[0].encode().hex()}", name)


# --- tables → commands ---------------------------------------------------------------------------


def transition(held: Mapping[str, Table], wanted: Mapping[str, Table]) -> list[str]:
    """Return the commands that turn *held* into *wanted*, a string for each transaction.

    A table that was not there is hooked in by a second one: the elements of interval sets are found
    a moment later than the rest of their transaction (nft_pipapo_commit), so a chain that came with
    them would drop a packet that they allow. The first one has no effect on packets.
    """
    parts, first = [], ""
    for family in FAMILIES:
        have, want = held.get(family), wanted.get(family)
        if have == want:
            continue
        if want is None:
            parts.append(f"delete table {family} {TABLE}")
        elif have is not None and have.blocks == want.blocks:
            parts += _element_commands(family, have, want)
        elif have is None and want.elements:
            hooks = {name: body for name, body in want.blocks.items() if _is_hook(body)}
            rest = {name: body for name, body in want.blocks.items() if name not in hooks}
            first = listing(family, Table(rest, want.elements))
            parts.append(listing(family, Table(hooks, {})))
        else:
            parts += [f"add table {family} {TABLE}", f"delete table {family} {TABLE}"]
            parts.append(listing(family, want))
    return [commands for commands in (first, "\n".join(parts)) if commands]


def _is_hook(body: list[str]) -> bool:
    """Tell whether this is a chain that packets come through by themselves."""
    return bool(body) and " hook " in body[0]


def amendment(before: Collection[Rule], after: Collection[Rule]) -> list[str] | None:
    """Return the commands that turn some gadgets' rules into others, as ``transition`` does.

    None if elements won't do.

    What no gadget has to itself (the table as such, quarantines) is none of elements' business.
    """
    if any(isinstance(rule, Quarantine | Stray) for rule in (*before, *after)):
        return None
    have = Table({}, _elements(before))
    want = Table({}, _elements(after))
    commands = "\n".join(_element_commands("inet", have, want))
    return [commands] if commands else []


def _element_commands(family: str, have: Table, want: Table) -> Iterator[str]:
    pairs = [(n.partition(" ")[2], have.elements[n], want.elements[n]) for n in want.elements]
    for name, before, after in pairs:
        if gone := sorted(map(key, before - after)):
            yield f"delete element {family} {TABLE} {name} {{ {', '.join(gone)} }}"
    for name, before, after in pairs:
        if new := sorted(after - before):
            yield f"add element {family} {TABLE} {name} {{ {', '.join(new)} }}"


def listing(family: str, table: Table) -> str:
    """Write a table as nft(8) does."""
    lines = [f"table {family} {TABLE} {{"]
    for name, body in table.blocks.items():
        elements = sorted(table.elements.get(name, ()))
        inner = [*body, f"elements = {{ {', '.join(elements)} }}"] if elements else body
        lines += [f"\t{line}" for line in inner] if not name else _block(name, inner)
    return "\n".join([*lines, "}"])


def _block(name: str, body: Iterable[str]) -> list[str]:
    return [f"\t{name} {{", *(f"\t\t{line}" for line in body), "\t}"]


def key(element: str) -> str:
    """Return an element without comment and verdict."""
    found = re.match(r'("[^"]*"|[^\s"]+)( \. ("[^"]*"|[^\s"]+))*', element)
    return found[0] if found else element


# --- listing → tables ----------------------------------------------------------------------------


def parse(text: str) -> Table:
    """Read what ``nft list table`` prints."""
    blocks: dict[str, list[str]] = {"": []}
    elements: dict[str, frozenset[str]] = {}
    name = ""
    lines = iter(text.splitlines()[1:])
    for raw in lines:
        line = re.sub(r'\s+#[^"]*$', "", raw).strip()
        if line.startswith("elements = {"):
            while not line.endswith("}"):
                line += " " + next(lines).strip()
            elements[name] = frozenset(_split(line.removeprefix("elements = {")[:-1]))
        elif line.endswith(" {"):
            name = line[:-2]
            blocks[name] = []
            if not name.startswith("chain "):
                elements[name] = frozenset()
        elif line == "}":
            name = ""
        elif line:
            blocks[name].append(_normal(line))
    return Table(blocks, elements)


def _split(elements: str) -> list[str]:
    """Split at commas outside of quotes."""
    found = re.findall(r'(?:"[^"]*"|[^",])+', elements)
    return [text for text in (" ".join(part.split()) for part in found) if text]


def _normal(line: str) -> str:
    """Leave out what versions print differently: the family that ``ip saddr`` implies anyway."""
    return line.replace("meta nfproto ipv4 ", "") if "ip saddr" in line else line


# --- tables → rules ------------------------------------------------------------------------------


@dataclass(slots=True)
class _Verdict:
    """What is wrong with the tables: for a gadget's rule of a kind, for a family, or for nobody."""

    broken: set[str] = field(default_factory=set)
    harmed: set[tuple[type[Rule], str]] = field(default_factory=set)
    strays: set[Stray] = field(default_factory=set)

    def stray(self, family: str, text: str) -> None:
        self.strays.add(Stray(text=f"table {family} {TABLE}: {text}"))

    def in_force(self, rule: Rule) -> bool:
        match rule:
            case Quarantine():
                return "netdev" not in self.broken
            case Stray():
                return False
            case _:
                return "inet" not in self.broken and (type(rule), rule.gadget) not in self.harmed


def read_back(held: Mapping[str, Table]) -> frozenset[Rule]:
    """Return the rules that the tables mean, and a stray for all that should not be there."""
    rules = {*_guess(held["inet"])} if "inet" in held else set()
    if "netdev" in held:
        rules |= _guess_quarantines(held["netdev"])
    expected = lay_out(rules, framed="inet" in held)
    verdict = _Verdict()
    for family, table in held.items():
        if family not in expected:
            verdict.stray(family, "of no use")
            continue
        _compare_blocks(verdict, family, table.blocks, expected[family].blocks)
        _compare_elements(verdict, table.elements, expected[family].elements)
    return frozenset({rule for rule in rules if verdict.in_force(rule)} | verdict.strays)


def _compare_blocks(
    verdict: _Verdict, family: str, held: Mapping[str, list[str]], wanted: Mapping[str, list[str]]
) -> None:
    for name in wanted:
        have, want = iter(held.get(name, ())), wanted[name]
        for line in want:
            if name not in held or line not in have:
                verdict.broken.add(family)
                verdict.stray(family, f"{name} lacks {line}".strip())
                break
    for name, lines in held.items():
        needless = [line for line in lines if line not in wanted.get(name, ())]
        if needless and not name:
            verdict.broken.add(family)  # a dormant table is not in force
        if needless or name not in wanted or len(lines) > len(wanted[name]):
            verdict.stray(family, f"{name} has a needless {'; '.join(needless) or 'line'}".strip())


def _compare_elements(
    verdict: _Verdict, held: Mapping[str, frozenset[str]], wanted: Mapping[str, frozenset[str]]
) -> None:
    for name, want in wanted.items():
        have = held.get(name, frozenset())
        for elements, what in ((want - have, "lacks"), (have - want, "has a needless")):
            for element in elements:
                verdict.stray("inet", f"{name} {what} {element}")
                verdict.harmed |= {(kind, _owner(element)) for kind in _KINDS[name]}


def _comment(element: str) -> str:
    found = re.search(r' comment "([^"]*)"', element)
    return found[1] if found else ""


def _owner(element: str) -> str:
    return _comment(element).removesuffix(_REFUSED)


def _fields(table: Table, name: str) -> Iterator[tuple[str, list[str], str]]:
    """Yield owner, fields of the key, and element."""
    for element in table.elements.get(name, ()):
        fields = [part.strip('"') for part in key(element).split(" . ")]
        if _owner(element) and len(fields) == _SETS[name][0].count(" . ") + 1:
            yield _owner(element), fields, element


def _guess(inet: Table) -> Iterator[Rule]:
    for gadget, (subnet, uplink), _ in _fields(inet, "set masqueraded"):
        if network := _as_network(subnet):
            yield Masquerade(gadget=gadget, subnet=network, uplink=uplink)
    for gadget, (ifname, subnet), _ in _fields(inet, "set sources"):
        if network := _as_network(subnet):
            yield SourceGuard(gadget=gadget, ifname=ifname, subnet=network)
    to_uplink = {
        (gadget, ifname): (uplink, element.endswith(" : goto allow"))
        for gadget, (ifname, uplink), element in _fields(inet, "map uplinks")
        if not element.endswith(" : goto replies")
    }
    for name in ("set open", "set isolated"):
        for gadget, (ifname,), element in _fields(inet, name):
            silent = ("", not _comment(element).endswith(_REFUSED))
            uplink, allowed = to_uplink.get((gadget, ifname), silent)
            yield Forward(
                gadget=gadget,
                ifname=ifname,
                uplink=uplink,
                to_uplink=allowed,
                to_peers=name == "set open",
            )


def _as_network(text: str) -> IPv4Network | None:
    """Return a subnet, or None for a range of addresses that is none."""
    try:
        return IPv4Network(text)
    except ValueError:
        return None


def _guess_quarantines(netdev: Table) -> set[Rule]:
    lines = (line for body in netdev.blocks.values() for line in body)
    names = (re.search(r' device "([^"]*)" ', line) for line in lines)
    return {Quarantine(ifname=name[1]) for name in names if name}
