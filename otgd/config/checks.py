"""What must hold between the gadgets of a file, and between one gadget's values.

A problem of a value that came from ``[fleet]`` is reported once, at the fleet's key; where the
fleet and an entry are at odds, the entry is to change, else what stands later in the file.
"""

from __future__ import annotations

from dataclasses import dataclass
from ipaddress import IPv4Network
from operator import eq
from typing import TYPE_CHECKING, Generic, TypeVar

from otgd.config.drafts import first_two
from otgd.config.findings import dotted
from otgd.config.schema import MatchTable
from otgd.config.spares import spare_mac, spare_name, spare_subnet
from otgd.config.values import IFNAME_BYTES, LABEL_CHARS, ifname_fault, propose_ifname, quote, show

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
    from ipaddress import IPv4Address

    from otgd.config.drafts import Draft
    from otgd.config.findings import Findings
    from otgd.config.lines import Path
    from otgd.config.schema import GadgetTable

_ENDS = ("host_address", "guest_address")
_PARAMETERS = {"mac": "g_ether.host_addr", "guest_mac": "g_ether.dev_addr"}
_FIRST_MAC = "00:22:82:ff:ff:01"
_FIRST_SUBNET = IPv4Network("10.0.11.0/24")
_SIGN_REMEDIES = {
    "serial": "remove it, and tell them apart by mac or port",
    "port": "remove it, or write another port (otgctl gadgets lists them)",
}
_NO_SUBNET = "remove a gadget: no private block is left"

T = TypeVar("T")


@dataclass(frozen=True, slots=True, kw_only=True)
class _Claim(Generic[T]):
    """A gadget wants *value* for itself alone."""

    draft: Draft
    key: str
    value: T

    @property
    def path(self) -> Path:
        return self.draft.paths[self.key]

    @property
    def of_fleet(self) -> bool:
        return self.path[0] == "fleet"

    def __str__(self) -> str:
        shown = quote(self.value)
        return f"gives {self.draft.name} {shown}, which" if self.of_fleet else shown


def check_gadgets(drafts: Sequence[Draft], *, uplinks: Collection[str], findings: Findings) -> None:
    """Report everything that does not hold; *uplinks* are names that others have."""
    _check_entry_names(drafts, uplinks=uplinks, findings=findings)
    _check_macs(drafts, findings=findings)
    _check_signs(drafts, findings=findings)
    _check_subnets(drafts, findings=findings)
    _check_hostnames(drafts, findings=findings)
    for draft in drafts:
        if draft.table.subnet is not None:
            _check_addresses(draft, draft.table.subnet, findings=findings)


def check_entries(entries: Mapping[str, GadgetTable], *, findings: Findings) -> None:
    """Report entries that have a MAC in ``match`` and beside it."""
    for name, entry in entries.items():
        if entry.mac is not None and entry.match is not None and entry.match.mac is not None:
            findings.add(
                ("gadget", name, "match", "mac"),
                cause=f"is there twice, mac = {quote(entry.mac)} is the same key",
                remedy="remove it, or the other one",
            )


def check_complete(drafts: Sequence[Draft], *, findings: Findings) -> None:
    """Report entries that lack what no fleet gives them."""
    entries = [draft for draft in drafts if not draft.number]
    macs = {claim.value for claim in _mac_claims(drafts)}
    last = max((draft.match.mac for draft in drafts if draft.match.mac), default=_FIRST_MAC)
    for draft in entries:
        if not draft.is_known and draft.faulty.isdisjoint(MatchTable.model_fields):
            mac = spare_mac(last, taken=macs)
            macs.add(mac)
            findings.add(
                ("gadget", draft.name, "mac"),
                cause="is missing",
                remedy=f"add mac = {quote(mac)}, the gadget's {_PARAMETERS['mac']}",
            )
    subnets = [claim.value for claim in _subnet_claims(drafts)]
    for draft in entries:
        if draft.table.subnet is None and "subnet" not in draft.faulty:
            subnet = spare_subnet(max(subnets, default=_FIRST_SUBNET), taken=subnets)
            subnets += [subnet] if subnet else []
            findings.add(
                ("gadget", draft.name, "subnet"),
                cause="is missing",
                remedy=f"add subnet = {quote(subnet)}" if subnet else _NO_SUBNET,
            )


def _check_entry_names(
    drafts: Sequence[Draft], *, uplinks: Collection[str], findings: Findings
) -> None:
    taken = {*uplinks, *(draft.name for draft in drafts)}
    for draft in drafts:
        fault = "is an uplink's" if draft.name in uplinks else ifname_fault(draft.name)
        if draft.number or fault is None:
            continue
        proposal = propose_ifname(draft.name)
        if proposal in taken:
            proposal = spare_name(proposal, taken=taken, longest=IFNAME_BYTES)
        taken.add(proposal)
        findings.add(
            draft.paths["name"],
            cause=f"the name {show(draft.name)} {fault}",
            remedy=f"write [{dotted(('gadget', proposal))}]",
        )


