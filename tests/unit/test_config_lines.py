"""Where keys stand in documents that are hard to read."""

from __future__ import annotations

import pytest

from otgd.config.lines import Path, locate_keys

CASES: dict[str, tuple[str, dict[Path, int]]] = {
    "table and key": ("\n[a]\nb = 1\n", {("a",): 2, ("a", "b"): 3}),
    "windows line ends": ("a = 1\r\nb = 2\r\n", {("a",): 1, ("b",): 2}),
    "no line end": ("a = 1", {("a",): 1}),
    "comment that looks like a key": ("# b = 1\na = 1 # c = 2\n", {("a",): 2}),
    "table named by its child first": (
        "[a.b]\n[a]\nc = 1\n",
        {("a",): 1, ("a", "b"): 1, ("a", "c"): 3},
    ),
    "dotted key": ("a . b = 1\na.c = 2", {("a",): 1, ("a", "b"): 1, ("a", "c"): 2}),
    "quoted keys": (
        '"a.b" = 1\n\'c"\' = 2\n"\\u00e9\\"" = 3\n[ \'x y\' . "=" ]',
        {("a.b",): 1, ('c"',): 2, ('é"',): 3, ("x y",): 4, ("x y", "="): 4},
    ),
    "multi-line string": ('a = """\nb = 1\n[c]\\\n"""\nd = 1', {("a",): 1, ("d",): 5}),
    "multi-line string that ends in quotes": (
        'a = """\n"quoted"""""\nb = 1',
        {("a",): 1, ("b",): 3},
    ),
    "multi-line string with an escaped quote": ('a = """\n\\""""\nb = 1', {("a",): 1, ("b",): 3}),
    "literal string with a backslash": ("a = '\\'\nb = 1", {("a",): 1, ("b",): 2}),
    "multi-line literal string": ("a = '''\n\\'''''\nb = 1", {("a",): 1, ("b",): 3}),
    "empty strings": (
        'a = ""\nb = \'\'\nc = """"""\nd = 1',
        {("a",): 1, ("b",): 2, ("c",): 3, ("d",): 4},
    ),
    "array over lines": (
        "a = [ # ]\n  1, '],',\n  [2,\n 3],\n]\nb = 1",
        {("a",): 1, ("a", 0): 2, ("a", 1): 2, ("a", 2): 3, ("a", 2, 0): 3, ("a", 2, 1): 4}
        | {("b",): 6},
    ),
    "empty array and table": ("a = [\n]\nb = { }\nc = 1", {("a",): 1, ("b",): 3, ("c",): 4}),
    "inline table": (
        "a = { b = 1, 'c' = \"}\", d.e = [ { f = 2 } ] }\ng = 1",
        {("a",): 1, ("a", "b"): 1, ("a", "c"): 1, ("a", "d"): 1, ("a", "d", "e"): 1}
        | {("a", "d", "e", 0): 1, ("a", "d", "e", 0, "f"): 1, ("g",): 2},
    ),
    "inline table over lines (TOML 1.1)": (
        "a = {\n  b = 1, # }\n  c = 2,\n}\nd = 1",
        {("a",): 1, ("a", "b"): 2, ("a", "c"): 3, ("d",): 5},
    ),
    "array of tables": (
        "[[a]]\nb = 1\n[[a]]\nb = 2\n[a.c]\nd = 3\n[[a.e]]\n",
        {("a",): 1, ("a", 0): 1, ("a", 0, "b"): 2, ("a", 1): 3, ("a", 1, "b"): 4}
        | {("a", 1, "c"): 5, ("a", 1, "c", "d"): 6, ("a", 1, "e"): 7, ("a", 1, "e", 0): 7},
    ),
    "dates and numbers": (
        "a = 1979-05-27 07:32:00 # b\nc = [1e3,-inf]\nd = true",
        {("a",): 1, ("c",): 2, ("c", 0): 2, ("c", 1): 2, ("d",): 3},
    ),
}


@pytest.mark.parametrize(("text", "lines"), CASES.values(), ids=CASES)
def test_keys_are_located(text: str, lines: dict[Path, int]) -> None:
    assert locate_keys(text) == lines


def test_scanner_does_not_guess_about_what_tomllib_refuses() -> None:
    with pytest.raises(AssertionError, match="line 2: tomllib accepted what the scanner cannot"):
        locate_keys("a = 1\n= 2")
