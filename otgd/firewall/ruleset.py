"""Sets of firewall rules, as every keeper of ``FirewallPort`` understands them.

A gadget has at most one rule of a kind, and a link one quarantine: an added rule takes the place
of the one that it competes with, so no transaction depends on the order of its parts. Pure.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from otgd.model import Quarantine, Stray

if TYPE_CHECKING:
    from collections.abc import Collection

    from otgd.model import Rule


def changed(
    held: Collection[Rule], *, remove: Collection[Rule], add: Collection[Rule]
) -> frozenset[Rule]:
    """Return what *held* becomes; a stray is never kept nor made."""
    kept = {_place(rule): rule for rule in held if rule not in remove}
    kept |= {_place(rule): rule for rule in add}
    return frozenset(rule for rule in kept.values() if not isinstance(rule, Stray))


def _place(rule: Rule) -> tuple[type[Rule], str]:
    match rule:
        case Quarantine(ifname=ifname):
            return Quarantine, ifname
        case Stray(text=text):
            return Stray, text
        case _:
            return type(rule), rule.gadget
