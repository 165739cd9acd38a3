"""The files of a config: read, taken for TOML, laid into one document.

The main file comes first, then the drop-ins beside it in the order of their names. They add to each
other; what two of them say is refused, even if it is the same. Knows nothing of what keys mean.
"""

from __future__ import annotations

import re
import tomllib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from otgd.config.findings import Place, dotted
from otgd.config.lines import locate_keys
from otgd.errors import ConfigError, Problem

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path as FilePath

    from otgd.config.lines import Lines, Path

_POSITION = re.compile(r" \(at (?:line (?P<line>\d+), column \d+|end of document)\)$")
_UNQUOTED = re.compile(r"""(?P<key>[^=]+?)\s*=\s*(?P<value>[^\s"'\[{#][^"#=]{0,80}?)\s*(?:#.*)?""")
_DOUBLED = re.compile(
    r"Cannot (declare .* twice|overwrite a value)|Duplicate inline table key '(?P<key>.*)'"
)
_OPEN_QUOTE = re.compile(
    r"""(?:Illegal|Found invalid) character '\\n'|Unterminated string|Expected "(?P<mark>'+)\""""
)
_HALF_QUOTED = re.compile(
    r"""(?P<key>[^=]+?)\s*=\s*(?P<quote>["'])(?P<value>[^"'#]*?)["']?\s*(?:#.*)?"""
)
_STRAIGHT = str.maketrans("\u201c\u201d\u201e\u201f\u00ab\u00bb\u2018\u2019", '"' * 6 + "'" * 2)
_TRUTH = re.compile(r"=\s*(true|false)\b", re.IGNORECASE)
_READING = (
    (FileNotFoundError, "write the file, or name another one with --config"),
    (IsADirectoryError, "name a file"),
    (PermissionError, "make it readable for everybody (chmod a+r), since otgd is not root"),
    (OSError, "make the file readable, or name another one with --config"),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Source:
    """One file: its name in messages, and what it holds."""

    file: str
    text: str


def drop_in_directory(path: FilePath) -> FilePath:
    """Return where the drop-ins of the config file at *path* lie: ``otgd.toml.d`` beside it."""
    return path.parent / f"{path.name}.d"


def read_sources(path: FilePath) -> tuple[Source, ...]:
    """Read the config file at *path*, and its drop-ins by their names.

    Raises:
        ConfigError: one of them cannot be read; carries every problem.
    """
    directory = drop_in_directory(path)
    problems: list[Problem] = []
    files = [path]
    try:
        files += sorted(each for each in directory.iterdir() if _is_drop_in(each))
    except (FileNotFoundError, NotADirectoryError):
        pass
    except OSError as error:
        problems += _unreadable(directory, error).problems
    sources = []
    for file in files:
        try:
            sources.append(Source(file=str(file), text=_read(file)))
        except ConfigError as refused:
            problems += refused.problems
    if problems:
        raise ConfigError(tuple(problems))
    return tuple(sources)


def _is_drop_in(path: FilePath) -> bool:
    return path.suffix == ".toml" and not path.name.startswith(".")


def _read(path: FilePath) -> str:
    try:
        content = path.read_bytes()
    except OSError as error:
        raise _unreadable(path, error) from error
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise _refused(
            str(path), line=line, cause="is not UTF-8 text", remedy="save the file as UTF-8"
        ) from error


def _unreadable(path: FilePath, error: OSError) -> ConfigError:
    remedy = next(text for kind, text in _READING if isinstance(error, kind))
    return _refused(str(path), line=None, cause=f"cannot be read: {error.strerror}", remedy=remedy)


def merge_sources(
    sources: Sequence[Source],
) -> tuple[dict[str, Any], dict[Path, Place], tuple[Problem, ...]]:
    """Return one document, where each of its keys stands, and what is there twice.

    Raises:
        ConfigError: a file is not TOML; carries a problem for each such file.
    """
    parsed = []
    problems: list[Problem] = []
    for source in sources:
        try:
            parsed.append(_parse_toml(source.text, file=source.file))
        except ConfigError as refused:
            problems += refused.problems
    if problems:
        raise ConfigError(tuple(problems))
    merger = _Merger()
    for rank, (source, (raw, lines)) in enumerate(zip(sources, parsed, strict=True)):
        own = {path: Place(rank=rank, line=line, file=source.file) for path, line in lines.items()}
        merger.add(merger.raw, raw, own)
        merger.places = own | merger.places
    return merger.raw, merger.places, tuple(merger.doubled)


class _Merger:
    """Lays documents into one."""

    def __init__(self) -> None:
        self.raw: dict[str, Any] = {}
        self.places: dict[Path, Place] = {}
        self.doubled: list[Problem] = []

    def add(
        self, table: dict[str, Any], more: dict[str, Any], own: dict[Path, Place], at: Path = ()
    ) -> None:
        """Lay *more* into *table*, both at the path *at*; *own* are the places in its file."""
        for key, value in more.items():
            path = (*at, key)
            if key not in table:
                table[key] = value
            elif isinstance(value, dict) and isinstance(table[key], dict):
                self.add(table[key], value, own, path)
            else:
                place = own[path]
                self.doubled.append(
                    Problem(
                        file=place.file,
                        line=place.line,
                        key=dotted(path),
                        cause=f"is there already, in {self.places[path]}",
                        remedy="remove one of them",
                    )
                )


def _parse_toml(text: str, *, file: str) -> tuple[dict[str, Any], Lines]:
    try:
        return tomllib.loads(text), locate_keys(text)
    except RecursionError:
        raise _refused(
            file, line=None, cause="is nested too deep", remedy="remove brackets"
        ) from None
    except tomllib.TOMLDecodeError as error:
        raise _syntax_error(text, str(error), file=file) from error
    except ValueError as error:  # int() takes 4300 digits, bpo-95778
        raise _refused(
            file,
            line=None,
            cause="has a number of thousands of digits",
            remedy="write a lesser one",
        ) from error


def _syntax_error(text: str, message: str, *, file: str) -> ConfigError:
    lines = text.split("\n")
    position = _POSITION.search(message)
    number = int(position["line"]) if position and position["line"] else len(lines)
    message = _POSITION.sub("", message)
    opened = _locate_open_quote(text, message, number)
    number = opened or number
    statement = lines[number - 1].strip()
    if doubled := _DOUBLED.fullmatch(message):
        name = doubled["key"] or statement.partition("=")[0].strip()
        cause, remedy = f"{name} is there twice", "remove one of them, or give it another name"
    elif straight := _with_straight_quotes(statement):
        cause, remedy = "has the quotes of a word processor", f"write {straight}"
    elif opened:
        cause = "a quote is not closed"
        remedy = f"write {_with_closed_quote(statement) or 'text in one line between two quotes'}"
    elif plain := _in_small_letters(statement):
        cause, remedy = "true and false have small letters", f"write {plain}"
    elif quoted := _with_quotes(statement):
        cause, remedy = "text stands without quotes", f"write {quoted}"
    else:
        cause, remedy = (
            f"is not TOML: {message}",
            "write key = value (text in double quotes) or [table]",
        )
    return _refused(file, line=number, cause=cause, remedy=remedy)


def _locate_open_quote(text: str, message: str, number: int) -> int | None:
    """Return the line of the quote that is not closed; None if that is not what *message* means.

    *number* is the line that tomllib names, or the last one.
    """
    found = _OPEN_QUOTE.fullmatch(message)
    if found is None:
        return None
    # Of a text that runs to the end of the file tomllib does not tell where it began.
    mark = found["mark"]
    if message.startswith("Unterminated") and '"' not in text.rpartition("\n")[2]:
        mark = '"""'
    return text.count("\n", 0, text.rindex(mark)) + 1 if mark else number


def _with_closed_quote(statement: str) -> str | None:
    """Return *statement* with its value in two quotes, if that is what it lacks."""
    match = _HALF_QUOTED.fullmatch(statement)
    if match is None:
        return None
    closed = f"{match['key']} = {match['quote']}{match['value']}{match['quote']}"
    return closed if _is_toml(closed) else None


def _with_quotes(statement: str) -> str | None:
    """Return *statement* with its value in quotes, if that is what it lacks."""
    match = _UNQUOTED.fullmatch(statement)
    if match is None:
        return None
    quoted = f'{match["key"]} = "{match["value"]}"'
    return quoted if _is_toml(quoted) and not _is_toml(statement) else None


def _with_straight_quotes(statement: str) -> str | None:
    """Return *statement* with the quotes of TOML, if that is what it lacks."""
    straight = statement.translate(_STRAIGHT)
    return straight if straight != statement and _is_toml(straight) else None


def _in_small_letters(statement: str) -> str | None:
    """Return *statement* with its truth as TOML writes it, if that is what it lacks."""
    plain = _TRUTH.sub(lambda match: match[0].lower(), statement)
    return plain if plain != statement and _is_toml(plain) else None


def _is_toml(text: str) -> bool:
    try:
        tomllib.loads(text)
    except ValueError:
        return False
    return True


def _refused(file: str, *, line: int | None, cause: str, remedy: str) -> ConfigError:
    return ConfigError((Problem(file=file, line=line, key="", cause=cause, remedy=remedy),))
