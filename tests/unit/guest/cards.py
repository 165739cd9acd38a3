"""Cards for tests: one in memory, and the golden trees of each release."""

from __future__ import annotations

import errno
import os
import posixpath
from ipaddress import IPv4Address, IPv4Interface
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING

from otgd.guest.plan import CardPlan, Wishes, make_plan, observe
from otgd.guest.tree import (
    CardError,
    Change,
    Directory,
    Entry,
    File,
    Link,
    Place,
    Volume,
    read_tree,
)
from otgd.guest.undo import places_of, plan_undo, read_record, remember
from otgd.model import GadgetSpec

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from otgd.guest.tree import Card

GOLDEN = Path(__file__).parent / "golden"
RELEASES = ("jessie", "stretch", "buster", "bullseye", "bookworm", "trixie")
WORKER1 = GadgetSpec(
    name="ethusb1",
    mac="00:22:82:ff:ff:01",
    host=IPv4Interface("10.0.11.1/24"),
    guest=IPv4Address("10.0.11.2"),
    guest_mac="00:22:82:ff:ff:11",
    hostname="worker1",
)
WORKER2 = GadgetSpec(
    name="ethusb2",
    mac="00:22:82:ff:ff:02",
    host=IPv4Interface("10.0.12.1/24"),
    guest=IPv4Address("10.0.12.2"),
    guest_mac="00:22:82:ff:ff:12",
    hostname="worker2",
)


class MemoryCard:
    """Implements ``Card``; the contract suite keeps it honest."""

    def __init__(self, entries: Mapping[Place, Entry]) -> None:
        self.entries = dict(entries)

    def read(self, place: Place) -> Entry | None:
        return self.entries.get(self._resolved(place))

    def apply(self, changes: Sequence[Change]) -> None:
        for change in changes:
            place = self._resolved(change.place)
            above = str(PurePosixPath(place.path).parent)
            if change.after is None:
                self._remove(place)
            elif above != "." and not isinstance(
                self.entries.get(Place(place.volume, above)), Directory
            ):
                raise CardError(f"write {place}: {os.strerror(errno.ENOENT)}")
            else:
                self.entries[place] = change.after

    def _remove(self, place: Place) -> None:
        inside = (place.path + "/",)
        if not any(
            one.volume is place.volume and one.path.startswith(inside) for one in self.entries
        ):
            self.entries.pop(place, None)

    def _resolved(self, place: Place) -> Place:
        at = ""
        for step in PurePosixPath(place.path).parts[:-1]:
            at = posixpath.join(at, step)
            entry = self.entries.get(Place(place.volume, at))
            if isinstance(entry, Link):
                at = posixpath.normpath(posixpath.join("/", posixpath.dirname(at), entry.target))
                at = at.lstrip("/")
        return Place(place.volume, posixpath.join(at, PurePosixPath(place.path).name))


def golden_entries(release: str) -> dict[Place, Entry]:
    """Read a golden tree; what git cannot keep is as Raspberry Pi OS has it."""
    entries: dict[Place, Entry] = {}
    for volume in Volume:
        top = GOLDEN / release / "before" / volume
        for path in sorted(top.rglob("*")):
            place = Place(volume, str(path.relative_to(top)))
            if path.is_symlink():
                entries[place] = Link(target=str(path.readlink()))
            elif path.is_dir():
                entries[place] = Directory(mode=0o755)
            elif path.name != ".keep":
                entries[place] = File(content=path.read_bytes(), mode=0o644)
    for home in ("home", "home/pi"):
        owner = 1000 if home.endswith("pi") else 0
        entries[Place(Volume.ROOT, home)] = Directory(uid=owner, gid=owner)
    return entries


def golden_card(release: str) -> MemoryCard:
    """Return a fresh card of *release*, as it comes from the card writer."""
    return MemoryCard(golden_entries(release))


def prepare(card: Card, spec: GadgetSpec = WORKER1, wishes: Wishes | None = None) -> CardPlan:
    """Do to *card* what ``otgctl prepare`` does; return the plan."""
    wishes = wishes or Wishes()
    tree = observe(card, wishes)
    plan = make_plan(tree, spec, wishes)
    if plan.changes:
        card.apply([remember(tree, plan.changes), *plan.changes])
    return plan


def undo(card: Card, *, force: bool = False) -> None:
    """Do to *card* what ``otgctl prepare --undo`` does."""
    record = read_record(read_tree(card, places_of(())))
    card.apply(plan_undo(read_tree(card, places_of(record)), force=force))
