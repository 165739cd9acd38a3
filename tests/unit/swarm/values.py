"""A config's gadgets, and nodes and engines that are fine but for what a test says."""

from __future__ import annotations

from dataclasses import replace
from ipaddress import IPv4Address, IPv4Interface
from typing import Any

from otgd.model import GadgetSpec
from otgd.swarm.members import EngineFacts, Node
from otgd.swarm.roster import Place

HUB = IPv4Address("10.0.10.1")


def spec(n: int = 1) -> GadgetSpec:
    return GadgetSpec(
        name=f"ethusb{n}",
        mac=f"00:22:82:ff:ff:0{n}",
        host=IPv4Interface(f"10.0.1{n}.1/24"),
        guest=IPv4Address(f"10.0.1{n}.2"),
        hostname=f"worker{n}",
    )


def node(n: int = 1, **facts: Any) -> Node:  # noqa: ANN401 - fields
    plain = Node(id=f"id{n}", hostname=f"worker{n}", address=f"10.0.1{n}.2", state="ready")
    return replace(plain, **facts)


def hub_node(**facts: Any) -> Node:  # noqa: ANN401 - fields
    plain = Node(id="hub", hostname="pi3", address=str(HUB), state="ready", role="manager")
    return replace(plain, leader=True, **facts)


def engine(**facts: Any) -> EngineFacts:  # noqa: ANN401 - fields
    plain = EngineFacts(name="worker1", version="28.1.0", machine="armv6l", state="inactive")
    return replace(plain, **facts)


def place(n: int = 1, state: str = "reachable", reason: str = "") -> Place:
    return Place(spec=spec(n), state=state, port=f"1-1.{n}", reason=reason)
