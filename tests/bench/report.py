"""Tables for people, in Markdown: who, how fast, at what cost; and how far from the goals."""

from __future__ import annotations

from dataclasses import dataclass
from statistics import median
from typing import TYPE_CHECKING

from tests.bench.samples import Figure, percentile

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from tests.bench.samples import Results

BOUND, NETWORKD = "bound", "networkd"
AT_ONCE = (1, 4, 50)
NOTHING = "-"


def write_report(results: Results) -> str:
    """Write everything that *results* hold."""
    sections = [
        *(_speed(results, count) for count in AT_ONCE),
        _cost(results),
        _scale(results),
        _growth(results),
        _goals(results),
    ]
    machine = "".join(f"- {key}: {value}\n" for key, value in results.machine.items())
    return "\n".join(["# otgd beside its peers", "", machine, *filter(None, sections)])


# --- numbers ------------------------------------------------------------------------------------


def number(value: float | None) -> str:
    """Write three significant digits, and never an exponent."""
    if value is None:
        return NOTHING
    size = abs(value)
    digits = 2 if size < 1 else 1 if size < 100 else 0
    return f"{value:.{digits}f}"


def _median(values: list[float]) -> float | None:
    return median(values) if values else None


def slowest(results: Results, peer: str, count: int) -> float | None:
    """Return the median, over all rounds, of each round's slowest gadget."""
    rounds = results.of(Figure.ANSWER_MS, peer, count)
    return _median([max(each.values) for each in rounds if each.values])


def _ratio(value: float | None, base: float | None) -> float | None:
    return value / base if value is not None and base else None


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [head, ["---", *("---:" for _ in head[1:])], *rows]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


# --- sections -----------------------------------------------------------------------------------


def _speed(results: Results, count: int) -> str:
    base = _median(results.values(Figure.ANSWER_MS, BOUND, count))
    networkd = _median(results.values(Figure.ANSWER_MS, NETWORKD, count))
    rows = []
    for peer, title in results.peers.items():
        values = results.values(Figure.ANSWER_MS, peer, count)
        lost = sum(each.lost for each in results.of(Figure.ANSWER_MS, peer, count))
        if not values and not lost:
            continue
        middle = _median(values)
        cells = [
            number(middle),
            number(percentile(values, 0.95) if values else None),
            number(max(values, default=None)),
            number(slowest(results, peer, count)),
            number(_ratio(middle, base)),
            number(_ratio(middle, networkd)),
            f"{len(values)}" + (f" (+ {lost} lost)" if lost else ""),
        ]
        rows.append([title, *cells])
    if not rows:
        return ""
    head = ["", "median", "p95", "max", "round's slowest", "x bound", "x networkd", "plugs"]
    title = "One gadget" if count == 1 else f"{count} gadgets at once"
    return f"## {title}: plug to first ping through the masquerade, ms\n\n{_table(head, rows)}"


COSTS = (
    ("CPU ms per plug + unplug", Figure.OWN_CPU_MS, 1),
    ("… of the whole system", Figure.SYSTEM_CPU_MS, 1),
    ("Pss MiB, idle", Figure.IDLE_PSS_MIB, None),
    ("after", Figure.USED_PSS_MIB, None),
    ("Rss MiB, idle", Figure.IDLE_RSS_MIB, None),
    ("after", Figure.USED_RSS_MIB, None),
    ("wake-ups a minute, idle", Figure.WAKEUPS_PER_MIN, None),
    ("start to ready, ms", Figure.START_MS, None),
    ("… of CPU", Figure.START_CPU_MS, None),
)


def _cost(results: Results) -> str:
    rows = []
    for peer, title in results.peers.items():
        cells = [number(_median(results.values(figure, peer, n))) for _, figure, n in COSTS]
        if set(cells) != {NOTHING}:
            rows.append([title, *cells])
    if not rows:
        return ""
    return f"## Cost\n\n{_table(['', *(name for name, _, _ in COSTS)], rows)}"


SCALES = (
    ("plug to ping, ms", Figure.EVENT_ANSWER_MS),
    ("CPU ms per plug + unplug", Figure.EVENT_CPU_MS),
    ("last pass of a plug, ms", Figure.EVENT_PASS_MS),
    ("CPU ms of a pass that finds nothing to do", Figure.PASS_CPU_MS),
    ("TCP through the masquerade, Gbit/s", Figure.THROUGHPUT_GBIT_S),
)


def _scale(results: Results) -> str:
    present = sorted(
        {each.gadgets for each in results.samples if each.figure is Figure.PASS_CPU_MS}
    )
    rows = []
    for peer, title in results.peers.items():
        for name, figure in SCALES:
            cells = [number(_median(results.values(figure, peer, n))) for n in present]
            if set(cells) - {NOTHING}:
                rows.append([f"{title}: {name}", *cells])
    if not rows:
        return ""
    head = ["gadgets present", *(str(n) for n in present)]
    return f"## Against the number of gadgets\n\n{_table(head, rows)}"


