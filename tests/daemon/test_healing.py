"""What is deleted behind otgd's back comes back; what it missed, it catches up with."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.lab.deadline import until

if TYPE_CHECKING:
    from tests.daemon.conftest import Launcher
    from tests.lab.topology import Lab

UP = ("configured", "reachable")
DAMAGE = {
    "address deleted": "ip address delete 10.0.11.1/24 dev ethusb1",
    "link down": "ip link set ethusb1 down",
    "renamed": "ip link set ethusb1 down name usb7",
    "legacy nat flushed": "iptables-legacy -t nat -F",
    "legacy nat emptied": "iptables-legacy -t nat -F; iptables-legacy -t nat -X",
    "legacy filter emptied": "iptables-legacy -F; iptables-legacy -X",
    "legacy mangle emptied": "iptables-legacy -t mangle -F; iptables-legacy -t mangle -X",
    "nftables flushed": "nft flush ruleset",
    "forwarding off": "echo 0 > /proc/sys/net/ipv4/ip_forward",
}


@pytest.mark.parametrize("damage", DAMAGE.values(), ids=DAMAGE)
def test_damage_is_repaired_within_resync(lab: Lab, launch: Launcher, damage: str) -> None:
    daemon = launch(service="resync_s = 0.2")
    lab.plug(1)
    daemon.wait_for("ethusb1", *UP)
    until(lambda: lab.online(1))
    rules = lab.firewall()
    lab.host.run_inside("sh", "-c", damage)
    until(lambda: lab.firewall() == rules, what=lambda: (lab.firewall(), daemon.stderr()))
    until(lambda: lab.addresses("ethusb1") == ["10.0.11.1/24"])
    until(lambda: lab.online(1), what=daemon.stderr)


@pytest.mark.parametrize(
    "damage",
    [DAMAGE[name] for name in ("address deleted", "link down", "renamed")],
    ids=["address deleted", "link down", "renamed"],
)
def test_damage_that_the_kernel_tells_of_is_repaired_at_once(
    lab: Lab, launch: Launcher, damage: str
) -> None:
    daemon = launch(service="resync_s = 3600")
    lab.plug(1)
    daemon.wait_for("ethusb1", *UP)
    until(lambda: lab.online(1))
    lab.host.run_inside("sh", "-c", damage)
    until(lambda: lab.addresses("ethusb1") == ["10.0.11.1/24"], 2, what=daemon.stderr)
    until(lambda: lab.online(1), 2, what=daemon.stderr)


def test_what_changed_while_it_was_stopped_is_caught_up_with(lab: Lab, launch: Launcher) -> None:
    daemon = launch()
    lab.plug_all(1, 2)
    for n in (1, 2):
        daemon.wait_for(f"ethusb{n}", *UP)
    assert daemon.terminate() == 0
    lab.unplug(2)
    lab.plug(3)
    daemon.start_and_wait()
    assert [daemon.gadget(f"ethusb{n}")["state"] in UP for n in (1, 2, 3)] == [True, False, True]
    assert [lab.masquerades(n) for n in (1, 2, 3)] == [1, 0, 1]
    until(lambda: lab.online(1))
    until(lambda: lab.online(3))
