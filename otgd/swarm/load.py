"""Load on one address: so many requests, so many at a time; how fast, how late, how many failed."""

from __future__ import annotations

import http.client
import json
import math
import threading
import time
from dataclasses import dataclass
from itertools import count
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

TIMEOUT_S = 10


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """What one run of requests came to.

    Attributes:
        took_s: from the first request's start to the last one's end.
        latencies_s: of each good one.
    """

    at_once: int
    took_s: float
    latencies_s: tuple[float, ...]
    failed: int

    @property
    def sent(self) -> int:
        """How many requests there were."""
        return len(self.latencies_s) + self.failed

    @property
    def per_s(self) -> float:
        """Good requests per second."""
        return len(self.latencies_s) / self.took_s if self.took_s else 0.0

    def percentile_ms(self, percent: float) -> float:
        """Return the latency that *percent* of the good requests kept to; nearest rank."""
        if not self.latencies_s:
            return math.nan
        ordered = sorted(self.latencies_s)
        rank = max(1, math.ceil(len(ordered) * percent / 100))
        return ordered[rank - 1] * 1000


def get(address: str, port: int, path: str, *, timeout_s: float = TIMEOUT_S) -> str:
    """Return the body of an answer.

    Raises:
        OSError: nobody answers, or not with 200.
    """
    connection = http.client.HTTPConnection(address, port, timeout=timeout_s)
    try:
        connection.request("GET", path, headers={"Connection": "close"})
        answer = connection.getresponse()
        body = answer.read().decode(errors="replace")
    except http.client.HTTPException as err:
        raise OSError(f"{type(err).__name__}: {err}") from err
    finally:
        connection.close()
    if answer.status != http.client.OK:
        raise OSError(f"HTTP {answer.status}")
    return body


def container_of(body: str) -> str:
    """Return the container that an answer names.

    Raises:
        OSError: it names none.
    """
    try:
        return str(json.loads(body)["container"])
    except (ValueError, KeyError, TypeError) as err:
        raise OSError(f"answers something else: {body[:40]!r}") from err


def run(
    request: Callable[[], object],
    *,
    at_once: int,
    requests: int | None = None,
    seconds: float | None = None,
) -> Run:
    """Make *requests* requests, or as many as fit into *seconds*, each on a new connection."""
    numbers = count(1)  # one for all threads: its next() is one step of the interpreter
    latencies: list[float] = []
    failures: list[OSError] = []
    start_s = time.monotonic()
    end_s = math.inf if seconds is None else start_s + seconds

    def work() -> None:
        while requests is None or next(numbers) <= requests:
            began_s = time.monotonic()
            try:
                request()
            except OSError as err:
                failures.append(err)
            else:
                latencies.append(time.monotonic() - began_s)
            if time.monotonic() >= end_s:
                return

    workers = [threading.Thread(target=work, daemon=True) for _ in range(at_once)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    return Run(
        at_once=at_once,
        took_s=time.monotonic() - start_s,
        latencies_s=tuple(latencies),
        failed=len(failures),
    )


def summary(run: Run) -> tuple[str, ...]:
    """Return requests/s, p50, p95, p99 (ms) and failures for a table."""
    waits = tuple(f"{run.percentile_ms(percent):.1f}" for percent in (50, 95, 99))
    return (f"{run.per_s:.0f}", *waits, f"{run.failed}/{run.sent}")


COLUMNS: Sequence[str] = ("REQ/S", "P50 MS", "P95 MS", "P99 MS", "FAILED")
