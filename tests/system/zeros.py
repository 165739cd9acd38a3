"""Raspberry Pi Zeros as the kernel makes them: real USB gadgets on virtual ports.

dummy_hcd gives the machine USB ports whose far ends are gadget controllers (UDCs) of the same
machine. A gadget's own end moves to a network namespace of its own, which then is the guest.
MACs are the guide's.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from tests.lab.topology import FAR_SIDE, guest_address, guest_mac, host_address, mac
from tests.system.deadline import until
from tests.system.machine import PATIENCE_S

if TYPE_CHECKING:
    from pathlib import Path

    from tests.system.booted_system import BootedSystem

GADGETS = "/sys/kernel/config/usb_gadget"


@dataclass(frozen=True, slots=True, kw_only=True)
class Function:
    """One way to be a network gadget.

    Attributes:
        name: of the configfs function; the kernel module is ``usb_f_`` and this.
        driver: what binds it on the host.
        vendor: and product: who the device says it is.
    """

    name: str
    driver: str
    vendor: int
    product: int


# A configfs RNDIS or NCM gadget must not say 0525:a4a2, or cdc_subset takes it.
ECM = Function(name="ecm", driver="cdc_ether", vendor=0x0525, product=0xA4A1)
RNDIS = Function(name="rndis", driver="rndis_host", vendor=0x1D6B, product=0x0104)
NCM = Function(name="ncm", driver="cdc_ncm", vendor=0x1D6B, product=0x0104)
G_ETHER = Function(name="ecm", driver="cdc_ether", vendor=0x0525, product=0xA4A2)
"""What g_ether says it is; cdc_subset wants that, too."""


def load_ports(count: int = 4) -> str:
    """Write the script that gives the machine USB ports."""
    return f"""
modprobe dummy_hcd num={count}
modprobe libcomposite
mountpoint -q /sys/kernel/config || mount -t configfs configfs /sys/kernel/config
"""


def build_zero(n: int, function: Function, *, macs: bool = True, serial: str = "") -> str:
    """Write the script that makes gadget *n*, not plugged in yet.

    Without *macs* the kernel makes new ones up, as it does for g_ether without parameters.
    """
    settings = f"""
echo {mac(n)} > functions/{function.name}.0/host_addr
echo {guest_mac(n)} > functions/{function.name}.0/dev_addr
"""
    return f"""
cd {GADGETS}
mkdir -p z{n}/strings/0x409 z{n}/configs/c.1 z{n}/functions/{function.name}.0
cd z{n}
echo {function.vendor:#06x} > idVendor
echo {function.product:#06x} > idProduct
echo 'RNDIS/Ethernet Gadget' > strings/0x409/product
echo '{serial}' > strings/0x409/serialnumber
{settings if macs else ""}
ln -s functions/{function.name}.0 configs/c.1/
"""


def plug_zero(n: int, port: int = 0) -> str:
    """Write the script that puts gadget *n* into *port*, by default the one of its number."""
    return f"echo dummy_udc.{(port or n) - 1} > {GADGETS}/z{n}/UDC\n"


def boot_guest(n: int) -> str:
    """Write the script that makes a guest of gadget *n*'s own end."""
    return f"""
ip netns add z{n}
ip link set "$(cat {GADGETS}/z{n}/functions/*/ifname)" netns z{n} name usb0
ip -n z{n} address add {guest_address(n)}/24 dev usb0
ip -n z{n} link set usb0 up
ip -n z{n} route add default via {host_address(n)}
"""


INTERNET = f"""
ip netns add internet
ip link add name eth9 type veth peer name lan netns internet
ip -n internet address add 198.51.100.1/24 dev lan
ip -n internet address add {FAR_SIDE}/32 dev lo
ip -n internet link set lo up
ip -n internet link set lan up
ip address add 198.51.100.2/24 dev eth9
ip link set eth9 up
ip route add default via 198.51.100.1
"""


PLUGGED_AT_BOOT = """\
[Unit]
Description=Zeros that are plugged in before udevd looks
DefaultDependencies=no
After=systemd-modules-load.service
Before=systemd-udevd.service systemd-udev-trigger.service

[Service]
Type=oneshot
RemainAfterExit=yes
ExecStart=/bin/sh -eu /etc/zeros

[Install]
WantedBy=sysinit.target
"""


def plugged_at_boot(root: Path, count: int) -> None:
    """Write what makes the system at *root* boot with gadgets plugged in."""
    script = load_ports(count)
    for n in range(1, count + 1):
        script += build_zero(n, G_ETHER) + plug_zero(n)
    units = root / "etc/systemd/system"
    wants = units / "sysinit.target.wants"
    wants.mkdir(parents=True)
    (root / "etc/zeros").write_text(script)
    (units / "zeros.service").write_text(PLUGGED_AT_BOOT)
    (wants / "zeros.service").symlink_to("../zeros.service")


class Zeros:
    """The Zeros of one machine, by number."""

    def __init__(self, machine: BootedSystem) -> None:
        self.machine = machine
        self.machine.run("sh", "-euc", load_ports() + INTERNET)

    def plug(
        self, n: int, function: Function = ECM, *, macs: bool = True, serial: str = ""
    ) -> None:
        """Make gadget *n*, plug it in and boot its guest.

        A guest that sets its end up just while the host binds the other may never tell that it has
        (f_ecm forgets a notification when its interface is set again), and the link stays without
        a carrier. A Zero, which has to boot, is never that quick.
        """
        zero = build_zero(n, function, macs=macs, serial=serial)
        self.machine.run("sh", "-euc", zero + plug_zero(n))
        until(lambda: self._is_seen(n), PATIENCE_S)
        self.machine.run("sh", "-euc", boot_guest(n))

    def _is_seen(self, n: int) -> bool:
        shown = f"cat {GADGETS}/z{n}/functions/*/host_addr"
        address = self.machine.run("sh", "-euc", shown).strip("\0\n")
        return any(link.get("address") == address for link in self.machine.links().values())

    def pull(self, n: int) -> None:
        """Pull the cable of gadget *n*; the gadget itself stays on."""
        self.machine.run("sh", "-euc", f"echo > {GADGETS}/z{n}/UDC")

    def plug_again(self, n: int, port: int = 0) -> None:
        """Put the cable of gadget *n* back, or into another port."""
        self.machine.run("sh", "-euc", plug_zero(n, port))

    def scrap(self, n: int) -> None:
        """Pull gadget *n* out and take it apart."""
        self.machine.run(
            *("sh", "-euc"),
            f"""
cd {GADGETS}/z{n}
echo > UDC || true
rm configs/c.1/*.0
rmdir configs/c.1 functions/* strings/0x409
cd ..
rmdir z{n}
ip netns delete z{n} 2> /dev/null || true
""",
        )

    def reaches(self, n: int, target: str = FAR_SIDE) -> bool:
        """Tell whether guest *n* gets an answer from *target*."""
        ping = ("ip", "netns", "exec", f"z{n}", "ping", "-c1", "-W2", "-q", target)
        return self.machine.attempt(*ping).code == 0
