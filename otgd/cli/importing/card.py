"""A Zero's SD card: which link it is at, and who it is."""

from __future__ import annotations

from typing import TYPE_CHECKING

from otgd.cli.importing import dhcpcd
from otgd.cli.importing.findings import Addressed, Guest, Left, Origin
from otgd.config.values import RefusedError, hostname_fault, parse_mac
from otgd.guest.cmdline import arguments

if TYPE_CHECKING:
    from collections.abc import Iterator
    from ipaddress import IPv4Address

    from otgd.cli.importing.findings import Finding

IFNAME = "usb0"
"""What a Zero calls its end (drivers/usb/gadget/function/u_ether.c)."""


def read(
    cmdline: str, file: str, *, hostname: str = "", dhcpcd_conf: str = ""
) -> Iterator[Finding]:
    """Yield what the card's files say; *file* is cmdline.txt, which ties them to a link."""
    origin = Origin(file=file, line=1)
    given = dict(each.partition("=")[::2] for each in arguments(cmdline))
    try:
        mac = parse_mac(given.get("g_ether.host_addr", ""))
        guest_mac = given.get("g_ether.dev_addr")
        checked = parse_mac(guest_mac) if guest_mac is not None else None
    except RefusedError as err:
        why = f"without good MACs nobody knows whose it is: {err}"
        yield Left(origin=origin, text="g_ether", why=why)
        return
    name = hostname.strip()
    yield Guest(
        origin=origin,
        mac=mac,
        guest_mac=checked,
        hostname=None if not name or hostname_fault(name) else name,
        address=_address(dhcpcd_conf),
    )


def _address(text: str) -> IPv4Address | None:
    return next(
        (
            finding.interface.ip
            for finding in dhcpcd.read(text, "")
            if isinstance(finding, Addressed) and finding.name == IFNAME
        ),
        None,
    )
