"""``otgctl doctor`` beside a real daemon and a real kernel: quiet when well, and one break each.

The remedy that it tells is typed, where that can be done here, and it helps.
"""

from __future__ import annotations

import shlex
import shutil
import socket
import struct
import subprocess
import threading
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

import pytest

from tests.conftest import need
from tests.lab.deadline import until
from tests.lab.debian import DebianHost, choose_flavour
from tests.lab.otgctl import Otgctl
from tests.lab.schema import check
from tests.lab.topology import FAR_SIDE, HOST_UPLINK, guest_mac, mac
from tests.lab.traffic import ping

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.daemon.conftest import Launcher
    from tests.lab.daemon import Daemon
    from tests.lab.namespaces import Namespace
    from tests.lab.topology import Lab

NOBODY = 65534
BUS_IS_THERE = "test -S /run/dbus/system_bus_socket && echo yes || true"
IP_PKTINFO = 8
"""Include/uapi/linux/in.h; Python 3.11 has no name for it."""


@pytest.fixture
def tmp_path() -> Iterator[Path]:
    """Return a directory that everybody may enter, as they may /etc and /run."""
    with TemporaryDirectory(prefix="otgctl-") as directory:
        path = Path(directory)
        path.chmod(0o755)
        yield path


@pytest.fixture
def otgctl(lab: Lab, tmp_path: Path) -> Otgctl:
    """Return otgctl in the lab's host."""
    return Otgctl(lab.host, tmp_path)


@pytest.fixture
def daemon(lab: Lab, launch: Launcher) -> Daemon:
    """Return a daemon that has one gadget of two in order."""
    running = launch(count=2)
    lab.plug(1)
    running.wait_for("ethusb1", "configured", "reachable")
    until(lambda: lab.online(1))
    return running


def trouble(otgctl: Otgctl, *arguments: str) -> dict[str, Any]:
    """Return what doctor finds wrong, by check; hold that its exit code agrees.

    The kernel's log is the machine's own, and so is its supply.
    """
    said = otgctl("doctor", "--json", *arguments)
    document = said.document
    check(document, "doctor")
    found = [f for f in document["findings"] if f["mark"] in ("warn", "fail")]
    assert said.code == (1 if found else 0), said.err
    assert document["fine"] is (not found)
    assert all(f["what"] and f["why"] and f["remedy"] for f in found)
    return {f["check"]: f for f in found if f["check"] not in ("kernel-log", "power")}


def remedy(host: Namespace, finding: dict[str, Any]) -> None:
    """Type what the finding says, as root on the host, where no systemd runs."""
    command = finding["remedy"].removesuffix(" && sudo systemctl reload otgd")
    host.run_inside("sh", "-c", command.replace("sudo ", ""))


def test_doctor_is_quiet_when_all_is_well(lab: Lab, daemon: Daemon, otgctl: Otgctl) -> None:
    assert trouble(otgctl) == {}
    marks = {
        (f["gadget"], f["check"]): f["mark"]
        for f in otgctl("doctor", "--json").document["findings"]
    }
    for name in ("plugged", "name", "address", "carrier", "rules", "arp", "ping", "dhcp"):
        assert marks["ethusb1", name] == "ok"
    for name in ("config", "daemon", "kernel", "forwarding", "firewall", "uplink"):
        assert marks[None, name] == "ok"
    assert marks["ethusb2", "plugged"] == "skip"
    assert lab.online(1)
    assert daemon.gadget("ethusb1")["state"] in ("configured", "reachable")


LEGACY_DROP = "iptables-legacy -A INPUT -s 192.0.2.1 -j DROP"
NFT_TABLE = "nft add table inet lan"


