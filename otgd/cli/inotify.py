"""Wait until something changes in a directory (inotify(7)), without any library but libc."""

from __future__ import annotations

import ctypes
import os
import select
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path
    from types import TracebackType
    from typing import Self

IN_ATTRIB = 0x4
IN_MOVED_TO = 0x80
IN_CREATE = 0x100
IN_DELETE = 0x200
IN_DELETE_SELF = 0x400
"""Events, include/uapi/linux/inotify.h."""

MASK = IN_ATTRIB | IN_MOVED_TO | IN_CREATE | IN_DELETE | IN_DELETE_SELF
QUEUE_BYTES = 65536


class DirectoryWatch:
    """Watches a directory, or, as long as there is none, the nearest directory above it."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._libc = ctypes.CDLL(None, use_errno=True)
        self._descriptor: int = self._libc.inotify_init1(os.O_NONBLOCK | os.O_CLOEXEC)
        if self._descriptor < 0:
            raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()), "inotify")
        self._watch()

    def _watch(self) -> None:
        """Watch the directory; watching it again changes nothing."""
        for place in (self._directory, *self._directory.absolute().parents):
            if self._libc.inotify_add_watch(self._descriptor, os.fsencode(place), MASK) >= 0:
                return

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        os.close(self._descriptor)

    def fileno(self) -> int:
        """Return the descriptor that is readable when something has changed."""
        return self._descriptor

    def drain(self) -> None:
        """Forget what has changed; look at the directory after this."""
        try:
            while os.read(self._descriptor, QUEUE_BYTES):
                pass
        except BlockingIOError:
            pass
        self._watch()

    def wait(self, timeout_s: float) -> None:
        """Return when something has changed, at the latest after *timeout_s*."""
        select.select([self._descriptor], [], [], max(0.0, timeout_s))
        self.drain()
