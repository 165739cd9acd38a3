"""Hotplug events: pyudev's monitor for devices, a raw rtnetlink socket for all other changes.

One of the adapters; knows pyudev, sockets and the errors. What an event says is not read: it only
tells that it is time to look (``TriggerPort``). So a lost, doubled or late one does no harm, and
a udev event that carries a wrong name (udev 252 after a failed rename) cannot mislead.
"""

from __future__ import annotations

import errno
import socket
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import pyudev

from otgd.errors import TransientError
from otgd.model import HotplugSource

if TYPE_CHECKING:
    from collections.abc import Callable

UDEV_CONTROL = Path("/run/udev/control")

RTMGRP_LINK = 0x1
RTMGRP_IPV4_IFADDR = 0x10
RTMGRP_IPV4_ROUTE = 0x40
"""Multicast groups, include/uapi/linux/rtnetlink.h."""

Source = Literal["udev", "kernel"]


def choose_source(
    wanted: HotplugSource,
    *,
    control: Path = UDEV_CONTROL,
    same_network_as_init: Callable[[], bool] | None = None,
) -> Source:
    """Return the pyudev source to listen to.

    ``auto`` takes udev where a udevd runs that sees this network namespace: udevd hears only the
    uevents of its own, which is that of PID 1.
    """
    match wanted:
        case HotplugSource.UDEV:
            return "udev"
        case HotplugSource.KERNEL:
            return "kernel"
        case HotplugSource.AUTO:
            in_its_network = (same_network_as_init or _same_network_as_init)()
            return "udev" if control.exists() and in_its_network else "kernel"


def _same_network_as_init() -> bool:
    try:
        return Path("/proc/self/ns/net").readlink() == Path("/proc/1/ns/net").readlink()
    except OSError:
        # Not allowed to look at PID 1 (an own user, ProtectProc=): a service is started there.
        return True


class UdevTrigger:
    """pyudev's monitor of network devices; implements ``TriggerPort``."""

    def __init__(self, source: Source) -> None:
        self._source = source
        self._context = pyudev.Context()
        self._monitor = self._listen()
        self.overflows = 0

    def _listen(self) -> pyudev.Monitor:
        try:
            monitor = pyudev.Monitor.from_netlink(self._context, source=self._source)
            monitor.filter_by("net")
            monitor.start()
        except OSError as err:
            raise TransientError(f"listen to {self._source} events: {err.strerror}") from err
        return monitor

    def fileno(self) -> int:
        """Return the descriptor to wait on."""
        return int(self._monitor.fileno())

    def drain(self) -> int:
        """Forget what is queued; after an overflow listen anew: poll() fails for ever then."""
        count = 0
        try:
            while self._monitor.poll(timeout=0) is not None:
                count += 1
        except OSError:
            self.overflows += 1
            self._monitor = self._listen()
            return count + 1
        return count

    def close(self) -> None:
        """Give the descriptor back (libudev does when the last reference goes)."""
        del self._monitor


class RouteTrigger:
    """Changes of links, IPv4 addresses and routes; implements ``TriggerPort``."""

    def __init__(self) -> None:
        self._socket = socket.socket(
            socket.AF_NETLINK,
            socket.SOCK_RAW | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC,
            socket.NETLINK_ROUTE,
        )
        self._socket.bind((0, RTMGRP_LINK | RTMGRP_IPV4_IFADDR | RTMGRP_IPV4_ROUTE))
        self.overflows = 0

    def fileno(self) -> int:
        """Return the descriptor to wait on."""
        return self._socket.fileno()

    def drain(self) -> int:
        """Forget what is queued; the kernel tells an overflow once, then goes on."""
        count = 0
        while True:
            try:
                # One byte is enough: the rest of a message is cut off, and nobody reads it.
                self._socket.recv(1)
            except BlockingIOError:
                return count
            except OSError as err:
                if err.errno != errno.ENOBUFS:
                    raise TransientError(f"rtnetlink events: {err.strerror}") from err
                self.overflows += 1
            count += 1

    def close(self) -> None:
        """Give the descriptor back."""
        self._socket.close()
