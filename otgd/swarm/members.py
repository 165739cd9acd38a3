"""Who belongs to the swarm, as engines tell it, and what each member still has to do.

Pure: knows neither Docker's library nor ssh, only what an engine's JSON means (Docker Engine API,
``GET /info``, ``GET /nodes``).
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from otgd.errors import PermanentError

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping
    from ipaddress import IPv4Address

    from otgd.model import GadgetSpec

SWARM_PORT = 2377
"""Where managers listen for those who join (docs.docker.com, "Use swarm mode")."""

OLDEST = (18, 9)
"""The oldest engine of use: ``dial-stdio`` and ``--default-addr-pool`` came with 18.09."""

LAST_ARMV6 = 28
"""Docker's last major version with packages for ARMv6."""


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineFacts:
    """What an engine says of itself.

    Attributes:
        machine: as ``uname -m`` has it, for example ``armv6l``.
        state: of its membership: ``inactive``, ``pending``, ``active``, ``locked`` or ``error``.
        manages: whether it is a manager.
        node_address: what it advertises.
        managers: addresses of the managers that it knows, without port.
        fault: what it says is wrong with its membership.
        limits_memory: whether containers' memory can be limited.
    """

    name: str
    version: str
    machine: str
    state: str
    node_id: str = ""
    manages: bool = False
    node_address: str = ""
    managers: tuple[str, ...] = ()
    fault: str = ""
    limits_memory: bool = True


@dataclass(frozen=True, slots=True, kw_only=True)
class Node:
    """A node of the swarm, as its manager sees it.

    Attributes:
        state: ``ready``, ``down``, ``unknown`` or ``disconnected``.
        availability: ``active``, ``pause`` or ``drain``.
        machine: as ``uname -m`` has it.
        message: why it is in this state, in Docker's words.
    """

    id: str
    hostname: str
    address: str
    state: str
    availability: str = "active"
    role: str = "worker"
    leader: bool = False
    machine: str = ""
    engine: str = ""
    message: str = ""

    @property
    def is_ready(self) -> bool:
        """Whether it takes work."""
        return self.state == "ready"


@dataclass(frozen=True, slots=True, kw_only=True)
class Joined:
    """Nothing to do: the member is that node."""

    node: Node


@dataclass(frozen=True, slots=True, kw_only=True)
class Join:
    """The member has to join; *leave_first* when it still remembers a membership that is over."""

    leave_first: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Refused:
    """The member cannot join; *reason* says what to type."""

    reason: str


Verdict = Joined | Join | Refused


def read_engine(info: Mapping[str, Any]) -> EngineFacts:
    """Read the answer to ``GET /info``."""
    swarm = info.get("Swarm") or {}
    peers = swarm.get("RemoteManagers") or ()
    return EngineFacts(
        name=info.get("Name", ""),
        version=info.get("ServerVersion", ""),
        machine=info.get("Architecture", ""),
        state=swarm.get("LocalNodeState") or "inactive",
        node_id=swarm.get("NodeID", ""),
        manages=bool(swarm.get("ControlAvailable")),
        node_address=swarm.get("NodeAddr", ""),
        managers=tuple(peer["Addr"].rpartition(":")[0] for peer in peers if peer.get("Addr")),
        fault=swarm.get("Error", ""),
        limits_memory=bool(info.get("MemoryLimit", True)),
    )


def read_node(raw: Mapping[str, Any]) -> Node:
    """Read one element of the answer to ``GET /nodes``."""
    spec, status = raw.get("Spec", {}), raw.get("Status", {})
    description, manager = raw.get("Description", {}), raw.get("ManagerStatus") or {}
    address = status.get("Addr", "")
    if manager.get("Addr"):  # the manager itself says 0.0.0.0
        address = manager["Addr"].rpartition(":")[0]
    return Node(
        id=raw["ID"],
        hostname=description.get("Hostname", ""),
        address=address,
        state=status.get("State", "unknown"),
        availability=spec.get("Availability", "active"),
        role=spec.get("Role", "worker"),
        leader=bool(manager.get("Leader")),
        machine=description.get("Platform", {}).get("Architecture", ""),
        engine=description.get("Engine", {}).get("EngineVersion", ""),
        message=status.get("Message", ""),
    )


