"""Hotplug events: pyudev's monitor for devices, a raw rtnetlink socket for all other changes.

One of the adapters; knows pyudev, sockets and the errors. What an event says is not read: it only
tells that it is time to look (``TriggerPort``). So a lost, doubled or late one does no harm, and
a udev event that carries a wrong name (udev 252 after a failed rename) cannot mislead.
"""

from __future__ import annotations

import errno
import os
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
RTMGRP_IPV4_NETCONF = 1 << 23
"""Multicast groups, include/uapi/linux/rtnetlink.h; the last, RTNLGRP_IPV4_NETCONF, has no such
constant there. It tells changes of net.ipv4.ip_forward."""

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
        self.overflows = 0
        try:
            self._monitor = pyudev.Monitor.from_netlink(pyudev.Context(), source=source)
            self._monitor.filter_by("net")
            self._monitor.start()
        except OSError as err:
            raise TransientError(f"listen to {source} events: {err.strerror or err}") from err

    def fileno(self) -> int:
        """Return the descriptor to wait on."""
        return int(self._monitor.fileno())

    def drain(self) -> int:
        """Forget what is queued; an overflow counts as an event."""
        count = 0
        while True:
            try:
                while self._monitor.poll(timeout=0) is not None:
                    count += 1
            except OSError as err:
                code = err.errno or self._pending_error()
                if code != errno.ENOBUFS:
                    cause = os.strerror(code) if code else str(err)
                    raise TransientError(f"{self._source} events: {cause}") from err
                self.overflows += 1
                count += 1
            else:
                return count

    def _pending_error(self) -> int:
        """Take the socket's error away and return it (SO_ERROR, socket(7)).

        pyudev asks poll(2), which tells an overflow for as long as nobody reads it, and then never
        reads it. Once it is read, the monitor goes on; no new one is needed, nor a descriptor.
        """
        borrowed = socket.socket(fileno=self.fileno())
        try:
            return borrowed.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
        finally:
            borrowed.detach()

    def close(self) -> None:
        """Give the descriptor back (libudev does when the last reference goes)."""
        del self._monitor


class RouteTrigger:
    """Changes of links, IPv4 addresses, routes and forwarding; implements ``TriggerPort``."""

    def __init__(self) -> None:
        self.overflows = 0
        groups = RTMGRP_LINK | RTMGRP_IPV4_IFADDR | RTMGRP_IPV4_ROUTE | RTMGRP_IPV4_NETCONF
        try:
            self._socket = socket.socket(
                socket.AF_NETLINK,
                socket.SOCK_RAW | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC,
                socket.NETLINK_ROUTE,
            )
            self._socket.bind((0, groups))
        except OSError as err:
            raise TransientError(f"listen to rtnetlink events: {err.strerror}") from err

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
