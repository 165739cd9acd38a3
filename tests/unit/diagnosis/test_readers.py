"""What readers make of a host's files, and what the checks make of that."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from otgd.diagnosis import programs, readers
from tests.unit.diagnosis.conftest import LINK, WELL, trouble

if TYPE_CHECKING:
    from pathlib import Path

    from otgd.diagnosis.findings import Finding
    from tests.unit.diagnosis.host_tree import HostTree

NEW_DEVICE = "usb 1-1.2: New USB device found, idVendor=0525, idProduct=a4a2, bcdDevice= 6.12"
PROTOCOL_ERROR = "usb 1-1.2: device descriptor read/64, error -71"
TIMEOUT = "usb 1-1.2: device not accepting address 5, error -110"


# --- USB -----------------------------------------------------------------------------------------


def usb_trouble(host: HostTree) -> list[Finding]:
    return list(trouble(replace(WELL, usb=readers.read_usb(host.root))).values())


def test_device_with_a_link_is_fine(host: HostTree) -> None:
    host.plug("1-1.2")
    host.write("sys/bus/usb/devices/usb1/idVendor", "1d6b\n")  # a root hub
    (device,) = readers.read_usb(host.root)
    assert (device.port, device.ids, device.product) == (
        "1-1.2",
        "0525:a4a2",
        "RNDIS/Ethernet Gadget",
    )
    assert (device.interfaces[0].driver, device.interfaces[0].links) == ("cdc_ether", ("usb0",))
    assert usb_trouble(host) == []


@pytest.mark.parametrize(
    ("ids", "kind", "driver"),
    [
        pytest.param("0525:a4a2", "02/06/00", "cdc_ether", id="ECM"),
        pytest.param("0525:a4a2", "ff/ff/00", "cdc_ether", id="g_ether's own"),
        pytest.param("1d6b:0104", "02/0d/00", "cdc_ncm", id="NCM"),
        pytest.param("1d6b:0104", "02/0c/07", "cdc_eem", id="EEM"),
        pytest.param("1d6b:0104", "e0/01/03", "rndis_host", id="RNDIS"),
    ],
)
def test_device_without_a_driver(host: HostTree, ids: str, kind: str, driver: str) -> None:
    host.plug("1-1.2", ids, kind=kind, driver="", link="")
    (found,) = usb_trouble(host)
    assert (found.check, found.remedy) == ("usb", f"sudo modprobe {driver}")
    assert "on USB port 1-1.2" in found.what


def test_device_whose_driver_made_no_link(host: HostTree) -> None:
    host.plug("1-1.2", link="")
    (found,) = usb_trouble(host)
    assert found.why == "driver cdc_ether is bound to it, but made none"


def test_device_that_is_no_network_is_nobodys_trouble(host: HostTree) -> None:
    host.plug("1-1.4", "046d:c31c", kind="03/01/01", driver="", link="")
    assert usb_trouble(host) == []


def test_device_beside_one_that_fails_is_told_alone(host: HostTree) -> None:
    host.plug("1-1.2")
    host.plug("1-1.3", driver="", link="")
    (found,) = usb_trouble(host)
    assert "USB port 1-1.3" in found.what


def test_zero_without_a_card(host: HostTree) -> None:
    host.plug("1-1.3", "0a5c:2763", kind="ff/00/00", driver="", link="")
    (found,) = usb_trouble(host)
    assert found.what == "the Pi on USB port 1-1.3 waits in its boot ROM"


def test_host_without_usb(host: HostTree) -> None:
    assert readers.read_usb(host.root) == ()


# --- the kernel's log ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("message", "code"),
    [
        pytest.param(PROTOCOL_ERROR, "-71", id="protocol"),
        pytest.param(TIMEOUT, "-110", id="timeout"),
        pytest.param(
            "cdc_ether 1-1.2:1.0 ethusb1: kevent 12 failed, error -71", "-71", id="driver"
        ),
    ],
)
def test_usb_error(host: HostTree, message: str, code: str) -> None:
    host.say(NEW_DEVICE, message, message)
    log = readers.read_kernel_log(host.root)
    found = trouble(replace(WELL, kernel_log=log))
    assert list(found) == ["kernel-log"]
    what = f"USB port 1-1.2 failed with error {code}, 2 times since it last worked"
    assert found["kernel-log"].what == what


def test_error_that_has_passed_is_no_trouble(host: HostTree) -> None:
    host.say(PROTOCOL_ERROR, TIMEOUT, NEW_DEVICE, "usb 1-1.3: device firmware, error -2")
    assert trouble(replace(WELL, kernel_log=readers.read_kernel_log(host.root))) == {}


def test_error_of_another_port_has_not_passed(host: HostTree) -> None:
    host.say(PROTOCOL_ERROR, NEW_DEVICE.replace("1-1.2", "1-1.3"))
    assert "kernel-log" in trouble(replace(WELL, kernel_log=readers.read_kernel_log(host.root)))


def test_log_is_read_without_its_dictionary_lines(host: HostTree) -> None:
    host.write("dev/kmsg", "6,1,1,-;first; of two\n SUBSYSTEM=usb\n DEVICE=c189:1\n4,2,2,-;last\n")
    assert readers.read_kernel_log(host.root) == ("first; of two", "last")


def test_log_that_may_not_be_read_is_told_as_such(host: HostTree) -> None:
    assert readers.read_kernel_log(host.root) is None


# --- other programs ------------------------------------------------------------------------------


def test_udev_notes_links_by_ifindex(host: HostTree) -> None:
    host.write("run/udev/data/n7", "I:1\n")
    host.write("run/udev/data/c189:1", "I:1\n")
    assert readers.read_udev(host.root) is None  # left by a udevd that is gone
    host.write("run/udev/control", "")
    assert readers.read_udev(host.root) == frozenset({7})


def managers(host: HostTree) -> tuple[str, ...]:
    return readers.read_managers(host.root, LINK)


def test_nobody_manages_a_link_of_an_empty_host(host: HostTree) -> None:
    assert managers(host) == ()


@pytest.mark.parametrize(
    ("note", "found"),
    [
        pytest.param("[device]\nmanaged=true\n", ("NetworkManager",), id="managed"),
        pytest.param("[device]\nmanaged=false\n", (), id="unmanaged"),
        pytest.param("", (), id="not decided"),
    ],
)
def test_network_manager(host: HostTree, note: str, found: tuple[str, ...]) -> None:
    host.write("run/NetworkManager/devices/7", note)
    assert managers(host) == ()  # it does not run
    host.run("NetworkManager")
    assert managers(host) == found


@pytest.mark.parametrize(
    ("state", "found"),
    [
        pytest.param("unmanaged", (), id="unmanaged"),
        pytest.param("configuring", ("systemd-networkd",), id="configuring"),
        pytest.param("configured", ("systemd-networkd",), id="configured"),
    ],
)
def test_networkd(host: HostTree, state: str, found: tuple[str, ...]) -> None:
    host.write(
        "run/systemd/netif/links/7", f"# private\nADMIN_STATE={state}\nOPER_STATE=routable\n"
    )
    assert managers(host) == ()  # it does not run
    host.run("systemd-networkd")
    assert managers(host) == found


@pytest.mark.parametrize(
    ("config", "found"),
    [
        pytest.param("", True, id="all links"),
        pytest.param("denyinterfaces ethusb1\n", False, id="denied"),
        pytest.param("denyinterfaces wlan0 ethusb*\n", False, id="denied by pattern"),
        pytest.param("#denyinterfaces ethusb1\n", True, id="commented out"),
        pytest.param("denyinterfaces wlan0,eth0\n", True, id="others denied"),
        pytest.param("allowinterfaces eth0\n", False, id="others allowed"),
        pytest.param("allowinterfaces eth*\n", True, id="allowed by pattern"),
    ],
)
@pytest.mark.parametrize("pid_file", ["run/dhcpcd/pid", "run/dhcpcd.pid"])
def test_dhcpcd(host: HostTree, pid_file: str, config: str, *, found: bool) -> None:
    host.write("etc/dhcpcd.conf", config)
    assert managers(host) == ()
    host.run("dhcpcd", pid_file=pid_file)
    assert managers(host) == (("dhcpcd",) if found else ())


def test_dhcpcd_of_one_link(host: HostTree) -> None:
    host.write("etc/dhcpcd.conf", "denyinterfaces ethusb1\n")
    host.run("dhcpcd", pid_file="run/dhcpcd/ethusb2.pid")
    assert managers(host) == ()
    host.run("dhcpcd", pid_file="run/dhcpcd/ethusb1.pid")
    assert managers(host) == ("dhcpcd",)


def test_dhcpcd_that_otgd_denied_the_link(host: HostTree) -> None:
    host.run("dhcpcd", pid_file="run/dhcpcd/pid")
    host.write("run/otgd-names/dhcpcd", "OTGD_DENY=--denyinterfaces ethusb1,ethusb2\n")
    assert managers(host) == ()


# --- programs ------------------------------------------------------------------------------------


def install(directory: Path, name: str, script: str) -> str:
    """Put a program into *directory* and return it as PATH."""
    file = directory / name
    file.write_text(f"#!/bin/sh\n{script}\n")
    file.chmod(0o755)
    return str(directory)


@pytest.mark.parametrize(
    ("script", "bits"),
    [
        pytest.param("echo throttled=0x50005", 0x50005, id="told"),
        pytest.param("echo throttled=0x0", 0, id="fine"),
        pytest.param("echo VCHI initialization failed; exit 255", None, id="failed"),
        pytest.param("echo error=1", None, id="odd"),
    ],
)
def test_throttled(tmp_path: Path, script: str, bits: int | None) -> None:
    assert programs.read_throttled(path=install(tmp_path, "vcgencmd", script)) == bits


def test_host_without_programs_has_told_nothing(tmp_path: Path) -> None:
    path = str(tmp_path)
    (tmp_path / "tables").write_text("filter\n")
    assert programs.read_throttled(path=path) is None
    assert programs.read_flavour(path=path) == ""
    assert programs.read_forward_chains(path=path) is None
    assert programs.read_legacy_filter(tmp_path / "tables", path=path) == ""


@pytest.mark.parametrize(
    ("said", "flavour"),
    [
        ("iptables v1.8.11 (nf_tables)", "nf_tables"),
        ("iptables v1.8.11 (legacy)", "legacy"),
        ("iptables v1.6.0", "legacy"),
    ],
)
def test_flavour(tmp_path: Path, said: str, flavour: str) -> None:
    path = install(tmp_path, "iptables", f"echo '{said}'")
    assert programs.read_flavour(path=path) == flavour


@pytest.mark.parametrize(("tables", "asked"), [("nat\nfilter\n", True), ("nat\n", False)])
def test_legacy_table_is_not_loaded_by_looking(tmp_path: Path, tables: str, *, asked: bool) -> None:
    path = install(tmp_path, "iptables-legacy-save", "echo '*filter'")
    (tmp_path / "tables").write_text(tables)
    said = programs.read_legacy_filter(tmp_path / "tables", path=path)
    assert said == ("*filter\n" if asked else "")
    assert programs.read_legacy_filter(tmp_path / "nowhere", path=path) == ""


# --- the daemon ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("stat", "halted"),
    [
        pytest.param("4711 (otgd) T 1 4711", True, id="stopped"),
        pytest.param("4711 (otgd) S 1 4711", False, id="sleeps"),
        pytest.param("4711 (odd) T (x) S 1 4711", False, id="odd name"),
        pytest.param("", False, id="gone"),
    ],
)
def test_process_that_a_signal_stopped(host: HostTree, stat: str, *, halted: bool) -> None:
    host.write("proc/4711/stat", stat + "\n")
    assert readers.is_halted(host.root, 4711) is halted
