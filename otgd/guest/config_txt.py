"""config.txt, the firmware's settings: ``key=value`` lines under conditional filters.

Semantics, from Raspberry Pi's documentation ("config.txt", "conditional filters"): a later line
wins; a filter replaces the former one of its kind and adds to those of other kinds; ``[all]``
lifts them all, ``[none]`` lets nothing through. ``[pi0]`` means Zero, Zero W and Zero 2 W.
Only ever appends, so whatever was there survives as it was.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

_FILTER = re.compile(r"\[(.*)\]")
_MODEL = re.compile(r"(pi|cm)\d\w*\+?", re.IGNORECASE)
_EVERY_ZERO = "pi0"
_SOME_ZERO = frozenset({"pi0w", "pi02"})


@dataclass(frozen=True, slots=True)
class Setting:
    """One ``key=value`` line that a Zero may obey; *certain* when every Zero does."""

    key: str
    value: str
    certain: bool


@dataclass(slots=True)
class _Filters:
    """The filters in force; kinds other than the model's cannot be judged from here."""

    model: str = ""
    other: frozenset[str] = frozenset()
    none: bool = False

    @property
    def lifted(self) -> bool:
        return not (self.model or self.other or self.none)

    @property
    def possible(self) -> bool:
        return not self.none and self.model in {"", _EVERY_ZERO, *_SOME_ZERO}

    @property
    def certain(self) -> bool:
        return not self.none and not self.other and self.model in {"", _EVERY_ZERO}

    def enter(self, name: str) -> None:
        match name.lower():
            case "all":
                self.model, self.other, self.none = "", frozenset(), False
            case "none":
                self.none = True
            case model if _MODEL.fullmatch(model):
                # Whether a model lifts [none] is not documented: such lines are never certain.
                self.other |= {"none"} if self.none else set()
                self.model, self.none = model, False
            case other:
                self.other |= {other}


def settings(text: str) -> Iterator[Setting]:
    """Yield the settings that apply, or may apply, to a Zero, in order."""
    filters = _Filters()
    for setting, _ in _walk(text, filters):
        if setting is not None:
            yield setting


def _walk(text: str, filters: _Filters) -> Iterator[tuple[Setting | None, str]]:
    for raw in text.split("\n"):
        line = raw.strip()
        found = _FILTER.match(line)
        if found:
            filters.enter(found[1].strip())
        key, equals, value = line.partition("=")
        applies = equals and not found and not line.startswith("#") and filters.possible
        yield Setting(key.strip(), value.strip(), filters.certain) if applies else None, line


def effective(text: str, key: str) -> Setting | None:
    """Return the last line that sets *key* for a Zero."""
    return next((one for one in reversed(list(settings(text))) if one.key == key), None)


def with_gadget(text: str, *, gpu_mem: bool | None = None) -> str:
    """Return config.txt with the OTG overlay and, where it applies, the smallest GPU share.

    ``gpu_mem=16`` selects the firmware's cut-down build, which has no camera: by default it is
    left out where the card asks for the camera build (``start_x=1``).
    """
    lines = [] if _has_overlay(text) else ["dtoverlay=dwc2"]
    if gpu_mem is None:
        gpu_mem = not _has_camera(text)
    if gpu_mem:
        lines += [f"{key}=16" for key in _gpu_keys(text) if not _is_sixteen(text, key)]
    if not lines:
        return text
    filters = _Filters()
    for _ in _walk(text, filters):
        pass
    if not filters.lifted:
        lines.insert(0, "[all]")
    eol = "\r\n" if "\r\n" in text else "\n"
    joint = "" if not text or text.endswith("\n") else eol
    return text + joint + "".join(line + eol for line in lines)


def _has_overlay(text: str) -> bool:
    """Whether the last dwc2 overlay for Zeros surely leaves the port able to be a gadget's."""
    mode = None
    for one in settings(text):
        name, _, parameters = one.value.partition(",")
        if one.key in {"dtoverlay", "device_tree_overlay"} and name == "dwc2":
            mode = (one.certain, "dr_mode=host" not in parameters.split(","))
    return mode == (True, True)


def _has_camera(text: str) -> bool:
    start_x, start_file = effective(text, "start_x"), effective(text, "start_file")
    return bool(
        (start_x and start_x.value == "1") or (start_file and start_file.value == "start_x.elf")
    )


def _gpu_keys(text: str) -> tuple[str, ...]:
    """The keys to set: on a board with 512 MB, as every Zero is, gpu_mem_512 overrides."""
    return ("gpu_mem", "gpu_mem_512") if effective(text, "gpu_mem_512") else ("gpu_mem",)


def _is_sixteen(text: str, key: str) -> bool:
    setting = effective(text, key)
    return setting is not None and setting.certain and setting.value == "16"
