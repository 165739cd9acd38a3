"""How our rules are laid out in the legacy IPv4 tables, and read back from them; pure.

Every chain of ours begins with ``OTGD-``; one jump per hook leads there. Every line carries a
comment that names its owner, and each table holds one part of the work::

    raw     PREROUTING   → OTGD-PREROUTING    quarantines, then spoofed sources: drop
    mangle  FORWARD      → OTGD-FORWARD       gadget ↔ uplink, then by the gadget that sends:
                             ⇒ OTGD-OPEN        may reach peers: allow each but the isolated
                             ⇒ OTGD-ISOLATED    may not: drop for each
                             ⇒ OTGD-PLAIN       has no Forward: as its peers wish
                             ⇒ OTGD-ALLOW       sets FORWARD_MARK
            POSTROUTING  → OTGD-POSTROUTING   quarantines: drop; clears FORWARD_MARK
    nat     POSTROUTING  → OTGD-POSTROUTING   masquerade

→ is a jump, ⇒ a goto: what is decided leaves at once, so a packet passes at most two lines per
gadget on its way to or from the uplink, and four between gadgets. The number of lines grows with
the number of gadgets, not with its square. A link counts as a gadget's when it has a SourceGuard
or a Forward.

Reading back is strict: from the telling lines it guesses the rules, lays those out again and
compares. A rule is in force if that gives exactly what the table holds; all else is a ``Stray``.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from ipaddress import IPv4Network
from typing import TYPE_CHECKING, assert_never

from otgd.model import FORWARD_MARK, Forward, Masquerade, Quarantine, SourceGuard, Stray

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Iterator, Mapping

    from otgd.model import Rule

PREFIX = "OTGD-"
TABLES = ("raw", "mangle", "nat")
"""In order of commit: a gadget is guarded before it can get anywhere."""

_OPEN, _ISOLATED, _PLAIN, _ALLOW = (
    f"{PREFIX}{name}" for name in ("OPEN", "ISOLATED", "PLAIN", "ALLOW")
)
_FORWARD = f"{PREFIX}FORWARD"
_OURS = "otgd"
_OWNED = "otgd:"
_QUARANTINE = "otgd quarantine:"
_REFUSED = " refused"
_BIT = f"{FORWARD_MARK:#x}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Line:
    """One rule of a chain, in the words of iptables(8); ``!`` in front of a value inverts it."""

    comment: str
    target: str
    goto: bool = False
    source: str = ""
    destination: str = ""
    in_interface: str = ""
    out_interface: str = ""
    ctstate: str = ""
    set_xmark: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Foreign:
    """A line in a chain of ours that none of us wrote."""

    text: str


_Named = Masquerade | SourceGuard | Quarantine | Forward

Layout = dict[str, tuple[Line, ...]]
"""A table's lines of ours by chain; of a built-in chain only the jumps to our chains."""

Content = dict[str, tuple[Line | Foreign, ...]]
"""What a table holds: all of our chains, and of the other chains what leads into ours."""


# --- rules → lines -------------------------------------------------------------------------------


def lay_out(rules: Collection[Rule]) -> dict[str, Layout]:
    """Return the lines of *rules* in each table; nothing for a table that needs none."""
    forwards = [rule for rule in rules if isinstance(rule, Forward)]
    speakers = {forward.ifname for forward in forwards}
    guards = [rule for rule in rules if isinstance(rule, SourceGuard)]
    quarantines = [rule for rule in rules if isinstance(rule, Quarantine)]
    plain = [_Plain(g.gadget, g.ifname) for g in guards if g.ifname not in speakers]
    masquerades = [rule for rule in rules if isinstance(rule, Masquerade)]
    return {
        "raw": _raw(guards, quarantines),
        "mangle": _mangle(forwards, plain, quarantines),
        "nat": _nat(masquerades),
    }


@dataclass(frozen=True, slots=True)
class _Plain:
    """A gadget's link without a Forward of its own."""

    gadget: str
    ifname: str


def _raw(guards: Iterable[SourceGuard], quarantines: Iterable[Quarantine]) -> Layout:
    lines = [
        Line(comment=_QUARANTINE + rule.ifname, in_interface=rule.ifname, target="DROP")
        for rule in sorted(quarantines, key=lambda rule: rule.ifname)
    ]
    lines += [
        Line(
            comment=_OWNED + rule.gadget,
            in_interface=rule.ifname,
            source=f"!{rule.subnet}",
            target="DROP",
        )
        for rule in sorted(guards, key=lambda rule: rule.gadget)
    ]
    return _hooked("PREROUTING", lines)


def _nat(masquerades: Iterable[Masquerade]) -> Layout:
    lines = [
        Line(
            comment=_OWNED + rule.gadget,
            source=str(rule.subnet),
            destination=f"!{rule.subnet}",
            out_interface=rule.uplink,
            target="MASQUERADE",
        )
        for rule in sorted(masquerades, key=lambda rule: rule.gadget)
    ]
    return _hooked("POSTROUTING", lines)


