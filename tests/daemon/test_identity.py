"""The MAC lies: the same Zero comes with another one at each boot, and is known by its port.

The cables are veth, which have no USB port; a tree that says so is mounted over the daemon's
/sys/class/net. All else is the real kernel's.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.lab.daemon import Daemon
from tests.lab.deadline import until
from tests.lab.sysfs import usb_tree
from tests.lab.topology import config_text, mac

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.lab.topology import Lab

BOOTS = 6
PORT = "1-1.3"
MATCH = f'[gadget.ethusb3]\nmatch = {{ port = "{PORT}" }}\n'


@pytest.fixture
def daemon(lab: Lab, tmp_path: Path, backend: str) -> Iterator[Daemon]:
    """Start the daemon on a host where usb0, whatever it is called later, is on USB port 1-1.3."""
    usb_tree(tmp_path / "sys", "usb0", "ethusb3", port=PORT, driver="veth")
    script = 'mount --bind "$0" /sys/class/net && exec "$@"'
    prefix = ("unshare", "--mount", "sh", "-c", script, str(tmp_path / "sys/class/net"))
    config = config_text(backend=backend, more=MATCH)
    daemon = Daemon(lab.host, tmp_path, config, prefix=prefix)
    daemon.start_and_wait()
    yield daemon
    daemon.close()


def test_six_boots_with_six_macs_are_one_gadget_and_leave_nothing(lab: Lab, daemon: Daemon) -> None:
    bare, rules = set(lab.links()), lab.firewall()
    was = mac(3)
    for boot in range(1, BOOTS + 1):
        new = f"5e:00:00:00:00:{boot:02x}"
        lab.plug(3, host_mac=new)
        gadget = daemon.wait_for("ethusb3", "configured")
        assert (gadget["mac"], gadget["port"], gadget["known_by"]) == (new, PORT, "port")
        assert lab.addresses("ethusb3") == ["10.0.13.1/24"]
        until(lambda: lab.online(3))
        line = f"ethusb3: known by its USB port {PORT}; its MAC is {new}, was {was}"
        until(lambda line=line: line in daemon.stderr())  # type: ignore[misc]
        lab.unplug(3)
        daemon.wait_for("ethusb3", "absent")
        assert set(lab.links()) == bare
        until(lambda: lab.firewall() == rules)
        was = new
    assert daemon.stderr().count("known by its USB port") == BOOTS
    assert [g["state"] for g in daemon.state()["gadgets"]] == ["absent"] * 4
    assert daemon.state()["unknown"] == []


def test_its_own_mac_on_another_port_takes_the_gadget_over(
    lab: Lab, daemon: Daemon, tmp_path: Path
) -> None:
    lab.plug(3, host_mac="5e:00:00:00:00:01")
    first = daemon.wait_for("ethusb3", "configured")
    loser = f"otgd{first['ifindex']}"
    sysfs = tmp_path / "sys/class/net"
    (sysfs / loser).symlink_to("usb0")  # it is still on that port when it is called so
    lab.plug(1, "usb7", host_mac=mac(3))
    until(lambda: daemon.gadget("ethusb3")["ifindex"] != first["ifindex"], what=daemon.stderr)
    gadget = daemon.wait_for("ethusb3", "configured")
    assert (gadget["mac"], gadget["known_by"]) == (mac(3), "mac")
    assert lab.addresses("ethusb3") == ["10.0.13.1/24"]
    assert lab.addresses(loser) == []
    until(lambda: [link["ifname"] for link in daemon.state()["unknown"]] == [loser])
    assert "counts for more" in daemon.state()["unknown"][0]["reason"]
