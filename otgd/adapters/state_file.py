"""/run/otgd: the state file that everybody may read, and the lock that makes otgd the only one.

One of the adapters; knows files and JSON.
"""

from __future__ import annotations

import fcntl
import json
import os
from contextlib import suppress
from pathlib import Path
from typing import Any

from otgd.errors import PermanentError

STATE = "state.json"
LOCK = "lock"
DIRECTORY_MODE = 0o755
FILE_MODE = 0o644
LOCK_MODE = 0o600
"""Not for everybody: who may open it may lock it, and keep otgd from starting."""


class StateFile:
    """state.json in the runtime directory, always whole."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self._lock: int | None = None

    @property
    def path(self) -> Path:
        """Where the state is."""
        return self.directory / STATE

    def lock(self) -> bool:
        """Become the one otgd of this runtime directory; tell whether it worked.

        Raises:
            PermanentError: the directory cannot be made or written.
        """
        try:
            self.directory.mkdir(mode=DIRECTORY_MODE, parents=True, exist_ok=True)
            handle = os.open(
                self.directory / LOCK, os.O_RDONLY | os.O_CREAT | os.O_CLOEXEC, LOCK_MODE
            )
        except OSError as err:
            raise PermanentError(f"open {self.directory / LOCK}: {err.strerror}") from err
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(handle)
            return False
        except OSError as err:
            os.close(handle)
            raise PermanentError(f"lock {self.directory / LOCK}: {err.strerror}") from err
        self._lock = handle
        return True

    def is_locked(self) -> bool:
        """Tell whether a running otgd holds the lock; needs no rights."""
        try:
            handle = os.open(self.directory / LOCK, os.O_RDONLY | os.O_CLOEXEC)
        except PermissionError:
            return self._is_listed_as_locked()
        except OSError:
            return False
        try:
            fcntl.flock(handle, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
        else:
            return False
        finally:
            os.close(handle)

    def _is_listed_as_locked(self) -> bool:
        """Look the lock up where everybody may (proc_locks(5)): device and inode in hex and dec."""
        try:
            stat = (self.directory / LOCK).stat()
            locks = Path("/proc/locks").read_text(encoding="ascii").split()
        except OSError:
            return False
        major, minor = os.major(stat.st_dev), os.minor(stat.st_dev)
        return f"{major:02x}:{minor:02x}:{stat.st_ino}" in locks

    def write(self, state: dict[str, Any]) -> None:
        """Replace the state in one step, so that no reader sees half of it.

        Raises:
            PermanentError: no space, or a read-only file system; the old state stays.
        """
        temporary = self.directory / f".{STATE}.new"
        try:
            with temporary.open("w", encoding="utf-8") as file:
                file.write(json.dumps(state) + "\n")
                os.fchmod(file.fileno(), FILE_MODE)
            temporary.replace(self.path)
        except OSError as err:
            with suppress(OSError):
                temporary.unlink()
            raise PermanentError(f"write {self.path}: {err.strerror}") from err

    def read(self) -> dict[str, Any] | None:
        """Return the state, or None where there is none.

        Raises:
            PermanentError: it cannot be read, or is not JSON.
        """
        try:
            state = json.loads(self.path.read_text(encoding="utf-8"))
        except FileNotFoundError:
            return None
        except OSError as err:
            raise PermanentError(f"read {self.path}: {err.strerror}") from err
        except ValueError as err:
            raise PermanentError(f"read {self.path}: it is not JSON: {err}") from err
        if not isinstance(state, dict):
            raise PermanentError(f"read {self.path}: it is not an object of JSON")
        return state

    def remove(self) -> None:
        """Take the state away, so that nobody reads of a network that nobody keeps."""
        with suppress(OSError):
            self.path.unlink()
