"""Hotplug events: pyudev's monitor for devices, a raw rtnetlink socket for all other changes.

One of the adapters; knows pyudev, sockets and the errors. Of an event only the ifindex is read: it
tells that it is time to look, and where (``TriggerPort``). So a lost, doubled or late one does no
harm, and a udev event with a wrong name (udev 252 after a failed rename) cannot mislead.
"""

from __future__ import annotations

import errno
import os
import socket
import struct
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import pyudev

from otgd.errors import TransientError
from otgd.model import HotplugSource
from otgd.netlink import rtnetlink
from otgd.netlink.rtnetlink import HEADER

if TYPE_CHECKING:
    from collections.abc import Callable

UDEV_CONTROL = Path("/run/udev/control")

RTMGRP_LINK = 0x1
RTMGRP_IPV4_IFADDR = 0x10
RTMGRP_IPV4_ROUTE = 0x40
RTMGRP_IPV4_NETCONF = 1 << 23
"""Multicast groups, include/uapi/linux/rtnetlink.h; the last, RTNLGRP_IPV4_NETCONF, has no such
constant there. It tells changes of net.ipv4.ip_forward."""

EVENT_BYTES = 4096
_IFINDEX = struct.Struct("=i")
_ATTRIBUTE = struct.Struct("=HH")
_LINK_IFINDEX = HEADER.size + 4  # and in struct ifaddrmsg too
_ROUTE_ATTRIBUTES = HEADER.size + 12
RTA_OIF = 4
"""Where struct ifinfomsg, ifaddrmsg and rtmsg have what; include/uapi/linux/rtnetlink.h."""

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
    """pyudev's monitor of network devices; implements ``TriggerPort``.

    Later changes of a link (name, flags, addresses, MAC) rtnetlink tells too, and its driver, port
    and serial never change; that udevd has finished with it, only this one tells.
    """

    newcomers_only = True

    def __init__(self, source: Source) -> None:
        self._source = source
        self._touched: set[int] = set()
        self._lost = False
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
        """Forget what is queued; an overflow counts as an event, the end of a link does not.

        Of that the kernel tells by rtnetlink, and first (unregister_netdevice_many in
        net/core/dev.c).
        """
        count = 0
        while True:
            try:
                while (device := self._monitor.poll(timeout=0)) is not None:
                    if device.action != "remove":
                        count += 1
                        self._touched.add(int(device.properties.get("IFINDEX", 0)))
            except OSError as err:
                code = err.errno or self._pending_error()
                if code != errno.ENOBUFS:
                    cause = os.strerror(code) if code else str(err)
                    raise TransientError(f"{self._source} events: {cause}") from err
                self.overflows += 1
                self._lost = True
                count += 1
            else:
                return count

    def touched(self) -> frozenset[int] | None:
        """Return and forget the ifindexes that the drained events named; None is anything."""
        touched = None if self._lost else frozenset(self._touched - {0})
        self._touched, self._lost = set(), False
        return touched

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

    newcomers_only = False

    def __init__(self) -> None:
        self._touched: set[int] = set()
        self._lost = False
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
                self._note(self._socket.recv(EVENT_BYTES))
            except BlockingIOError:
                return count
            except OSError as err:
                if err.errno != errno.ENOBUFS:
                    raise TransientError(f"rtnetlink events: {err.strerror}") from err
                self.overflows += 1
                self._lost = True
            count += 1

    def _note(self, event: bytes) -> None:
        """Note whom an event is about; the kernel sends one a datagram, cut off here."""
        _, kind, *_ = HEADER.unpack_from(event)
        match kind:
            case (
                rtnetlink.RTM_NEWLINK
                | rtnetlink.RTM_DELLINK
                | rtnetlink.RTM_NEWADDR
                | rtnetlink.RTM_DELADDR
            ):
                self._touched.add(_ifindex_in(event))
            case rtnetlink.RTM_NEWROUTE | rtnetlink.RTM_DELROUTE:
                ifindex = _ifindex_of_route(event)
                self._touched.add(ifindex)
                self._lost |= not ifindex  # a route over many links, or over none
            case _:
                pass  # forwarding, which every pass looks at

    def touched(self) -> frozenset[int] | None:
        """Return and forget the ifindexes that the drained events named; None is anything."""
        touched = None if self._lost else frozenset(self._touched)
        self._touched, self._lost = set(), False
        return touched

    def close(self) -> None:
        """Give the descriptor back."""
        self._socket.close()


def _ifindex_in(event: bytes) -> int:
    (ifindex,) = _IFINDEX.unpack_from(event, _LINK_IFINDEX)
    return int(ifindex)


def _ifindex_of_route(event: bytes) -> int:
    offset = _ROUTE_ATTRIBUTES
    while offset + _ATTRIBUTE.size <= len(event):
        length, kind = _ATTRIBUTE.unpack_from(event, offset)
        if kind == RTA_OIF:
            (ifindex,) = _IFINDEX.unpack_from(event, offset + _ATTRIBUTE.size)
            return int(ifindex)
        offset += max(_ATTRIBUTE.size, (length + 3) & ~3)
    return 0
