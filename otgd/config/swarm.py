"""``[swarm]``: what must hold between the cluster over the cables and the gadgets.

An address that goes with a cable, or a network that is in two places, breaks a swarm without a
word, so both are refused here. What the host's other networks hold is seen at run time.
"""

from __future__ import annotations

from dataclasses import replace
from difflib import get_close_matches
from ipaddress import IPv4Network
from typing import TYPE_CHECKING

from otgd.config.spares import spare_subnet
from otgd.config.values import POOL_PREFIXLEN, quote, show
from otgd.model import SwarmSpec

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Sequence

    from otgd.config.drafts import Draft
    from otgd.config.findings import Findings
    from otgd.config.lines import Path
    from otgd.config.schema import SwarmTable
    from otgd.model import GadgetSpec

_HUB = ("swarm", "hub_address")
_POOL = ("swarm", "address_pool")
_MEMBERS = ("swarm", "members")
_HUB_BLOCK = IPv4Network("10.0.10.0/24")  # just below the guide's subnets
_NO_BLOCK = "make a gadget's subnet smaller: no private block is left"


def check_swarm(
    table: SwarmTable, drafts: Sequence[Draft], *, faulty: Collection[Path], findings: Findings
) -> None:
    """Report everything that does not hold; *faulty* are the paths that ``schema`` took out."""
    subnets = [(subnet, draft) for draft in drafts if (subnet := draft.table.subnet) is not None]
    if _HUB not in faulty:
        _check_hub(table, subnets, findings=findings)
    if _POOL not in faulty:
        _check_pool(table, subnets, findings=findings)
    if _MEMBERS not in faulty:
        _check_isolation(table, drafts, findings=findings)


def check_members(table: SwarmTable, names: Collection[str], *, findings: Findings) -> None:
    """Report members that are none of *names*, every gadget of the file."""
    members = table.members or ()
    left = [name for name in names if name not in members]
    for index, name in enumerate(members):
        if name not in names:
            close = get_close_matches(name.lower(), left, n=1) or left[:1]
            left = [other for other in left if other not in close]
            findings.add(
                (*_MEMBERS, index),
                cause=f"{show(name)} is no gadget of this file",
                remedy=f"write {quote(close[0])}" if close else "remove it",
            )


def swarm_spec(table: SwarmTable | None, gadgets: Sequence[GadgetSpec]) -> SwarmSpec | None:
    """Return the swarm in the model's terms, or None where there is none."""
    if table is None or table.hub_address is None:
        return None
    return SwarmSpec(
        hub_address=table.hub_address,
        address_pool=table.address_pool,
        ssh_user=table.ssh_user,
        members=tuple(gadget.name for gadget in gadgets)
        if table.members is None
        else table.members,
        auto_join=table.auto_join,
    )


def via_hub(gadgets: Iterable[GadgetSpec], swarm: SwarmSpec) -> tuple[GadgetSpec, ...]:
    """Return *gadgets* with the host speaking from its hub address to the members of *swarm*."""
    return tuple(
        replace(gadget, via_hub=True) if gadget.name in swarm.members else gadget
        for gadget in gadgets
    )


def _check_hub(
    table: SwarmTable, subnets: Sequence[tuple[IPv4Network, Draft]], *, findings: Findings
) -> None:
    spare = spare_subnet(_HUB_BLOCK, taken=[table.address_pool, *(block for block, _ in subnets)])
    if table.hub_address is None:
        remedy = f"add hub_address = {quote(spare[1])}" if spare else _NO_BLOCK
        findings.add(_HUB, cause="is missing", remedy=remedy)
        return
    for block, draft in subnets:
        if table.hub_address in block:
            findings.add(
                _HUB,
                cause=f"{quote(table.hub_address)} is in {block} of "
                f"{_place(draft, findings=findings)}, but must outlive every cable",
                remedy=f"write {quote(spare[1])}" if spare else _NO_BLOCK,
            )


def _check_pool(
    table: SwarmTable, subnets: Sequence[tuple[IPv4Network, Draft]], *, findings: Findings
) -> None:
    """Report the first thing that the pool overlaps, also where the pool is the default."""
    obstacles = [(block, f"{block} of {_place(draft, findings=findings)}")
                 for block, draft in subnets]  # fmt: skip
    if table.hub_address is not None:
        obstacles.append((IPv4Network(table.hub_address), f"hub_address {table.hub_address}"))
    obstacle = next((text for block, text in obstacles if block.overlaps(table.address_pool)), None)
    if obstacle is None:
        return
    spare = spare_subnet(table.address_pool, taken=[block for block, _ in obstacles])
    given = "address_pool" in table.model_fields_set
    remedy = f"write {quote(spare)}" if given else f"add address_pool = {quote(spare)}"
    findings.add(
        _POOL,
        cause=f"{'' if given else 'the default '}{quote(table.address_pool)} overlaps {obstacle}",
        remedy=remedy if spare and spare.prefixlen <= POOL_PREFIXLEN else _NO_BLOCK,
    )


def _check_isolation(table: SwarmTable, drafts: Sequence[Draft], *, findings: Findings) -> None:
    """Report members that the others cannot reach: overlay packets go straight between nodes."""
    members = [draft for draft in drafts if table.members is None or draft.name in table.members]
    connected = [draft.name for draft in members if not draft.table.isolate]
    if len(members) < 2 or len(connected) == len(members):
        return
    isolated = next(draft for draft in members if draft.table.isolate)
    where = findings.where(isolated.paths["isolate"])
    proposal = _list_of(connected or [isolated.name])
    given = "members" in table.model_fields_set
    findings.add(
        _MEMBERS,
        cause=f"{isolated.name} is isolated ({where}), so other members cannot reach it",
        remedy=f"write {proposal}" if given else f"add members = {proposal}",
    )


def _list_of(names: Sequence[str]) -> str:
    return f"[{', '.join(map(quote, names))}]"


def _place(draft: Draft, *, findings: Findings) -> str:
    return f"{draft.name} ({findings.where(draft.paths['subnet'])})"
