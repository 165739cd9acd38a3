"""How tables look on terminals of all widths."""

from __future__ import annotations

import os
import pty
import re
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from otgd.cli.printing import print_table
from otgd.cli.program import main
from tests.unit.cli.conftest import absent, gadget, state

if TYPE_CHECKING:
    from pathlib import Path

    from tests.unit.cli.conftest import Tool

REASON = "no link with MAC 00:22:82:ff:ff:02 is there"


def on_terminal(otgctl: Tool, *arguments: str, columns: int) -> list[str]:
    """Return the lines that otgctl writes to a terminal of so many columns, without colours."""
    ours, its = pty.openpty()
    places = ("-c", str(otgctl.config_file), "--runtime-dir", str(otgctl.daemon.directory))
    command = (sys.executable, "-m", "otgd.cli", *places, *arguments)
    environment = os.environ | {"COLUMNS": str(columns), "TERM": "xterm"}
    with subprocess.Popen(command, stdin=its, stdout=its, env=environment) as process:
        os.close(its)
        written = b""
        try:
            while more := os.read(ours, 4096):
                written += more
        except OSError:  # EIO: nobody has the terminal open any more
            pass
        os.close(ours)
    assert process.returncode == 0
    text = re.sub(r"\x1b\[[0-9;]*m", "", written.decode())
    return [line.rstrip() for line in text.splitlines()]


@pytest.mark.parametrize("columns", [40, 80, 100])
def test_no_cell_is_cut_short(otgctl: Tool, columns: int) -> None:
    lines = on_terminal(otgctl, "check", columns=columns)
    row = next(line for line in lines if line.startswith("ethusb2"))
    facts = ("00:22:82:ff:ff:02", "00:22:82:ff:ff:12", "10.0.12.0/24", "10.0.12.2", "worker2")
    assert [fact for fact in facts if fact not in row] == []


@pytest.mark.parametrize("columns", [40, 80])
def test_reason_is_broken_between_words_only(otgctl: Tool, columns: int) -> None:
    otgctl.run_daemon(state(gadget(), absent(reason=REASON)))
    lines = on_terminal(otgctl, "status", columns=columns)
    heading = next(line for line in lines if line.startswith("NAME"))
    start = lines.index(next(line for line in lines if line.startswith("ethusb2")))
    at = heading.index("REASON")
    assert " ".join(line[at:] for line in lines[start:]) == REASON


def test_line_fits_a_terminal_that_is_wide_enough(otgctl: Tool) -> None:
    otgctl.run_daemon(state(gadget(), absent(reason=REASON)))
    lines = on_terminal(otgctl, "status", columns=90)
    assert max(map(len, lines)) <= 90


OWNED = "\x1b]0;owned\x07 \x9b31m\nfine"
SHOWN = "?]0;owned? ?31m?fine"


@pytest.mark.parametrize("terminal", [False, True], ids=["plain", "rich"])
def test_no_cell_commands_the_terminal(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, *, terminal: bool
) -> None:
    monkeypatch.setattr(sys.stdout, "isatty", lambda: terminal)

    print_table(("LINK", "SERIAL", "MAC"), [("usb0", OWNED, OWNED)])

    row = capsys.readouterr().out.splitlines()[1]
    assert row.count(SHOWN) == 2
    assert row.isprintable()


def test_no_line_commands_the_terminal(otgctl: Tool) -> None:
    """What udev read from the device is in the state as it was."""
    otgctl.run_daemon(state(gadget(ifindex=1, serial=OWNED), uplink=OWNED))

    shown = otgctl("show", "ethusb1").out
    assert f"USB serial:    {SHOWN}" in shown
    assert shown.replace("\n", "").isprintable()
    assert f"uplink {SHOWN}," in otgctl("status").out


def test_no_error_commands_the_terminal(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "x\x1b]0;owned\x07.toml"
    file.write_text("one = 1\ntwo = 2\n")

    main(["-c", str(file), "check"])

    complaint = capsys.readouterr().err
    assert [line.isprintable() for line in complaint.splitlines()] == [True, True]
    assert complaint.count("x?]0;owned?.toml:") == 2
