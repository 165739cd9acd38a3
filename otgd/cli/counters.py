"""A link's counters, as the kernel keeps them in sysfs."""

from __future__ import annotations

import socket
from dataclasses import dataclass, fields
from pathlib import Path

SYSFS = Path("/sys/class/net")
UNITS = ("B", "KiB", "MiB", "GiB", "TiB")


@dataclass(frozen=True, slots=True, kw_only=True)
class Counters:
    """What went through a link since it came up, seen from the host: *rx* came from the gadget."""

    rx_bytes: int = 0
    tx_bytes: int = 0
    rx_packets: int = 0
    tx_packets: int = 0
    rx_errors: int = 0
    tx_errors: int = 0
    rx_dropped: int = 0
    tx_dropped: int = 0


def read_counters(ifname: str, *, sysfs: Path = SYSFS) -> Counters | None:
    """Return the link's counters, or None where there is no such link (any more)."""
    statistics = sysfs / ifname / "statistics"
    try:
        return Counters(
            **{f.name: int((statistics / f.name).read_text()) for f in fields(Counters)}
        )
    except OSError:
        return None


def ifname_of(ifindex: int | None) -> str | None:
    """Return the name that the link has now, or None where there is no such link (any more)."""
    try:
        return None if ifindex is None else socket.if_indextoname(ifindex)
    except OSError:
        return None


def human_bytes(count: float) -> str:
    """Write a number of bytes with at least two digits that count."""
    exponent = max(0, int(count).bit_length() - 1) // 10
    unit = UNITS[min(exponent, len(UNITS) - 1)]
    value = count / 1024 ** UNITS.index(unit)
    return f"{value:.0f} {unit}" if unit == "B" or value >= 10 else f"{value:.1f} {unit}"
