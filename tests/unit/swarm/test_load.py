"""Load and its figures."""

from __future__ import annotations

import math
import socket
import threading
from itertools import count
from typing import TYPE_CHECKING

import pytest

from otgd.swarm import load

if TYPE_CHECKING:
    from collections.abc import Iterator

ANSWER = b'HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n{"guid":"g","container":"c1"}\n'


@pytest.fixture
def server() -> Iterator[tuple[int, list[bytes]]]:
    """Answer each connection with the next of a list, the last one for ever."""
    answers = [ANSWER]
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def serve() -> None:
            while True:
                try:
                    connection, _ = listener.accept()
                except OSError:
                    return
                with connection:
                    connection.recv(4096)
                    connection.sendall(answers.pop(0) if len(answers) > 1 else answers[0])

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        yield listener.getsockname()[1], answers
        listener.shutdown(socket.SHUT_RDWR)
        thread.join()


def test_percentiles_are_nearest_ranks() -> None:
    run = load.Run(
        at_once=1, took_s=2.0, latencies_s=tuple(n / 1000 for n in range(100, 0, -1)), failed=5
    )
    assert [run.percentile_ms(p) for p in (50, 95, 99, 100)] == [50, 95, 99, 100]
    assert (run.per_s, run.sent) == (50.0, 105)
    assert load.summary(run) == ("50", "50.0", "95.0", "99.0", "5/105")


def test_run_in_which_nothing_worked_has_no_latency() -> None:
    run = load.Run(at_once=1, took_s=0.0, latencies_s=(), failed=3)
    assert math.isnan(run.percentile_ms(50))
    assert run.per_s == 0


def test_every_request_is_made_once() -> None:
    numbers = count()
    seen: list[int] = []
    run = load.run(lambda: seen.append(next(numbers)), at_once=5, requests=100)
    assert sorted(seen) == list(range(100))
    assert (run.sent, run.failed, run.at_once) == (100, 0, 5)


def test_failures_are_counted_and_do_not_stop_it() -> None:
    numbers = count()

    def request() -> None:
        if next(numbers) % 10 == 0:
            raise OSError("refused")

    run = load.run(request, at_once=1, requests=100)
    assert (run.failed, len(run.latencies_s)) == (10, 90)


def test_run_ends_with_its_time() -> None:
    run = load.run(lambda: None, at_once=2, seconds=0.05)
    assert 0.05 <= run.took_s < 5
    assert run.sent > 0


def test_answer_is_read(server: tuple[int, list[bytes]]) -> None:
    port, answers = server
    answers.insert(0, ANSWER)
    assert load.container_of(load.get("127.0.0.1", port, "/")) == "c1"


@pytest.mark.parametrize(
    "answer",
    [b"HTTP/1.1 404 Not Found\r\n\r\n", b"nonsense\r\n\r\n", b"", b"HTTP/1.1 200 OK\r\n\r\nhello"],
)
def test_other_answers_are_failures(server: tuple[int, list[bytes]], answer: bytes) -> None:
    port, answers = server
    answers.insert(0, answer)
    with pytest.raises(OSError, match=r"HTTP|Remote|Bad|something else"):
        load.container_of(load.get("127.0.0.1", port, "/"))
