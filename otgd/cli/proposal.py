"""What to write into the config so that it knows a link: a sign, a name and a subnet still free.

Pure. ``otgctl gadgets`` shows it, ``otgctl adopt`` writes it.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from ipaddress import IPv4Network
from typing import TYPE_CHECKING

from otgd.config.findings import dotted
from otgd.config.spares import spare_name, spare_subnet
from otgd.config.values import IFNAME_BYTES, quote
from otgd.errors import OtgdError
from otgd.identity import Sign, signs_of

if TYPE_CHECKING:
    from collections.abc import Iterator

    from otgd.model import Config, GadgetSpec, ObservedLink, ObservedRoute

FIRST_SUBNET = IPv4Network("10.0.11.0/24")
FIRST_NAME = "ethusb1"
HALF_OF_EVERYTHING = 1
"""Prefix length of the routes that VPNs add in pairs instead of a default route (0/1, 128/1)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Proposal:
    """An entry of the config; without *subnet* it adds to one that is there."""

    name: str
    sign: Sign
    value: str
    subnet: IPv4Network | None

    @property
    def lines(self) -> tuple[str, ...]:
        """The entry in TOML."""
        match = f"mac = {quote(self.value)}"
        if self.sign is not Sign.MAC:
            match = f"match = {{ {self.sign} = {quote(self.value)} }}"
        subnet = () if self.subnet is None else (f"subnet = {quote(self.subnet)}",)
        return (f"[{dotted(('gadget', self.name))}]", match, *subnet)


@dataclass(slots=True)
class Proposer:
    """Proposes entries for the links of one host, no two for the same name or subnet."""

    config: Config
    links: tuple[ObservedLink, ...]
    routes: tuple[ObservedRoute, ...] = ()
    _given: list[Proposal] = field(default_factory=list)

    def propose(
        self,
        link: ObservedLink,
        *,
        name: str | None = None,
        sign: Sign | None = None,
        subnet: IPv4Network | None = None,
    ) -> Proposal:
        """Propose an entry for *link*; what is not given is chosen.

        Raises:
            OtgdError: the link has no sign that will be the same at the next plug.
        """
        sign, value = self._sign(link, sign)
        specs = {spec.name: spec for spec in self.config.desired.gadgets}
        if name in specs:
            proposal = _addition(specs[name], sign, value, subnet)
        else:
            proposal = Proposal(
                name=name or self._name(link),
                sign=sign,
                value=value,
                subnet=subnet or self._subnet(),
            )
        self._given.append(proposal)
        return proposal

    def _sign(self, link: ObservedLink, wanted: Sign | None) -> tuple[Sign, str]:
        signs = {
            Sign.MAC: "" if link.random_mac else link.mac,
            Sign.SERIAL: link.serial,
            Sign.PORT: link.port,
        }
        if wanted:
            if value := signs[wanted]:
                return wanted, value
            raise OtgdError(
                f"{link.ifname} cannot be known by its {wanted.words}: {_why(link, wanted)}"
            )
        for sign, value in signs.items():
            if value and not (sign is Sign.SERIAL and self._is_shared(link)):
                return sign, value
        raise OtgdError(f"{link.ifname} has a MAC that {link.driver} made up, and no USB port")

    def _is_shared(self, link: ObservedLink) -> bool:
        """Tell whether another link has the same serial, as Zeros from one image may."""
        return any(x.serial == link.serial for x in self.links if x.ifindex != link.ifindex)

    def _name(self, link: ObservedLink) -> str:
        gadgets = self.config.desired.gadgets
        others = [x for x in self.links if x.ifindex != link.ifindex]
        taken = {
            *(spec.name for spec in gadgets),
            *(proposal.name for proposal in self._given),
            *(name for other in others for name in (other.ifname, *other.altnames)),
            *self.config.desired.uplink_policy.interfaces,
        }
        like = gadgets[0].name if gadgets else FIRST_NAME  # of the fleet, if there is one
        return spare_name(like, taken=taken, longest=IFNAME_BYTES)

    def _subnet(self) -> IPv4Network:
        gadgets = self.config.desired.gadgets
        like = gadgets[0].subnet if gadgets else FIRST_SUBNET
        spare = spare_subnet(like, taken=list(self._taken_networks()))
        if spare is None:
            raise OtgdError("no private subnet is left; name one with --subnet")
        return spare

    def _taken_networks(self) -> Iterator[IPv4Network]:
        yield from (spec.subnet for spec in self.config.desired.gadgets)
        yield from (proposal.subnet for proposal in self._given if proposal.subnet)
        yield from (a.interface.network for link in self.links for a in link.addresses)
        for route in self.routes:
            if route.destination.prefixlen > HALF_OF_EVERYTHING:
                yield route.destination
        if swarm := self.config.swarm:
            yield from (IPv4Network(swarm.hub_address), swarm.address_pool)


def _addition(spec: GadgetSpec, sign: Sign, value: str, subnet: IPv4Network | None) -> Proposal:
    """Propose a further sign for a gadget that the config has."""
    if subnet is not None:
        raise OtgdError(f"{spec.name} is in the config and has a subnet, {spec.subnet}")
    if sign in signs_of(spec):
        raise OtgdError(
            f"{spec.name} is in the config already, with the {sign.words} {signs_of(spec)[sign]}; "
            "change that, or choose another --name"
        )
    return Proposal(name=spec.name, sign=sign, value=value, subnet=None)


def _why(link: ObservedLink, sign: Sign) -> str:
    match sign:
        case Sign.MAC if link.random_mac:
            return f"{link.driver} made it up"
        case Sign.MAC | Sign.SERIAL:
            return "it has none"
        case _:
            return "it is not on USB"
