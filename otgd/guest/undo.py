"""Keeps what a card held before, on the card itself, and takes it back.

``otgd-undo.json`` on the boot volume holds, for each place that was changed, the entry before and
after. Undo restores the former byte for byte where the card still holds the latter. Where the
card's first boot (or its owner) has changed the file since, ours alone is taken out again:
a cmdline.txt from before the first boot would not boot any more.
"""

from __future__ import annotations

import base64
import json
import os
import re
from difflib import SequenceMatcher
from pathlib import PurePosixPath
from typing import TYPE_CHECKING, Any

from otgd.guest.tree import (
    CardError,
    Change,
    Directory,
    File,
    Link,
    Place,
    Volume,
    boot,
    encode,
)

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from otgd.guest.tree import Entry, Tree

MANIFEST = boot("otgd-undo.json")
_VERSION = 1
_BLANKS = re.compile(r"(\s+)", re.ASCII)
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f]")
_MODES = 0o7777
_IDS = 0xFFFF_FFFE
"""The highest uid or gid; the one above stands for "leave it", chown(2)."""

Record = tuple[Change, ...]
"""What was changed on the card since it was first prepared: one change for each place."""


def read_record(tree: Tree) -> Record:
    """Return what earlier runs changed; nothing where the card was never prepared.

    Raises:
        CardError: the manifest is there but cannot be understood.
    """
    found = tree.file(MANIFEST)
    if found is None:
        return ()
    try:
        document = json.loads(found.content)
        if document["version"] != _VERSION:
            raise CardError(
                f"read {MANIFEST}: it is in format {document['version']!r}; "
                "use the otgctl that wrote it"
            )
        return tuple(_change_from(item) for item in document["changes"])
    except (ValueError, KeyError, TypeError) as err:
        raise CardError(
            f"read {MANIFEST}: it is damaged ({err}); remove it to prepare the card anew, "
            "which gives up undoing what was done"
        ) from err


def remember(tree: Tree, changes: Sequence[Change]) -> Change:
    """Return the change that writes the manifest: the oldest "before", the newest "after"."""
    record = {change.place: change for change in read_record(tree)}
    for change in changes:
        known = record.get(change.place)
        first = known.before if known else change.before
        record[change.place] = Change(place=change.place, before=first, after=change.after)
    document = {
        "version": _VERSION,
        "about": "what otgctl prepare replaced; otgctl prepare --undo puts it back",
        "changes": [_item_of(change) for change in record.values()],
    }
    text = json.dumps(document, indent=1, ensure_ascii=True) + "\n"
    return Change(
        place=MANIFEST,
        before=tree.get(MANIFEST),
        after=File(content=text.encode("ascii")),
    )


def plan_undo(tree: Tree, *, force: bool = False) -> tuple[Change, ...]:
    """Return the changes that take everything back; the manifest goes last.

    Args:
        tree: what the card holds, at least at the record's places.
        force: put the old file back even where it was changed since in the same lines.

    Raises:
        CardError: nothing was prepared, or a file cannot be merged; nothing is half undone.
    """
    record = read_record(tree)
    if not record:
        raise CardError(f"undo: {MANIFEST} is missing; this card was not prepared by otgctl")
    undone = [_undone(change, tree.get(change.place), force=force) for change in reversed(record)]
    forget = Change(place=MANIFEST, before=tree.get(MANIFEST), after=None)
    return (*(change for change in undone if change.before != change.after), forget)


def _undone(change: Change, current: Entry | None, *, force: bool) -> Change:
    target = change.before
    if not force and current not in {change.before, change.after} and current is not None:
        target = _merged(change, current)
    return Change(place=change.place, before=current, after=target)


def _merged(change: Change, current: Entry) -> Entry | None:
    """Take our change out of *current*, which somebody changed after us."""
    if isinstance(current, Directory):
        return None if change.before is None else change.before
    before = change.before or File(content=b"")
    if not (
        isinstance(before, File) and isinstance(change.after, File) and isinstance(current, File)
    ):
        raise _conflict(change.place)
    split = _words if change.place.path.endswith("cmdline.txt") else _lines
    merged = take_out(split(change.after.text), split(before.text), split(current.text))
    if merged is None:
        raise _conflict(change.place)
    text = "".join(merged)
    if not text.strip() and change.before is None:
        return None
    return current.with_text(text)


