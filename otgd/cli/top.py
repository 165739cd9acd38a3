"""``otgctl top``: a table that fills the terminal and keeps itself up to date."""

from __future__ import annotations

import os
import select
import sys
import termios
import time
import tty
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import click

from otgd.cli.counters import Counters, human_bytes, ifname_of, read_counters
from otgd.cli.inotify import DirectoryWatch
from otgd.cli.printing import NOTHING, STYLES
from otgd.errors import OtgdError
from otgd.printable import printable

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from rich.table import Table

    from otgd.cli.installation import Installation

COLUMNS = ("NAME", "STATE", "ADDRESS", "FROM GADGET", "TO GADGET", "TOTAL", "ERRORS", "REASON")
NUMBERS = frozenset({"FROM GADGET", "TO GADGET", "TOTAL", "ERRORS"})
UNLIMITED = 10_000
QUIT = b"qQ\x1b"


@click.command()
@click.option(
    "--interval",
    "interval_s",
    type=click.FloatRange(min=0.1),
    default=1.0,
    show_default=True,
    metavar="SECONDS",
    help="How often rates are measured.",
)
@click.pass_obj
def top(installation: Installation, *, interval_s: float) -> int:
    r"""Show every gadget with its rates, live, until q or Ctrl-C.

    Changes of state appear at once, rates once per interval.

    \b
    Examples:
      otgctl top
      otgctl top --interval 5
    """
    if not (sys.stdin.isatty() and sys.stdout.isatty()):
        raise OtgdError("top needs a terminal; for programs there is status --json and metrics")
    from rich.live import Live

    meter = Meter()
    with (
        suppress(KeyboardInterrupt),
        _single_keys() as keyboard,
        DirectoryWatch(installation.runtime_dir) as watch,
        Live(screen=True, auto_refresh=False) as live,
    ):
        due_s = time.monotonic()
        while True:
            state = installation.told_state()
            if time.monotonic() >= due_s:
                due_s = time.monotonic() + interval_s
                meter.measure(_count(state), time.monotonic())
            live.update(table(state, meter.rates), refresh=True)
            waits_s = max(0, due_s - time.monotonic())
            ready, _, _ = select.select([keyboard, watch.fileno()], [], [], waits_s)
            if keyboard in ready and os.read(keyboard, 64)[:1] in QUIT:
                break
            watch.drain()
    return 0


@contextmanager
def _single_keys() -> Iterator[int]:
    """Make the terminal give each key at once and show none."""
    terminal = sys.stdin.fileno()
    before = termios.tcgetattr(terminal)
    tty.setcbreak(terminal)
    try:
        yield terminal
    finally:
        termios.tcsetattr(terminal, termios.TCSADRAIN, before)


@dataclass(frozen=True, slots=True, kw_only=True)
class Rate:
    """Bytes per second in each direction, and the counters that they were measured from."""

    rx: float
    tx: float
    counters: Counters


@dataclass(slots=True)
class Meter:
    """Makes rates of counters."""

    rates: dict[int, Rate] = field(default_factory=dict)
    _at_s: float = 0.0

    def measure(self, counts: Mapping[int, Counters], now_s: float) -> None:
        """Take the counters of each link, by ifindex; one that is new has no rate yet."""
        elapsed_s = now_s - self._at_s
        before = {ifindex: rate.counters for ifindex, rate in self.rates.items()}
        self.rates = {
            ifindex: Rate(
                rx=_per_second(before.get(ifindex, now).rx_bytes, now.rx_bytes, elapsed_s),
                tx=_per_second(before.get(ifindex, now).tx_bytes, now.tx_bytes, elapsed_s),
                counters=now,
            )
            for ifindex, now in counts.items()
        }
        self._at_s = now_s


def _per_second(before: int, now: int, elapsed_s: float) -> float:
    return max(0, now - before) / elapsed_s if elapsed_s > 0 else 0.0


def _count(state: dict[str, Any] | None) -> dict[int, Counters]:
    counts = {}
    for gadget in state["gadgets"] if state else ():
        ifname = ifname_of(gadget["ifindex"])
        counters = read_counters(ifname) if ifname else None
        if counters:
            counts[gadget["ifindex"]] = counters
    return counts


def table(state: dict[str, Any] | None, rates: Mapping[int, Rate]) -> Table:
    """Draw the table, a line for each gadget; a narrow terminal cuts it off at the right edge."""
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    if state is None:
        return Table(title="otgd does not run; waiting for it (q quits)", box=None)
    title = f"otgd {state['otgd_version']}, uplink {state['uplink'] or 'none'} (q quits)"
    drawn = Table(
        title=Text(printable(title), style="table.title"),
        box=None,
        header_style="bold",
        title_justify="left",
    )
    for column in COLUMNS:
        drawn.add_column(column, justify="right" if column in NUMBERS else "left", no_wrap=True)
    for gadget in state["gadgets"]:
        cells = (
            gadget["name"],
            gadget["state"],
            " ".join(gadget["addresses"]),
            *_traffic(rates.get(gadget["ifindex"])),
            gadget["reason"],
        )
        drawn.add_row(
            *(Text(printable(cell) or NOTHING, style=STYLES.get(cell, "")) for cell in cells)
        )
    drawn.width = Console(width=UNLIMITED).measure(drawn).maximum
    return drawn


def _traffic(rate: Rate | None) -> tuple[str, str, str, str]:
    if rate is None:
        return ("", "", "", "")
    counters = rate.counters
    return (
        f"{human_bytes(rate.rx)}/s",
        f"{human_bytes(rate.tx)}/s",
        human_bytes(counters.rx_bytes + counters.tx_bytes),
        str(counters.rx_errors + counters.tx_errors),
    )
