"""A gadget is reachable while its guest answers; lost and found again are one line each."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import pytest

from tests.lab.deadline import until
from tests.lab.topology import Lab, guest_address, host_address, mac
from tests.lab.traffic import ping

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.daemon.conftest import Launcher
    from tests.lab.daemon import Daemon

ANSWERS_WITHIN_S = 2.0
"""Milliseconds as a rule; where the first request is lost (1 of 100, while the link comes up), the
kernel's second one comes a second later."""
LOST_WITHIN_S = 5.0
"""Three ARP requests a second apart, after the resync (0.5 s) or the event that began them."""
MANY = 12
LOST = "ethusb1: lost: its guest 10.0.11.2 does not answer"
FOUND = "ethusb1: found again: its guest 10.0.11.2 answers"


@pytest.fixture
def backend() -> str:
    """Return one packet filter; guests answer or not whatever it is."""
    return "nftables"


def told(daemon: Daemon, *words: str) -> list[str]:
    """Return the lines that hold one of *words*, without the prefix."""
    lines = (line.removeprefix("otgd: ") for line in daemon.stderr().splitlines())
    events = (line.removeprefix("warning: ") for line in lines)
    return [event for event in events if any(word in event for word in words)]


def wait_state(daemon: Daemon, name: str, state: str, reason: str, deadline_s: float) -> None:
    """Wait until state.json says exactly this."""
    until(
        lambda: (daemon.gadget(name)["state"], daemon.gadget(name)["reason"]) == (state, reason),
        deadline_s,
        what=lambda: (daemon.gadget(name), daemon.stderr()[-1000:]),
    )


def doubt(lab: Lab, n: int = 1) -> None:
    """Have the host's kernel forget that it heard from the guest lately, as after 15 to 45 s."""
    lab.host.run(*f"ip neigh change {guest_address(n)} dev ethusb{n} nud stale".split())


def take_address(lab: Lab) -> None:
    lab.guest(1).run("ip", "addr", "del", "10.0.11.2/24", "dev", "usb0")
    doubt(lab)


def give_address(lab: Lab) -> None:
    lab.guest(1).run("ip", "addr", "add", "10.0.11.2/24", "dev", "usb0")


def set_down(lab: Lab) -> None:
    lab.guest(1).run("ip", "link", "set", "usb0", "down")


def set_up(lab: Lab) -> None:
    lab.guest(1).run("ip", "link", "set", "usb0", "up")


def refuse_arp(lab: Lab) -> None:
    lab.guest(1).run("ip", "link", "set", "usb0", "arp", "off")
    doubt(lab)


def accept_arp(lab: Lab) -> None:
    lab.guest(1).run("ip", "link", "set", "usb0", "arp", "on")


def test_guest_that_answers_makes_its_gadget_reachable(lab: Lab, launch: Launcher) -> None:
    daemon = launch()
    lab.plug(1)
    entry = daemon.wait_for("ethusb1", "reachable", deadline_s=ANSWERS_WITHIN_S)
    assert entry["reason"] == ""
    lines = daemon.stderr().splitlines()
    assert len(lines) == 2, lines  # ready, configured


def test_guest_that_was_there_before_the_start_is_found(lab: Lab, launch: Launcher) -> None:
    lab.plug(1)
    daemon = launch()
    daemon.wait_for("ethusb1", "reachable", deadline_s=ANSWERS_WITHIN_S)


def test_guest_that_never_answered_is_a_reason_but_no_alarm(lab: Lab, launch: Launcher) -> None:
    daemon = launch()
    lab.guest(1).run(
        *("ip", "link", "add", "usb0", "type", "veth", "peer", "name", "usb%d"),
        *("address", mac(1), "netns", lab.host.path),
    )
    lab.guest(1).run("ip", "link", "set", "usb0", "up")
    wait_state(daemon, "ethusb1", "configured", "its guest 10.0.11.2 has not answered yet", 6.0)
    give_address(lab)
    daemon.wait_for("ethusb1", "reachable", deadline_s=10.0)
    lines = daemon.stderr().splitlines()
    assert len(lines) == 2, lines  # ready, configured


@pytest.mark.parametrize(
    ("leave", "come_back"),
    [(set_down, set_up), (take_address, give_address), (refuse_arp, accept_arp)],
    ids=["end set down", "address gone", "no ARP"],
)
def test_lost_guest_is_told_once_and_so_is_its_return(
    lab: Lab,
    launch: Launcher,
    leave: Callable[[Lab], None],
    come_back: Callable[[Lab], None],
) -> None:
    daemon = launch(service="resync_s = 0.5")
    lab.plug_all(1, 2)
    for n in (1, 2):
        daemon.wait_for(f"ethusb{n}", "reachable", deadline_s=ANSWERS_WITHIN_S)
    leave(lab)
    reason = "its guest 10.0.11.2 does not answer"
    wait_state(daemon, "ethusb1", "configured", reason, LOST_WITHIN_S)
    # Asked again and again without an answer, it is told no second time.
    since_s = time.monotonic()
    until(lambda: time.monotonic() - since_s > 5.0)
    assert told(daemon, "ethusb1: lost") == [LOST]
    come_back(lab)
    daemon.wait_for("ethusb1", "reachable", deadline_s=10.0)
    assert told(daemon, "lost", "found") == [LOST, FOUND]
    assert daemon.gadget("ethusb2")["state"] == "reachable"