def _conflict(place: Place) -> CardError:
    return CardError(
        f"undo {place}: it was changed after otgctl prepare, in the same lines; "
        f"take our part out by hand (the old file is in {MANIFEST}), or put it back with --force"
    )


def _words(text: str) -> list[str]:
    """Split into words and blanks; each word is kept with the blank that precedes it."""
    parts = _BLANKS.split(text)
    return [f"{blank}{word}" for blank, word in zip(["", *parts[1::2]], parts[::2], strict=True)]


def _lines(text: str) -> list[str]:
    return re.findall(r"[^\n]*\n|[^\n]+", text)


def take_out(
    after: Sequence[str], before: Sequence[str], current: Sequence[str]
) -> list[str] | None:
    """Undo in *current* what led from *before* to *after*; None where that cannot be told apart.

    Unlike diff3, a change right beside ours is no conflict: a first boot removes the argument
    next to ours, an owner appends to a file whose last lines are ours.
    """
    place = _positions(after, current)
    result = list(current)
    steps = SequenceMatcher(None, after, before, autojunk=False).get_opcodes()
    for kind, start, stop, old_start, old_stop in reversed(steps):
        if kind == "equal":
            continue
        found = [place[unit] for unit in range(start, stop) if unit in place]
        old = before[old_start:old_stop]
        if found and found == list(range(found[0], found[0] + stop - start)):
            result[found[0] : found[0] + len(found)] = old
        elif kind == "insert" and (start - 1 in place or start in place or not after):
            at = place[start - 1] + 1 if start - 1 in place else place.get(start, 0)
            result[at:at] = old
        elif found or old:
            return None
    return result


def _positions(after: Sequence[str], current: Sequence[str]) -> dict[int, int]:
    """Map each unit of *after* that is still there to its position in *current*."""
    blocks = SequenceMatcher(None, after, current, autojunk=False).get_matching_blocks()
    return {block.a + n: block.b + n for block in blocks for n in range(block.size)}


# --- the manifest's format -----------------------------------------------------------------------


def _item_of(change: Change) -> dict[str, Any]:
    return {
        "volume": str(change.place.volume),
        "path": change.place.path,
        "before": _document_of(change.before),
        "after": _document_of(change.after),
    }


def _document_of(entry: Entry | None) -> dict[str, Any] | None:
    match entry:
        case File():
            owner = {"mode": f"{entry.mode:04o}", "uid": entry.uid, "gid": entry.gid}
            try:
                return {"text": entry.content.decode("utf-8"), **owner}
            except UnicodeDecodeError:
                return {"base64": base64.b64encode(entry.content).decode("ascii"), **owner}
        case Link():
            return {"link": entry.target}
        case Directory():
            return {"directory": f"{entry.mode:04o}", "uid": entry.uid, "gid": entry.gid}
        case None:
            return None


def _change_from(item: dict[str, Any]) -> Change:
    path = _name(item["path"])
    steps = PurePosixPath(path).parts
    if not steps or path.startswith("/") or ".." in steps:
        raise ValueError(f"path {path!r} leads out of the card")
    return Change(
        place=Place(Volume(item["volume"]), path),
        before=_entry_from(item["before"]),
        after=_entry_from(item["after"]),
    )


def _entry_from(document: dict[str, Any] | None) -> Entry | None:
    if document is None:
        return None
    if "link" in document:
        return Link(target=_name(document["link"]))
    owner = {key: _number(document[key], _IDS) for key in ("uid", "gid")}
    if "directory" in document:
        return Directory(mode=_number(int(document["directory"], 8), _MODES), **owner)
    content = (
        encode(_text(document["text"]))
        if "text" in document
        else base64.b64decode(document["base64"])
    )
    return File(content=content, mode=_number(int(document["mode"], 8), _MODES), **owner)


def _text(value: object) -> str:
    if not isinstance(value, str):
        raise TypeError(f"{value!r} is no text")
    return value


def _name(value: object) -> str:
    """Take a path or a link's target: whoever had the card in hand may have written it."""
    name = _text(value)
    if _CONTROL.search(name):
        raise ValueError(f"{name!a} holds control characters")
    os.fsencode(name)  # a ValueError for what can be no name at all
    return name


def _number(value: object, highest: int) -> int:
    if not isinstance(value, int) or not 0 <= value <= highest:
        raise ValueError(f"{value!r} is no number from 0 to {highest}")
    return value


def places_of(record: Iterable[Change]) -> set[Place]:
    """Return the places that an undo has to read."""
    return {MANIFEST, *(change.place for change in record)}
