"""Read what the kernel and other programs leave in files; *root* is ``/`` but for tests.

What cannot be read is None or empty, never an error: a doctor says what it could not see.
"""

from __future__ import annotations

import errno
import os
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING

from otgd.diagnosis.facts import UsbDevice, UsbInterface

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from otgd.model import ObservedLink

RECORD_BYTES = 8192
"""No record of the kernel's log is longer (kernel/printk: PRINTKRB_RECORD_MAX and its prefix)."""

COMM_BYTES = 15
"""TASK_COMM_LEN, include/linux/sched.h, without its final zero."""

NETWORKD_LEAVES = frozenset({"", "unmanaged", "initialized", "pending"})
"""Values of ADMIN_STATE of a link that systemd-networkd does not configure."""


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8", errors="replace").strip()
    except OSError:
        return ""


def _entries(directory: Path) -> list[Path]:
    try:
        return sorted(directory.iterdir())
    except OSError:
        return []


# --- USB -----------------------------------------------------------------------------------------


def read_usb(root: Path) -> tuple[UsbDevice, ...]:
    """Return the USB devices, without root hubs, by port."""
    directory = root / "sys/bus/usb/devices"
    names = [entry.name for entry in _entries(directory)]
    return tuple(
        UsbDevice(
            port=name,
            ids=f"{_text(directory / name / 'idVendor')}:{_text(directory / name / 'idProduct')}",
            product=_text(directory / name / "product"),
            interfaces=tuple(
                _interface(directory / each) for each in names if each.startswith(f"{name}:")
            ),
        )
        for name in names
        if name[:1].isdigit() and ":" not in name
    )


def _interface(path: Path) -> UsbInterface:
    parts = ("bInterfaceClass", "bInterfaceSubClass", "bInterfaceProtocol")
    try:
        driver = (path / "driver").readlink().name
    except OSError:
        driver = ""
    return UsbInterface(
        kind="/".join(_text(path / part) for part in parts),
        driver=driver,
        links=tuple(link.name for link in _entries(path / "net")),
    )


# --- the kernel's log ----------------------------------------------------------------------------


def read_kernel_log(root: Path) -> tuple[str, ...] | None:
    """Return the kernel's messages since boot, or None if this user may not read them."""
    try:
        log = os.open(root / "dev/kmsg", os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError:
        return None
    try:
        text = b"".join(_records(log)).decode("utf-8", errors="replace")
    except OSError:
        return None
    finally:
        os.close(log)
    # A line is "priority,sequence,time,flags;message"; one that begins with a blank goes with it.
    return tuple(x.partition(";")[2] for x in text.splitlines() if not x.startswith(" "))


def _records(log: int) -> Iterator[bytes]:
    while True:
        try:
            record = os.read(log, RECORD_BYTES)
        except BlockingIOError:
            return
        except OSError as err:
            if err.errno != errno.EPIPE:  # it was overwritten while we read; the next one is there
                raise
        else:
            if not record:
                return
            yield record


# --- other programs ------------------------------------------------------------------------------


def read_udev(root: Path) -> frozenset[int] | None:
    """Return the ifindexes of the links that udevd has finished with; None if none runs."""
    if not (root / "run/udev/control").exists():
        return None
    names = (entry.name for entry in _entries(root / "run/udev/data"))
    return frozenset(int(name[1:]) for name in names if name[:1] == "n" and name[1:].isdigit())


def read_managers(root: Path, link: ObservedLink) -> tuple[str, ...]:
    """Return the programs that manage the link beside otgd."""
    askers = {
        "NetworkManager": _network_manager,
        "dhcpcd": _dhcpcd,
        "systemd-networkd": _networkd,
    }
    return tuple(program for program, manages in askers.items() if manages(root, link))


def _network_manager(root: Path, link: ObservedLink) -> bool:
    """Tell by its note on the device (nm_config_device_state_write), which outlives it."""
    note = _text(root / "run/NetworkManager/devices" / str(link.ifindex))
    return "managed=true" in note.split() and _runs(root, "NetworkManager")


def _networkd(root: Path, link: ObservedLink) -> bool:
    """Tell by its state file (link_save), which outlives it."""
    lines = _text(root / "run/systemd/netif/links" / str(link.ifindex)).splitlines()
    states = [line.partition("=")[2] for line in lines if line.startswith("ADMIN_STATE=")]
    manages = bool(states) and states[0] not in NETWORKD_LEAVES
    return manages and _runs(root, "systemd-networkd")


def _dhcpcd(root: Path, link: ObservedLink) -> bool:
    """Tell by its pid files; one that serves all links takes those that its config leaves it."""
    run, name = root / "run", link.ifname
    if any(_is_alive(root, run / own) for own in (f"dhcpcd/{name}.pid", f"dhcpcd-{name}.pid")):
        return True
    if not any(_is_alive(root, run / everyone) for everyone in ("dhcpcd/pid", "dhcpcd.pid")):
        return False
    text = _text(root / "etc/dhcpcd.conf") + "\n" + _denied_by_otgd(root)
    allowed, denied = _patterns(text, "allowinterfaces"), _patterns(text, "denyinterfaces")
    if any(fnmatchcase(name, pattern) for pattern in denied):
        return False
    return not allowed or any(fnmatchcase(name, pattern) for pattern in allowed)


def _denied_by_otgd(root: Path) -> str:
    """Return what otgd-names.service gives dhcpcd as its arguments, as a line of dhcpcd.conf."""
    return _text(root / "run/otgd-names/dhcpcd").removeprefix("OTGD_DENY=--")


def _patterns(text: str, keyword: str) -> list[str]:
    lines = (line.split(None, 1) for line in text.splitlines())
    return [
        pattern
        for words in lines
        if len(words) == 2 and words[0] == keyword
        for pattern in words[1].replace(",", " ").split()
    ]


def is_halted(root: Path, pid: int) -> bool:
    """Tell whether a signal (SIGSTOP, SIGTSTP) has stopped the process; proc_pid_stat(5)."""
    _, _, rest = _text(root / "proc" / str(pid) / "stat").rpartition(")")  # a name may have any
    return rest.split()[:1] == ["T"]


def _runs(root: Path, program: str) -> bool:
    """Tell whether a program runs; the kernel cuts its name off (TASK_COMM_LEN)."""
    names = (_text(entry / "comm") for entry in _entries(root / "proc") if entry.name.isdigit())
    return program[:COMM_BYTES] in names


def _is_alive(root: Path, pid_file: Path) -> bool:
    pid = _text(pid_file)
    return pid.isdigit() and (root / "proc" / pid).exists()
