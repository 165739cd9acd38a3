"""udev rules that name network links (udev(7))."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from otgd.cli.importing.findings import Left, Named, Origin
from otgd.config.values import RefusedError, parse_mac

if TYPE_CHECKING:
    from collections.abc import Iterator

    from otgd.cli.importing.findings import Finding

_TERM = re.compile(r'\s*([A-Z]+(?:\{[^}]*\})?)\s*(==|!=|\+=|-=|:=|=)\s*"((?:[^"\\]|\\.)*)"\s*,?')
_HARMLESS = re.compile(
    r"SUBSYSTEMS?|ACTION|DRIVERS?|KERNEL|ENV\{.*\}|ATTR\{(address|dev_id|type)\}"
)
"""Conditions that hold for every link that such a rule is about."""


def read(text: str, file: str) -> Iterator[Finding]:
    """Yield a name for each rule that gives one to a MAC; of several for one MAC the last holds."""
    named: dict[str, Named] = {}
    for line, rule in _rules(text):
        finding = _read_rule(rule, Origin(file=file, line=line))
        if isinstance(finding, Named):
            if (before := named.pop(finding.mac, None)) and before.name != finding.name:
                why = f"a later rule calls it {finding.name}"
                yield Left(origin=before.origin, text=f'NAME="{before.name}"', why=why)
            named[finding.mac] = finding
        elif finding:
            yield finding
    yield from named.values()


def _rules(text: str) -> Iterator[tuple[int, str]]:
    """Yield each rule with the line where it begins; a backslash joins lines."""
    whole, first = "", 0
    for number, line in enumerate(text.splitlines(), start=1):
        if not whole and line.lstrip().startswith("#"):
            continue
        first = first if whole else number
        if line.endswith("\\"):
            whole += line[:-1]
            continue
        if (whole + line).strip():
            yield first, whole + line
        whole = ""


def _read_rule(rule: str, origin: Origin) -> Named | Left | None:
    terms = [(match[1], match[2], match[3]) for match in _TERM.finditer(rule)]
    name = next((value for key, op, value in terms if key == "NAME" and op in {"=", ":="}), None)
    conditions = {key: value for key, op, value in terms if op == "=="}
    if name is None or conditions.get("SUBSYSTEM", "net") != "net":
        return None
    text = f'NAME="{name}"'
    if "ATTR{address}" not in conditions:
        return Left(
            origin=origin,
            text=text,
            why="the rule has no ATTR{address}, and import goes by MAC",
        )
    try:
        mac = parse_mac(conditions["ATTR{address}"])
    except RefusedError as err:
        return Left(origin=origin, text=text, why=f"ATTR{{address}} {err}")
    strange = [key for key, op, _ in terms if op in {"==", "!="} and not _HARMLESS.fullmatch(key)]
    if strange:
        why = f"the rule also asks for {', '.join(strange)}, and otgd goes by MAC alone"
        return Left(origin=origin, text=text, why=why)
    return Named(origin=origin, mac=mac, name=name)
