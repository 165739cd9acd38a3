"""The picture: plug to ping of every peer, on a logarithmic scale, as SVG."""

from __future__ import annotations

import math
from dataclasses import dataclass
from statistics import median
from typing import TYPE_CHECKING
from xml.sax.saxutils import escape

from tests.bench.report import AT_ONCE
from tests.bench.samples import Figure, percentile

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.bench.samples import Results

WIDTH, LEFT, RIGHT, TOP, BOTTOM = 860, 210, 60, 64, 46
ROW, GAP = 20, 14
COLOURS = {1: "#1b6ca8", 4: "#d1841f", 50: "#a83232"}

STYLE = """\
text { font: 13px sans-serif; fill: #222 }
.title { font-size: 15px; font-weight: bold }
.small { font-size: 11px; fill: #555 }
.grid { stroke: #ddd }
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Scale:
    """Milliseconds to pixels; whole decades."""

    first: int
    last: int

    def x(self, value_ms: float) -> float:
        """Return where a value lies."""
        share = (math.log10(value_ms) - self.first) / (self.last - self.first)
        return LEFT + share * (WIDTH - LEFT - RIGHT)


def draw(results: Results) -> str:
    """Draw a row for each peer and number of gadgets: dot median, line least to most, tick p95."""
    rows = list(_rows(results))
    times = [value for _, _, values in rows for value in values] or [1.0, 10.0]
    low, high = math.floor(math.log10(min(times))), math.ceil(math.log10(max(times)))
    scale = Scale(first=low, last=max(high, low + 1))
    shapes, y, shown = [], TOP, ""
    for title, count, values in rows:
        if title != shown:
            y += GAP if shown else 0
            shapes.append(
                f'<text x="{LEFT - 14}" y="{y + 25}" text-anchor="end">{escape(title)}</text>'
            )
            shown = title
        shapes.extend(_row(scale, values, colour=COLOURS[count], y=y + ROW // 2))
        y += ROW
    body = [*_frame(scale, bottom=y + 6), *shapes]
    height = y + BOTTOM
    return "\n".join(
        [
            f'<svg xmlns="http://www.w3.org/2000/svg" width="{WIDTH}" height="{height}"'
            f' viewBox="0 0 {WIDTH} {height}" role="img">',
            f"<style>{STYLE}</style>",
            '<rect width="100%" height="100%" fill="white"/>',
            *body,
            "</svg>",
            "",
        ]
    )


def _rows(results: Results) -> Iterator[tuple[str, int, list[float]]]:
    for peer, title in results.peers.items():
        for count in AT_ONCE:
            values = results.values(Figure.ANSWER_MS, peer, count)
            if values:
                yield title, count, values


def _row(scale: Scale, values: list[float], *, colour: str, y: float) -> Iterator[str]:
    least, most, p95 = (scale.x(v) for v in (min(values), max(values), percentile(values, 0.95)))
    middle = median(values)
    line = f'stroke="{colour}" stroke-width="2"'
    yield f'<line x1="{least:.1f}" y1="{y}" x2="{most:.1f}" y2="{y}" {line}/>'
    yield f'<line x1="{p95:.1f}" y1="{y - 5}" x2="{p95:.1f}" y2="{y + 5}" {line}/>'
    yield f'<circle cx="{scale.x(middle):.1f}" cy="{y}" r="4.5" fill="{colour}"/>'
    yield f'<text class="small" x="{most + 8:.1f}" y="{y + 4}">{_time(middle)}</text>'


def _time(value_ms: float) -> str:
    if value_ms >= 1000:
        return f"{value_ms / 1000:.1f} s"
    return f"{value_ms:.1f} ms" if value_ms < 10 else f"{value_ms:.0f} ms"


def _frame(scale: Scale, *, bottom: float) -> Iterator[str]:
    yield '<text class="title" x="16" y="24">Plug to first ping through the masquerade</text>'
    note = "dot: median; line: fastest to slowest; tick: 95 %; logarithmic"
    yield f'<text class="small" x="16" y="42">{note}</text>'
    for i, (count, colour) in enumerate(COLOURS.items()):
        label = "one gadget" if count == 1 else f"{count} at once"
        left = WIDTH - RIGHT - 330 + 110 * i
        yield f'<circle cx="{left}" cy="20" r="4.5" fill="{colour}"/>'
        yield f'<text x="{left + 10}" y="24">{label}</text>'
    for decade in range(scale.first, scale.last + 1):
        x = scale.x(10**decade)
        yield f'<line class="grid" x1="{x:.1f}" y1="{TOP - 8}" x2="{x:.1f}" y2="{bottom}"/>'
        label = _time(10**decade).replace(".0", "")
        place = f'x="{x:.1f}" y="{bottom + 18}" text-anchor="middle"'
        yield f'<text class="small" {place}>{label}</text>'
