"""What ``otgctl export`` writes makes the network without otgd: real links, rules and pings."""

from __future__ import annotations

import socket
from typing import TYPE_CHECKING, NamedTuple

import pytest

from tests.lab.otgctl import Otgctl
from tests.lab.topology import FAR_SIDE, config_text, guest_address, host_address
from tests.lab.traffic import ping, tcp_transfer

if TYPE_CHECKING:
    from pathlib import Path

    from tests.lab.topology import Lab


class Form(NamedTuple):
    """A format: its file, what loads it, and what takes its guards away again."""

    path: str
    load: tuple[str, ...]
    unguard: tuple[str, ...]


FORMATS = {
    "iptables-restore": Form(
        "etc/iptables/rules.v4",
        ("iptables-legacy-restore",),
        ("iptables-legacy", "-t", "raw", "-F"),
    ),
    "nftables": Form(
        "etc/nftables.d/gadgets.nft",
        ("nft", "-f"),
        ("nft", "flush", "chain", "ip", "otgd_static", "prerouting"),
    ),
}
MORE = """\
[gadget.ethusb3]
masquerade = false

[gadget.ethusb4]
isolate = true
"""


@pytest.fixture(params=FORMATS)
def exported(lab: Lab, tmp_path: Path, request: pytest.FixtureRequest) -> str:
    """Load the exported rules into the lab's host, whose links have names and addresses."""
    (tmp_path / "otgd.toml").write_text(config_text(more=MORE))
    form = str(request.param)
    said = Otgctl(lab.host, tmp_path)("export", "--format", form, "--output", str(tmp_path / "out"))
    assert (said.code, said.err) == (0, "")
    lab.host.run_inside(*FORMATS[form].load, str(tmp_path / "out" / FORMATS[form].path))
    lab.host.run_inside("sysctl", "-q", "-p", str(tmp_path / "out/etc/sysctl.d/90-gadgets.conf"))
    for n in (1, 2, 3, 4):
        lab.plug(n, f"ethusb{n}")
        lab.host.run("ip", "address", "add", f"{host_address(n)}/24", "dev", f"ethusb{n}")
        lab.host.run("ip", "link", "set", f"ethusb{n}", "up")
    return form


@pytest.mark.usefixtures("exported")
def test_exported_rules_make_the_network_that_otgd_makes(lab: Lab) -> None:
    reached = {
        (n, target): ping(lab.guest(n), target)
        for n in (1, 2, 3, 4)
        for target in (FAR_SIDE, guest_address(1), guest_address(3), guest_address(4))
    }
    expected = dict.fromkeys(reached, True)
    expected[3, FAR_SIDE] = False  # masquerade = false
    for n in (1, 2, 3):
        expected[n, guest_address(4)] = False  # isolate = true
    for n in (1, 3):
        expected[4, guest_address(n)] = False
    assert reached == expected
    assert all(ping(lab.guest(n), host_address(n)) for n in (1, 2, 3, 4))


@pytest.mark.usefixtures("exported")
def test_exported_masquerade_is_for_the_uplink_only(lab: Lab) -> None:
    assert tcp_transfer(lab.guest(1), lab.internet, FAR_SIDE).client == "198.51.100.2"
    assert tcp_transfer(lab.guest(1), lab.guest(2), guest_address(2)).client == guest_address(1)


def test_gadget_may_not_speak_for_another(lab: Lab, exported: str) -> None:
    spoofed = "192.0.2.7"
    lab.guest(1).run("ip", "address", "add", f"{spoofed}/32", "dev", "usb0")
    assert arrives(lab, guest_address(1))
    assert not arrives(lab, spoofed)
    lab.host.run_inside(*FORMATS[exported].unguard)
    assert arrives(lab, spoofed)  # so it was the guard


def arrives(lab: Lab, source: str) -> bool:
    """Tell whether a datagram of guest 1 from *source* comes to the host."""
    with lab.host.entered():
        server = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    with lab.guest(1).entered():
        client = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    with server, client:
        server.bind((host_address(1), 0))
        server.settimeout(0.5)
        client.bind((source, 0))
        client.sendto(b"it is me", server.getsockname())
        try:
            _, (sender, _) = server.recvfrom(64)
        except TimeoutError:
            return False
        return bool(sender == source)


def test_uplink_has_to_be_known(lab: Lab, tmp_path: Path) -> None:
    (tmp_path / "otgd.toml").write_text(config_text())
    lab.host.run("ip", "route", "del", "default")
    otgctl = Otgctl(lab.host, tmp_path)
    said = otgctl("export", "--format", "nftables")
    assert said.code == 1
    assert "name the uplink with --uplink" in said.err
    assert (
        'oifname { "wlan0" } masquerade'
        in otgctl("export", "--format", "nftables", "--uplink", "wlan0").out
    )