def test_guest_that_speaks_is_found_without_waiting_for_the_next_question(
    lab: Lab, launch: Launcher
) -> None:
    daemon = launch(service="resync_s = 0.5")
    lab.plug(1)
    daemon.wait_for("ethusb1", "reachable", deadline_s=ANSWERS_WITHIN_S)
    take_address(lab)
    reason = "its guest 10.0.11.2 does not answer"
    wait_state(daemon, "ethusb1", "configured", reason, LOST_WITHIN_S)
    since_s = time.monotonic()
    until(lambda: time.monotonic() - since_s > 9.0)  # the next question is at 12 s
    give_address(lab)
    until(lambda: ping(lab.guest(1), host_address(1)))
    daemon.wait_for("ethusb1", "reachable", deadline_s=ANSWERS_WITHIN_S)
    assert told(daemon, "lost", "found") == [LOST, FOUND]


def test_host_that_loses_the_entry_asks_again_in_silence(lab: Lab, launch: Launcher) -> None:
    daemon = launch()
    lab.plug(1)
    daemon.wait_for("ethusb1", "reachable", deadline_s=ANSWERS_WITHIN_S)
    before = daemon.stderr()
    lab.host.run("ip", "neigh", "flush", "dev", "ethusb1")
    until(lambda: "REACHABLE" in neighbour(lab))
    assert daemon.gadget("ethusb1")["state"] == "reachable"
    assert daemon.stderr() == before


def neighbour(lab: Lab, n: int = 1) -> str:
    return lab.host.run("ip", "-s", "neigh", "show", guest_address(n), "dev", f"ethusb{n}")


def test_entry_made_by_hand_is_left_alone(lab: Lab, launch: Launcher) -> None:
    daemon = launch(service="resync_s = 0.1", watchdog_s=0.4)
    lab.plug(1)
    daemon.wait_for("ethusb1", "reachable", deadline_s=ANSWERS_WITHIN_S)
    by_hand = "ip neigh replace 10.0.11.2 dev ethusb1 lladdr 02:00:00:00:00:07 nud permanent"
    lab.host.run(*by_hand.split())
    wait_state(daemon, "ethusb1", "configured", "", 1.0)
    fed = len(daemon.manager.values("WATCHDOG"))
    until(lambda: len(daemon.manager.values("WATCHDOG")) > fed + 4)  # some resyncs later
    assert "02:00:00:00:00:07" in neighbour(lab)
    assert "PERMANENT" in neighbour(lab)
    assert told(daemon, "lost", "found") == []


def test_many_guests_are_found_and_lost_each_for_itself(lab: Lab, launch: Launcher) -> None:
    daemon = launch(count=MANY, service="resync_s = 0.5")
    everybody = range(1, MANY + 1)
    lab.plug_all(*everybody)
    for n in everybody:
        daemon.wait_for(f"ethusb{n}", "reachable", deadline_s=3.0)
    for n in (2, 5):
        lab.guest(n).run("ip", "link", "set", "usb0", "down")
    for n in (2, 5):
        reason = f"its guest {guest_address(n)} does not answer"
        wait_state(daemon, f"ethusb{n}", "configured", reason, LOST_WITHIN_S)
    states = [daemon.gadget(f"ethusb{n}")["state"] for n in everybody]
    assert states.count("reachable") == MANY - 2
    assert len(told(daemon, "lost")) == 2


def test_unplugged_guest_is_not_lost(lab: Lab, launch: Launcher) -> None:
    daemon = launch()
    lab.plug(1)
    daemon.wait_for("ethusb1", "reachable", deadline_s=ANSWERS_WITHIN_S)
    lab.unplug(1)
    daemon.wait_for("ethusb1", "absent")
    lab.plug(1)
    daemon.wait_for("ethusb1", "reachable", deadline_s=ANSWERS_WITHIN_S)
    assert told(daemon, "lost", "found") == []


def test_reload_with_another_backend_goes_on_watching(lab: Lab, launch: Launcher) -> None:
    daemon = launch()
    lab.plug(1)
    daemon.wait_for("ethusb1", "reachable", deadline_s=ANSWERS_WITHIN_S)
    daemon.reload(daemon.config_file.read_text().replace('"nftables"', '"iptables"'))
    assert daemon.gadget("ethusb1")["state"] == "reachable"
    set_down(lab)
    reason = "its guest 10.0.11.2 does not answer"
    wait_state(daemon, "ethusb1", "configured", reason, LOST_WITHIN_S)
    assert told(daemon, "lost") == [LOST]
