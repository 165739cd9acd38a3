"""cmdline.txt, the kernel's command line: one line of arguments separated by white space.

The kernel takes double quotes as part of an argument that may then hold blanks (lib/cmdline.c,
next_arg) and gives what follows ``--`` to init. It reads ``-`` and ``_`` in a module's name alike.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

_ARGUMENT = re.compile(r'(?:"[^"]*"?|[^\s"])+', re.ASCII)
_BLANKS = " \t\r\n\f\v"
_OURS = ("dwc2", "g_ether")
_RIVALS = frozenset(
    f"g_{name}"
    for name in (
        *("acm_ms", "audio", "cdc", "ether", "ffs", "hid", "mass_storage", "midi", "multi"),
        *("ncm", "nokia", "printer", "serial", "webcam", "zero"),
    )
)
"""Gadget drivers (drivers/usb/gadget/legacy): a Zero's one controller serves the first of them."""


def arguments(text: str) -> list[str]:
    """Split a command line as the kernel does; further lines count as one with the first."""
    return _ARGUMENT.findall(re.sub(r"[\r\n]", " ", text.strip(_BLANKS)))


def with_gadget(text: str, *, host_mac: str, guest_mac: str | None) -> str:
    """Return the command line that makes the Zero a g_ether gadget with these MACs.

    Our arguments come right after ``rootwait``. Imager's first boot cuts the line off at
    ``systemd.run`` and the kernel stops at ``--``: where rootwait is missing or comes too late,
    ours go to the front. Everything else is kept, in order, on one line. Without *guest_mac* the
    line's own ``g_ether.dev_addr``, if any, stays.
    """
    given = arguments(text)
    ours = ["modules-load=dwc2,g_ether", f"g_ether.host_addr={host_mac}"]
    replaced = {"g_ether.host_addr"}
    if guest_mac:
        ours.append(f"g_ether.dev_addr={guest_mac}")
        replaced.add("g_ether.dev_addr")
    end = given.index("--") if "--" in given else len(given)
    kept = [kept for argument in given[:end] if (kept := _without_ours(argument, replaced))]
    at = _insertion_point(kept)
    wanted = [*kept[:at], *ours, *kept[at:], *given[end:]]
    if wanted == given and "\n" not in text.strip(_BLANKS):
        return text
    return " ".join(wanted) + "\n"


def _without_ours(argument: str, replaced: set[str]) -> str:
    """Return what is left of *argument* once its share of our settings is taken out."""
    name, equals, value = argument.partition("=")
    name = name.replace("-", "_")
    if name in replaced:
        return ""
    if name != "modules_load" or not equals:
        return argument
    modules = value.strip('"').split(",")
    others = [one for one in modules if one.replace("-", "_") not in {*_OURS, *_RIVALS, ""}]
    if others == modules:
        return argument
    return f"modules-load={','.join(others)}" if others else ""


def _insertion_point(kept: Sequence[str]) -> int:
    cut = next((i for i, one in enumerate(kept) if one.startswith("systemd.run")), len(kept))
    if "rootwait" not in kept[:cut]:
        return 0
    return kept.index("rootwait") + 1
