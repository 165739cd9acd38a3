"""Files as they lie on a card, and the port that reads and writes them.

Pure but for the protocol. Paths are relative to their volume and never lead out of it: a symbolic
link on the card is followed inside the card, not on the host.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from pathlib import PurePosixPath
from typing import TYPE_CHECKING, Protocol

from otgd.errors import PermanentError

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence


_BLOCK_BYTES = 4096
_ROOM_SPARE_BYTES = 64 * 1024
"""For directory blocks and the journal, beside the files themselves."""


class CardError(PermanentError):
    """The card cannot be read, prepared or restored; the sentence names the file and the cure."""


class Volume(StrEnum):
    """The card's two file systems."""

    BOOT = "boot"
    ROOT = "root"


@dataclass(frozen=True, slots=True, order=True)
class Place:
    """Where a file lies: the volume, and the path in it without a leading slash."""

    volume: Volume
    path: str

    def __str__(self) -> str:
        return f"{self.volume}:/{self.path}"

    @property
    def parents(self) -> tuple[Place, ...]:
        """The directories that lead to it, outermost first, the volume's top left out."""
        above = list(PurePosixPath(self.path).parents)[:-1]
        return tuple(Place(self.volume, str(path)) for path in reversed(above))


def boot(path: str) -> Place:
    """Name a file of the boot (FAT) volume."""
    return Place(Volume.BOOT, path)


def root(path: str) -> Place:
    """Name a file of the root (ext4) volume."""
    return Place(Volume.ROOT, path)


@dataclass(frozen=True, slots=True, kw_only=True)
class File:
    """A regular file. FAT keeps neither mode nor owner: there the defaults stand."""

    content: bytes
    mode: int = 0o644
    uid: int = 0
    gid: int = 0

    @property
    def text(self) -> str:
        """The content as text; bytes that are no UTF-8 survive the way back."""
        return self.content.decode("utf-8", "surrogateescape")

    def with_text(self, text: str) -> File:
        """Return the same file with other content."""
        return File(content=encode(text), mode=self.mode, uid=self.uid, gid=self.gid)


@dataclass(frozen=True, slots=True, kw_only=True)
class Link:
    """A symbolic link."""

    target: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Directory:
    """A directory, for its mode and owner; what it holds has places of its own."""

    mode: int = 0o755
    uid: int = 0
    gid: int = 0


Entry = File | Link | Directory


def encode(text: str) -> bytes:
    """Undo ``File.text``."""
    return text.encode("utf-8", "surrogateescape")


@dataclass(frozen=True, slots=True, kw_only=True)
class Change:
    """One entry that shall be another; None stands for "not there"."""

    place: Place
    before: Entry | None
    after: Entry | None


def room_needed_bytes(changes: Iterable[Change]) -> dict[Volume, int]:
    """Return how much room each volume must have for old and new files side by side."""
    needed: dict[Volume, int] = {}
    for change in changes:
        if isinstance(change.after, File):
            blocks = -(-len(change.after.content) // _BLOCK_BYTES) + 1
            spare = needed.get(change.place.volume, _ROOM_SPARE_BYTES)
            needed[change.place.volume] = spare + blocks * _BLOCK_BYTES
    return needed


class Tree:
    """What was read of a card; a place that was never asked for is an error, not "missing"."""

    def __init__(self, entries: Mapping[Place, Entry | None]) -> None:
        self._entries = dict(entries)

    def get(self, place: Place) -> Entry | None:
        """Return what lies at *place*, or None."""
        return self._entries[place]

    def file(self, place: Place) -> File | None:
        """Return the regular file at *place*, or None.

        Raises:
            CardError: there is something else at *place*.
        """
        entry = self.get(place)
        if entry is None or isinstance(entry, File):
            return entry
        raise CardError(f"read {place}: it is no regular file; put a regular file there")

    def text(self, place: Place) -> str:
        """Return the text of the file at *place*, empty when there is none."""
        found = self.file(place)
        return found.text if found else ""

    def has(self, place: Place) -> bool:
        """Tell whether anything lies at *place*."""
        return self.get(place) is not None

    def updated(self, changes: Iterable[Change]) -> Tree:
        """Return the tree as it will be."""
        return Tree(self._entries | {change.place: change.after for change in changes})


class Card(Protocol):
    """One Zero's card: a boot volume and a root volume."""

    def read(self, place: Place) -> Entry | None:
        """Return what lies at *place*, or None."""
        ...

    def apply(self, changes: Sequence[Change]) -> None:
        """Carry out all changes in order; no file is ever seen half-written.

        Raises:
            CardError: nothing was changed (no room, read-only), or the sentence says what was.
        """
        ...


def read_tree(card: Card, places: Iterable[Place]) -> Tree:
    """Read *places* and every directory that leads to them."""
    wanted = {step for place in places for step in (*place.parents, place)}
    return Tree({place: card.read(place) for place in sorted(wanted)})
