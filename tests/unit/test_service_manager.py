"""sd_notify(3) against a socket that plays the service manager."""

from __future__ import annotations

import os
import socket
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from otgd.adapters.service_manager import SystemdService

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture
def manager(monkeypatch: pytest.MonkeyPatch) -> Iterator[socket.socket]:
    with (
        tempfile.TemporaryDirectory() as directory,  # sun_path has 108 bytes
        socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK) as listening,
    ):
        path = Path(directory) / "notify"
        listening.bind(str(path))
        monkeypatch.setenv("NOTIFY_SOCKET", str(path))
        yield listening


def test_assignments_are_one_message(manager: socket.socket) -> None:
    SystemdService().notify("READY=1", "STATUS=1 of 4 gadgets up")
    assert manager.recv(4096) == b"READY=1\nSTATUS=1 of 4 gadgets up"
    with pytest.raises(BlockingIOError):
        manager.recv(4096)


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("bad\nSTOPPING=1", "bad?STOPPING=1"),
        ("nul\x00", "nul?"),
        (os.fsdecode(b"\xff.toml"), "?.toml"),
        ("ünïcode ☃", "ünïcode ☃"),
    ],
    ids=["line", "nul", "not unicode", "unicode"],
)
def test_a_status_cannot_be_another_assignment(
    manager: socket.socket, text: str, told: str
) -> None:
    SystemdService().notify(f"STATUS={text}")
    assert manager.recv(4096).decode() == f"STATUS={told}"


def test_without_a_service_manager_telling_is_nothing(
    manager: socket.socket, monkeypatch: pytest.MonkeyPatch
) -> None:
    SystemdService({}).notify("READY=1")
    with pytest.raises(BlockingIOError):
        manager.recv(4096)
    service = SystemdService()
    monkeypatch.setenv("NOTIFY_SOCKET", "/nonexistent/notify")
    service.notify("READY=1")  # the manager has gone since


@pytest.mark.parametrize(
    ("environ", "expected"),
    [
        ({}, None),
        ({"WATCHDOG_USEC": "30000000"}, 30.0),
        ({"WATCHDOG_USEC": "30000000", "WATCHDOG_PID": str(os.getpid())}, 30.0),
        ({"WATCHDOG_USEC": "30000000", "WATCHDOG_PID": "1"}, None),
        ({"WATCHDOG_USEC": "0"}, None),
        ({"WATCHDOG_USEC": "-1"}, None),
        ({"WATCHDOG_USEC": "²"}, None),
    ],
    ids=["none", "any", "ours", "another's", "zero", "negative", "odd"],
)
def test_watchdog(environ: dict[str, str], expected: float | None) -> None:
    assert SystemdService(environ).watchdog_s == expected
