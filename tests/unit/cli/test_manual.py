"""Every command is in the manual page with an example, and its --help has examples, too."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from otgd.cli.program import SECTIONS
from tests.conftest import need

if TYPE_CHECKING:
    from tests.unit.cli.conftest import Tool

PAGES = Path(__file__).resolve().parents[3] / "packaging" / "man"
COMMANDS = [name for section in SECTIONS.values() for name in section]


def paragraphs() -> dict[str, str]:
    """Return the manual's paragraphs about commands, by the command's name."""
    text = (PAGES / "otgctl.8").read_text().replace("\\-", "-")
    commands = text.partition(".SH COMMANDS")[2].partition(".SH EXIT STATUS")[0]
    found = {}
    for paragraph in re.split(r"^\.TP$", commands, flags=re.MULTILINE)[1:]:
        name = re.match(r'\s*\.BI? "?([a-z-]+)', paragraph)
        assert name, paragraph
        found[name[1]] = paragraph
    return found


def test_the_manual_has_every_command_and_no_other() -> None:
    assert sorted(paragraphs()) == sorted(COMMANDS)


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_has_an_example(otgctl: Tool, name: str) -> None:
    example = paragraphs()[name].partition(".EX")[2].partition(".EE")[0]
    assert re.search(rf"\botgctl {name}\b", example), example
    said = otgctl(name, "--help")
    assert said.code == 0
    assert re.search(rf"Examples?:.*\botgctl {name}\b", said.out, re.DOTALL), said.out


@pytest.mark.parametrize("page", sorted(PAGES.glob("*.[0-9]")), ids=lambda page: page.name)
def test_manual_pages_are_well_formed(page: Path) -> None:
    need(shutil.which("groff"), "groff")
    done = subprocess.run(
        ["groff", "-man", "-Tutf8", "-ww", "-z", str(page)],
        check=True,
        capture_output=True,
        text=True,
    )
    assert done.stderr == ""
