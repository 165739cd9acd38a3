"""What following makes of a look: news, and gadgets to join."""

from __future__ import annotations

from typing import TYPE_CHECKING

from otgd.events import Kind
from otgd.swarm.follow import FIRST_PAUSE_S, LONGEST_PAUSE_S, Follower
from otgd.swarm.roster import make_roster
from tests.unit.swarm.values import HUB, hub_node, node, place

if TYPE_CHECKING:
    from otgd.swarm.roster import Row


def look(state: str = "ready", cable: str = "reachable") -> tuple[Row, ...]:
    return make_roster([hub_node(), node(state=state)], [place(1, cable, "no link")], HUB)


OUTSIDE = make_roster([hub_node()], [place(1), place(2, "absent")], HUB)


def test_first_look_is_no_news() -> None:
    follower = Follower()
    assert list(follower.news(look())) == []
    assert list(follower.news(look())) == []


def test_node_that_goes_and_comes_is_told_with_its_fields() -> None:
    follower = Follower()
    list(follower.news(look()))
    (lost,) = follower.news(look("down", "absent"))
    assert (lost.kind, lost.message) == (
        Kind.SWARM_NODE_LOST,
        "ethusb1: swarm node worker1 is down, was ready: no link",
    )
    assert lost.fields == {
        "OTGD_GADGET": "ethusb1",
        "INTERFACE": "ethusb1",
        "OTGD_STATE": "down",
        "OTGD_REASON": "no link",
    }
    (back,) = follower.news(look())
    assert back.kind is Kind.SWARM_NODE_READY


def test_node_that_is_forgotten_is_told_as_gone() -> None:
    follower = Follower()
    list(follower.news(look()))
    (gone,) = follower.news(OUTSIDE)
    assert gone.fields["OTGD_STATE"] == "gone"


def test_only_reachable_gadgets_outside_join() -> None:
    assert [spec.name for spec in Follower().latecomers(OUTSIDE, 0)] == ["ethusb1"]
    assert Follower().latecomers(look(), 0) == []


def test_gadget_that_could_not_join_is_tried_again_ever_more_rarely() -> None:
    follower = Follower()
    assert follower.next_due_s() is None
    assert follower.refused("ethusb1", "no Docker", 100) is not None
    assert follower.latecomers(OUTSIDE, 100) == []
    assert follower.next_due_s() == 100 + FIRST_PAUSE_S
    assert len(follower.latecomers(OUTSIDE, 100 + FIRST_PAUSE_S)) == 1
    assert follower.refused("ethusb1", "no Docker", 200) is None
    assert follower.next_due_s() == 200 + 2 * FIRST_PAUSE_S
    for _ in range(20):
        follower.refused("ethusb1", "no Docker", 300)
    assert follower.next_due_s() == 300 + LONGEST_PAUSE_S
    assert follower.refused("ethusb1", "no key", 300) is not None


def test_gadget_that_was_unplugged_starts_anew() -> None:
    follower = Follower()
    follower.refused("ethusb1", "no Docker", 100)
    assert follower.latecomers(make_roster([], [place(1, "absent")], HUB), 100) == []
    assert follower.next_due_s() is None
    assert len(follower.latecomers(OUTSIDE, 100)) == 1
