"""The kernel's neighbour table tells who answers, and asks when it is told to."""

from __future__ import annotations

import resource
import select
import socket
from contextlib import contextmanager
from ipaddress import IPv4Address
from typing import TYPE_CHECKING

import pytest

from otgd.adapters.neighbours import KernelNeighbours
from otgd.errors import PermanentError, TransientError
from otgd.model import Neighbour
from tests.lab.deadline import until
from tests.lab.namespaces import Namespace, run

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = pytest.mark.usefixtures("netns")

GUEST = IPv4Address("10.0.11.2")
NOBODY = IPv4Address("10.0.11.7")
GUEST_MAC = "00:22:82:ff:ff:11"
NO_LINK = 4711


@pytest.fixture
def guest() -> Iterator[Namespace]:
    """Return a machine that is plugged in as usb0 and answers at ``GUEST``."""
    machine = Namespace()
    run(*f"ip link add usb0 type veth peer name usb0 netns {machine.path}".split())
    machine.run("ip", "link", "set", "usb0", "address", GUEST_MAC)
    machine.run("ip", "addr", "add", f"{GUEST}/24", "dev", "usb0")
    machine.run("ip", "link", "set", "usb0", "up")
    run("ip", "addr", "add", "10.0.11.1/24", "dev", "usb0")
    run("ip", "link", "set", "usb0", "up")
    # A tenth of the usual pause between requests: 0.3 s instead of 3 s until the kernel gives up.
    run("ip", "ntable", "change", "name", "arp_cache", "dev", "usb0", "retrans", "100")
    yield machine
    machine.close()


@pytest.fixture
def ifindex(guest: Namespace) -> int:
    assert guest.path
    return socket.if_nametoindex("usb0")


@pytest.fixture
def neighbours(ifindex: int) -> Iterator[KernelNeighbours]:
    assert ifindex
    opened = KernelNeighbours()
    yield opened
    opened.close()


def entry(address: IPv4Address = GUEST) -> str:
    """Return the entry as ``ip neigh`` shows it."""
    return run("ip", "neigh", "show", str(address), "dev", "usb0").strip()


def by_hand(words: str) -> None:
    run("ip", "neigh", "replace", str(GUEST), "dev", "usb0", *words.split())


def wait_told(
    neighbours: KernelNeighbours, address: IPv4Address, known: Neighbour, deadline_s: float = 5.0
) -> None:
    """Wait until the kernel tells this of *address*."""
    told: list[tuple[int, IPv4Address, Neighbour]] = []
    place = (socket.if_nametoindex("usb0"), address, known)

    def is_told() -> bool:
        told.extend(neighbours.changes() or ())
        return place in told

    until(is_told, deadline_s, what=lambda: told)


def test_guest_that_was_never_asked_is_asked_and_answers(
    neighbours: KernelNeighbours, ifindex: int
) -> None:
    assert neighbours.probe(ifindex, GUEST) is Neighbour.ASKING
    wait_told(neighbours, GUEST, Neighbour.ANSWERS, 1.0)
    assert "REACHABLE" in entry()
    assert neighbours.probe(ifindex, GUEST) is Neighbour.ANSWERS


def test_address_that_nobody_has_is_silent(neighbours: KernelNeighbours, ifindex: int) -> None:
    assert neighbours.probe(ifindex, NOBODY) is Neighbour.ASKING
    assert neighbours.probe(ifindex, NOBODY) is Neighbour.ASKING
    wait_told(neighbours, NOBODY, Neighbour.SILENT)
    assert neighbours.probe(ifindex, NOBODY) is Neighbour.ASKING  # asks again
    wait_told(neighbours, NOBODY, Neighbour.SILENT)


def test_guest_that_was_heard_of_once_is_asked_at_once(
    neighbours: KernelNeighbours, ifindex: int
) -> None:
    by_hand(f"lladdr {GUEST_MAC} nud stale")
    wait_told(neighbours, GUEST, Neighbour.HEARD)
    assert neighbours.probe(ifindex, GUEST) is Neighbour.ASKING
    wait_told(neighbours, GUEST, Neighbour.ANSWERS, 1.0)


def test_guest_that_goes_away_is_silent(
    neighbours: KernelNeighbours, ifindex: int, guest: Namespace
) -> None:
    neighbours.probe(ifindex, GUEST)
    wait_told(neighbours, GUEST, Neighbour.ANSWERS)
    guest.run("ip", "addr", "flush", "dev", "usb0")
    by_hand(f"lladdr {GUEST_MAC} nud stale")
    neighbours.probe(ifindex, GUEST)
    wait_told(neighbours, GUEST, Neighbour.SILENT)


