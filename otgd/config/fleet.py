"""``[fleet]``: gadgets by rule, each one step on from the one before."""

from __future__ import annotations

from ipaddress import IPv4Network
from typing import TYPE_CHECKING

from otgd.config.drafts import Draft
from otgd.config.schema import GadgetTable, MatchTable
from otgd.config.spares import spare_template
from otgd.config.values import (
    UNUSABLE,
    hostname_fault,
    ifname_fault,
    numbered,
    propose_hostname_template,
    propose_ifname_template,
    quote,
    show,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Iterator
    from collections.abc import Set as AbstractSet
    from ipaddress import IPv4Address

    from otgd.config.findings import Findings
    from otgd.config.lines import Path
    from otgd.config.schema import FleetTable

_NEEDS = {
    "count": "count = 4",
    "interface": 'interface = "ethusb{n}"',
    "mac": 'mac = "00:22:82:ff:ff:01"',
    "subnet": 'subnet = "10.0.11.0/24"',
}


def check_fleet(
    fleet: FleetTable, *, faulty: AbstractSet[Path], uplinks: Collection[str], findings: Findings
) -> None:
    """Report what is missing, what it cannot count to, and names that are no good.

    *faulty* are the paths that ``schema`` took out of the document, *uplinks* are names that
    others have.
    """
    for key, example in _NEEDS.items():
        if getattr(fleet, key) is None and ("fleet", key) not in faulty:
            findings.add(("fleet", key), cause="is missing", remedy=f"add {example}")
    for key, room, last in _rooms(fleet):
        if room < len(_numbers(fleet)):
            findings.add(
                ("fleet", key),
                cause=f"gadget {room + 1} of {fleet.count} would be past {last}",
                remedy=f"write count = {room}, or start lower",
            )
    if fleet.interface is not None:
        _check_template(
            "interface",
            fleet.interface,
            numbers=_numbers(fleet),
            fault_of=lambda name: "is an uplink's" if name in uplinks else ifname_fault(name),
            propose=lambda text: spare_template(propose_ifname_template(text), taken=uplinks),
            findings=findings,
        )
    if fleet.hostname is not None:
        _check_template(
            "hostname",
            fleet.hostname,
            numbers=_numbers(fleet),
            fault_of=hostname_fault,
            propose=propose_hostname_template,
            findings=findings,
        )


def _check_template(
    key: str,
    template: str,
    *,
    numbers: Iterable[int],
    fault_of: Callable[[str], str | None],
    propose: Callable[[str], str],
    findings: Findings,
) -> None:
    for number in numbers or (1,):
        name = numbered(template, number)
        if fault := fault_of(name):
            findings.add(
                ("fleet", key),
                cause=f"gives gadget {number} the name {show(name)}, which {fault}",
                remedy=f"write {quote(propose(template))}",
            )
            return


def _numbers(fleet: FleetTable) -> range:
    return range(1, (fleet.count or 0) + 1)


def _rooms(fleet: FleetTable) -> Iterator[tuple[str, int, str]]:
    """Yield each key that counts, how many gadgets it has room for, and the last value it has."""
    for key, mac in (("mac", fleet.mac), ("guest_mac", fleet.guest_mac)):
        if mac is not None:
            yield key, _mac_room(mac), f"{mac[:-2]}ff"
    if fleet.subnet is not None:
        yield "subnet", _subnet_room(fleet.subnet), str(_barrier(fleet.subnet) - 1)


def unfold_fleet(fleet: FleetTable) -> Iterator[Draft]:
    """Yield the fleet's gadgets; none as long as their names are not known."""
    if fleet.interface is None:
        return
    paths: dict[str, Path] = {key: ("fleet", key) for key in fleet.model_fields_set}
    paths["name"] = ("fleet", "interface")
    for number in _numbers(fleet):
        table = GadgetTable.model_construct(
            guest_mac=_nth_mac(fleet.guest_mac, number),
            subnet=_nth_subnet(fleet.subnet, number),
            hostname=fleet.hostname and numbered(fleet.hostname, number),
            masquerade=fleet.masquerade,
            isolate=fleet.isolate,
        )
        name = numbered(fleet.interface, number)
        match = MatchTable.model_construct(mac=_nth_mac(fleet.mac, number))
        yield Draft(name=name, number=number, table=table, match=match, paths=paths)


def _nth_mac(mac: str | None, number: int) -> str | None:
    if mac is None or number > _mac_room(mac):
        return None
    return f"{mac[:-2]}{int(mac[-2:], 16) + number - 1:02x}"


def _mac_room(mac: str) -> int:
    return 256 - int(mac[-2:], 16)


def _nth_subnet(subnet: IPv4Network | None, number: int) -> IPv4Network | None:
    if subnet is None or number > _subnet_room(subnet):
        return None
    return IPv4Network((subnet[0] + (number - 1) * subnet.num_addresses, subnet.prefixlen))


def _subnet_room(subnet: IPv4Network) -> int:
    return (int(_barrier(subnet)) - int(subnet[0])) // subnet.num_addresses


def _barrier(subnet: IPv4Network) -> IPv4Address:
    """Return the first address above *subnet* that hosts cannot have."""
    return next(block[0] for block in UNUSABLE if block[0] > subnet[0])
