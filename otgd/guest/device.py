"""Judges whether a block device is a card that may be written: never a disk that the host uses.

Reads sysfs and /proc only; where they lie is a parameter, so that it can be tried on a tree.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from otgd.guest.tree import CardError


@dataclass(frozen=True, slots=True, kw_only=True)
class Device:
    """A card reader's disk: what to tell the administrator, and its first two partitions."""

    path: Path
    model: str
    size_bytes: int
    partitions: tuple[Path, Path]


@dataclass(frozen=True, slots=True, kw_only=True)
class HostDisks:
    """What the host says of its disks."""

    sys_block: Path = Path("/sys/class/block")
    mountinfo: Path = Path("/proc/self/mountinfo")
    swaps: Path = Path("/proc/swaps")


def find_device(path: Path, host: HostDisks | None = None) -> Device:
    """Return the card at *path*.

    Raises:
        CardError: it is no whole disk, no removable one, or anything of it is in use.
    """
    host = host or HostDisks()
    path = path.resolve()
    entry = host.sys_block / path.name
    if not entry.exists():
        raise CardError(f"open {path}: it is no disk; name a card's device, for example /dev/sdb")
    if (entry / "partition").exists():
        raise CardError(f"open {path}: it is a partition; name the whole card without the number")
    parts = sorted(
        (int((child / "partition").read_text()), child.name)
        for child in entry.iterdir()
        if (child / "partition").is_file()
    )
    names = [path.name, *(name for _, name in parts)]
    _check_unused(path, entry, names, host)
    if not _is_removable(entry):
        raise CardError(f"open {path}: it is a disk of this host, no card; otgctl leaves it alone")
    if len(parts) < 2:
        raise CardError(
            f"open {path}: it has no boot and root partition; write Raspberry Pi OS to it first"
        )
    return Device(
        path=path,
        model=_line(entry / "device/model") or _line(entry / "device/name") or "unknown model",
        size_bytes=int(_line(entry / "size") or 0) * 512,
        partitions=(path.with_name(parts[0][1]), path.with_name(parts[1][1])),
    )


def _check_unused(path: Path, entry: Path, names: list[str], host: HostDisks) -> None:
    numbers = {
        _line(host.sys_block / name / "dev") or _line(entry / name / "dev") for name in names
    }
    for line in host.mountinfo.read_text().splitlines():
        fields = line.split()
        if fields[2] in numbers:
            raise CardError(
                f"open {path}: it is mounted at {fields[4]}; unmount it first "
                "(or name the directories with --boot and --root)"
            )
    swaps = host.swaps.read_text().splitlines()[1:]
    in_swap = [line.split()[0] for line in swaps if Path(line.split()[0]).name in names]
    held = [
        holder.name
        for name in names
        for folder in (entry / "holders", entry / name / "holders")
        if folder.is_dir()
        for holder in folder.iterdir()
    ]
    if in_swap or held:
        raise CardError(f"open {path}: {', '.join(in_swap or held)} uses it; it is no free card")


def _is_removable(entry: Path) -> bool:
    """A removable medium, anything on USB, or an SD card (an eMMC says MMC)."""
    on_usb = re.search(r"/usb\d+/", str(entry.resolve()))
    return bool(_line(entry / "removable") == "1" or on_usb or _line(entry / "device/type") == "SD")


def _line(path: Path) -> str:
    try:
        return path.read_text().strip()
    except OSError:
        return ""
