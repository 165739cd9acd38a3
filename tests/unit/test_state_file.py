"""The runtime directory: state.json is always whole, and there is one otgd."""

from __future__ import annotations

import errno
import fcntl
import json
import os
import shutil
import stat
import subprocess
import tempfile
import threading
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from otgd.adapters.state_file import StateFile
from otgd.errors import PermanentError
from tests.conftest import need
from tests.lab.namespaces import run

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture
def state(tmp_path: Path) -> StateFile:
    return StateFile(tmp_path)


@pytest.fixture
def small_disk(netns: None) -> Iterator[StateFile]:  # noqa: ARG001 - its mounts are private
    """A file system of 64 KiB."""
    directory = Path("/run/small")
    directory.mkdir()
    run("mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", str(directory))
    yield StateFile(directory)
    run("umount", str(directory))


def test_what_is_written_is_read_and_is_for_everybody(state: StateFile) -> None:
    umask = os.umask(0o077)
    try:
        state.write({"version": 1, "name": "ünïcode"})
    finally:
        os.umask(umask)
    assert state.read() == {"version": 1, "name": "ünïcode"}
    assert stat.S_IMODE(state.path.stat().st_mode) == 0o644
    assert state.path.read_text().endswith("}\n")


def test_a_reader_never_sees_half_of_it(state: StateFile) -> None:
    states = [{"version": 1, "filler": str(n) * 50_000} for n in range(10)]
    state.write(states[0])
    done = threading.Event()

    def write() -> None:
        for n in range(300):
            state.write(states[n % 10])
        done.set()

    writer = threading.Thread(target=write)
    writer.start()
    reads = 0
    while not done.is_set():
        assert json.loads(state.path.read_text()) in states
        reads += 1
    writer.join()
    assert reads > 0
    assert [path.name for path in state.directory.iterdir()] == ["state.json"]


def test_a_full_disk_keeps_the_old_state_and_is_mended(small_disk: StateFile) -> None:
    small_disk.write({"version": 1})
    ballast = small_disk.directory / "ballast"
    with pytest.raises(OSError, match="No space left"):
        ballast.write_bytes(b"x" * 65536)
    cause = r"write /run/small/state\.json: No space left on device"
    with pytest.raises(PermanentError, match=cause):
        small_disk.write({"version": 1, "filler": "x" * 8192})
    assert small_disk.read() == {"version": 1}
    assert {path.name for path in small_disk.directory.iterdir()} == {"state.json", "ballast"}
    ballast.unlink()
    small_disk.write({"version": 1, "filler": "x" * 8192})
    assert small_disk.read() == {"version": 1, "filler": "x" * 8192}


def test_a_read_only_runtime_directory_is_told(small_disk: StateFile) -> None:
    small_disk.write({"version": 1})
    run("mount", "-o", "remount,ro", str(small_disk.directory))
    with pytest.raises(PermanentError, match=r"write .*: Read-only file system"):
        small_disk.write({"version": 1})
    with pytest.raises(PermanentError, match="open /run/small/lock: Read-only file system"):
        small_disk.lock()
    small_disk.remove()
    assert small_disk.read() == {"version": 1}


def test_no_state_is_none(state: StateFile) -> None:
    assert state.read() is None
    state.write({"version": 1})
    state.remove()
    state.remove()
    assert state.read() is None


@pytest.mark.parametrize(
    ("content", "cause"),
    [
        (b'{"version": ', "it is not JSON: "),
        (b"\xff", "it is not JSON: "),
        (b"[]", "it is not an object of JSON"),
    ],
    ids=["half", "not UTF-8", "a list"],
)
def test_a_spoilt_state_is_told(state: StateFile, content: bytes, cause: str) -> None:
    state.path.write_bytes(content)
    with pytest.raises(PermanentError, match=f"read {state.path}: {cause}"):
        state.read()


def test_a_state_that_cannot_be_read_is_told(state: StateFile) -> None:
    state.path.mkdir()
    with pytest.raises(PermanentError, match=f"^read {state.path}: Is a directory$"):
        state.read()


# --- the lock ------------------------------------------------------------------------------------


def test_there_is_one_otgd(tmp_path: Path) -> None:
    first, second = StateFile(tmp_path / "run" / "otgd"), StateFile(tmp_path / "run" / "otgd")
    assert not second.is_locked()
    assert first.lock()
    assert second.is_locked()
    assert not second.lock()
    assert stat.S_IMODE(first.directory.stat().st_mode) == 0o755
    assert stat.S_IMODE((first.directory / "lock").stat().st_mode) == 0o600


def test_the_lock_ends_with_its_process(tmp_path: Path) -> None:
    """A SIGKILL frees it too: the lock is the descriptor's, not the file's."""
    pid = os.fork()
    if pid == 0:
        os._exit(0 if StateFile(tmp_path).lock() else 1)
    assert os.waitpid(pid, 0)[1] == 0
    state = StateFile(tmp_path)
    assert not state.is_locked()
    assert state.lock()


def test_asking_for_the_lock_does_not_take_it(state: StateFile) -> None:
    assert state.lock()
    other = StateFile(state.directory)
    before = len(os.listdir("/proc/self/fd"))  # noqa: PTH208
    assert [other.is_locked(), other.lock(), other.is_locked()] == [True, False, True]
    assert len(os.listdir("/proc/self/fd")) == before  # noqa: PTH208


def test_a_lock_that_cannot_be_had_is_told(
    state: StateFile, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(_: int, __: int) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(fcntl, "flock", refuse)
    with pytest.raises(PermanentError, match=f"lock {state.directory}/lock: No locks available"):
        state.lock()


@pytest.fixture
def open_directory() -> Iterator[Path]:
    """A directory that every user may enter, which pytest's own are not."""
    with tempfile.TemporaryDirectory() as directory:
        Path(directory).chmod(0o755)
        yield Path(directory)


def test_nobody_else_can_take_the_lock_and_everybody_can_ask_for_it(open_directory: Path) -> None:
    need(os.geteuid() == 0, "root, to become nobody")
    tmp_path = open_directory
    state = StateFile(tmp_path / "run")
    assert state.lock()
    ask = f"""
from pathlib import Path
from otgd.adapters.state_file import StateFile
state = StateFile(Path({str(tmp_path / "run")!r}))
print(state.is_locked())
try:
    state.lock()
except Exception as err:
    print(err)
"""
    nobody = ("setpriv", "--reuid", "65534", "--regid", "65534", "--clear-groups")
    command = (*nobody, "/usr/bin/python3", "-c", ask)
    root = Path(__file__).resolve().parents[2]
    copy = tmp_path / "package"
    shutil.copytree(root / "otgd", copy / "otgd", ignore=shutil.ignore_patterns("__pycache__"))
    done = subprocess.run(command, capture_output=True, text=True, cwd=copy, check=True)

    assert done.stdout.splitlines()[0] == "True"
    assert "Permission denied" in done.stdout
