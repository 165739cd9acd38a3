"""The program's frame: arguments, exit codes, the one lock, the last words."""

from __future__ import annotations

import errno
import os
import signal
import socket
import tempfile
import threading
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from otgd import __main__, __version__
from otgd.__main__ import main
from otgd.adapters.state_file import StateFile
from otgd.errors import TransientError

if TYPE_CHECKING:
    from collections.abc import Iterator

GOOD = '[gadget.ethusb1]\nmac = "00:22:82:ff:ff:01"\nsubnet = "10.0.11.0/24"\n'


@pytest.fixture
def manager(monkeypatch: pytest.MonkeyPatch) -> Iterator[socket.socket]:
    """The receiving end of sd_notify(3)."""
    with (
        tempfile.TemporaryDirectory() as directory,  # sun_path has 108 bytes
        closing(socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)) as listening,
    ):
        path = Path(directory) / "notify"
        listening.bind(str(path))
        listening.settimeout(10)
        monkeypatch.setenv("NOTIFY_SOCKET", str(path))
        monkeypatch.delenv("WATCHDOG_USEC", raising=False)
        monkeypatch.delenv("JOURNAL_STREAM", raising=False)
        yield listening


def arguments(directory: Path, config: str = GOOD) -> list[str]:
    """Write a config and name it, and a runtime directory."""
    file = directory / "otgd.toml"
    file.write_text(config)
    return ["--config", str(file), "--runtime-dir", str(directory / "run")]


def test_a_refused_config_ends_it_with_every_problem_told(
    tmp_path: Path, manager: socket.socket, capsys: pytest.CaptureFixture[str]
) -> None:
    asked = arguments(tmp_path, GOOD + 'colour = "red"\nsize = 1\n')
    assert main(asked) == 78
    lines = capsys.readouterr().err.splitlines()
    assert [line.split(": ")[:2] for line in lines] == [
        [f"{asked[1]}:4", "gadget.ethusb1.colour"],
        [f"{asked[1]}:5", "gadget.ethusb1.size"],
    ]
    status, error = manager.recv(4096).decode().splitlines()
    assert status == f"STATUS=config refused: {lines[0]}"
    assert error == f"ERRNO={errno.EINVAL}"
    assert not (tmp_path / "run").exists()


def test_a_second_otgd_is_refused(
    tmp_path: Path,
    manager: socket.socket,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(__main__, "LOCK_PATIENCE_S", 0.05)
    asked = arguments(tmp_path)
    assert StateFile(tmp_path / "run").lock()
    assert main(asked) == 1
    text = f"another otgd already runs with {tmp_path / 'run'}"
    assert capsys.readouterr().err == f"otgd: {text}\n"
    assert manager.recv(4096).decode() == f"STATUS={text}\nERRNO={errno.EIO}"


def test_a_lock_that_is_tested_for_a_moment_is_waited_for(
    tmp_path: Path, manager: socket.socket, monkeypatch: pytest.MonkeyPatch
) -> None:
    """otgctl asks whether otgd runs by taking the lock for an instant."""
    answers = [False, False, True]

    class Busy(StateFile):
        def lock(self) -> bool:
            return answers.pop(0)

    def no_kernel(_: object) -> None:
        raise TransientError("listen to rtnetlink events: Too many open files")

    monkeypatch.setattr("otgd.adapters.state_file.StateFile", Busy)
    monkeypatch.setattr("otgd.wiring.Kernel", no_kernel)
    assert main(arguments(tmp_path)) == 1
    assert answers == []
    assert manager.recv(4096).startswith(b"STATUS=listen to rtnetlink events: Too many open files")


@pytest.mark.usefixtures("netns")
def test_it_serves_until_sigterm(
    tmp_path: Path, manager: socket.socket, capsys: pytest.CaptureFixture[str]
) -> None:
    told: list[str] = []

    def end_when_ready() -> None:
        while not any(line.startswith("READY=1") for line in told):
            told.append(manager.recv(4096).decode())
        os.kill(os.getpid(), signal.SIGTERM)

    beside = threading.Thread(target=end_when_ready)
    beside.start()
    assert main(arguments(tmp_path)) == 0
    beside.join()
    assert told[-1].splitlines() == ["READY=1", "STATUS=0 of 1 gadgets up, no uplink"]
    ready, stopped = capsys.readouterr().err.splitlines()
    assert ready.startswith("otgd: ready: 0 of 1 gadgets up, no uplink; firewall ")
    assert stopped == "otgd: stopped"


def test_the_runtime_directory_is_the_one_that_systemd_made(
    tmp_path: Path, manager: socket.socket, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(__main__, "LOCK_PATIENCE_S", 0.05)
    monkeypatch.setenv("RUNTIME_DIRECTORY", str(tmp_path / "run"))
    assert StateFile(tmp_path / "run").lock()
    assert main(arguments(tmp_path)[:2]) == 1
    assert str(tmp_path / "run") in manager.recv(4096).decode()


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match=r"^0$"):
        main(["--version"])
    assert capsys.readouterr().out == f"otgd {__version__}\n"


def test_an_unknown_argument_is_a_usage_error(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match=r"^2$"):
        main(["--colour"])
    assert "--colour" in capsys.readouterr().err