def _mangle(
    forwards: Collection[Forward], plain: Collection[_Plain], quarantines: Iterable[Quarantine]
) -> Layout:
    leaving = [
        Line(comment=_QUARANTINE + rule.ifname, out_interface=rule.ifname, target="DROP")
        for rule in sorted(quarantines, key=lambda rule: rule.ifname)
    ]
    if not forwards:
        return _hooked("POSTROUTING", leaving)
    links: list[Forward | _Plain] = sorted([*forwards, *plain], key=lambda link: link.gadget)
    first = [line for link in links for line in _uplink_lines(link)]
    then = [
        Line(
            comment=_OWNED + link.gadget + _suffix(link),
            in_interface=link.ifname,
            target=_chain_from(link),
            goto=True,
        )
        for link in links
    ]
    leaving.append(Line(comment=_OURS, target="MARK", set_xmark=f"0x0/{_BIT}"))
    return {
        **_hooked("FORWARD", first + then),
        **_hooked("POSTROUTING", leaving),
        **_peer_chains(links),
        _ALLOW: (Line(comment=_OURS, target="MARK", set_xmark=f"{_BIT}/{_BIT}"),),
    }


def _hooked(hook: str, lines: list[Line]) -> Layout:
    if not lines:
        return {}
    own = PREFIX + hook
    return {hook: (Line(comment=_OURS, target=own),), own: tuple(lines)}


def _uplink_lines(link: Forward | _Plain) -> Iterator[Line]:
    if isinstance(link, _Plain) or not link.uplink:
        return
    comment = _OWNED + link.gadget
    there = Line(
        comment=comment,
        in_interface=link.ifname,
        out_interface=link.uplink,
        target=_ALLOW if link.to_uplink else "DROP",
        goto=link.to_uplink,
        ctstate="" if link.to_uplink else "INVALID,NEW",
    )
    yield there
    if link.to_uplink:
        yield Line(
            comment=comment,
            in_interface=link.uplink,
            out_interface=link.ifname,
            target=_ALLOW,
            goto=True,
            ctstate="RELATED,ESTABLISHED",
        )


def _chain_from(link: Forward | _Plain) -> str:
    if isinstance(link, _Plain):
        return _PLAIN
    return _OPEN if link.to_peers else _ISOLATED


def _suffix(link: Forward | _Plain) -> str:
    """Keep what no other line tells: that the uplink is refused while there is none."""
    silent = isinstance(link, Forward) and not link.uplink and not link.to_uplink
    return _REFUSED if silent else ""


def _peer_chains(links: Collection[Forward | _Plain]) -> Layout:
    used = {_chain_from(link) for link in links}
    chains = {
        _OPEN: [_to_peer(link, shut=_chain_from(link) == _ISOLATED) for link in links],
        _ISOLATED: [_to_peer(link, shut=True) for link in links],
        _PLAIN: [
            _to_peer(link, shut=not link.to_peers) for link in links if isinstance(link, Forward)
        ],
    }
    return {chain: tuple(lines) for chain, lines in chains.items() if chain in used}


def _to_peer(link: Forward | _Plain, *, shut: bool) -> Line:
    return Line(
        comment=_OWNED + link.gadget,
        out_interface=link.ifname,
        target="DROP" if shut else _ALLOW,
        goto=not shut,
    )


# --- lines → rules -------------------------------------------------------------------------------


def read_back(held: Mapping[str, Content]) -> frozenset[Rule]:
    """Return the rules that the tables' content means, and a stray for all that it should not."""
    raw, mangle, nat = (held.get(table, {}) for table in TABLES)
    masquerades = list(_guess_masquerades(nat))
    guards = list(_guess_guards(raw))
    quarantines = list(_guess_quarantines(raw))
    forwards, plain = _guess_links(mangle)
    known = {link.ifname for link in forwards} | {link.ifname for link in plain}
    expected = {
        "raw": _raw(guards, quarantines),
        "mangle": _mangle(forwards, plain, quarantines),
        "nat": _nat(masquerades),
    }
    verdicts = {t: _compare(t, held.get(t, {}), expected[t]) for t in TABLES}
    for guard in guards:
        if forwards and guard.ifname not in known:
            verdicts["mangle"].damage(_OWNED + guard.gadget, "no peer may know of it")
    guarded = {guard.ifname for guard in guards}
    for link in plain:
        if link.ifname not in guarded:
            verdicts["mangle"].damage(_OWNED + link.gadget, "no guard makes it a gadget's link")
    rules: list[_Named] = [*masquerades, *guards, *quarantines, *forwards]
    sound = {
        rule
        for rule in rules
        if not any(verdicts[table].faults(_comment_of(rule)) for table in _tables_of(rule))
    }
    strays = {stray for verdict in verdicts.values() for stray in verdict.strays()}
    return frozenset(sound | strays)


def _tables_of(rule: _Named) -> tuple[str, ...]:
    match rule:
        case Masquerade():
            return ("nat",)
        case SourceGuard() | Quarantine():
            return ("raw", "mangle")
        case Forward():
            return ("mangle",)
        case _:
            assert_never(rule)


