"""Which cable is which node: the swarm's nodes beside otgd's gadgets, and what is wrong with each.

Pure. A node is a gadget's when its address is that guest's; the host's own is at hub_address.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from otgd.errors import PermanentError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from ipaddress import IPv4Address

    from otgd.model import GadgetSpec
    from otgd.swarm.members import Node

UP = frozenset({"configured", "reachable"})
HOST = "host"
UNKNOWN = "unknown"


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """A gadget as otgd tells it; ``unknown`` while it does not run."""

    spec: GadgetSpec
    state: str = UNKNOWN
    port: str = ""
    reason: str = ""

    @property
    def may_answer(self) -> bool:
        """Whether its guest is worth asking."""
        return self.state in UP or self.state == UNKNOWN


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """A node, a gadget, or both in one.

    Attributes:
        node: None where the gadget is no node.
        place: None where the node is no gadget's.
        is_hub: the node is the host itself.
        reason: one sentence if something is to be done, or explained; else empty.
    """

    node: Node | None
    place: Place | None
    is_hub: bool = False
    reason: str = ""

    @property
    def name(self) -> str:
        """What the row is called: its gadget, ``host``, or the stranger's hostname."""
        if self.place is not None:
            return self.place.spec.name
        return HOST if self.is_hub or self.node is None else self.node.hostname


def places(gadgets: Sequence[GadgetSpec], told: Mapping[str, Any] | None) -> tuple[Place, ...]:
    """Put what state.json tells beside the config's gadgets."""
    entries = {each["name"]: each for each in told["gadgets"]} if told else {}
    return tuple(
        Place(
            spec=spec,
            state=entries[spec.name]["state"],
            port=entries[spec.name]["port"] or "",
            reason=entries[spec.name]["reason"],
        )
        if spec.name in entries
        else Place(spec=spec)
        for spec in gadgets
    )


def make_roster(
    nodes: Sequence[Node], members: Sequence[Place], hub: IPv4Address
) -> tuple[Row, ...]:
    """Join nodes with gadgets: the host first, then gadgets in their order, then the rest."""
    return (*_hub_rows(nodes, hub), *_member_rows(nodes, members), *_rest(nodes, members, hub))


def _hub_rows(nodes: Sequence[Node], hub: IPv4Address) -> Iterator[Row]:
    for node in nodes:
        if node.address == str(hub):
            yield Row(node=node, place=None, is_hub=True, reason=_node_trouble(node))


def _member_rows(nodes: Sequence[Node], members: Sequence[Place]) -> Iterator[Row]:
    for place in members:
        mine = [node for node in nodes if node.address == str(place.spec.guest)]
        mine.sort(key=lambda node: not node.is_ready)
        yield Row(
            node=mine[0] if mine else None,
            place=place,
            reason=_trouble(mine[0] if mine else None, place),
        )
        for former in mine[1:]:
            reason = f"its place is taken by {mine[0].id[:12]}; otgctl swarm rm {former.id[:12]}"
            yield Row(node=former, place=place, reason=reason)


def _rest(nodes: Sequence[Node], members: Sequence[Place], hub: IPv4Address) -> Iterator[Row]:
    known = {str(place.spec.guest) for place in members} | {str(hub)}
    for node in nodes:
        if node.address not in known:
            reason = f"no member has the address {node.address}"
            if not node.is_ready:
                reason += f"; otgctl swarm rm {node.id[:12]}"
            yield Row(node=node, place=None, reason=reason)


def _trouble(node: Node | None, place: Place) -> str:
    if node is None:
        if place.state in UP:
            return "not in the swarm; otgctl swarm up"
        return place.reason or f"not in the swarm; its gadget is {place.state}"
    if node.is_ready:
        # The manager takes some seconds to notice.
        return (
            _node_trouble(node)
            if place.may_answer
            else (f"Docker has not noticed yet: {place.reason}")
        )
    if place.state == "reachable":
        return (
            "the guest answers, its engine does not; type: "
            f"ssh {place.spec.guest} sudo systemctl restart docker"
        )
    return place.reason or _node_trouble(node)


def _node_trouble(node: Node) -> str:
    if not node.is_ready:
        return node.message
    if node.availability != "active":
        return f"it gets no work; docker node update --availability active {node.hostname}"
    return ""


def dead_node(rows: Sequence[Row], name: str) -> Node:
    """Return the node that *name* (id, its beginning, hostname or gadget) means, if it is down.

    Raises:
        PermanentError: it is none, several, or alive.
    """
    matches = {
        row.node.id: row.node
        for row in rows
        if row.node and (name in (row.node.hostname, row.name) or row.node.id.startswith(name))
    }
    dead = [node for node in matches.values() if not node.is_ready]
    if not matches:
        raise PermanentError(f"{name} is no node of the swarm; type: otgctl swarm ls")
    if not dead:
        live = next(iter(matches.values()))
        raise PermanentError(
            f"{name} ({live.id[:12]}) is {live.state}, and only dead nodes are forgotten; type: "
            f"otgctl swarm leave {name}"
        )
    if len(dead) > 1:
        ids = ", ".join(node.id[:12] for node in dead)
        raise PermanentError(f"{name} is several nodes: {ids}; give one of these")
    return dead[0]


def document(row: Row) -> dict[str, Any]:
    """Return a row for programs."""
    node, place = row.node, row.place
    return {
        "name": row.name,
        "gadget": place.spec.name if place else None,
        "gadget_state": place.state if place else None,
        "port": (place.port or None) if place else None,
        "address": str(place.spec.guest) if place else node.address if node else None,
        "node": node.id if node else None,
        "hostname": node.hostname if node else place.spec.hostname if place else None,
        "status": node.state if node else None,
        "availability": node.availability if node else None,
        "role": node.role if node else None,
        "leader": node.leader if node else False,
        "engine": (node.engine or None) if node else None,
        "machine": (node.machine or None) if node else None,
        "reason": row.reason,
    }


@dataclass(frozen=True, slots=True, kw_only=True)
class Change:
    """A node that is in another state than before.

    Attributes:
        was: its former state; empty if it is new.
        now: its state; empty if it is gone.
    """

    row: Row
    was: str
    now: str

    @property
    def sentence(self) -> str:
        """Say it to people."""
        node = self.row.node
        what = f"swarm node {node.hostname if node else '?'}"
        if not self.was:
            text = f"{what} joined: {self.now}"
        elif not self.now:
            text = f"{what} is no longer in the swarm"
        else:
            text = f"{what} is {self.now}, was {self.was}"
        return f"{self.row.name}: {text}" + (f": {self.row.reason}" if self.row.reason else "")


def changes(old: Sequence[Row], new: Sequence[Row]) -> Iterator[Change]:
    """Yield each node whose state is another one."""
    before = {row.node.id: row for row in old if row.node}
    after = {row.node.id: row for row in new if row.node}
    for key, row in after.items():
        was = before[key].node.state if key in before and before[key].node else ""  # type: ignore[union-attr]
        if row.node and was != row.node.state:
            yield Change(row=row, was=was, now=row.node.state)
    for key, row in before.items():
        if key not in after and row.node:
            yield Change(row=row, was=row.node.state, now="")
