"""Where events are told: the journal with its fields (systemd-python), else stderr in one line.

One of the adapters. Neither ever waits or raises: a stalled journald must not stop the network.
"""

from __future__ import annotations

import os
import select
import socket
import sys
from collections import deque
from typing import TYPE_CHECKING, TextIO

from otgd.events import Priority

if TYPE_CHECKING:
    from collections.abc import Mapping

    from otgd.events import Event

JOURNAL_SOCKET = "/run/systemd/journal/socket"
BACKLOG = 1000
"""Events kept while journald does not read; older ones are dropped and counted."""

LEVELS = {
    "debug": Priority.DEBUG,
    "info": Priority.INFO,
    "warning": Priority.WARNING,
    "error": Priority.ERR,
}


def stderr_is_journal(environ: Mapping[str, str] = os.environ) -> bool:
    """Tell whether stderr leads to the journal (JOURNAL_STREAM, systemd.exec(5))."""
    device, _, inode = environ.get("JOURNAL_STREAM", "").partition(":")
    try:
        stat = os.fstat(sys.stderr.fileno())
    except (OSError, ValueError):
        return False
    return (device, inode) == (str(stat.st_dev), str(stat.st_ino))


class JournalLog:
    """The journal; implements ``EventLogPort``.

    sd_journal_sendv(3) blocks, with the interpreter's lock held, when journald's queue is full.
    A socket of our own, connected to the same address, tells by POLLOUT whether it is; until it
    is not, events wait here.
    """

    def __init__(self, *, level: str = "info", path: str = JOURNAL_SOCKET) -> None:
        self.level = level
        self._path = path
        self._backlog: deque[list[str]] = deque(maxlen=BACKLOG)
        self._dropped = 0
        self._probe: socket.socket | None = None

    def write(self, event: Event) -> None:
        """Tell one event, and before it those that had to wait."""
        if event.kind.priority > LEVELS[self.level]:
            return
        if len(self._backlog) == BACKLOG:
            self._dropped += 1
        self._backlog.append(_fields(event))
        self.flush()

    def flush(self) -> None:
        """Hand over what waits, as far as journald takes it."""
        from systemd import journal

        while self._backlog and self._ready():
            journal.sendv(*self._backlog.popleft())
        if self._dropped and not self._backlog and self._ready():
            journal.sendv(f"MESSAGE={self._dropped} events lost while journald did not read")
            self._dropped = 0

    def _ready(self) -> bool:
        try:
            if self._probe is None:
                probe = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC)
                probe.connect(self._path)
                self._probe = probe
            poller = select.poll()
            poller.register(self._probe, select.POLLOUT)
            ready = poller.poll(0)
        except OSError:
            self._forget_probe()
            return False
        if any(flags & (select.POLLERR | select.POLLHUP) for _, flags in ready):
            # journald was restarted; its new socket has the same address.
            self._forget_probe()
            return False
        return bool(ready)

    def _forget_probe(self) -> None:
        if self._probe is not None:
            self._probe.close()
            self._probe = None


class StderrLog:
    """Lines for people; implements ``EventLogPort``."""

    def __init__(self, *, level: str = "info", stream: TextIO | None = None) -> None:
        self.level = level
        self._stream = stream or sys.stderr

    def write(self, event: Event) -> None:
        """Print one line; a reader that is gone is not our trouble."""
        if event.kind.priority > LEVELS[self.level]:
            return
        grave = event.kind.priority <= Priority.WARNING
        prefix = f"{event.kind.priority.name.lower()}: " if grave else ""
        line = " ".join(event.message.split("\n"))
        try:
            print(f"otgd: {prefix}{line}", file=self._stream, flush=True)
        except (OSError, ValueError):
            return

    def flush(self) -> None:
        """Nothing ever waits here."""


def _fields(event: Event) -> list[str]:
    fields = {
        "MESSAGE": event.message,
        "MESSAGE_ID": event.kind.message_id,
        "PRIORITY": str(int(event.kind.priority)),
        "SYSLOG_IDENTIFIER": "otgd",
        **{key: value for key, value in event.fields.items() if value},
    }
    return [f"{key}={value}" for key, value in fields.items()]
