"""The guest's static address, in the words of dhcpcd, NetworkManager, netplan and cloud-init.

Pure: text in, text out. The guest's end of the cable is always ``usb0`` (u_ether names it usb%d).
"""

from __future__ import annotations

import re
import uuid
from dataclasses import dataclass
from typing import TYPE_CHECKING

from otgd.guest import yaml_block
from otgd.guest.tree import CardError

if TYPE_CHECKING:
    from collections.abc import Sequence
    from ipaddress import IPv4Address

    from otgd.model import GadgetSpec

IFNAME = "usb0"
PROFILE = "otgd-usb0"

_SCOPE = re.compile(r"\s*(interface|ssid|profile)\b\s*(\S*)")
"""dhcpcd.conf(5): each of these begins a block that lasts to the next of them."""

_STATIC = re.compile(r"\s*static\s+(ip_address|routers|domain_name_servers)\s*=")


@dataclass(frozen=True, slots=True, kw_only=True)
class GuestNetwork:
    """What usb0 shall have: the address with its prefix length, the gateway, the DNS servers."""

    address: str
    gateway: str
    dns: tuple[str, ...]
    profile_uuid: str


def guest_network(spec: GadgetSpec, dns: Sequence[IPv4Address]) -> GuestNetwork:
    """Derive the guest's network from the gadget's entry: the host's end is the gateway."""
    return GuestNetwork(
        address=f"{spec.guest}/{spec.subnet.prefixlen}",
        gateway=str(spec.host.ip),
        dns=tuple(map(str, dns)),
        # The same card always gets the same profile, so writing it twice changes nothing.
        profile_uuid=str(uuid.uuid5(uuid.NAMESPACE_OID, f"otgd {spec.mac}")),
    )


def dhcpcd_conf(text: str, network: GuestNetwork) -> str:
    """Return dhcpcd.conf with usb0's static block; other options of that block are kept."""
    statics = [f"static ip_address={network.address}", f"static routers={network.gateway}"]
    if network.dns:
        statics.append(f"static domain_name_servers={' '.join(network.dns)}")
    lines: list[str] = []
    at = None
    ours = False
    for line in text.split("\n"):
        scope = _SCOPE.match(line)
        if scope:
            ours = scope.groups() == ("interface", IFNAME)
        if ours and _STATIC.match(line):
            continue
        lines.append(line)
        if ours and scope and at is None:
            at = len(lines)
    if at is not None:
        return "\n".join([*lines[:at], *statics, *lines[at:]])
    joint = "" if not text or text.endswith("\n") else "\n"
    return text + joint + "\n".join([f"interface {IFNAME}", *statics]) + "\n"


def keyfile(network: GuestNetwork) -> str:
    """Return the NetworkManager profile (nm-settings-keyfile(5)); its file must be 0600.

    The priority is above that of rpi-usb-gadget's profiles (100 and 10).
    """
    dns = f"dns={';'.join(network.dns)};\n" if network.dns else ""
    return (
        f"[connection]\nid={PROFILE}\nuuid={network.profile_uuid}\ntype=ethernet\n"
        f"interface-name={IFNAME}\nautoconnect-priority=999\n\n"
        f"[ethernet]\n\n"
        f"[ipv4]\nmethod=manual\naddress1={network.address},{network.gateway}\n{dns}\n"
        f"[ipv6]\nmethod=link-local\n"
    )


def netplan(network: GuestNetwork) -> str:
    """Return the netplan file; it must be 0600 and leaves usb0 to NetworkManager."""
    block = "".join(f"    {line}\n" for line in _netplan_block(network))
    return f"network:\n  version: 2\n  ethernets:\n{block}"


def network_config(text: str, network: GuestNetwork) -> str:
    """Return cloud-init's ``network-config`` (format 2, network key optional) with usb0 in it.

    Raises:
        CardError: the file is in format 1, or written in a way that cannot be edited.
    """
    name = "boot:/network-config"
    keys = yaml_block.top_level(text)
    if re.search(r"^\s*version\s*:\s*1\b", text, re.MULTILINE):
        raise CardError(f"edit {name}: it is in format version 1; write it as version 2")
    way = ["ethernets", IFNAME]
    wrapped = "network" in keys or not keys
    if not keys:
        text = yaml_block.put(text, ["network", "version"], ["version: 2"], name=name)
    return yaml_block.put(
        text, ["network", *way] if wrapped else way, _netplan_block(network), name=name
    )


def _netplan_block(network: GuestNetwork) -> list[str]:
    dns = [f"      - {address}" for address in network.dns]
    return [
        f"{IFNAME}:",
        "  renderer: NetworkManager",
        "  dhcp4: false",
        "  optional: true",
        "  addresses:",
        f"    - {network.address}",
        "  routes:",
        "    - to: default",
        f"      via: {network.gateway}",
        *(["  nameservers:", "    addresses:", *dns] if dns else []),
        "  networkmanager:",
        f"    uuid: {network.profile_uuid}",
        f"    name: {PROFILE}",
        "    passthrough:",
        '      connection.autoconnect-priority: "999"',
    ]


UDEV_RULE = (
    'SUBSYSTEM=="net", ACTION!="remove", KERNEL=="usb0", ENV{DEVTYPE}=="gadget", '
    'ENV{NM_UNMANAGED}="0"\n'
)
"""NetworkManager's own 85-nm-unmanaged.rules takes its hands off every gadget's link."""
