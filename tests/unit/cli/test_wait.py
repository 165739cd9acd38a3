"""``otgctl wait``: comes back as soon as it may, and says what is missing when it may not."""

from __future__ import annotations

import subprocess
import sys
import time
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from otgd.cli.following import LOOK_S, follow
from otgd.cli.installation import Installation
from tests.lab.deadline import until
from tests.unit.cli.conftest import absent, gadget, state

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.unit.cli.conftest import Tool

FOUND_S = LOOK_S / 2
"""Half of the interval at which it looks without a reason: whoever is faster was told."""


def test_gadget_that_is_there_is_not_waited_for(otgctl: Tool) -> None:
    otgctl.run_daemon(state(gadget(), absent()))
    assert otgctl("wait", "ethusb1", "--timeout", "0").code == 0


def test_all_gadgets_are_waited_for(otgctl: Tool) -> None:
    otgctl.run_daemon(state(gadget(), absent()))
    said = otgctl("wait", "ethusb1", "ethusb2", "--timeout", "0")
    assert (said.code, said.err) == (1, "otgctl: ethusb2 is absent: no link is there\n")


def test_configured_is_not_reachable(otgctl: Tool) -> None:
    otgctl.run_daemon(state(gadget(), gadget("ethusb2", state="reachable")))
    assert otgctl("wait", "ethusb2", "--state", "reachable", "--timeout", "0").code == 0
    assert otgctl("wait", "ethusb2", "--timeout", "0").code == 0
    said = otgctl("wait", "ethusb1", "--state", "reachable", "--timeout", "0")
    assert (said.code, said.err) == (1, "otgctl: ethusb1 is configured\n")


def test_unknown_gadget_is_wrong_usage(otgctl: Tool) -> None:
    otgctl.run_daemon(state(gadget(), absent()))
    said = otgctl("wait", "ethusb9", "--timeout", "0")
    assert said.code == 2
    assert "it knows ethusb1, ethusb2" in said.err


def test_stopped_daemon_is_said(otgctl: Tool) -> None:
    said = otgctl("wait", "ethusb1", "--timeout", "0.01")
    assert said.code == 1
    assert "otgd does not run" in said.err


@contextmanager
def waiting(otgctl: Tool) -> Iterator[subprocess.Popen[bytes]]:
    """Run ``otgctl wait ethusb2`` and enter when it waits."""
    place = ("--runtime-dir", str(otgctl.daemon.directory))
    command = (sys.executable, "-m", "otgd.cli", *place, "wait", "ethusb2", "--timeout", "30")
    with subprocess.Popen(command, stderr=subprocess.PIPE) as process:
        try:
            until(lambda: _watches(process.pid))
            yield process
        finally:
            process.kill()


def _watches(pid: int) -> bool:
    """Tell whether the process has been told to watch a directory (procfs(5), fdinfo)."""
    for info in Path(f"/proc/{pid}/fdinfo").iterdir():
        with suppress(FileNotFoundError):  # it opens and closes others meanwhile
            if "inotify wd:" in info.read_text():
                return True
    return False


@pytest.mark.parametrize("running", [True, False], ids=["daemon runs", "daemon starts"])
def test_gadget_is_seen_as_soon_as_it_comes(otgctl: Tool, *, running: bool) -> None:
    if running:
        otgctl.run_daemon(state(gadget(), absent()))
    with waiting(otgctl) as process:
        started = time.monotonic()
        if running:
            otgctl.daemon.write(state(gadget(), gadget("ethusb2")))
        else:
            otgctl.run_daemon(state(gadget(), gadget("ethusb2")))
        assert process.wait(20) == 0
        assert time.monotonic() - started < FOUND_S


def test_every_state_is_followed_until_the_daemon_ends(otgctl: Tool) -> None:
    otgctl.run_daemon(state(absent()))
    states = follow(
        Installation(config_file=otgctl.config_file, runtime_dir=otgctl.daemon.directory),
        timeout_s=30,
    )
    assert next(states) == state(absent())
    otgctl.daemon.write(state(gadget("ethusb2")))
    assert next(states) == state(gadget("ethusb2"))
    otgctl.daemon.remove()
    assert next(states) is None
    states.close()  # type: ignore[attr-defined]
