"""Work in a child process: its result comes back, its imports and its end do not."""

from __future__ import annotations

import os
import signal
import subprocess
import sys

import pytest

from otgd.apart import apart, begin_apart
from otgd.errors import OtgdError


def test_the_result_comes_back() -> None:
    assert apart(lambda: {"pid": os.getpid(), "big": "x" * 1_000_000})["big"] == "x" * 1_000_000


def test_it_is_another_process() -> None:
    assert apart(os.getpid) != os.getpid()


def test_what_it_imports_stays_there() -> None:
    module = "antigravity" if "antigravity" not in sys.modules else "this"

    def work() -> bool:
        sys.modules[module] = sys
        return module in sys.modules

    assert apart(work)
    assert module not in sys.modules


def test_a_failure_is_told_and_its_place_is_in_the_journal(
    capfd: pytest.CaptureFixture[str],
) -> None:
    def work() -> None:
        raise ValueError("a defect")

    with pytest.raises(OtgdError, match="ended with 1 before its work was done"):
        apart(work)
    trace = capfd.readouterr().err
    assert "test_apart.py" in trace
    assert trace.endswith("ValueError: a defect\n")


GONE_BEFORE_THE_ANSWER = """\
import os, time
from otgd.apart import begin_apart
asker = os.getpid()
def work():
    while os.getppid() == asker:
        time.sleep(0.001)
begin_apart(work)
"""


def test_an_answer_that_nobody_wants_any_more_is_no_failure() -> None:
    command = (sys.executable, "-c", GONE_BEFORE_THE_ANSWER)
    done = subprocess.run(command, check=True, capture_output=True)  # to the child's end
    assert done.stderr == b""


def test_a_killed_child_is_told() -> None:
    with pytest.raises(OtgdError, match="ended with -9"):
        apart(lambda: os.kill(os.getpid(), signal.SIGKILL))


def test_we_go_on_while_the_child_works() -> None:
    theirs, ours = os.pipe()
    finish = begin_apart(lambda: os.read(theirs, 1))
    os.write(ours, b"!")  # it waits for this, so we are back before it is done
    os.close(ours)
    os.close(theirs)
    assert finish() == b"!"


def test_no_descriptor_and_no_child_is_left() -> None:
    before = open_descriptors()

    for _ in range(10):
        apart(os.getpid)
    with pytest.raises(OtgdError):
        begin_apart(lambda: os.kill(os.getpid(), signal.SIGKILL))()

    assert open_descriptors() == before
    with pytest.raises(ChildProcessError):
        os.waitpid(-1, os.WNOHANG)


def test_a_child_keeps_no_reader_alive_but_us() -> None:
    """Else it would write for ever to a parent that is gone."""
    assert apart(open_descriptors) == open_descriptors() + 1


def open_descriptors() -> int:
    return len(os.listdir("/proc/self/fd"))  # noqa: PTH208 - the listing itself opens one
