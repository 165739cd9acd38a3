"""Who is measured, and how each is told of the same fifty gadgets; no mercy and no handicap.

Each writes its files into a root that has not booted yet, and every root is booted afresh, so no
peer finds anything that another one left.
"""

from __future__ import annotations

import shutil
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from tests.bench.gadgets import host_address, mac, name, subnet

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

FLEET = 50


@dataclass(frozen=True, slots=True, kw_only=True)
class Peer:
    """One way to do the job.

    Attributes:
        unit: what does it; its cost is the peer's own.
        prepare: write the peer's files into a root.
        rules: what ``iptables-restore`` loads before the start.
        packaged: needs otgd's package in the root.
        slow: gets fewer rounds, since each one takes seconds.
    """

    key: str
    title: str
    unit: str
    prepare: Callable[[Path], None]
    rules: str = ""
    packaged: bool = field(default=False)
    slow: bool = field(default=False)


def _write(root: Path, path: str, text: str, *, mode: int = 0o644) -> None:
    target = root / path
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_text(text)
    target.chmod(mode)


def _nat(match: Callable[[int], str]) -> str:
    """Write masquerade rules for the whole fleet; *match* gives a gadget's condition."""
    rules = [f"-A POSTROUTING {match(n)} -o eth0 -j MASQUERADE" for n in range(1, FLEET + 1)]
    return "\n".join(["*nat", *rules, "COMMIT", ""])


def _name_by_udev(root: Path, n: int) -> None:
    text = f"[Match]\nMACAddress={mac(n)}\n[Link]\nName={name(n)}\n"
    _write(root, f"etc/systemd/network/10-bench{n}.link", text)


# --- the lower bound ----------------------------------------------------------------------------


def bound(program: Path) -> Peer:
    """Return the C program, see bound.c."""

    def prepare(root: Path) -> None:
        shutil.copy(program, root / "usr/local/bin/bound")
        unit = "[Service]\nType=exec\nExecStart=/usr/local/bin/bound\n"
        _write(root, "etc/systemd/system/bound.service", unit)

    return Peer(
        key="bound",
        title="lower bound (C)",
        unit="bound.service",
        prepare=prepare,
        rules=_nat(lambda n: f"-s {subnet(n)}"),
    )


# --- otgd ---------------------------------------------------------------------------------------

OTGD_CONFIG = "etc/otgd/otgd.toml"


def otgd_config(backend: str, *, count: int = FLEET, resync_s: float = 60) -> str:
    """Write otgd's config for gadgets that are veth links."""
    return f"""\
[firewall]
backend = "{backend}"

[hotplug]
drivers = ["veth"]

[service]
resync_s = {resync_s}

[fleet]
count = {count}
interface = "ethusb{{n}}"
mac = "{mac(1)}"
subnet = "{subnet(1)}"
"""


def otgd(backend: str, *, count: int = FLEET, resync_s: float = 60) -> Peer:
    """Return otgd, as the package installs it."""
    config = otgd_config(backend, count=count, resync_s=resync_s)
    return Peer(
        key=f"otgd-{backend}",
        title=f"otgd ({backend})",
        unit="otgd.service",
        prepare=lambda root: _write(root, OTGD_CONFIG, config),
        packaged=True,
    )


# --- systemd-networkd ---------------------------------------------------------------------------


def _prepare_networkd(root: Path) -> None:
    for n in range(1, FLEET + 1):
        _name_by_udev(root, n)
        text = (
            f"[Match]\nName={name(n)}\n"
            f"[Network]\nAddress={host_address(n)}\nIPMasquerade=ipv4\nLinkLocalAddressing=no\n"
        )
        _write(root, f"etc/systemd/network/10-bench{n}.network", text)


NETWORKD = Peer(
    key="networkd",
    title="systemd-networkd",
    unit="systemd-networkd.service",
    prepare=_prepare_networkd,
)


# --- NetworkManager -----------------------------------------------------------------------------

_NM_CONF = """\
[main]
plugins=keyfile
no-auto-default=*
dns=none
firewall-backend=nftables
[keyfile]
unmanaged-devices=interface-name:eth0
"""

_NM_RULE = 'SUBSYSTEM=="net", ATTR{address}=="00:22:82:ff:ff:*", ENV{NM_UNMANAGED}="0"\n'
"""A veth link is not NetworkManager's by default."""


def _prepare_network_manager(root: Path) -> None:
    _write(root, "etc/NetworkManager/NetworkManager.conf", _NM_CONF)
    _write(root, "etc/udev/rules.d/86-bench.rules", _NM_RULE)
    for n in range(1, FLEET + 1):
        _name_by_udev(root, n)
        text = f"""\
[connection]
id=bench{n}
uuid=00000000-0000-4000-8000-{n:012x}
type=ethernet
autoconnect=true
[ethernet]
mac-address={mac(n)}
[ipv4]
method=shared
address1={host_address(n)}
[ipv6]
method=disabled
"""
        path = f"etc/NetworkManager/system-connections/bench{n}.nmconnection"
        _write(root, path, text, mode=0o600)


NETWORK_MANAGER = Peer(
    key="networkmanager",
    title="NetworkManager (shared)",
    unit="NetworkManager.service",
    prepare=_prepare_network_manager,
)


# --- the guide ----------------------------------------------------------------------------------


def _prepare_guide(root: Path) -> None:
    fleet = range(1, FLEET + 1)
    rules = [f'SUBSYSTEM=="net", ATTR{{address}}=="{mac(n)}", NAME="{name(n)}"\n' for n in fleet]
    _write(root, "etc/udev/rules.d/90-pi-network.rules", "".join(rules))
    stanzas = [
        f"interface {name(n)}\n"
        f"static ip_address={host_address(n)}\n"
        f"static domain_name_servers=8.8.8.8\n"
        for n in fleet
    ]
    path = root / "etc/dhcpcd.conf"
    path.write_text("".join([path.read_text(), "\ndenyinterfaces eth0 lo\n", *stanzas]))


GUIDE = Peer(
    key="guide",
    title="the guide (udev, dhcpcd)",
    unit="dhcpcd.service",
    prepare=_prepare_guide,
    rules=_nat(lambda n: f"! -d {subnet(n)}"),
    slow=True,
)


def all_peers(bound_program: Path) -> tuple[Peer, ...]:
    """Return everybody, in the report's order."""
    return (
        bound(bound_program),
        otgd("nftables"),
        otgd("iptables"),
        NETWORKD,
        NETWORK_MANAGER,
        GUIDE,
    )
