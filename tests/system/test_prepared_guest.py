"""From card to cable: a root that ``otgctl prepare`` wrote boots as the guest of a host with otgd.

The kernel gets what the prepared cmdline.txt says of g_ether, only with dummy_hcd in the place of
the Zero's dwc2. The gadget's own end goes to the prepared root, which boots under its own systemd,
udevd and NetworkManager, as on the Zero; the host's end is otgd's.
"""

from __future__ import annotations

import shutil
from typing import TYPE_CHECKING

import pytest

from otgd.cli import program
from tests.conftest import need
from tests.lab.namespaces import run
from tests.lab.topology import FAR_SIDE
from tests.system.conftest import DEPENDS, REPOSITORY, SYSTEM, System, apt_install, need_containers
from tests.system.container import make_root
from tests.system.deadline import until
from tests.system.image import make_image
from tests.system.machine import PATIENCE_S, running
from tests.system.zeros import INTERNET

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.system.booted_system import BootedSystem
    from tests.system.conftest import Boot

HOST_PACKAGES = ("avahi-daemon", "libnss-mdns", "openssh-client", "systemd-container")
GUEST_PACKAGES = ("avahi-daemon", "netplan.io", "network-manager", "openssh-server")
"""Both as Raspberry Pi OS has them."""

CMDLINE = "console=tty1 root=PARTUUID=8a438930-02 rootfstype=ext4 rootwait resize\n"
START_GUEST = (
    *("systemd-run", "--unit=guest", "--property=Delegate=yes", "--property=KillMode=mixed"),
    *("--setenv=SYSTEMD_NSPAWN_API_VFS_WRITABLE=yes", "systemd-nspawn", "--quiet", "--keep-unit"),
    *("--register=no", "--directory=/srv/guest", "--boot", "--network-interface=usb0"),
    *("--resolv-conf=off", "--timezone=off", "--link-journal=no", "--console=pipe"),
)


def write_card(top: Path) -> None:
    """Lay a fresh Raspberry Pi OS out at *top*, as far as Debian's packages make one."""
    root = make_root("trixie", *SYSTEM, *GUEST_PACKAGES)
    run("cp", "--archive", f"{root}/.", str(top))
    (top / "etc/hostname").write_text("raspberrypi\n")
    (top / "etc/hosts").write_text("127.0.0.1\tlocalhost\n127.0.1.1\traspberrypi\n")
    (top / "etc/machine-id").write_text("")
    boot = top / "boot/firmware"
    boot.mkdir(parents=True, exist_ok=True)
    (boot / "config.txt").write_text("[cm5]\ndtoverlay=dwc2,dr_mode=host\n\n[all]\n")
    (boot / "cmdline.txt").write_text(CMDLINE)


@pytest.fixture(scope="module")
def machine(boot: Boot, workspace: Path, deb: Path) -> Iterator[BootedSystem]:
    """A host with otgd whose disk also holds a prepared guest, plugged in but not booted yet."""
    need_containers()
    for tool in ("qemu-system-x86_64", "busybox", "cpio", "depmod", "mkfs.ext4", "ssh-keygen"):
        need(shutil.which(tool), f"{tool} (packages qemu-system-x86, busybox-static, …)")
    plain = System(
        suite="trixie",
        layers=(make_root("trixie", *SYSTEM, *HOST_PACKAGES, download=DEPENDS),),
    )
    host = boot.installed(plain, lambda container: apt_install(container, deb))

    extra = workspace / "prepared"
    guest, key = extra / "srv/guest", extra / "root/.ssh/id_ed25519"
    key.parent.mkdir(parents=True, mode=0o700)
    run("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(key))
    guest.mkdir(parents=True)
    write_card(guest)
    prepare = ("prepare", "ethusb1", "--root", str(guest), "--user", "root")
    config = str(REPOSITORY / "config" / "otgd.toml")
    assert program.main(["-c", config, *prepare, "--authorized-key", f"{key}.pub"]) == 0
    said = (guest / "boot/firmware/cmdline.txt").read_text().split()
    modules = next(word for word in said if word.startswith("modules-load="))
    assert modules == "modules-load=dwc2,g_ether"

    where = workspace / "prepared-image"
    where.mkdir()
    kernel_root = make_root("trixie", "linux-image-amd64", variant="extract")
    image = make_image(where, kernel_root=kernel_root, layers=(extra, *host.layers))
    shutil.rmtree(extra)
    arguments = " ".join(word for word in said if word.startswith("g_ether."))
    with running(image, workspace / "prepared-run", kernel_arguments=arguments) as each:
        until(lambda: each.unit("otgd.service", "ActiveState") == "active", PATIENCE_S)
        each.run("sh", "-euc", INTERNET)
        each.run("modprobe", "dummy_hcd")
        each.run("modprobe", "g_ether")
        each.run("udevadm", "wait", "--timeout=120", "/sys/class/net/usb0")
        yield each


def ssh(machine: BootedSystem, *command: str) -> str:
    """Run a program on the guest, which the host finds by its hostname (mDNS)."""
    options = ("-o", "BatchMode=yes", "-o", "StrictHostKeyChecking=accept-new")
    done = machine.attempt("ssh", *options, "root@worker1.local", *command)
    return done.out if done.code == 0 else ""


def told(machine: BootedSystem) -> str:
    """Return what helps to see why a guest stays silent."""
    links = machine.attempt("ip", "address")
    units = machine.attempt("journalctl", "-b", "-u", "guest", "-u", "otgd", "-n", "60")
    inside = "nsenter -at $(pgrep -n -f 'sbin/init|lib/systemd/systemd$') --"
    guest = machine.attempt("sh", "-c", f"{inside} ip a; {inside} journalctl -b -n 150")
    return links.out + units.out + guest.out + guest.err


def test_prepared_guest_is_online_and_found_by_its_hostname(machine: BootedSystem) -> None:
    machine.run(*START_GUEST)

    until(
        lambda: machine.attempt("ping", "-c1", "-W1", "10.0.11.2").code == 0,
        PATIENCE_S,
        what=lambda: told(machine),
    )
    until(lambda: ssh(machine, "hostname") == "worker1\n", PATIENCE_S, what=lambda: told(machine))
    assert "inet 10.0.11.2/24" in ssh(machine, "ip", "-4", "address", "show", "dev", "usb0")
    assert "1 received" in ssh(machine, "ping", "-c1", "-W5", "10.0.11.1")
    assert "1 received" in ssh(machine, "ping", "-c1", "-W5", FAR_SIDE)
    assert "otgd-usb0:usb0" in ssh(machine, "nmcli", "-t", "-f", "NAME,DEVICE", "con", "show", "-a")


def test_verify_finds_the_prepared_guest_as_configured(machine: BootedSystem) -> None:
    done = machine.attempt("otgctl", "verify", "ethusb1", "--user", "root")

    assert (done.code, done.err) == (0, ""), done.out
    # Not the host's MAC: a container has no /sys/module, where g_ether tells it.
    assert done.out.count("as configured") == 4


def test_cable_carries_the_configured_macs(machine: BootedSystem) -> None:
    assert machine.links()["ethusb1"]["address"] == "00:22:82:ff:ff:01"
    assert ssh(machine, "cat", "/sys/class/net/usb0/address") == "00:22:82:ff:ff:11\n"
