"""What sysfs says of a network link on USB, for links that are not: veth ends have no device."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path


def usb_tree(
    root: Path, *ifnames: str, port: str, serial: str = "", driver: str = "cdc_ether"
) -> None:
    """Write beneath *root* (in the place of /sys) that *ifnames* are on USB port *port*.

    Several names are those of one link, one after the other.
    """
    interface = root / f"devices/usb1/{port}/{port}:1.0"
    interface.mkdir(parents=True)
    (interface / "driver").symlink_to(f"../../../../bus/usb/drivers/{driver}")
    (interface / "subsystem").symlink_to("../../../../bus/usb")
    (interface.parent / "serial").write_text(f"{serial}\n")
    for ifname in ifnames:
        link = root / "class/net" / ifname
        link.mkdir(parents=True)
        (link / "device").symlink_to(interface)