@pytest.mark.parametrize("backend", ["auto"])
@pytest.mark.parametrize(
    ("before", "chosen", "later"),
    [("true", "nftables", LEGACY_DROP), (LEGACY_DROP, "iptables", NFT_TABLE)],
    ids=["nftables", "iptables"],
)
def test_firewall_that_starts_later_is_not_taken_for_the_daemons(
    lab: Lab, launch: Launcher, otgctl: Otgctl, before: str, chosen: str, later: str
) -> None:
    lab.host.run_inside("sh", "-c", before)
    daemon = launch(count=1)
    lab.plug(1)
    daemon.wait_for("ethusb1", "configured")
    until(lambda: lab.online(1))
    lab.host.run_inside("sh", "-c", later)
    until(lambda: otgctl("plan").lines[0].startswith("Nothing to do"), what=lab.firewall)
    assert otgctl("plan", "--exit-code").code == 0
    assert trouble(otgctl) == {}
    assert otgctl("status", "--json").document["firewall"]["backend"] == chosen
    # Without the daemon nobody has chosen yet, and the next one will look again.
    daemon.terminate()
    assert "masquerade" in otgctl("plan").out


def test_stopped_daemon(lab: Lab, daemon: Daemon, otgctl: Otgctl) -> None:
    daemon.terminate()
    assert lab.online(1)
    assert list(trouble(otgctl)) == ["daemon"]


def test_daemon_that_a_signal_stopped(daemon: Daemon, otgctl: Otgctl) -> None:
    with daemon.paused():
        found = trouble(otgctl)
    assert list(found) == ["daemon"]
    assert found["daemon"]["remedy"] == f"sudo kill -CONT {daemon.pid}"
    assert trouble(otgctl) == {}


def test_refused_config_is_a_finding_among_others(daemon: Daemon, otgctl: Otgctl) -> None:
    daemon.config_file.write_text("[uplink]\ninterfce = 'eth0'\n")
    found = trouble(otgctl)
    assert list(found) == ["config"]
    assert "otgd.toml:2: uplink.interfce" in found["config"]["what"]


def test_gadget_asked_for_by_name_has_to_be_there(daemon: Daemon, otgctl: Otgctl) -> None:
    assert daemon.gadget("ethusb2")["state"] == "absent"
    assert list(trouble(otgctl, "ethusb2")) == ["plugged"]
    assert trouble(otgctl, "ethusb1") == {}
    unknown = otgctl("doctor", "ethusb3")
    assert (unknown.code, unknown.out) == (2, "")


def test_two_links_with_one_mac(lab: Lab, launch: Launcher, otgctl: Otgctl) -> None:
    launch(count=1).terminate()
    lab.plug(1)
    lab.plug(2, host_mac=mac(1))
    found = trouble(otgctl)
    assert "usb0 and usb1 both have its MAC" in found["plugged"]["what"]
    assert "address" not in found


def test_wrong_name(lab: Lab, daemon: Daemon, otgctl: Otgctl) -> None:
    with daemon.paused():
        lab.host.run("ip", "link", "set", "ethusb1", "name", "lan7")
        found = trouble(otgctl)
    assert list(found) == ["daemon", "name"]
    assert "nobody has renamed it" in found["name"]["why"]


@pytest.mark.parametrize("holder", ["name", "altname"])
def test_taken_name(lab: Lab, launch: Launcher, otgctl: Otgctl, holder: str) -> None:
    daemon = launch(count=1)
    lab.host.run("ip", "link", "add", "bridge7", "type", "bridge")
    if holder == "name":
        lab.host.run("ip", "link", "set", "bridge7", "name", "ethusb1")
    else:
        lab.host.run("ip", "link", "property", "add", "dev", "bridge7", "altname", "ethusb1")
    lab.plug(1)
    daemon.wait_for("ethusb1", "blocked")
    found = trouble(otgctl)
    assert "has the name" in found["name"]["why"] or "alternative" in found["name"]["why"]
    remedy(lab.host, found["name"])
    daemon.reload()
    daemon.wait_for("ethusb1", "configured", "reachable")
    assert "name" not in trouble(otgctl)


def test_missing_address(lab: Lab, daemon: Daemon, otgctl: Otgctl) -> None:
    with daemon.paused():
        lab.host.run("ip", "address", "flush", "dev", "ethusb1")
        found = trouble(otgctl)
    assert list(found) == ["daemon", "address"]


def test_link_that_is_down(lab: Lab, daemon: Daemon, otgctl: Otgctl) -> None:
    with daemon.paused():
        lab.host.run("ip", "link", "set", "ethusb1", "down")
        found = trouble(otgctl)
    assert list(found) == ["daemon", "carrier"]
    assert found["carrier"]["what"] == "ethusb1 is down"


