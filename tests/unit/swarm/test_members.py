"""What engines tell, and what follows for a member."""

from __future__ import annotations

import pytest

from otgd.errors import PermanentError
from otgd.swarm.members import (
    Join,
    Joined,
    Refused,
    chosen,
    hub_fault,
    judge,
    major,
    read_engine,
    read_node,
    version_fault,
)
from tests.unit.swarm.values import HUB, engine, node, spec

INFO = {
    "Name": "worker1",
    "ServerVersion": "28.1.0",
    "Architecture": "armv6l",
    "MemoryLimit": False,
    "Swarm": {
        "LocalNodeState": "active",
        "NodeID": "id1",
        "NodeAddr": "10.0.11.2",
        "ControlAvailable": False,
        "Error": "",
        "RemoteManagers": [{"NodeID": "hub", "Addr": "10.0.10.1:2377"}],
    },
}
NODE = {
    "ID": "id1",
    "Spec": {"Role": "worker", "Availability": "drain"},
    "Description": {
        "Hostname": "worker1",
        "Platform": {"Architecture": "armv6l", "OS": "linux"},
        "Engine": {"EngineVersion": "28.1.0"},
    },
    "Status": {"State": "down", "Addr": "10.0.11.2", "Message": "heartbeat failure"},
}


def test_engine_is_read_from_docker_info() -> None:
    facts = read_engine(INFO)
    assert (facts.state, facts.node_id, facts.managers) == ("active", "id1", ("10.0.10.1",))
    assert not facts.limits_memory


def test_engine_that_was_never_in_a_swarm() -> None:
    facts = read_engine({"Name": "x", "Swarm": {"LocalNodeState": "", "RemoteManagers": None}})
    assert (facts.state, facts.managers) == ("inactive", ())


def test_node_is_read_from_docker_node_ls() -> None:
    found = read_node(NODE)
    assert (found.address, found.state, found.availability) == ("10.0.11.2", "down", "drain")
    assert (found.message, found.machine, found.leader) == ("heartbeat failure", "armv6l", False)


def test_managers_address_is_what_it_advertises() -> None:
    manager = {"Leader": True, "Reachability": "reachable", "Addr": "10.0.10.1:2377"}
    found = read_node({**NODE, "Status": {"Addr": "127.0.0.1"}, "ManagerStatus": manager})
    assert (found.address, found.leader) == ("10.0.10.1", True)


@pytest.mark.parametrize(
    ("version", "numbers"),
    [("28.1.0", (28, 1)), ("26.1.5+dfsg1", (26, 1)), ("18.09.1", (18, 9)), ("dev", (0, 0))],
)
def test_version_numbers(version: str, numbers: tuple[int, int]) -> None:
    assert major(version) == numbers


@pytest.mark.parametrize(
    ("version", "machine", "told"),
    [
        ("18.06.3", "armv7l", "too old"),
        ("29.0.1", "armv6l", "not made for ARMv6"),
        ("29.0.1", "aarch64", ""),
        ("28.5.1", "armv6l", ""),
        ("18.09.1", "armv6l", ""),
    ],
)
def test_versions_that_do_not_do(version: str, machine: str, told: str) -> None:
    fault = version_fault(version, machine)
    assert told in fault
    assert bool(fault) == bool(told)
    assert not fault or "; type: sudo apt-get install docker.io" in fault


def test_inactive_engine_joins() -> None:
    assert judge(engine(), [], HUB, "ethusb1") == Join()


def test_member_that_the_manager_knows_is_left_alone() -> None:
    facts = engine(state="active", node_id="id1")
    assert judge(facts, [node()], HUB, "ethusb1") == Joined(node=node())


@pytest.mark.parametrize("state", ["active", "pending", "error"])
def test_member_of_this_hubs_former_swarm_joins_anew(state: str) -> None:
    facts = engine(state=state, node_id="old", managers=("10.0.10.1",))
    assert judge(facts, [node()], HUB, "ethusb1") == Join(leave_first=True)


def test_half_joined_engine_starts_over() -> None:
    assert judge(engine(state="error"), [], HUB, "ethusb1") == Join(leave_first=True)


def test_member_of_another_swarm_is_not_taken_away() -> None:
    facts = engine(state="active", node_id="else", managers=("192.168.1.9",))
    verdict = judge(facts, [node()], HUB, "ethusb1")
    assert isinstance(verdict, Refused)
    assert "another swarm (192.168.1.9)" in verdict.reason
    assert "otgctl swarm leave ethusb1" in verdict.reason


@pytest.mark.parametrize(
    "facts",
    [{"state": "locked"}, {"version": "29.0.0"}, {"version": "17.03.1"}],
    ids=["locked", "no-armv6", "old"],
)
def test_refused_with_what_to_type(facts: dict[str, str]) -> None:
    verdict = judge(engine(**facts), [], HUB, "ethusb1")
    assert isinstance(verdict, Refused)
    assert "type" in verdict.reason


@pytest.mark.parametrize(
    ("facts", "told"),
    [
        ({"state": "inactive"}, ""),
        ({"state": "active", "manages": True, "node_address": "10.0.10.1"}, ""),
        ({"state": "active", "manages": True, "node_address": "10.0.11.1"}, "swarm leave --force"),
        ({"state": "active", "manages": False}, "worker of another swarm"),
        ({"state": "locked"}, "docker swarm unlock"),
        ({"state": "error", "fault": "no route"}, "error (no route)"),
        ({"state": "pending"}, "systemctl restart docker"),
    ],
)
def test_hosts_engine(facts: dict[str, object], told: str) -> None:
    fault = hub_fault(engine(**facts), HUB)
    assert told in fault
    assert bool(fault) == bool(told)


def test_members_are_chosen_by_name_or_hostname() -> None:
    gadgets = (spec(1), spec(2), spec(3))
    members = ("ethusb1", "ethusb2")
    assert chosen(gadgets, members) == gadgets[:2]
    assert chosen(gadgets, members, ["worker2"]) == gadgets[1:2]
    assert chosen(gadgets, members, ["ethusb2", "ethusb1"]) == gadgets[:2]
    with pytest.raises(PermanentError, match=r"ethusb3 is no member.*members are ethusb1, ethusb2"):
        chosen(gadgets, members, ["ethusb3"])
