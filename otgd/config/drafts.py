"""The gadgets of a file as far as they are known.

A value may be missing because ``schema`` took it out. Judges nothing: ``fleet`` and ``checks`` do.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from ipaddress import IPv4Interface
from itertools import islice
from typing import TYPE_CHECKING

from otgd.config.schema import GadgetTable, MatchTable
from otgd.model import GadgetSpec

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from collections.abc import Set as AbstractSet
    from ipaddress import IPv4Address, IPv4Network

    from otgd.config.lines import Path


@dataclass(frozen=True, slots=True, kw_only=True)
class Draft:
    """One gadget as far as it is known.

    Attributes:
        name: the link's name.
        number: its number in the fleet, or 0.
        table: its keys, the entry's over the fleet's; but for what it is known by,
        match: which holds that, wherever it was written.
        paths: where each key that is given stands, ``name`` among them.
        faulty: keys of the entry that were taken out.
    """

    name: str
    number: int = 0
    table: GadgetTable = field(default_factory=GadgetTable)
    match: MatchTable = field(default_factory=MatchTable)
    paths: Mapping[str, Path]
    faulty: AbstractSet[str] = frozenset()

    def ends(self, subnet: IPv4Network) -> tuple[IPv4Address, IPv4Address]:
        """Return the host's and the guest's address in *subnet*."""
        host, guest = first_two(subnet)
        return self.table.host_address or host, self.table.guest_address or guest

    @property
    def is_known(self) -> bool:
        """Whether it is known by anything."""
        return any(getattr(self.match, key) is not None for key in MatchTable.model_fields)

    def spec(self) -> GadgetSpec | None:
        """Return the gadget in the model's terms, or None if it is not complete."""
        table = self.table
        match = self.match
        if not self.is_known or table.subnet is None:
            return None
        host, guest = self.ends(table.subnet)
        return GadgetSpec(
            name=self.name,
            mac=match.mac,
            serial=match.serial,
            port=match.port,
            host=IPv4Interface((host, table.subnet.prefixlen)),
            guest=guest,
            masquerade=table.masquerade,
            isolate=table.isolate,
            guest_mac=table.guest_mac,
            hostname=table.hostname,
        )


def first_two(subnet: IPv4Network) -> tuple[IPv4Address, IPv4Address]:
    """Return the first two addresses that hosts can have; a /31 has just these."""
    first, second = islice(subnet.hosts(), 2)
    return first, second


def merge_entries(
    fleet: Iterable[Draft], entries: Mapping[str, GadgetTable], *, faulty: AbstractSet[Path]
) -> tuple[Draft, ...]:
    """Lay ``[gadget.NAME]`` entries over the fleet's gadgets; new ones follow in their order.

    *faulty* are the paths that ``schema`` took out of the document.
    """
    drafts = {draft.name: draft for draft in fleet}
    for name, entry in entries.items():
        base = drafts.get(name) or Draft(name=name, paths={"name": ("gadget", name)})
        own: Path = ("gadget", name)
        given = {key: getattr(entry, key) for key in entry.model_fields_set - {"mac", "match"}}
        unknown = {key for key in GadgetTable.model_fields if (*own, key) in faulty}
        signs = _signs(entry, own)
        lost = _lost_signs(own, faulty)
        drafts[name] = replace(
            base,
            table=base.table.model_copy(update=dict.fromkeys(unknown) | given),
            match=base.match.model_copy(
                update=dict.fromkeys(lost) | {key: value for key, (value, _) in signs.items()}
            ),
            paths={
                **base.paths,
                **{key: (*own, key) for key in given},
                **{key: path for key, (_, path) in signs.items()},
            },
            faulty=unknown | lost,
        )
    return tuple(drafts.values())


def _signs(entry: GadgetTable, own: Path) -> dict[str, tuple[str, Path]]:
    """Return what the entry's link is known by, and where that stands: ``mac`` is shorthand."""
    signs: dict[str, tuple[str, Path]] = {}
    if entry.match is not None:
        for key in MatchTable.model_fields:
            if value := getattr(entry.match, key):
                signs[key] = value, (*own, "match", key)
    if entry.mac is not None:
        signs["mac"] = entry.mac, (*own, "mac")
    return signs


def _lost_signs(own: Path, faulty: AbstractSet[Path]) -> set[str]:
    """Return the signs that ``schema`` took out of the entry; an unknown one may be any."""
    given = {str(path[-1]) for path in faulty if path[:3] == (*own, "match")}
    lost = given if given <= MatchTable.model_fields.keys() else set(MatchTable.model_fields)
    return lost | ({"mac"} if (*own, "mac") in faulty else set())