def _check_macs(drafts: Sequence[Draft], *, findings: Findings) -> None:
    """Report MACs that two ends of links have."""
    claims = _mac_claims(drafts)
    fleet_size = max((draft.number for draft in drafts), default=0)
    proposed: set[str] = set()
    for claim, holder in _conflicts(claims, at_odds=eq, findings=findings):
        others = {other.value for other in claims if other.path != claim.path}
        length, whose = (fleet_size, "gadget 1") if claim.of_fleet else (1, "the gadget")
        mac = spare_mac(claim.value, taken=others | proposed, length=length)
        proposed.add(mac)
        findings.add(
            claim.path,
            cause=f"{claim} is also the {holder.key} of {_place(holder, findings=findings)}",
            remedy=f"write {quote(mac)}, here and as {_PARAMETERS[claim.key]} of {whose}",
        )


def _check_signs(drafts: Iterable[Draft], *, findings: Findings) -> None:
    """Report USB serials and ports that two gadgets are known by."""
    for key in ("serial", "port"):
        claims = [
            _Claim(draft=draft, key=key, value=value)
            for draft in drafts
            if (value := getattr(draft.match, key)) is not None
        ]
        for claim, holder in _conflicts(claims, at_odds=eq, findings=findings):
            findings.add(
                claim.path,
                cause=f"{claim} is also the {key} of {_place(holder, findings=findings)}",
                remedy=_SIGN_REMEDIES[key],
            )


def _check_subnets(drafts: Sequence[Draft], *, findings: Findings) -> None:
    """Report subnets that overlap; those of a fleet cannot overlap each other."""
    claims = _subnet_claims(drafts)
    taken = [claim.value for claim in claims]
    for claim, holder in _conflicts(claims, at_odds=IPv4Network.overlaps, findings=findings):
        subnet = spare_subnet(claim.value, taken=taken)
        taken += [subnet] if subnet else []
        findings.add(
            claim.path,
            cause=f"{claim} overlaps {holder.value} of {_place(holder, findings=findings)}",
            remedy=f"write {quote(subnet)}" if subnet else _NO_SUBNET,
        )


def _check_hostnames(drafts: Sequence[Draft], *, findings: Findings) -> None:
    claims = [
        _Claim(draft=draft, key="hostname", value=draft.table.hostname.lower())
        for draft in drafts
        if draft.table.hostname is not None
    ]
    taken = {claim.value for claim in claims}
    for claim, holder in _conflicts(claims, at_odds=eq, findings=findings):
        hostname = spare_name(claim.value, taken=taken, longest=LABEL_CHARS)
        taken.add(hostname)
        findings.add(
            claim.path,
            cause=f"{claim} is also the hostname of {_place(holder, findings=findings)}",
            remedy=f"write {quote(hostname)}",
        )


def _check_addresses(draft: Draft, subnet: IPv4Network, *, findings: Findings) -> None:
    host, guest = draft.ends(subnet)
    first, second = first_two(subnet)
    given = {
        key: (address, proposal)
        for key, address, proposal in (
            ("host_address", host, first if first != guest else second),
            ("guest_address", guest, second if second != host else first),
        )
        if key in draft.paths
    }
    faults = {key: fault for key, (end, _) in given.items() if (fault := _place_fault(end, subnet))}
    if host == guest and not faults and draft.faulty.isdisjoint(_ENDS):
        faults[max(given, key=_ENDS.index)] = "is also the address of the other end"
    for key, fault in faults.items():
        address, proposal = given[key]
        findings.add(
            draft.paths[key], cause=f"{quote(address)} {fault}", remedy=f"write {quote(proposal)}"
        )


def _place_fault(address: IPv4Address, subnet: IPv4Network) -> str | None:
    if address not in subnet:
        return f"is outside {subnet}"
    if subnet.prefixlen == 31:  # RFC 3021: both addresses are hosts'
        return None
    if address == subnet.network_address:
        return f"is the network address of {subnet}"
    return f"is the broadcast address of {subnet}" if address == subnet.broadcast_address else None


def _mac_claims(drafts: Iterable[Draft]) -> list[_Claim[str]]:
    return [
        _Claim(draft=draft, key=key, value=mac)
        for draft in drafts
        for key, mac in (("mac", draft.match.mac), ("guest_mac", draft.table.guest_mac))
        if mac is not None
    ]


def _subnet_claims(drafts: Iterable[Draft]) -> list[_Claim[IPv4Network]]:
    return [
        _Claim(draft=draft, key="subnet", value=draft.table.subnet)
        for draft in drafts
        if draft.table.subnet is not None
    ]


def _conflicts(
    claims: Iterable[_Claim[T]], *, at_odds: Callable[[T, T], bool], findings: Findings
) -> Iterator[tuple[_Claim[T], _Claim[T]]]:
    """Yield each claim that must give way, once for a path, and the claim that it gives way to."""
    granted: list[_Claim[T]] = []
    blamed: set[Path] = set()
    for claim in sorted(claims, key=lambda c: (not c.of_fleet, findings.order_of(c.path))):
        holder = next((other for other in granted if at_odds(claim.value, other.value)), None)
        if holder is None:
            granted.append(claim)
        elif claim.path not in blamed:
            blamed.add(claim.path)
            yield claim, holder


def _place(claim: _Claim[T], *, findings: Findings) -> str:
    return f"{claim.draft.name} ({findings.where(claim.path)})"