def test_guest_whose_end_is_down(lab: Lab, daemon: Daemon, otgctl: Otgctl) -> None:
    lab.guest(1).run("ip", "link", "set", "usb0", "down")
    found = trouble(otgctl)
    assert found["carrier"]["what"] == "ethusb1 has no carrier"
    assert daemon.gadget("ethusb1")["ifindex"]


@pytest.mark.usefixtures("daemon")
def test_guest_with_another_address(lab: Lab, otgctl: Otgctl) -> None:
    guest = lab.guest(1)
    guest.run("ip", "address", "flush", "dev", "usb0")
    guest.run("ip", "address", "add", "10.0.11.77/24", "dev", "usb0")
    assert list(trouble(otgctl)) == ["arp"]


@pytest.mark.usefixtures("daemon")
def test_guest_with_another_mac(lab: Lab, otgctl: Otgctl) -> None:
    lab.guest(1).run("ip", "link", "set", "usb0", "address", "02:00:00:00:00:77")
    lab.host.run("ip", "neighbour", "flush", "dev", "ethusb1")
    found = trouble(otgctl)
    assert list(found) == ["arp"]
    assert found["arp"]["what"] == f"10.0.11.2 is 02:00:00:00:00:77, not {guest_mac(1)}"


@pytest.mark.usefixtures("daemon")
def test_guest_that_drops_pings(lab: Lab, otgctl: Otgctl) -> None:
    lab.guest(1).run_inside("sysctl", "-q", "-w", "net.ipv4.icmp_echo_ignore_all=1")
    assert list(trouble(otgctl)) == ["ping"]


@contextmanager
def dhcp_server(guest: Namespace) -> Iterator[None]:
    """Answer each DHCPDISCOVER in *guest*, from an address outside the link's subnet."""
    guest.run("ip", "address", "add", "10.12.194.1/28", "dev", "usb0")
    with guest.entered():
        sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_BROADCAST, 1)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, b"usb0")
        sock.bind(("", 67))
    sock.settimeout(0.05)
    stop = threading.Event()

    def serve() -> None:
        while not stop.is_set():
            try:
                asked = sock.recv(2048)
            except TimeoutError:
                continue
            assert asked[236:243] == b"\x63\x82\x53\x63\x35\x01\x01"  # cookie, DISCOVER
            offer = bytearray(asked)
            offer[0] = 2
            offer[16:20] = socket.inet_aton("10.12.194.2")
            offer[240:243] = struct.pack("BBB", 53, 1, 2)
            # As a server would from its own address, which is not the link's first.
            control = struct.pack("i4s4s", 0, socket.inet_aton("10.12.194.1"), bytes(4))
            ancillary = [(socket.IPPROTO_IP, IP_PKTINFO, control)]
            sock.sendmsg([bytes(offer)], ancillary, 0, ("255.255.255.255", 68))

    thread = threading.Thread(target=serve, daemon=True)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()
        sock.close()


@pytest.mark.usefixtures("daemon")
def test_guest_that_plays_dhcp_server(lab: Lab, otgctl: Otgctl) -> None:
    with dhcp_server(lab.guest(1)):
        found = trouble(otgctl)
    assert list(found) == ["dhcp"]
    assert "10.12.194.1" in found["dhcp"]["what"]


def test_forwarding_switched_off(lab: Lab, daemon: Daemon, otgctl: Otgctl) -> None:
    with daemon.paused():
        lab.host.run_inside("sysctl", "-q", "-w", "net.ipv4.ip_forward=0")
        found = trouble(otgctl)
        assert list(found) == ["daemon", "forwarding"]
        lab.host.run_inside("sh", "-c", found["forwarding"]["remedy"].replace("sudo ", "") + "||:")
        assert list(trouble(otgctl)) == ["daemon"]
        assert lab.online(1)


