"""Put findings together: which gadgets there are, and what is left over."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from otgd.cli.importing.findings import Addressed, Guest, Left, Masqueraded, Named, Origin
from otgd.config.spares import spare_name
from otgd.config.values import IFNAME_BYTES

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from ipaddress import IPv4Interface

    from otgd.cli.importing.findings import Finding

_FIRST_NAME = "ethusb1"


@dataclass(frozen=True, slots=True, kw_only=True)
class Gadget:
    """A gadget as the findings have it."""

    name: str
    mac: str
    host: IPv4Interface
    masquerade: bool
    guest: Guest | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Network:
    """What the findings make.

    Attributes:
        uplinks: the links that masquerade rules name, in their order.
        left: what is not taken over.
    """

    gadgets: tuple[Gadget, ...]
    uplinks: tuple[str, ...]
    left: tuple[Left, ...]


def build(findings: Sequence[Finding]) -> Network:
    """Make gadgets of *findings*, in the order in which their MACs were found."""
    draft = _Draft()
    for finding in findings:
        draft.take(finding)
    gadgets = tuple(draft.gadgets())
    macs = {gadget.mac for gadget in gadgets}
    names = macs | {gadget.name for gadget in gadgets}
    return Network(
        gadgets=gadgets,
        uplinks=tuple(dict.fromkeys(rule.uplink for rule in draft.masquerades if rule.uplink)),
        left=tuple({str(left): left for left in draft.leftovers(macs, names)}.values()),
    )


@dataclass(slots=True)
class _Draft:
    """Findings by kind; *names* by MAC, *addresses* by name or, without one, by MAC."""

    names: dict[str, Named] = field(default_factory=dict)
    addresses: dict[str, Addressed] = field(default_factory=dict)
    masquerades: list[Masqueraded] = field(default_factory=list)
    guests: dict[str, Guest] = field(default_factory=dict)
    left: list[Left] = field(default_factory=list)

    def take(self, finding: Finding) -> None:
        """Sort a finding in; of two that contradict each other the first holds."""
        match finding:
            case Named(mac=mac):
                first = self.names.setdefault(mac, finding)
                if first.name != finding.name:
                    self._leave(finding.origin, finding.name, f"{mac} is {first.name} already")
            case Addressed():
                first_address = self.addresses.setdefault(finding.name or finding.mac, finding)
                if first_address.interface != finding.interface:
                    why = f"the link has {first_address.interface}, and otgd gives one address"
                    self._leave(finding.origin, str(finding.interface), why)
            case Masqueraded():
                self.masquerades.append(finding)
            case Guest(mac=mac):
                self.guests.setdefault(mac, finding)
            case Left():
                self.left.append(finding)

    def _leave(self, origin: Origin, text: str, why: str) -> None:
        self.left.append(Left(origin=origin, text=text, why=why))

    def gadgets(self) -> Iterator[Gadget]:
        """Yield what has a MAC and an address."""
        used = {named.name for named in self.names.values()}
        for mac in dict.fromkeys((*self.names, *self._bare_macs())):
            address = self._address_of(mac)
            if address is None:
                continue
            name = self.names[mac].name if mac in self.names else address.name
            if not name:
                name = spare_name(_FIRST_NAME, taken=used, longest=IFNAME_BYTES)
                used.add(name)
                self._leave(address.origin, mac, f"nothing gives it a name; called {name} here")
            yield Gadget(
                name=name,
                mac=mac,
                host=address.interface,
                masquerade=any(_covers(rule, address) for rule in self.masquerades),
                guest=self.guests.get(mac),
            )

    def _bare_macs(self) -> list[str]:
        return [address.mac for address in self.addresses.values() if address.mac]

    def _address_of(self, mac: str) -> Addressed | None:
        named = self.names.get(mac)
        by_name = self.addresses.get(named.name) if named else None
        by_mac = next((a for a in self.addresses.values() if a.mac == mac), None)
        return by_name or by_mac

    def leftovers(self, macs: set[str], links: set[str]) -> Iterator[Left]:
        """Yield what nobody has taken."""
        yield from (left for left in self.left if not left.link or left.link in links)
        for mac, named in self.names.items():
            if mac not in macs:
                why = f"{mac} has no address; to keep it give it a subnet"
                yield Left(origin=named.origin, text=named.name, why=why)
        for address in self.addresses.values():
            if not {address.name, address.mac} & links:
                why = f"no MAC is known for {address.name}, and otgd goes by MAC"
                yield Left(origin=address.origin, text=str(address.interface), why=why)
        for rule in self.masquerades:
            if not any(_covers(rule, address) for address in self.addresses.values()):
                text = f"masquerade of {rule.source}"
                yield Left(origin=rule.origin, text=text, why="no link has an address in there")
        for mac, guest in self.guests.items():
            if mac not in macs:
                yield Left(
                    origin=guest.origin, text=mac, why="the host has no address for its link"
                )


def _covers(rule: Masqueraded, address: Addressed) -> bool:
    return rule.source is None or address.interface.network.subnet_of(rule.source)
