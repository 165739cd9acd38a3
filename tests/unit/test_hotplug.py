"""Triggers on the real kernel's sockets in a network namespace; udevd does not run there."""

from __future__ import annotations

import errno
import os
import shlex
import socket
import sys
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import pyudev

from otgd.adapters import hotplug
from otgd.adapters.hotplug import RouteTrigger, UdevTrigger, choose_source
from otgd.errors import TransientError
from otgd.model import HotplugSource
from tests.conftest import need
from tests.lab.descriptors import is_readable
from tests.lab.namespaces import run

if TYPE_CHECKING:
    from collections.abc import Callable

    from otgd.ports import TriggerPort

MANY = 20
"""Links enough to overflow the smallest receive buffer by far."""

LEAST_BUFFER_BYTES = 1
"""The kernel makes the least that it allows of it (SOCK_MIN_RCVBUF)."""


def ifindexes(*names: str) -> frozenset[int]:
    return frozenset(socket.if_nametoindex(name) for name in names)


def shrink(trigger: TriggerPort) -> None:
    """Make the receive buffer as small as it goes."""
    borrowed = socket.socket(fileno=trigger.fileno())
    borrowed.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, LEAST_BUFFER_BYTES)
    borrowed.detach()


def many_links(verb: str) -> None:
    if verb == "add":
        lines = [f"link add m{n} type bridge\n" for n in range(MANY)]
    else:
        lines = [f"link del m{n}\n" for n in range(MANY)]
    run("ip", "-batch", "-", stdin="".join(lines))


@pytest.fixture(params=[lambda: UdevTrigger("kernel"), RouteTrigger], ids=["uevents", "rtnetlink"])
def opened(request: pytest.FixtureRequest, netns: None) -> Callable[[], TriggerPort]:  # noqa: ARG001
    made: Callable[[], TriggerPort] = request.param
    return made


def test_a_plug_wakes_it_and_an_unplug_does_once(opened: Callable[[], TriggerPort]) -> None:
    """The end of a link is rtnetlink's to tell; what the monitor says of it is no event."""
    with closing(opened()) as trigger:
        assert trigger.drain() == 0
        run("ip", "link", "add", "usb0", "type", "veth", "peer", "name", "peer0")
        assert is_readable(trigger.fileno(), 5.0)
        assert trigger.drain() > 0
        assert trigger.touched() == ifindexes("usb0", "peer0")
        assert not is_readable(trigger.fileno())
        ends = frozenset[int]() if trigger.newcomers_only else ifindexes("usb0", "peer0")
        run("ip", "link", "del", "usb0")
        assert is_readable(trigger.fileno(), 5.0)
        assert (trigger.drain() > 0) is bool(ends)
        assert trigger.touched() == ends
        assert trigger.overflows == 0


@pytest.mark.parametrize(
    "command",
    [
        ("ip", "link", "set", "usb0", "name", "ethusb1"),
        ("ip", "link", "property", "add", "dev", "usb0", "altname", "usb-left"),
        ("ip", "link", "set", "usb0", "address", "00:22:82:ff:ff:01"),
        ("ip", "link", "set", "usb0", "down"),
        ("ip", "address", "add", "10.0.11.1/24", "dev", "usb0"),
        ("ip", "link", "del", "usb0"),
    ],
    ids=["name", "altname", "MAC", "down", "address", "end"],
)
@pytest.mark.usefixtures("netns")
def test_all_that_happens_to_a_settled_link_is_told_by_rtnetlink(command: tuple[str, ...]) -> None:
    """So what the monitor of devices says of such a link is no news."""
    run("ip", "link", "add", "usb0", "type", "veth", "peer", "name", "peer0")
    run("ip", "link", "set", "usb0", "up")
    (ifindex,) = ifindexes("usb0")
    with closing(RouteTrigger()) as trigger:
        run(*command)
        assert is_readable(trigger.fileno(), 5.0)
        trigger.drain()
        assert ifindex in (trigger.touched() or ())


