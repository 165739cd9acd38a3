"""Masquerade rules: iptables-save files, iptables commands in scripts, and nft rulesets."""

from __future__ import annotations

import re
import shlex
from dataclasses import dataclass, field
from ipaddress import IPv4Network
from typing import TYPE_CHECKING

from otgd.cli.importing.findings import Left, Masqueraded, Origin
from otgd.cli.static_files import COMMENT

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from otgd.cli.importing.findings import Finding

_LONG = {
    "--table": "-t",
    "--append": "-A",
    "--insert": "-I",
    "--source": "-s",
    "--src": "-s",
    "--destination": "-d",
    "--dst": "-d",
    "--in-interface": "-i",
    "--out-interface": "-o",
    "--jump": "-j",
}
_COMMAND = re.compile(r"(?:^|[\s;&|/])iptables(?:-legacy|-nft)?\s+(?P<rule>-[^;&|]*)")


@dataclass(slots=True)
class _Rule:
    """An iptables rule: each option's values; negated ones are in *negated*, too."""

    options: dict[str, list[str]] = field(default_factory=dict)
    negated: set[str] = field(default_factory=set)

    def first(self, option: str) -> str:
        """Return the option's first value, or nothing."""
        return next(iter(self.options.get(option, [])), "")


def read_iptables(text: str, file: str) -> Iterator[Finding]:
    """Yield what is masqueraded by an iptables-save file or by the commands of a script."""
    table = "filter"
    for number, line in enumerate(text.splitlines(), start=1):
        stripped = line.strip()
        if stripped.startswith("*"):
            table = stripped[1:]
            continue
        command = None if stripped.startswith("#") else _COMMAND.search(stripped)
        if not command and not stripped.startswith("-"):
            continue
        try:
            rule = _parse(shlex.split(command["rule"] if command else stripped))
        except ValueError:  # no closing quote
            continue
        where = rule.first("-t") or ("filter" if command else table)
        yield from _read_rule(rule, where, stripped, Origin(file=file, line=number))


def _parse(words: Sequence[str]) -> _Rule:
    rule = _Rule()
    option, negate = "", False
    for word in words:
        if word == "!":
            negate = True
        elif word.startswith("-"):
            option = _LONG.get(word, word)
            rule.options.setdefault(option, [])
            if negate:
                rule.negated.add(option)
            negate = False
        elif option:
            rule.options[option].append(word)
            if negate:  # the old way: -s ! 10.0.0.0/8
                rule.negated.add(option)
            negate = False
    return rule


def _read_rule(rule: _Rule, table: str, text: str, origin: Origin) -> Iterator[Finding]:
    chain = rule.first("-A") or rule.first("-I")
    target = rule.first("-j")
    if not chain or (rule.first("--comment") == COMMENT and target != "MASQUERADE"):
        return
    if (table, chain) == ("nat", "POSTROUTING") and target in {"MASQUERADE", "SNAT"}:
        yield _read_masquerade(rule, text, origin)
        return
    for link in (rule.first("-i"), rule.first("-o")):
        if link:
            why = "otgd makes rules of its own; keep this one if it must stay"
            yield Left(origin=origin, text=text, why=why, link=link)


def _read_masquerade(rule: _Rule, text: str, origin: Origin) -> Masqueraded | Left:
    if rule.first("-j") == "SNAT":
        return Left(origin=origin, text=text, why="otgd masquerades, which follows the address")
    if rule.negated - {"-d"}:
        return Left(origin=origin, text=text, why="otgd masquerades a subnet, not all but one")
    if "-d" in rule.options and "-d" not in rule.negated:
        return Left(origin=origin, text=text, why="otgd masquerades to anywhere")
    return _masqueraded(rule.first("-s"), rule.first("-o"), text, origin)


def _masqueraded(source: str, uplink: str, text: str, origin: Origin) -> Masqueraded | Left:
    if uplink.endswith("+"):
        return Left(origin=origin, text=text, why="otgd wants the uplink's whole name")
    try:
        network = IPv4Network(source, strict=False) if source else None
    except ValueError:
        return Left(origin=origin, text=text, why=f"{source} is not an IPv4 network")
    return Masqueraded(origin=origin, source=network, uplink=uplink)


_NFT_SOURCE = re.compile(r"\bip saddr (?P<not>!= )?(?P<network>[0-9./]+)")
_NFT_DESTINATION = re.compile(r"\bip daddr (?P<not>!= )?[0-9./]+")
_NFT_UPLINK = re.compile(r'\boif(?:name)? (?P<not>!= )?(?:"(?P<one>[^"]+)"|\{(?P<set>[^}]*)\})')


def read_nft(text: str, file: str) -> Iterator[Finding]:
    """Yield what is masqueraded by an nft ruleset: one rule a line, as nft prints them."""
    for number, line in enumerate(text.splitlines(), start=1):
        rule = line.split("#")[0].strip()
        if re.search(r"\bmasquerade\b", rule):
            yield from _read_nft_rule(rule, Origin(file=file, line=number))


def _read_nft_rule(rule: str, origin: Origin) -> Iterator[Finding]:
    source = _NFT_SOURCE.search(rule)
    destination = _NFT_DESTINATION.search(rule)
    uplink = _NFT_UPLINK.search(rule)
    if (source and source["not"]) or (uplink and uplink["not"]):
        yield Left(origin=origin, text=rule, why="otgd masquerades a subnet, not all but one")
        return
    if destination and not destination["not"]:
        yield Left(origin=origin, text=rule, why="otgd masquerades to anywhere")
        return
    names = re.findall(r'"([^"]+)"', uplink[0]) if uplink else [""]
    for name in names:
        yield _masqueraded(source["network"] if source else "", name, rule, origin)
