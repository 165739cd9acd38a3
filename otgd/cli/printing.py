"""How otgctl prints: tables (coloured on a terminal, else aligned text), JSON for programs."""

from __future__ import annotations

import json
import sys
from contextlib import contextmanager
from typing import TYPE_CHECKING

from otgd.printable import printable

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

NOTHING = "-"
"""Stands for an empty cell, so that a line always has as many columns as the heading."""

GAP = 2
"""Blanks between two columns."""

STYLES = {
    "configured": "green",
    "reachable": "bold green",
    "blocked": "yellow",
    "failed": "bold red",
    "absent": "dim",
}


def print_table(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Print *rows* under *columns*; a cell that says a state has its colour.

    On a narrow terminal the last column is broken into lines. No cell is ever cut short: half a MAC
    is worth nothing.
    """
    cells = [[printable(cell) or NOTHING for cell in row] for row in rows]
    if sys.stdout.isatty():
        _print_rich(columns, cells)
    else:
        _print_plain([list(columns), *cells])


def print_line(text: str, *, error: bool = False) -> None:
    """Print a line that may hold text of others, at once: to standard output, or as an error."""
    print(printable(text), file=sys.stderr if error else sys.stdout, flush=True)


def print_json(document: object) -> None:
    """Print one JSON document."""
    print(json.dumps(document, indent=2))


def yes_no(value: bool | None) -> str:  # noqa: FBT001 - the value is the subject
    """Say a truth; an unknown one is a question mark."""
    return "?" if value is None else "yes" if value else "no"


@contextmanager
def progress_bars() -> Iterator[Callable[[str, int, int], None]]:
    """Yield what shows how far each of several things is (name, done, total); on a terminal only.

    May be told from several threads.
    """
    if not sys.stderr.isatty():
        yield lambda _name, _done, _total: None
        return
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeRemainingColumn

    columns = (
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        TextColumn("{task.percentage:3.0f}%"),
    )
    with Progress(*columns, TimeRemainingColumn(), console=Console(stderr=True)) as progress:
        tasks: dict[str, TaskID] = {}

        def tell(name: str, done: int, total: int) -> None:
            if name not in tasks:
                tasks[name] = progress.add_task(name, total=total)
            progress.update(tasks[name], completed=done, total=total)

        yield tell


def _print_rich(columns: Sequence[str], rows: list[list[str]]) -> None:
    from rich.cells import cell_len
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    *fixed, last = zip(columns, *rows, strict=True)
    needed = sum(GAP + max(map(cell_len, column)) for column in fixed)
    needed += max(cell_len(word) for cell in last for word in cell.split())
    table = Table(box=None, header_style="bold", pad_edge=False)
    for name in columns:
        table.add_column(name, no_wrap=name != columns[-1])
    for row in rows:
        table.add_row(*(Text(cell, style=STYLES.get(cell, "")) for cell in row))
    console = Console()
    console.width = max(console.width, needed)
    console.print(table)


def _print_plain(rows: list[list[str]]) -> None:
    widths = [max(len(cell) for cell in column) for column in zip(*rows, strict=True)]
    for row in rows:
        line = "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True))
        print(line.rstrip())