def test_guest_that_asks_for_us_is_heard(
    neighbours: KernelNeighbours, ifindex: int, guest: Namespace
) -> None:
    assert ifindex
    guest.run("ip", "neigh", "replace", "10.0.11.1", "dev", "usb0", "use")
    wait_told(neighbours, GUEST, Neighbour.HEARD)


def test_entry_that_goes_is_unknown(neighbours: KernelNeighbours, ifindex: int) -> None:
    neighbours.probe(ifindex, GUEST)
    wait_told(neighbours, GUEST, Neighbour.ANSWERS)
    run("ip", "neigh", "del", str(GUEST), "dev", "usb0")
    wait_told(neighbours, GUEST, Neighbour.UNKNOWN)


@pytest.mark.parametrize("state", ["permanent", "noarp"])
def test_entry_made_by_hand_is_left_alone(
    neighbours: KernelNeighbours, ifindex: int, state: str
) -> None:
    by_hand(f"lladdr 02:00:00:00:00:07 nud {state}")
    before = entry()
    assert neighbours.probe(ifindex, GUEST) is Neighbour.FIXED
    assert entry() == before
    wait_told(neighbours, GUEST, Neighbour.FIXED)


def test_no_link_is_an_error_that_waiting_does_not_help(neighbours: KernelNeighbours) -> None:
    with pytest.raises(PermanentError, match=f"ask 10.0.11.2 on ifindex {NO_LINK}: "):
        neighbours.probe(NO_LINK, GUEST)
    assert neighbours.traffic(NO_LINK) is None


def test_descriptor_is_readable_while_there_is_something_to_tell(
    neighbours: KernelNeighbours, ifindex: int
) -> None:
    neighbours.changes()
    assert select.select([neighbours], [], [], 0)[0] == []
    by_hand(f"lladdr {GUEST_MAC} nud stale")
    assert select.select([neighbours], [], [], 5)[0] == [neighbours]
    assert neighbours.changes() == [(ifindex, GUEST, Neighbour.HEARD)]
    assert neighbours.changes() == []


def test_ipv6_neighbours_wake_nobody(neighbours: KernelNeighbours, ifindex: int) -> None:
    neighbours.changes()
    for n in range(1, 9):
        run(*f"ip -6 neigh replace fe80::{n} dev usb0 lladdr {GUEST_MAC} nud stale".split())
    assert select.select([neighbours], [], [], 0)[0] == []
    by_hand(f"lladdr {GUEST_MAC} nud stale")
    assert neighbours.changes() == [(ifindex, GUEST, Neighbour.HEARD)]


def test_more_than_can_be_queued_is_told_as_lost(
    neighbours: KernelNeighbours, ifindex: int
) -> None:
    lines = [
        f"neigh replace 10.0.11.{n} dev usb0 lladdr {GUEST_MAC} nud {state}\n"
        for state in ("stale", "permanent", "stale")
        for n in range(3, 250)
    ]
    run("ip", "-batch", "-", stdin="".join(lines))
    assert neighbours.changes() is None
    assert neighbours.changes() == []
    by_hand(f"lladdr {GUEST_MAC} nud stale")
    assert neighbours.changes() == [(ifindex, GUEST, Neighbour.HEARD)]


def test_traffic_counts_what_the_link_carries(
    neighbours: KernelNeighbours, ifindex: int, guest: Namespace
) -> None:
    before = neighbours.traffic(ifindex)
    neighbours.probe(ifindex, GUEST)
    wait_told(neighbours, GUEST, Neighbour.ANSWERS)
    answered = neighbours.traffic(ifindex)
    assert before
    assert answered
    assert answered.sent > before.sent
    assert answered.received > before.received

    guest.run("ip", "link", "set", "usb0", "arp", "off")
    guest.run_inside("sh", "-c", "echo 1 > /proc/sys/net/ipv6/conf/usb0/disable_ipv6")
    quiet = neighbours.traffic(ifindex)
    neighbours.probe(ifindex, NOBODY)
    wait_told(neighbours, NOBODY, Neighbour.SILENT)
    asked = neighbours.traffic(ifindex)
    assert quiet
    assert asked
    assert asked.sent > quiet.sent
    assert asked.received == quiet.received


@contextmanager
def no_descriptor_left() -> Iterator[None]:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (3, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def test_no_descriptor_is_an_error_that_says_what_for() -> None:
    with no_descriptor_left(), pytest.raises(TransientError) as caught:
        KernelNeighbours()
    assert "listen to neighbour events: Too many open files" in str(caught.value)