def test_flushed_rules(lab: Lab, daemon: Daemon, otgctl: Otgctl, backend: str) -> None:
    with daemon.paused():
        if backend == "nftables":
            lab.host.run_inside("nft", "delete", "table", "inet", "otgd")
        else:
            lab.host.run_inside("iptables-legacy", "-t", "nat", "-F")
        found = trouble(otgctl)
    assert list(found) == ["daemon", "rules"]
    assert "add masquerade of 10.0.11.0/24 through eth0" in found["rules"]["what"]
    daemon.reload()  # legacy tables tell nobody of a change
    assert trouble(otgctl) == {}


def test_forward_policy_drop_without_passage(lab: Lab, daemon: Daemon, otgctl: Otgctl) -> None:
    with daemon.paused():
        lab.host.run_inside("iptables", "-P", "FORWARD", "DROP")
        found = trouble(otgctl)
        assert list(found) == ["daemon", "firewall"]
        assert not ping(lab.guest(1), FAR_SIDE, timeout_s=0.2)
        _, _, command = found["firewall"]["remedy"].partition(", or: sudo ")
        lab.host.run_inside("sh", "-c", command)
        assert lab.online(1)
        assert list(trouble(otgctl)) == ["daemon"]


@pytest.mark.usefixtures("daemon")
def test_legacy_drop_beside_nftables(lab: Lab, otgctl: Otgctl) -> None:
    lab.host.run_inside("iptables-legacy", "-P", "FORWARD", "DROP")
    assert not ping(lab.guest(1), FAR_SIDE, timeout_s=0.2)
    found = trouble(otgctl)
    assert list(found) == ["firewall"]
    assert "legacy" in found["firewall"]["what"]
    remedy(lab.host, found["firewall"])
    assert lab.online(1)
    assert trouble(otgctl) == {}


def test_legacy_drop_is_no_finding_where_iptables_is_legacy(
    lab: Lab, launch: Launcher, otgctl: Otgctl
) -> None:
    choose_flavour(lab.host, "legacy")
    lab.host.run_inside("iptables", "-P", "FORWARD", "DROP")
    daemon = launch(count=1)
    lab.plug(1)
    daemon.wait_for("ethusb1", "configured", "reachable")
    until(lambda: lab.online(1))
    assert trouble(otgctl) == {}


@pytest.mark.usefixtures("daemon")
def test_foreign_chain_with_policy_drop(lab: Lab, otgctl: Otgctl) -> None:
    chain = "{ type filter hook forward priority 0; policy drop; }"
    lab.host.run_inside("nft", f"add table inet site; add chain inet site fwd-all {chain}")
    assert not ping(lab.guest(1), FAR_SIDE, timeout_s=0.2)
    found = trouble(otgctl)
    assert list(found) == ["firewall"]
    assert "inet site fwd-all" in found["firewall"]["what"]
    remedy(lab.host, found["firewall"])
    assert lab.online(1)
    assert trouble(otgctl) == {}


@contextmanager
def firewalld(lab: Lab, directory: Path) -> Iterator[DebianHost]:
    """Run firewalld on the host as Debian installs it."""
    debian = DebianHost(lab.host, directory, flavour="nft")
    try:
        debian.run("mkdir", "-p", "/run/dbus")
        debian.start("dbus-daemon", "--system", "--nofork")
        until(lambda: "yes" in lab.host.run_inside("sh", "-c", BUS_IS_THERE))
        debian.start("firewalld", "--nofork", "--nopid")
        until(lambda: "running" in debian.run("sh", "-c", "firewall-cmd --state || true"), 60)
        yield debian
    finally:
        debian.close()


def test_firewalld_that_does_not_know_the_link(
    lab: Lab, daemon: Daemon, otgctl: Otgctl, tmp_path: Path
) -> None:
    with firewalld(lab, tmp_path) as debian:
        daemon.reload()
        assert not ping(lab.guest(1), FAR_SIDE, timeout_s=0.5)
        found = trouble(otgctl)
        assert list(found) == ["firewall"]
        assert "no zone for ethusb1" in found["firewall"]["what"]
        debian.run("sh", "-c", found["firewall"]["remedy"].replace("sudo ", ""))
        assert trouble(otgctl) == {}
        until(lambda: lab.online(1))


