"""Puts one block into a YAML file of the plain kind that people and Imager write for cloud-init.

Not a YAML library on purpose: it has to keep every comment and blank of a file that is not ours.
It knows nested block mappings; where it meets anything else on its way, it refuses.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from otgd.guest.tree import CardError

if TYPE_CHECKING:
    from collections.abc import Sequence

_KEY = re.compile(r"""( *)["']?([^\s"'#:-][^"':]*?)["']?\s*:(?:\s+(.*))?$""")


def put(text: str, keys: Sequence[str], block: Sequence[str], *, name: str) -> str:
    """Return *text* with the mapping at *keys* replaced by *block*, or added.

    Args:
        text: the file.
        keys: the way to the block, outermost key first.
        block: the lines of the block, its own ``key:`` line first, unindented.
        name: the file's name for messages.

    Raises:
        CardError: the file is written in a way that this cannot edit.
    """
    if "\t" in text:
        raise CardError(f"edit {name}: it holds tabs, which YAML forbids; replace them by blanks")
    lines = text.split("\n")
    _put(lines, 0, len(lines), keys, block, name)
    return "\n".join(lines)


def top_level(text: str) -> set[str]:
    """Return the keys of the outermost mapping."""
    found = (_KEY.match(line) for line in text.split("\n") if not line.startswith((" ", "#")))
    return {match[2] for match in found if match}


def block_at(text: str, key: str) -> str:
    """Return the lines of the outermost *key* with all that is under it, empty if none."""
    lines = text.split("\n")
    at = _find(lines, 0, len(lines), key)
    return "" if at is None else "\n".join(lines[at : _end(lines, at, len(lines))])


def _put(
    lines: list[str], start: int, stop: int, keys: Sequence[str], block: Sequence[str], name: str
) -> None:
    """Put *block* at *keys* into the mapping that lies in lines[start:stop]."""
    indent = _indent_of_mapping(lines, start, stop, name)
    if indent is None:
        indent = 0 if start == 0 else _indent(lines[start - 1]) + 2
    at = _find(lines, start, stop, keys[0], indent)
    if at is None:
        above = [" " * (indent + 2 * depth) + f"{key}:" for depth, key in enumerate(keys[:-1])]
        depth = indent + 2 * (len(keys) - 1)
        new = [*above, *(" " * depth + line for line in block)]
        _insert(lines, _end(lines, start - 1, stop) if start else _last(lines, 0, stop), new)
    elif len(keys) == 1:
        lines[at : _end(lines, at, stop)] = [" " * indent + line for line in block]
    else:
        match = _KEY.match(lines[at])
        if match is None or (match[3] or "").partition("#")[0].strip():
            raise CardError(
                f"edit {name}: line {at + 1} ({lines[at].strip()}) is no plain block; "
                "write the mapping on indented lines of its own below the key"
            )
        _put(lines, at + 1, _end(lines, at, stop), keys[1:], block, name)


def _insert(lines: list[str], at: int, new: list[str]) -> None:
    """Insert lines at *at*, and a line end after them where the file had none."""
    lines[at:at] = new
    if lines[-1] != "":
        lines.append("")


def _indent(line: str) -> int:
    return len(line) - len(line.lstrip(" "))


def _is_content(line: str) -> bool:
    stripped = line.strip()
    return bool(stripped) and not stripped.startswith("#") and stripped not in {"---", "..."}


def _indent_of_mapping(lines: Sequence[str], start: int, stop: int, name: str) -> int | None:
    for number in range(start, stop):
        if not _is_content(lines[number]):
            continue
        if _KEY.match(lines[number]) is None:
            raise CardError(
                f"edit {name}: line {number + 1} ({lines[number].strip()}) is no `key:` line; "
                "write the file as block mappings"
            )
        return _indent(lines[number])
    return None


def _find(lines: Sequence[str], start: int, stop: int, key: str, indent: int = 0) -> int | None:
    for number in range(start, stop):
        match = _KEY.match(lines[number]) if _is_content(lines[number]) else None
        if match and len(match[1]) == indent and match[2] == key:
            return number
    return None


def _end(lines: Sequence[str], at: int, stop: int) -> int:
    """The line after the last that belongs to the block whose key is on line *at*.

    A list may stand at its key's own indent ("users:", then "- name: …").
    """
    indent = _indent(lines[at])
    last = at
    for number in range(at + 1, stop):
        line = lines[number]
        if not _is_content(line):
            continue
        if _indent(line) < indent or (_indent(line) == indent and line.strip()[:1] != "-"):
            break
        last = number
    return last + 1


def _last(lines: Sequence[str], start: int, stop: int) -> int:
    """The line after the last one that is not blank."""
    while stop > start and not lines[stop - 1].strip():
        stop -= 1
    return stop
