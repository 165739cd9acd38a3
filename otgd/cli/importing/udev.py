"""udev rules that name network links (udev(7))."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from otgd.cli.importing.findings import Left, Named, Origin
from otgd.cli.importing.signs import Condition, read_name

if TYPE_CHECKING:
    from collections.abc import Iterator

    from otgd.cli.importing.findings import Finding
    from otgd.identity import Sign

_TERM = re.compile(r'\s*([A-Z]+(?:\{[^}]*\})?)\s*(==|!=|\+=|-=|:=|=)\s*"((?:[^"\\]|\\.)*)"\s*,?')


def read(text: str, file: str) -> Iterator[Finding]:
    """Yield a name for each rule that gives one to a sign; of several for a sign the last holds."""
    named: dict[tuple[Sign, str], Named] = {}
    for line, rule in _rules(text):
        for finding in _read_rule(rule, Origin(file=file, line=line)):
            if not isinstance(finding, Named):
                yield finding
                continue
            sign = finding.sign, finding.value
            if (before := named.pop(sign, None)) and before.name != finding.name:
                why = f"a later rule calls it {finding.name}"
                yield Left(origin=before.origin, text=f'NAME="{before.name}"', why=why)
            named[sign] = finding
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


def _read_rule(rule: str, origin: Origin) -> Iterator[Named | Left]:
    terms = [(match[1], match[2], match[3]) for match in _TERM.finditer(rule)]
    name = next((value for key, op, value in terms if key == "NAME" and op in {"=", ":="}), None)
    required = {key: value for key, op, value in terms if op == "=="}
    if name is None or required.get("SUBSYSTEM", "net") != "net":
        return
    conditions = [
        Condition(key=key, pattern=value, is_negated=op == "!=", shown=key)
        for key, op, value in terms
        if op in {"==", "!="}
    ]
    yield from read_name(name, conditions, text=f'NAME="{name}"', origin=origin)