def _growth(results: Results) -> str:
    rows = [
        [results.peers[each.peer], str(each.gadgets), number(each.values[0])]
        for each in results.samples
        if each.figure is Figure.GROWTH_MIB
    ]
    return f"## Growth\n\n{_table(['', 'plugs', 'Pss MiB'], rows)}" if rows else ""


# --- goals --------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class Goal:
    """One goal: what *measured* gives shall not be above *limit*; either is None if unknown."""

    name: str
    measured: Callable[[Results, str], float | None]
    limit: Callable[[Results, str], float | None]


def _p95(results: Results, who: str) -> float | None:
    values = results.values(Figure.ANSWER_MS, who, 1)
    return percentile(values, 0.95) if values else None


def _worst(peer: str | None = None) -> Callable[[Results, str], float | None]:
    return lambda results, who: slowest(results, peer or who, AT_ONCE[-1])


def _middle(
    figure: Figure, peer: str | None = None, *, gadgets: int | None = None
) -> Callable[[Results, str], float | None]:
    return lambda results, who: _median(results.values(figure, peer or who, gadgets))


def _times(
    factor: float, base: Callable[[Results, str], float | None]
) -> Callable[[Results, str], float | None]:
    def limit(results: Results, who: str) -> float | None:
        value = base(results, who)
        return None if value is None else factor * value

    return limit


def _just(limit: float) -> Callable[[Results, str], float | None]:
    return lambda _, __: limit


GOALS = (
    Goal(
        name="median, ms: ≤ 3 x the lower bound",
        measured=_middle(Figure.ANSWER_MS, gadgets=1),
        limit=_times(3, _middle(Figure.ANSWER_MS, BOUND, gadgets=1)),
    ),
    Goal(
        name="median, ms: ≤ networkd's / 5",
        measured=_middle(Figure.ANSWER_MS, gadgets=1),
        limit=_times(1 / 5, _middle(Figure.ANSWER_MS, NETWORKD, gadgets=1)),
    ),
    Goal(
        name="p95, ms: below networkd's median",
        measured=_p95,
        limit=_middle(Figure.ANSWER_MS, NETWORKD, gadgets=1),
    ),
    Goal(
        name="four at once, median, ms: ≤ 5 x the lower bound",
        measured=_middle(Figure.ANSWER_MS, gadgets=4),
        limit=_times(5, _middle(Figure.ANSWER_MS, BOUND, gadgets=4)),
    ),
    Goal(
        name="fifty at once, the slowest, ms: ≤ networkd's / 4",
        measured=_worst(),
        limit=_times(1 / 4, _worst(NETWORKD)),
    ),
    Goal(
        name="CPU per plug + unplug, ms: ≤ networkd's",
        measured=_middle(Figure.OWN_CPU_MS, gadgets=1),
        limit=_middle(Figure.OWN_CPU_MS, NETWORKD, gadgets=1),
    ),
    Goal(name="Pss idle, MiB: ≤ 24", measured=_middle(Figure.IDLE_PSS_MIB), limit=_just(24)),
    Goal(name="growth of Pss, MiB: ≤ 1", measured=_middle(Figure.GROWTH_MIB), limit=_just(1)),
    Goal(
        name="start to READY=1, CPU ms: ≤ 250",
        measured=_middle(Figure.START_CPU_MS),
        limit=_just(250),
    ),
    Goal(
        name="idle wake-ups a minute: ≤ 6 (watchdog, resync)",
        measured=_middle(Figure.WAKEUPS_PER_MIN),
        limit=_just(6),
    ),
    Goal(
        name="CPU of an event at 250 gadgets, ms: ≤ 1.5 x at 1",
        measured=_middle(Figure.EVENT_CPU_MS, gadgets=250),
        limit=_times(1.5, _middle(Figure.EVENT_CPU_MS, gadgets=1)),
    ),
)


def _verdict(goal: Goal, results: Results, peer: str) -> list[str]:
    measured, limit = goal.measured(results, peer), goal.limit(results, peer)
    if measured is None or limit is None:
        return [NOTHING, NOTHING, NOTHING]
    return [number(measured), number(limit), "yes" if measured <= limit else "**no**"]


def _goals(results: Results) -> str:
    rows = [
        [f"{results.peers[peer]}: {goal.name}", *verdict]
        for peer in results.peers
        if peer.startswith("otgd-")
        for goal in GOALS
        if NOTHING not in (verdict := _verdict(goal, results, peer))
    ]
    return f"## Goals\n\n{_table(['', 'measured', 'limit', 'met'], rows)}" if rows else ""