@pytest.mark.usefixtures("netns")
def test_udev_finishing_with_a_link_is_told_by_the_monitor_alone() -> None:
    """A uevent that somebody asks for stands for udevd's, which does not run here."""
    run("ip", "link", "add", "usb0", "type", "veth", "peer", "name", "peer0")
    with closing(UdevTrigger("kernel")) as devices, closing(RouteTrigger()) as changes:
        Path("/sys/class/net/usb0/uevent").write_text("change")
        assert is_readable(devices.fileno(), 5.0)
        assert devices.drain() == 1
        assert devices.touched() == ifindexes("usb0")
        assert not is_readable(changes.fileno())


def test_a_rename_wakes_it(opened: Callable[[], TriggerPort]) -> None:
    run("ip", "link", "add", "usb0", "type", "veth", "peer", "name", "peer0")
    with closing(opened()) as trigger:
        run("ip", "link", "set", "usb0", "name", "ethusb1")
        assert is_readable(trigger.fileno(), 5.0)
        assert trigger.drain() > 0


def test_an_overflow_is_counted_and_later_events_are_heard(
    opened: Callable[[], TriggerPort],
) -> None:
    with closing(opened()) as trigger:
        shrink(trigger)
        for _ in range(2):
            many_links("add")
            before = trigger.overflows
            assert is_readable(trigger.fileno(), 5.0)
            assert 0 < trigger.drain() < MANY
            assert trigger.overflows == before + 1
            assert trigger.drain() == 0
            assert not is_readable(trigger.fileno())
            many_links("del")
            trigger.drain()
            run("ip", "link", "add", "usb0", "type", "veth", "peer", "name", "peer0")
            assert is_readable(trigger.fileno(), 5.0)
            assert trigger.drain() > 0
            run("ip", "link", "del", "usb0")
            trigger.drain()


def test_an_overflow_needs_no_new_descriptor(opened: Callable[[], TriggerPort]) -> None:
    with closing(opened()) as trigger:
        shrink(trigger)
        before, number = len(os.listdir("/proc/self/fd")), trigger.fileno()  # noqa: PTH208
        many_links("add")
        trigger.drain()
        assert trigger.overflows == 1
        assert trigger.fileno() == number
        assert len(os.listdir("/proc/self/fd")) == before  # noqa: PTH208


def test_closing_gives_the_descriptor_back(opened: Callable[[], TriggerPort]) -> None:
    trigger = opened()
    number = trigger.fileno()
    trigger.close()
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(number)


@pytest.mark.parametrize(
    "command",
    [
        ("ip", "address", "add", "10.0.11.1/24", "dev", "usb0"),
        ("ip", "address", "del", "10.0.12.1/24", "dev", "usb0"),
        ("ip", "link", "set", "usb0", "down"),
        ("ip", "route", "add", "default", "dev", "usb0"),
        ("ip", "route", "del", "10.9.0.0/16"),
        ("sh", "-c", "echo 1 > /proc/sys/net/ipv4/ip_forward"),
    ],
    ids=["address", "no address", "down", "route", "no route", "forwarding"],
)
@pytest.mark.usefixtures("netns")
def test_rtnetlink_tells_what_others_change(command: tuple[str, ...]) -> None:
    run("ip", "link", "add", "usb0", "type", "veth", "peer", "name", "peer0")
    run("ip", "link", "set", "usb0", "up")
    run("ip", "address", "add", "10.0.12.1/24", "dev", "usb0")
    run("ip", "route", "add", "10.9.0.0/16", "dev", "usb0")
    with closing(RouteTrigger()) as trigger:
        trigger.drain()
        run(*command)
        assert is_readable(trigger.fileno(), 5.0)
        assert trigger.drain() > 0


@pytest.mark.parametrize("kind", ["kernel", "rtnetlink"])
@pytest.mark.usefixtures("netns")
def test_without_descriptors_the_cause_is_told(kind: str) -> None:
    import resource

    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    lowest = os.dup(0)
    os.close(lowest)
    resource.setrlimit(resource.RLIMIT_NOFILE, (lowest, hard))
    try:
        with pytest.raises(TransientError, match=f"listen to {kind} events: "):
            UdevTrigger("kernel") if kind == "kernel" else RouteTrigger()
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


