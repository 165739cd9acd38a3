"""Forwarding, in a network namespace of the test's own and in files that play it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from otgd.adapters.sysctl import IP_FORWARD, ProcForwarding
from otgd.errors import PermanentError
from tests.lab.namespaces import run

if TYPE_CHECKING:
    from pathlib import Path


@pytest.mark.usefixtures("netns")
def test_forwarding_is_switched_on_and_stays_on() -> None:
    forwarding = ProcForwarding()
    assert not forwarding.enabled()
    forwarding.enable()
    forwarding.enable()
    assert forwarding.enabled()
    assert IP_FORWARD.read_text() == "1\n"


@pytest.mark.usefixtures("netns")
def test_a_read_only_proc_is_told_with_the_remedy() -> None:
    run("mount", "--bind", str(IP_FORWARD), str(IP_FORWARD))
    run("mount", "-o", "remount,bind,ro", str(IP_FORWARD))
    forwarding = ProcForwarding()
    cause = f"write {IP_FORWARD}: Read-only file system; put net.ipv4.ip_forward=1 into "
    with pytest.raises(PermanentError, match=cause):
        forwarding.enable()
    assert not forwarding.enabled()


def test_a_missing_file_is_told(tmp_path: Path) -> None:
    path = tmp_path / "ip_forward"
    with pytest.raises(PermanentError, match=f"^read {path}: No such file or directory$"):
        ProcForwarding(path).enabled()


def test_zero_is_off(tmp_path: Path) -> None:
    path = tmp_path / "ip_forward"
    path.write_text("0\n")
    assert not ProcForwarding(path).enabled()
