"""How findings are printed: by ``otgctl doctor`` and by ``otgctl swarm preflight``."""

from __future__ import annotations

import textwrap
from itertools import groupby
from typing import TYPE_CHECKING, Any

import click

from otgd.diagnosis.findings import Mark
from otgd.printable import printable

if TYPE_CHECKING:
    from collections.abc import Sequence

    from otgd.diagnosis.findings import Finding

COLOURS = {Mark.OK: "green", Mark.SKIP: "bright_black", Mark.WARN: "yellow", Mark.FAIL: "red"}
MARK_WIDTH = max(len(mark) for mark in Mark)
CHECK_WIDTH = len("kernel-log")


def document(finding: Finding) -> dict[str, Any]:
    """Return a finding for programs."""
    return {
        "check": finding.check,
        "gadget": finding.gadget or None,
        "mark": str(finding.mark),
        "what": finding.what,
        "why": finding.why or None,
        "remedy": finding.remedy or None,
    }


def print_findings(findings: Sequence[Finding], trouble: int) -> None:
    """Print the host's findings, then each gadget's, and how many want something done."""
    width = max(CHECK_WIDTH, *(len(finding.check) for finding in findings))
    for gadget, group in groupby(findings, key=lambda finding: finding.gadget):
        click.secho(gadget or "host", bold=True)
        for finding in group:
            mark = click.style(f"{finding.mark:{MARK_WIDTH}}", fg=COLOURS[finding.mark])
            click.echo(f"  {mark}  {finding.check:{width}}  {printable(finding.what)}")
            _print_more("why", finding.why)
            _print_more("type", finding.remedy)
    if trouble:
        click.echo(f"\n{trouble} thing{'' if trouble == 1 else 's'} to look after.")
    else:
        click.echo("\nNothing is wrong, as far as could be checked.")


def _print_more(title: str, text: str) -> None:
    """Print a further line below a finding; never broken, so that it can be copied."""
    if text:
        indent = " " * (MARK_WIDTH + CHECK_WIDTH + 6)
        shown = printable(text, keep="\n")
        click.echo(textwrap.indent(f"{title + ':':5} {shown}", indent))
