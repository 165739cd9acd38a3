"""Sets of firewall rules, as every keeper of ``FirewallPort`` understands them.

A gadget has at most one rule of a kind, a link one quarantine, and a subnet one masquerade for an
uplink, also while its gadget is renamed: an added rule takes the place of those that it competes
with, so no transaction depends on the order of its parts. Pure.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from otgd.model import Masquerade, Quarantine, Stray

if TYPE_CHECKING:
    from collections.abc import Collection
    from ipaddress import IPv4Network

    from otgd.model import Rule


def changed(
    held: Collection[Rule], *, remove: Collection[Rule], add: Collection[Rule]
) -> frozenset[Rule]:
    """Return what *held* becomes; a stray is never kept nor made."""
    taken = {way for rule in add if (way := way_out(rule))}
    kept = {
        _place(rule): rule for rule in held if rule not in remove and way_out(rule) not in taken
    }
    kept |= {_place(rule): rule for rule in add}
    return frozenset(rule for rule in kept.values() if not isinstance(rule, Stray))


def way_out(rule: Rule) -> tuple[IPv4Network, str] | None:
    """Return the subnet and the uplink that the rule masquerades, if it is for that."""
    return (rule.subnet, rule.uplink) if isinstance(rule, Masquerade) else None


def _place(rule: Rule) -> tuple[type[Rule], str]:
    match rule:
        case Quarantine(ifname=ifname):
            return Quarantine, ifname
        case Stray(text=text):
            return Stray, text
        case _:
            return type(rule), rule.gadget
