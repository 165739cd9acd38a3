"""The line locator against documents that tell their own lines.

Each leaf of a generated document is the number of the line that its key stands on, so what tomllib
reads is also what the locator must find.
"""

from __future__ import annotations

import json
import tomllib
from typing import TYPE_CHECKING, Any

from hypothesis import assume, given
from hypothesis import strategies as st

from otgd.config.lines import locate_keys

if TYPE_CHECKING:
    from collections.abc import Iterator

    from otgd.config.lines import Path

KEYS = st.sampled_from(["a", "b-1", "2", "x y", "#", "=", '"', "'", "]", "é", "\\", ".", ""])
DECOYS = ["", "# a = 1", "\t", "# [b]", "  # '''", '# """']


class Writer:
    """Writes a document and knows which line it is on."""

    def __init__(self, draw: st.DrawFn) -> None:
        self._draw = draw
        self.text = ""

    @property
    def line(self) -> int:
        return self.text.count("\n") + 1

    def pick(self, *choices: str) -> str:
        return self._draw(st.sampled_from(choices))

    def blank_lines(self) -> None:
        for decoy in self._draw(st.lists(st.sampled_from(DECOYS), max_size=3)):
            self.text += decoy + self.pick("\n", "\r\n")

    def end_line(self) -> None:
        self.text += self.pick("", " ", " # c = 1", " # ]") + self.pick("\n", "\r\n")

    def key(self) -> None:
        parts = [self._quoted(part) for part in self._draw(st.lists(KEYS, min_size=1, max_size=3))]
        self.text += self.pick(".", " . ", "\t.").join(parts)

    def _quoted(self, key: str) -> str:
        if key in {"a", "b-1", "2"} and self._draw(st.booleans()):
            return key
        if "'" not in key and self._draw(st.booleans()):
            return f"'{key}'"
        return json.dumps(key, ensure_ascii=self._draw(st.booleans()))

    def statement(self, depth: int) -> None:
        self.key()
        self.text += self.pick("=", " = ", "\t= ")
        self.value(depth)

    def value(self, depth: int) -> None:
        line = self.line
        kinds = ["number", "string", "literal", "long", "long literal"]
        match self.pick(*kinds, *(["array", "table"] if depth else [])):
            case "number":
                self.text += str(line)
            case "string":
                self.text += f'"{line} \\" # ] }} \\\\"'
            case "literal":
                self.text += f"'{line} \" # ] }} \\'"
            case "long":
                self.text += f'"""{line} \n[x]\na = 1 \\""" \\\n " ""{self.pick("", chr(34))}"""'
            case "long literal":
                self.text += f"'''{line} \n[x]\n '' \\{self.pick('', chr(39))}'''"
            case "array":
                self.array(depth - 1)
            case _:
                self.inline_table(depth - 1)

    def array(self, depth: int) -> None:
        self.text += "["
        for _ in range(self._draw(st.integers(0, 3))):
            self.space()
            self.value(depth)
            self.space()
            self.text += ","
        self.space()
        self.text += "]"

    def space(self) -> None:
        self.text += self.pick("", " ", "\n", " # ] ,\n", "\r\n\t")

    def inline_table(self, depth: int) -> None:
        self.text += "{" + self.pick("", " ")
        for index in range(self._draw(st.integers(0, 2))):
            self.text += ", " if index else ""
            self.statement(depth)
        self.text += self.pick("", " ") + "}"

    def header(self) -> None:
        brackets = self.pick("[]", "[[]]")
        half = len(brackets) // 2
        self.text += brackets[:half] + self.pick("", " ")
        self.key()
        self.text += self.pick("", " ") + brackets[half:]


@st.composite
def documents(draw: st.DrawFn) -> str:
    writer = Writer(draw)
    for _ in range(draw(st.integers(0, 6))):
        writer.blank_lines()
        writer.text += draw(st.sampled_from(["", "  "]))
        if draw(st.booleans()):
            writer.header()
        else:
            writer.statement(depth=2)
        writer.end_line()
    return writer.text


def leaves(value: object, path: Path = ()) -> Iterator[tuple[Path, object]]:
    """Yield every path of a document; containers too, with None."""
    match value:
        case dict():
            parts: list[tuple[str | int, Any]] = list(value.items())
        case list():
            parts = list(enumerate(value))
        case _:
            yield path, value
            return
    if path:
        yield path, None
    for part, child in parts:
        yield from leaves(child, (*path, part))


def parsed(text: str) -> dict[str, Any]:
    try:
        return tomllib.loads(text)
    except tomllib.TOMLDecodeError:
        assume(False)  # noqa: FBT003 - hypothesis' own way; a key came twice
        raise


@given(documents())
def test_every_path_is_found_on_its_line(text: str) -> None:
    document = parsed(text)
    lines = locate_keys(text)
    assert set(lines) == {path for path, _ in leaves(document)}
    for path, value in leaves(document):
        if value is not None:
            assert lines[path] == int(str(value).split()[0]), path


@given(documents())
def test_no_table_stands_after_what_it_holds(text: str) -> None:
    parsed(text)
    lines = locate_keys(text)
    for path, line in lines.items():
        assert all(lines[path[:length]] <= line for length in range(1, len(path)))


TOKENS = ["a", "=", "1", '"', "'", '"""', "'''", "\n", "[", "]", "{", "}", ",", ".", "#", " ", "\\"]


@given(st.lists(st.sampled_from(TOKENS), max_size=14).map("".join))
def test_whatever_tomllib_accepts_is_located(text: str) -> None:
    try:
        document = tomllib.loads(text)
    except tomllib.TOMLDecodeError:
        return
    assert set(locate_keys(text)) == {path for path, _ in leaves(document)}