def _comment_of(rule: _Named) -> str:
    if isinstance(rule, Quarantine):
        return _QUARANTINE + rule.ifname
    return _OWNED + rule.gadget


def _owner(line: Line) -> str:
    """Return the gadget that the line's comment names; empty if it names none."""
    if not line.comment.startswith(_OWNED):
        return ""
    return line.comment.removeprefix(_OWNED).removesuffix(_REFUSED)


def _lines(content: Content, chain: str) -> Iterator[tuple[str, Line]]:
    for line in content.get(chain, ()):
        if isinstance(line, Line) and _owner(line):
            yield _owner(line), line


def _guess_masquerades(nat: Content) -> Iterator[Masquerade]:
    seen = set()
    for gadget, line in _lines(nat, f"{PREFIX}POSTROUTING"):
        if line.target == "MASQUERADE" and gadget not in seen and not line.source.startswith("!"):
            seen.add(gadget)
            subnet = IPv4Network(line.source or "0.0.0.0/0")
            yield Masquerade(gadget=gadget, subnet=subnet, uplink=line.out_interface)


def _guess_guards(raw: Content) -> Iterator[SourceGuard]:
    seen = set()
    for gadget, line in _lines(raw, f"{PREFIX}PREROUTING"):
        if line.source.startswith("!") and gadget not in seen:
            seen.add(gadget)
            subnet = IPv4Network(line.source.removeprefix("!"))
            yield SourceGuard(gadget=gadget, ifname=line.in_interface, subnet=subnet)


def _guess_quarantines(raw: Content) -> Iterator[Quarantine]:
    lines = (line for line in raw.get(f"{PREFIX}PREROUTING", ()) if isinstance(line, Line))
    names = {line.in_interface for line in lines if line.comment.startswith(_QUARANTINE)}
    return (Quarantine(ifname=name) for name in names)


def _guess_links(mangle: Content) -> tuple[list[Forward], list[_Plain]]:
    lines = list(_lines(mangle, _FORWARD))
    forwards: dict[str, Forward] = {}
    plain: dict[str, _Plain] = {}
    for gadget, line in lines:
        if line.target == _PLAIN:
            plain[gadget] = _Plain(gadget, line.in_interface)
        elif line.target in (_OPEN, _ISOLATED):
            there = next(
                (
                    other
                    for owner, other in lines
                    if owner == gadget
                    and other.in_interface == line.in_interface
                    and other.out_interface
                ),
                None,
            )
            forwards[gadget] = Forward(
                gadget=gadget,
                ifname=line.in_interface,
                uplink=there.out_interface if there else "",
                to_uplink=(
                    there.target == _ALLOW if there else not line.comment.endswith(_REFUSED)
                ),
                to_peers=line.target == _OPEN,
            )
    return list(forwards.values()), list(plain.values())


@dataclass(slots=True)
class _Verdict:
    """What is wrong with one table, by the comment of whom it harms; the empty one is everybody."""

    table: str
    wrong: dict[str, list[str]] = field(default_factory=dict)
    loose: list[str] = field(default_factory=list)

    def damage(self, comment: str, what: str) -> None:
        self.wrong.setdefault(comment.removesuffix(_REFUSED), []).append(what)

    def faults(self, comment: str) -> bool:
        return comment in self.wrong or _OURS in self.wrong

    def strays(self) -> Iterator[Stray]:
        for text in self.loose:
            yield Stray(text=f"{self.table}: {text}")
        for comment, whats in self.wrong.items():
            yield Stray(text=f"{self.table}: {comment}: {'; '.join(whats)}")


def _compare(table: str, held: Content, expected: Layout) -> _Verdict:
    verdict = _Verdict(table)
    for chain in (*expected, *(chain for chain in held if chain not in expected)):
        have: tuple[Line | Foreign, ...] = held.get(chain, ())
        want: tuple[Line | Foreign, ...] = expected.get(chain, ())
        if have == want and want:
            continue
        if not want:
            verdict.loose.append(f"{chain} has no use for {_sketch(have)}")
            continue
        extra, missing = Counter(have) - Counter(want), Counter(want) - Counter(have)
        for line in missing:
            if isinstance(line, Line):
                verdict.damage(line.comment, f"{chain} lacks {_words(line)}")
        for line in extra:
            if isinstance(line, Line) and _owner(line):
                verdict.damage(line.comment, f"{chain} has a needless {_words(line)}")
            else:
                verdict.loose.append(f"{chain} has a needless {_sketch([line])}")
        if not extra and not missing:
            verdict.loose.append(f"{chain} is out of order")
    return verdict


def _sketch(lines: Iterable[Line | Foreign]) -> str:
    return (
        ", ".join(line.text if isinstance(line, Foreign) else _words(line) for line in lines)
        or "its being there"
    )


def _words(line: Line) -> str:
    named = (
        ("from", line.source),
        ("to", line.destination),
        ("in", line.in_interface),
        ("out", line.out_interface),
        ("state", line.ctstate),
        ("mark", line.set_xmark),
    )
    conditions = "".join(f"{name} {value} " for name, value in named if value)
    return f"{conditions}{'goto' if line.goto else 'jump'} {line.target}"