class BrokenMonitor:
    """A monitor whose socket fails in ways that no test can make the kernel's fail."""

    def __init__(self, error: OSError) -> None:
        self._error = error
        self._socket = socket.socket()

    def fileno(self) -> int:
        return self._socket.fileno()

    def poll(self, timeout: float) -> None:  # noqa: ARG002 - pyudev's signature
        raise self._error

    def filter_by(self, subsystem: str) -> None:
        assert subsystem == "net"

    def start(self) -> None:
        return

    def __del__(self) -> None:
        self._socket.close()


@pytest.mark.parametrize(
    ("error", "told"),
    [
        (OSError(errno.ENOMEM, "Cannot allocate memory"), "kernel events: Cannot allocate memory"),
        (OSError("File descriptor not open: 5"), "kernel events: File descriptor not open: 5"),
    ],
    ids=["errno", "pyudev's own"],
)
def test_another_error_of_the_monitor_is_transient(
    monkeypatch: pytest.MonkeyPatch, error: OSError, told: str
) -> None:
    class Monitor:
        @staticmethod
        def from_netlink(_: object, source: str) -> BrokenMonitor:
            assert source == "kernel"
            return BrokenMonitor(error)

    monkeypatch.setattr(pyudev, "Monitor", Monitor)
    with closing(UdevTrigger("kernel")) as trigger:
        with pytest.raises(TransientError, match=told):
            trigger.drain()
        assert trigger.overflows == 0


def test_another_error_of_rtnetlink_is_transient() -> None:
    trigger = RouteTrigger()
    trigger.close()
    with pytest.raises(TransientError, match="rtnetlink events: Bad file descriptor"):
        trigger.drain()


# --- whose word counts ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("wanted", "udevd", "same", "chosen"),
    [
        (HotplugSource.AUTO, True, True, "udev"),
        (HotplugSource.AUTO, True, False, "kernel"),
        (HotplugSource.AUTO, False, True, "kernel"),
        (HotplugSource.UDEV, False, False, "udev"),
        (HotplugSource.KERNEL, True, True, "kernel"),
    ],
    ids=["auto", "auto in a namespace", "auto without udevd", "udev", "kernel"],
)
def test_source(
    tmp_path: Path, wanted: HotplugSource, chosen: str, *, udevd: bool, same: bool
) -> None:
    control = tmp_path / "control"
    if udevd:
        control.touch()
    assert choose_source(wanted, control=control, same_network_as_init=lambda: same) == chosen


@pytest.mark.parametrize(
    ("enter", "chosen"), [("", "udev"), ("unshare --net", "kernel")], ids=["same", "another"]
)
def test_udevd_hears_only_the_network_of_init(tmp_path: Path, enter: str, chosen: str) -> None:
    """The shell is PID 1 of a namespace of its own, so its network is that of init."""
    need(os.geteuid() == 0, "root, for namespaces of its own")
    control = tmp_path / "control"
    control.touch()
    ask = (
        "from pathlib import Path; from otgd.adapters.hotplug import choose_source; "
        "from otgd.model import HotplugSource; "
        f"print(choose_source(HotplugSource.AUTO, control=Path({str(control)!r})))"
    )
    command = f"{enter} {shlex.join((sys.executable, '-c', ask))}; exit $?"
    told = run("unshare", "--net", "--pid", "--fork", "--mount-proc", "sh", "-c", command)
    assert told.strip() == chosen


def test_init_that_cannot_be_looked_at_is_taken_for_ours(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class NoPath(type(Path())):  # type: ignore[misc]
        def readlink(self) -> Path:
            raise PermissionError(errno.EACCES, "Permission denied")

    control = tmp_path / "control"
    control.touch()
    monkeypatch.setattr(hotplug, "Path", NoPath)
    assert choose_source(HotplugSource.AUTO, control=control) == "udev"
