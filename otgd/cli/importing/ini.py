"""Files of sections and keys: systemd's .link and .network, NetworkManager's keyfiles."""

from __future__ import annotations

import shlex
from dataclasses import dataclass
from ipaddress import IPv4Interface
from typing import TYPE_CHECKING

from otgd.cli.importing.findings import Addressed, Left, Masqueraded, Named, Origin
from otgd.cli.importing.signs import Condition, read_name
from otgd.config.values import RefusedError, parse_mac
from otgd.identity import Sign

if TYPE_CHECKING:
    from collections.abc import Iterator

    from otgd.cli.importing.findings import Finding


@dataclass(frozen=True, slots=True, kw_only=True)
class _Entry:
    section: str
    key: str
    value: str
    origin: Origin

    @property
    def text(self) -> str:
        return f"{self.key}={self.value}"


def _entries(text: str, file: str) -> list[_Entry]:
    """Read a file in which a key may stand several times, and so may a section."""
    entries, section = [], ""
    for number, line in enumerate(text.splitlines(), start=1):
        stripped = line.strip()
        if stripped.startswith("[") and stripped.endswith("]"):
            section = stripped[1:-1]
        elif "=" in stripped and stripped[0] not in "#;":
            key, _, value = stripped.partition("=")
            origin = Origin(file=file, line=number)
            entries.append(
                _Entry(section=section, key=key.strip(), value=value.strip(), origin=origin)
            )
    return entries


def _value(entries: list[_Entry], section: str, key: str) -> str:
    return next((e.value for e in entries if (e.section, e.key) == (section, key)), "")


# --- systemd -------------------------------------------------------------------------------------

_NETWORKD_SILENT = frozenset(
    {
        "Address",
        "RequiredForOnline",
        "ConfigureWithoutCarrier",
        "LinkLocalAddressing",
        "IPForward",
        "IPv4Forwarding",
        "DHCP",
        "IPv6AcceptRA",
        "Description",
    }
)
"""What otgd does anyway, or leaves to others anyway."""


def read_link(text: str, file: str) -> Iterator[Finding]:
    """Yield the name that a .link file gives (systemd.link(5))."""
    entries = _entries(text, file)
    name = next((e for e in entries if (e.section, e.key) == ("Link", "Name")), None)
    if name is None:
        return
    try:
        conditions = [each for entry in entries for each in _conditions(entry)]
    except ValueError:
        yield Left(origin=name.origin, text=name.text, why="a quote in [Match] has no end")
        return
    yield from read_name(name.value, conditions, text=name.text, origin=name.origin)


_LINK_KEYS = {
    "MACAddress": "ATTR{address}",
    "PermanentMACAddress": "ATTR{address}",
    "Path": "ENV{ID_PATH}",
}
"""What udev(7) calls that on which .link files match; others hold for every gadget's link."""


def _conditions(entry: _Entry) -> Iterator[Condition]:
    """Yield what a line of [Match] asks for.

    Raises:
        ValueError: a quote has no end.
    """
    if entry.section != "Match":
        return
    is_negated, value = entry.value.startswith("!"), entry.value.removeprefix("!").strip()
    if key := _LINK_KEYS.get(entry.key):
        yield Condition(key=key, pattern=value, is_negated=is_negated, shown=entry.key)
    elif entry.key == "Property":
        for word in shlex.split(value):
            key, _, pattern = word.partition("=")
            shown = f"Property={key}"
            key = f"ENV{{{key}}}"
            yield Condition(key=key, pattern=pattern, is_negated=is_negated, shown=shown)


def read_network(text: str, file: str) -> Iterator[Finding]:
    """Yield addresses and masquerade of a .network file (systemd.network(5))."""
    entries = _entries(text, file)
    name, mac = _value(entries, "Match", "Name"), _mac(_value(entries, "Match", "MACAddress"))
    addresses = [
        _address(entry, name, mac)
        for entry in entries
        if entry.key == "Address" and entry.section in {"Network", "Address"}
    ]
    yield from addresses
    for entry in entries:
        if entry.key == "IPMasquerade":
            if entry.value.lower() in {"yes", "true", "1", "ipv4", "both"}:
                yield from _masqueraded(addresses, entry.origin)
        elif entry.section != "Match" and entry.key not in _NETWORKD_SILENT and (name or mac):
            why = "otgd has nothing like it"
            yield Left(origin=entry.origin, text=entry.text, why=why, link=name or mac)


def _masqueraded(addresses: list[Addressed | Left], origin: Origin) -> Iterator[Masqueraded]:
    for address in addresses:
        if isinstance(address, Addressed):
            yield Masqueraded(origin=origin, source=address.interface.network)


def _mac(text: str) -> str:
    try:
        return parse_mac(text)
    except RefusedError:
        return ""


def _address(entry: _Entry, name: str, mac: str) -> Addressed | Left:
    # NetworkManager writes the gateway behind a comma.
    value = entry.value.split(",")[0]
    try:
        interface = IPv4Interface(value)
    except ValueError:
        why = "is not an IPv4 address"
        return Left(origin=entry.origin, text=entry.text, why=why, link=name or mac)
    if not (name or mac):
        why = "[Match] has neither Name nor MACAddress"
        return Left(origin=entry.origin, text=entry.text, why=why)
    return Addressed(origin=entry.origin, interface=interface, name=name, mac=mac)


# --- NetworkManager ------------------------------------------------------------------------------


def read_keyfile(text: str, file: str) -> Iterator[Finding]:
    """Yield what a connection of NetworkManager says (nm-settings-keyfile(5))."""
    entries = _entries(text, file)
    name = _value(entries, "connection", "interface-name")
    mac = _mac(_value(entries, "ethernet", "mac-address"))
    method = next((e for e in entries if (e.section, e.key) == ("ipv4", "method")), None)
    if method is None or not (name or mac):
        return
    if name and mac:
        yield Named(origin=method.origin, sign=Sign.MAC, value=mac, name=name)
    found = [
        _address(entry, name, mac)
        for entry in entries
        if entry.section == "ipv4" and entry.key.rstrip("0123456789") in {"address", "addresses"}
    ]
    yield from found
    if method.value not in {"manual", "shared"} or not found:
        why = "otgd wants an address of its own for the link"
        yield Left(origin=method.origin, text=method.text, why=why, link=name or mac)
    elif method.value == "shared":
        yield from _masqueraded(found, method.origin)
        why = "otgd has no DHCP server; give the Zero its address with otgctl prepare"
        yield Left(origin=method.origin, text=method.text, why=why, link=name or mac)