def major(version: str) -> tuple[int, int]:
    """Return the first two numbers of a version, zeros where there are none."""
    numbers = re.match(r"(\d+)(?:\.(\d+))?", version)
    return (int(numbers[1]), int(numbers[2] or 0)) if numbers else (0, 0)


def version_fault(version: str, machine: str) -> str:
    """Say what is wrong with an engine's version on this machine; empty if nothing is."""
    if major(version) < OLDEST:
        return (
            f"Docker {version} is too old, it takes {OLDEST[0]}.{OLDEST[1]:02} or newer; type: "
            "sudo apt-get install docker.io"
        )
    if machine.startswith("armv6") and major(version)[0] > LAST_ARMV6:
        return (
            f"Docker {version} is not made for ARMv6, {LAST_ARMV6} is the last that is; type: "
            f"sudo apt-get install docker.io={LAST_ARMV6}.* (or the newest below "
            f"{LAST_ARMV6 + 1} that apt-cache madison docker.io lists)"
        )
    return ""


def chosen(
    gadgets: Collection[GadgetSpec], members: Collection[str], names: Collection[str] = ()
) -> tuple[GadgetSpec, ...]:
    """Return the members' gadgets; those of *names* (gadget or hostname) only, if there are any.

    Args:
        gadgets: of the config.
        members: names of the gadgets that belong to the swarm.
        names: what the user asked for.

    Raises:
        PermanentError: a name is none of theirs.
    """
    ours = [spec for spec in gadgets if spec.name in members]
    known = {name: spec for spec in ours for name in (spec.name, spec.hostname) if name}
    for name in names:
        if name not in known:
            told = ", ".join(spec.name for spec in ours) or "none"
            raise PermanentError(f"{name} is no member of the swarm; its members are {told}")
    wanted = {known[name].name for name in names}
    return tuple(spec for spec in ours if not names or spec.name in wanted)


def hub_fault(engine: EngineFacts, hub: IPv4Address) -> str:
    """Say why the host's engine cannot be this swarm's manager; empty if it can, or will."""
    match engine.state:
        case "inactive":
            return ""
        case "active" if not engine.manages:
            return "this host is a worker of another swarm; type: docker swarm leave"
        case "active" if engine.node_address != str(hub):
            return (
                f"this host's swarm advertises {engine.node_address}, not hub_address {hub}, so it "
                "goes down with that address; type: docker swarm leave --force, otgctl swarm up"
            )
        case "active":
            return ""
        case "locked":
            return "this host's swarm is locked; type: docker swarm unlock"
        case state:
            told = f" ({engine.fault})" if engine.fault else ""
            return f"this host's membership is {state}{told}; type: sudo systemctl restart docker"


def judge(engine: EngineFacts, nodes: Collection[Node], hub: IPv4Address, name: str) -> Verdict:
    """Say what a guest's engine has to do to be a node.

    Args:
        engine: the guest's.
        nodes: that the manager knows.
        hub: the manager's address.
        name: the gadget's name, for the reason.
    """
    fault = version_fault(engine.version, engine.machine)
    if fault:
        return Refused(reason=fault)
    if engine.state == "inactive":
        return Join()
    node = next((node for node in nodes if node.id == engine.node_id), None)
    if node is not None:
        return Joined(node=node)
    if engine.state == "locked":
        return Refused(reason="it is a locked manager; type there: docker swarm unlock")
    # Ours, but from before the host's swarm was made anew, or its node was removed.
    if str(hub) in engine.managers:
        return Join(leave_first=True)
    if engine.state == "active":
        where = ", ".join(engine.managers) or "unknown managers"
        return Refused(
            reason=f"it is in another swarm ({where}); type: otgctl swarm leave {name}, "
            "otgctl swarm up"
        )
    return Join(leave_first=True)
