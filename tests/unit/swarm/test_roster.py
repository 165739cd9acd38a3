"""Which cable is which node, and what is told of each."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from otgd.errors import PermanentError
from otgd.swarm.roster import Row, changes, dead_node, document, make_roster, places
from tests.unit.swarm.values import HUB, hub_node, node, place, spec

if TYPE_CHECKING:
    from typing import Any

    from otgd.swarm.members import Node
    from otgd.swarm.roster import Place


def only(rows: tuple[Row, ...]) -> Row:
    assert len(rows) == 1
    return rows[0]


def test_host_comes_first_then_gadgets_then_strangers() -> None:
    stranger = node(9, address="192.168.1.9", hostname="laptop")
    rows = make_roster([stranger, node(2), node(1), hub_node()], [place(1), place(2)], HUB)
    assert [row.name for row in rows] == ["host", "ethusb1", "ethusb2", "laptop"]
    assert [row.is_hub for row in rows] == [True, False, False, False]
    assert "no member has the address 192.168.1.9" in rows[3].reason


def test_state_json_beside_the_config() -> None:
    told = {"gadgets": [{"name": "ethusb1", "state": "absent", "port": None, "reason": "gone"}]}
    first, second = places([spec(1), spec(2)], told)
    assert (first.state, first.port, first.reason, first.may_answer) == (
        *("absent", "", "gone"),
        False,
    )
    assert (second.state, second.may_answer) == ("unknown", True)
    assert places([spec(1)], None)[0].state == "unknown"


@pytest.mark.parametrize(
    ("cable", "facts", "told"),
    [
        (place(), {}, ""),
        (place(state="unknown"), {}, ""),
        (place(), {"availability": "drain"}, "docker node update --availability active worker1"),
        (place(), {"state": "down"}, "systemctl restart docker"),
        (place(state="absent", reason="no link"), {"state": "down"}, "no link"),
        (place(state="absent", reason="no link"), {}, "has not noticed yet: no link"),
        (place(state="configured"), {"state": "down", "message": "lost"}, "lost"),
    ],
)
def test_node_and_cable_in_one_sentence(cable: Place, facts: dict[str, Any], told: str) -> None:
    row = only(make_roster([node(**facts)], [cable], HUB))
    assert told in row.reason
    assert bool(row.reason) == bool(told)


@pytest.mark.parametrize(
    ("cable", "told"),
    [
        (place(), "otgctl swarm up"),
        (place(state="absent", reason="no link"), "no link"),
        (place(state="unknown"), "its gadget is unknown"),
    ],
)
def test_gadget_that_is_no_node(cable: Place, told: str) -> None:
    row = only(make_roster([], [cable], HUB))
    assert told in row.reason
    assert document(row)["status"] is None


def test_card_that_was_written_anew_leaves_its_former_node() -> None:
    former = node(1, id="former-node-id", state="down")
    rows = make_roster([former, node(1)], [place()], HUB)
    assert [row.node.id for row in rows if row.node] == ["id1", "former-node-id"]
    assert rows[1].reason == "its place is taken by id1; otgctl swarm rm former-node-"


def test_dead_node_by_any_of_its_names() -> None:
    rows = make_roster([node(1, state="down")], [place()], HUB)
    for name in ("worker1", "ethusb1", "id1", "id"):
        assert dead_node(rows, name).id == "id1"


def test_dead_one_of_two_with_a_name_is_meant() -> None:
    rows = make_roster([node(1), node(1, id="old", state="down")], [place()], HUB)
    assert dead_node(rows, "worker1").id == "old"


@pytest.mark.parametrize(
    ("nodes", "told"),
    [
        ([node(1)], "only dead nodes are forgotten"),
        ([], "is no node"),
        ([node(1, state="down"), node(1, id="b", state="down")], "several nodes: id1, b"),
    ],
)
def test_nodes_that_are_not_forgotten(nodes: list[Node], told: str) -> None:
    rows = make_roster(nodes, [place()], HUB)
    with pytest.raises(PermanentError, match=told):
        dead_node(rows, "worker1")


def test_changes_are_told_once() -> None:
    before = make_roster([node(1), node(2)], [place(1), place(2)], HUB)
    after = make_roster(
        [node(1, state="down"), node(3)], [place(1, "absent", "no link"), place(3)], HUB
    )
    assert [change.sentence for change in changes(before, after)] == [
        "ethusb1: swarm node worker1 is down, was ready: no link",
        "ethusb3: swarm node worker3 joined: ready",
        "ethusb2: swarm node worker2 is no longer in the swarm",
    ]
    assert list(changes(after, after)) == []


def test_document_has_both_levels() -> None:
    told = document(only(make_roster([node()], [place()], HUB)))
    assert (told["gadget"], told["gadget_state"], told["port"]) == ("ethusb1", "reachable", "1-1.1")
    assert (told["node"], told["status"], told["address"]) == ("id1", "ready", "10.0.11.2")
