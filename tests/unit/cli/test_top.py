"""``otgctl top``: its rates, its table, and the whole of it on a terminal."""

from __future__ import annotations

import os
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest
from rich.console import Console

from otgd.cli.counters import Counters, human_bytes
from otgd.cli.top import Meter, table
from tests.lab.screen import TERMINAL, Screen
from tests.unit.cli.conftest import absent, gadget, state

if TYPE_CHECKING:
    from tests.unit.cli.conftest import Tool


@pytest.mark.parametrize(
    ("count", "text"),
    [
        (0, "0 B"),
        (1023, "1023 B"),
        (1024, "1.0 KiB"),
        (10_240, "10 KiB"),
        (1_500_000, "1.4 MiB"),
        (3 * 2**30, "3.0 GiB"),
        (5000 * 2**40, "5000 TiB"),
    ],
)
def test_bytes_are_written_short(count: int, text: str) -> None:
    assert human_bytes(count) == text


def test_rate_is_what_came_since_the_last_measurement() -> None:
    meter = Meter()
    meter.measure({7: Counters(rx_bytes=1000, tx_bytes=0)}, 100.0)
    assert (meter.rates[7].rx, meter.rates[7].tx) == (0, 0)
    meter.measure({7: Counters(rx_bytes=5000, tx_bytes=200), 8: Counters(rx_bytes=9)}, 102.0)
    assert (meter.rates[7].rx, meter.rates[7].tx) == (2000, 100)
    assert meter.rates[8].rx == 0
    meter.measure({8: Counters(rx_bytes=4)}, 103.0)
    assert list(meter.rates) == [8]
    assert meter.rates[8].rx == 0  # its counters began again


def drawn(meter: Meter, *gadgets: dict[str, object], columns: int = 150) -> str:
    console = Console(width=columns, record=True, file=open(os.devnull, "w"))  # noqa: PTH123, SIM115
    console.print(table(state(*gadgets), meter.rates))
    console.file.close()
    return console.export_text()


def test_what_the_table_holds_is_no_markup_and_no_command() -> None:
    reason = "no link with USB serial A[/b] is [red]there[/]"

    text = drawn(Meter(), absent(reason=reason), gadget("ethusb3", reason="a\x1b]0;owned\x07"))

    assert reason in text
    assert "a?]0;owned?" in text


def test_table_has_rates_and_totals() -> None:
    meter = Meter()
    meter.measure({7: Counters(rx_bytes=0)}, 100.0)
    meter.measure({7: Counters(rx_bytes=2048, tx_bytes=1024, rx_errors=3)}, 101.0)
    title, _, first, second = drawn(meter, gadget(), absent()).splitlines()
    assert title.strip() == "otgd 0.1.0, uplink eth0 (q quits)"
    assert first.split()[3:] == ["2.0", "KiB/s", "1.0", "KiB/s", "3.0", "KiB", "3", "-"]
    assert second.split()[:4] == ["ethusb2", "absent", "-", "-"]


def test_narrow_terminal_cuts_at_the_right_edge_only() -> None:
    wide = drawn(Meter(), gadget(), absent()).splitlines()
    narrow = drawn(Meter(), gadget(), absent(), columns=50).splitlines()
    assert [line.rstrip() for line in narrow] == [line[:50].rstrip() for line in wide]


def test_pipe_is_no_terminal(otgctl: Tool) -> None:
    said = otgctl("top")
    assert said.code == 1
    assert "needs a terminal" in said.err


@pytest.mark.parametrize("end", [b"q", b"\x03"], ids=["q", "Ctrl-C"])
def test_terminal_shows_changes_until_quit(otgctl: Tool, end: bytes) -> None:
    otgctl.run_daemon(state(absent("ethusb1")))
    screen = Screen()
    place = ("--runtime-dir", str(otgctl.daemon.directory))
    command = (sys.executable, "-m", "otgd.cli", *place, "top", "--interval", "60")
    with subprocess.Popen(
        command,
        stdin=screen.slave,
        stdout=screen.slave,
        stderr=subprocess.PIPE,
        env=os.environ | TERMINAL,
        start_new_session=True,
    ) as process:
        assert process.stderr is not None
        try:
            screen.wait_for("absent")
            otgctl.daemon.write(state(gadget()))
            screen.wait_for("10.0.11.1/24")
            if end == b"q":
                os.write(screen.master, end)
            else:
                os.kill(process.pid, 2)
            assert process.wait(10) == 0
            assert process.stderr.read() == b""
        finally:
            process.kill()
            screen.close()
