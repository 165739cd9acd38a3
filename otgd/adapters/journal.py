"""Where events are told: the journal with its fields, else stderr in one line.

One of the adapters. Neither ever waits or raises: a stalled journald must not stop the network.
"""

from __future__ import annotations

import errno
import os
import socket
import struct
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
    except (AttributeError, OSError, ValueError):  # closed, or none at all
        return False
    return (device, inode) == (str(stat.st_dev), str(stat.st_ino))


class JournalLog:
    """The journal, in its native protocol (systemd.io/JOURNAL_NATIVE_PROTOCOL), field by field.

    sd_journal_sendv(3), and so systemd-python, waits when journald's queue is full, with the
    interpreter's lock held. This socket never waits: what is not taken now stays here, in order.
    Each message names the address anew, so a journald that was restarted is found again.
    """

    def __init__(self, *, level: str = "info", path: str = JOURNAL_SOCKET) -> None:
        self.level = level
        self._path = path
        self._backlog: deque[bytes] = deque()
        self._dropped = 0
        self._socket = socket.socket(
            socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC
        )

    def write(self, event: Event) -> None:
        """Tell one event, and before it those that had to wait."""
        if event.kind.priority > LEVELS[self.level]:
            return
        if len(self._backlog) == BACKLOG:
            self._backlog.popleft()
            self._dropped += 1
        fields = {"MESSAGE_ID": event.kind.message_id, **event.fields}
        self._backlog.append(_encode(event.message, event.kind.priority, fields))
        self.flush()

    def flush(self) -> None:
        """Hand over what waits, as far as journald takes it; first say what was lost before it."""
        if self._dropped and self._send(_lost(self._dropped)):
            self._dropped = 0
        while self._backlog and not self._dropped and self._send(self._backlog[0]):
            self._backlog.popleft()

    def close(self) -> None:
        """Give the descriptor back."""
        self._socket.close()

    def _send(self, message: bytes) -> bool:
        """Tell whether the message is dealt with; if not, it is worth another try later."""
        try:
            self._socket.sendto(message, self._path)
        except OSError as err:
            # One that is too long for a datagram will be so for ever.
            return err.errno == errno.EMSGSIZE
        return True


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


def _lost(count: int) -> bytes:
    return _encode(f"{count} events lost while journald did not read", Priority.WARNING, {})


def _encode(text: str, priority: Priority, more: Mapping[str, str]) -> bytes:
    fields = {
        "MESSAGE": text,
        "PRIORITY": str(int(priority)),
        "SYSLOG_IDENTIFIER": "otgd",
        **{key: value for key, value in more.items() if value},
    }
    return b"".join(_field(key, value) for key, value in fields.items())


def _field(key: str, value: str) -> bytes:
    content = value.encode(errors="backslashreplace")
    if b"\n" not in content:
        return b"%s=%s\n" % (key.encode(), content)
    return b"%s\n%s%s\n" % (key.encode(), struct.pack("<Q", len(content)), content)
