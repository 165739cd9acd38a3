"""Put findings together: which gadgets there are, and what is left over."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from otgd.cli.importing.findings import Addressed, Guest, Left, Masqueraded, Named, Origin
from otgd.config.spares import spare_name
from otgd.config.values import IFNAME_BYTES
from otgd.identity import Sign

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from ipaddress import IPv4Interface

    from otgd.cli.importing.findings import Finding

_FIRST_NAME = "ethusb1"


@dataclass(frozen=True, slots=True, kw_only=True)
class Gadget:
    """A gadget as the findings have it; *signs* are what its link is known by, the best first."""

    name: str
    signs: dict[Sign, str]
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
    """Make gadgets of *findings*, in the order in which they were found."""
    draft = _Draft()
    for finding in findings:
        draft.take(finding)
    gadgets = tuple(draft.gadgets())
    return Network(
        gadgets=gadgets,
        uplinks=tuple(dict.fromkeys(rule.uplink for rule in draft.masquerades if rule.uplink)),
        left=tuple({str(left): left for left in draft.leftovers(gadgets)}.values()),
    )


@dataclass(slots=True)
class _Draft:
    """Findings by kind.

    Attributes:
        names: what each name's link is known by.
        holders: the name that each sign was given first.
        addresses: by name or, without one, by MAC.
    """

    names: dict[str, dict[Sign, Named]] = field(default_factory=dict)
    holders: dict[tuple[Sign, str], str] = field(default_factory=dict)
    addresses: dict[str, Addressed] = field(default_factory=dict)
    masquerades: list[Masqueraded] = field(default_factory=list)
    guests: dict[str, Guest] = field(default_factory=dict)
    left: list[Left] = field(default_factory=list)

    def take(self, finding: Finding) -> None:
        """Sort a finding in; of two that contradict each other the first holds."""
        match finding:
            case Named():
                self._take_name(finding)
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

    def _take_name(self, named: Named) -> None:
        holder = self.holders.setdefault((named.sign, named.value), named.name)
        if holder != named.name:
            self._leave(named.origin, named.name, f"{named.known_by} is {holder} already")
            return
        first = self.names.setdefault(named.name, {}).setdefault(named.sign, named)
        if first.value != named.value:
            del self.holders[named.sign, named.value]
            why = f"the link has {first.known_by}, and otgd goes by one"
            self._leave(named.origin, f"{named.name} for {named.known_by}", why)

    def _leave(self, origin: Origin, text: str, why: str) -> None:
        self.left.append(Left(origin=origin, text=text, why=why))

    def gadgets(self) -> Iterator[Gadget]:
        """Yield what has a sign and an address."""
        for name, named in self.names.items():
            signs = {sign: named[sign].value for sign in Sign if sign in named}
            if address := self._address_of(name, signs):
                yield self._gadget(name, signs, address)
        used = {*self.names, *(address.name for address in self.addresses.values())}
        for mac, address in self._bare_macs().items():
            name = address.name
            if not name:
                name = spare_name(_FIRST_NAME, taken=used, longest=IFNAME_BYTES)
                used.add(name)
                self._leave(address.origin, mac, f"nothing gives it a name; called {name} here")
            yield self._gadget(name, {Sign.MAC: mac}, address)

    def _gadget(self, name: str, signs: dict[Sign, str], address: Addressed) -> Gadget:
        return Gadget(
            name=name,
            signs=signs,
            host=address.interface,
            masquerade=any(_covers(rule, address) for rule in self.masquerades),
            guest=self.guests.get(signs.get(Sign.MAC, "")),
        )

    def _bare_macs(self) -> dict[str, Addressed]:
        """Return the addresses of links that no name is told of, by the link's MAC."""
        bare: dict[str, Addressed] = {}
        for address in self.addresses.values():
            is_named = address.name in self.names or (Sign.MAC, address.mac) in self.holders
            if address.mac and not is_named:
                bare.setdefault(address.mac, address)
        return bare

    def _address_of(self, name: str, signs: dict[Sign, str]) -> Addressed | None:
        mac = signs.get(Sign.MAC)
        by_mac = next((a for a in self.addresses.values() if a.mac and a.mac == mac), None)
        return self.addresses.get(name) or by_mac

    def leftovers(self, gadgets: Sequence[Gadget]) -> Iterator[Left]:
        """Yield what nobody has taken."""
        names = {gadget.name for gadget in gadgets}
        macs = {mac for gadget in gadgets if (mac := gadget.signs.get(Sign.MAC))}
        links = names | macs
        yield from (left for left in self.left if not left.link or left.link in links)
        for name, named in self.names.items():
            if name not in names:
                known = " or ".join(each.known_by for each in named.values())
                why = f"{known} has no address; to keep it give it a subnet"
                yield Left(origin=next(iter(named.values())).origin, text=name, why=why)
        for address in self.addresses.values():
            if not {address.name, address.mac} & links:
                why = f"no MAC, USB serial or USB port is known for {address.name}"
                yield Left(origin=address.origin, text=str(address.interface), why=why)
        for rule in self.masquerades:
            if not any(_covers(rule, address) for address in self.addresses.values()):
                text = f"masquerade of {rule.source}"
                yield Left(origin=rule.origin, text=text, why="no link has an address in there")
        for mac, guest in self.guests.items():
            if mac not in macs:
                why = "the host has no address for a link with this MAC"
                yield Left(origin=guest.origin, text=mac, why=why)


def _covers(rule: Masqueraded, address: Addressed) -> bool:
    return rule.source is None or address.interface.network.subnet_of(rule.source)