def test_no_default_route(lab: Lab, daemon: Daemon, otgctl: Otgctl) -> None:
    lab.host.run("ip", "route", "del", "default")
    until(lambda: daemon.state()["uplink"] is None)
    found = trouble(otgctl)
    assert list(found) == ["uplink"]
    assert "no uplink" in found["uplink"]["what"]


@pytest.mark.usefixtures("daemon")
def test_default_route_through_a_gadget(lab: Lab, otgctl: Otgctl) -> None:
    route = ("default", "via", "10.0.11.2", "dev", "ethusb1", "metric", "50")
    lab.host.run("ip", "route", "add", *route)
    found = trouble(otgctl)
    assert list(found) == ["uplink"]
    assert found["uplink"]["what"] == "the default route leads to gadget ethusb1"
    remedy(lab.host, found["uplink"])
    assert trouble(otgctl) == {}


def test_overlapping_network(lab: Lab, daemon: Daemon, otgctl: Otgctl) -> None:
    lab.host.run("ip", "address", "add", "10.0.11.200/25", "dev", "eth0")
    daemon.wait_for("ethusb1", "blocked")
    found = trouble(otgctl)
    assert list(found) == ["overlap"]
    assert "10.0.11.128/25 of eth0" in found["overlap"]["what"]


@pytest.mark.usefixtures("daemon")
def test_unplugged_gadget_is_told_of_an_overlap_before_the_plug(lab: Lab, otgctl: Otgctl) -> None:
    lab.host.run("ip", "address", "add", "10.0.12.7/24", "dev", "eth0")
    found = trouble(otgctl)
    assert list(found) == ["overlap"]
    assert found["overlap"]["gadget"] == "ethusb2"


def test_network_manager_holds_the_link(
    lab: Lab, daemon: Daemon, otgctl: Otgctl, tmp_path: Path
) -> None:
    ifindex = daemon.gadget("ethusb1")["ifindex"]
    note = f"printf '[device]\\nmanaged=true\\n' > /run/NetworkManager/devices/{ifindex}"
    lab.host.run_inside("sh", "-c", f"mkdir -p /run/NetworkManager/devices && {note}")
    assert trouble(otgctl) == {}  # left by one that is gone
    program = shutil.copy("/bin/sleep", tmp_path / "NetworkManager")
    with subprocess.Popen([program, "60"]) as running:
        found = trouble(otgctl)
        running.terminate()
    assert list(found) == ["managers"]
    assert found["managers"]["remedy"] == "sudo nmcli device set ethusb1 managed no"


@pytest.mark.usefixtures("daemon")
def test_doctor_as_a_user_says_what_it_may_not_see(lab: Lab, otgctl: Otgctl) -> None:
    document = otgctl("doctor", "--json", user=NOBODY).document
    skipped = {f["check"]: f["remedy"] for f in document["findings"] if f["mark"] == "skip"}
    assert skipped["firewall"] == "sudo otgctl doctor"
    assert skipped["arp"] == "sudo otgctl doctor"
    assert {f["check"] for f in document["findings"] if f["mark"] == "fail"} <= {"kernel-log"}
    assert lab.online(1)


def test_doctor_prints_what_why_and_what_to_type(lab: Lab, daemon: Daemon, otgctl: Otgctl) -> None:
    daemon.terminate()
    said = otgctl("doctor")
    assert said.code == 1
    place = next(i for i, line in enumerate(said.lines) if line.startswith("  fail  daemon "))
    assert said.lines[place].endswith("otgd does not run")
    assert said.lines[place + 1].split()[0] == "why:"
    assert said.lines[place + 2].split(None, 1)[1].startswith("sudo systemctl start otgd")
    assert "ethusb1" in said.lines
    assert HOST_UPLINK in lab.addresses("eth0")[0]


@pytest.mark.usefixtures("daemon")
def test_doctor_has_colours_on_a_terminal_only(lab: Lab, otgctl: Otgctl) -> None:
    need(shutil.which("script"), "the program script (package bsdutils)")
    command = shlex.join(otgctl.command("doctor"))
    shown = lab.host.run_inside("script", "-qec", command, "/dev/null")
    assert "\x1b[32mok  \x1b[0m  uplink" in shown
    assert "\x1b" not in otgctl("doctor").out
