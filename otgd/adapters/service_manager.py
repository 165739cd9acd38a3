"""systemd's notification socket (sd_notify) through systemd-python.

One of the adapters. Where no NOTIFY_SOCKET is set, telling is silently nothing.
"""

from __future__ import annotations

import os
from contextlib import suppress
from typing import TYPE_CHECKING

from otgd.printable import printable

if TYPE_CHECKING:
    from collections.abc import Mapping


class SystemdService:
    """The unit that we run as, if any; implements ``ServicePort``."""

    def __init__(self, environ: Mapping[str, str] = os.environ) -> None:
        self._listening = bool(environ.get("NOTIFY_SOCKET"))
        self._watchdog_s = _watchdog_s(environ)

    @property
    def watchdog_s(self) -> float | None:
        """Seconds within which a keep-alive is expected, or None (sd_watchdog_enabled(3))."""
        return self._watchdog_s

    def notify(self, *assignments: str) -> None:
        """Send ``KEY=value`` lines in one message; a manager that is gone is not our trouble."""
        if not self._listening:
            return
        from systemd import daemon

        with suppress(OSError):
            daemon.notify("\n".join(printable(each) for each in assignments))


def _watchdog_s(environ: Mapping[str, str]) -> float | None:
    usec = environ.get("WATCHDOG_USEC", "")
    pid = environ.get("WATCHDOG_PID", str(os.getpid()))
    if not usec.isdecimal() or int(usec) == 0 or pid != str(os.getpid()):
        return None
    return int(usec) / 1e6
