"""A host's /sys, /proc, /run and /dev as files, in which a test breaks one thing."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

CDC_ETHERNET = "02/06/00"
CDC_DATA = "0a/00/00"
PID = 4711


class HostTree:
    """The root directory of a pretended host."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def write(self, path: str, text: str) -> None:
        """Write a file and the directories above it."""
        file = self.root / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)

    def plug(
        self,
        port: str,
        ids: str = "0525:a4a2",
        *,
        kind: str = CDC_ETHERNET,
        driver: str = "cdc_ether",
        link: str = "usb0",
    ) -> None:
        """Plug a device with a network interface and its data interface; sysfs's layout."""
        device = f"sys/bus/usb/devices/{port}"
        vendor, _, product = ids.partition(":")
        self.write(f"{device}/idVendor", vendor + "\n")
        self.write(f"{device}/idProduct", product + "\n")
        self.write(f"{device}/product", "RNDIS/Ethernet Gadget\n")
        for number, each in enumerate((kind, CDC_DATA)):
            interface = f"sys/bus/usb/devices/{port}:1.{number}"
            parts = ("bInterfaceClass", "bInterfaceSubClass", "bInterfaceProtocol")
            for part, value in zip(parts, each.split("/"), strict=True):
                self.write(f"{interface}/{part}", value + "\n")
            if driver:
                drivers = self.root / "sys/bus/usb/drivers" / driver
                drivers.mkdir(parents=True, exist_ok=True)
                (self.root / interface / "driver").symlink_to(drivers)
        if link:
            self.write(f"sys/bus/usb/devices/{port}:1.0/net/{link}/ifindex", "7\n")

    def say(self, *messages: str) -> None:
        """Write the kernel's log."""
        records = (f"6,{n},{n * 1000},-;{message}\n" for n, message in enumerate(messages))
        self.write("dev/kmsg", "".join(records))

    def run(self, program: str, *, pid_file: str = "") -> None:
        """Run a program that may have written a pid file."""
        self.write(f"proc/{PID}/comm", f"{program[:15]}\n")
        if pid_file:
            self.write(pid_file, f"{PID}\n")
