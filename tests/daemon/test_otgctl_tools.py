"""otgctl for other tools, beside a real daemon: what it prints is true of the lab's network."""

from __future__ import annotations

import json
import os
import re
import shutil
from typing import TYPE_CHECKING

import jsonschema
import pytest

from tests.conftest import need
from tests.lab.deadline import until
from tests.lab.otgctl import Otgctl
from tests.lab.screen import TERMINAL, Screen
from tests.lab.topology import guest_address, host_address, mac
from tests.lab.traffic import PingStream, ping

if TYPE_CHECKING:
    from pathlib import Path

    from tests.daemon.conftest import Launcher
    from tests.lab.topology import Lab

HAND_MADE = {
    "etc/udev/rules.d/90-pi-network.rules": (
        'SUBSYSTEM=="net", ATTR{{address}}=="{mac}", NAME="ethusb1"\n'
    ),
    "etc/dhcpcd.conf": "interface ethusb1\nstatic ip_address={address}/24\n",
}
"""What the guide has people write for one gadget."""

IN_THE_LAB = '\n[hotplug]\ndrivers = ["veth"]\nsource = "kernel"\n'


@pytest.fixture
def backend() -> str:
    return "nftables"


@pytest.fixture
def otgctl(lab: Lab, tmp_path: Path) -> Otgctl:
    """Return otgctl in the lab's host."""
    return Otgctl(lab.host, tmp_path)


def test_hosts_and_ssh_config_lead_to_the_guests(
    lab: Lab, launch: Launcher, otgctl: Otgctl, tmp_path: Path
) -> None:
    need(shutil.which("ssh"), "the program ssh (package openssh-client)")
    launch(count=2)
    lab.plug_all(1, 2)
    entries = [line.split() for line in otgctl("hosts").lines]
    assert [names for _, *names in entries] == [["worker1", "ethusb1"], ["worker2", "ethusb2"]]
    for address, *_ in entries:
        until(lambda address=address: ping(lab.host, address))  # type: ignore[misc] # bound
    file = tmp_path / "ssh.conf"
    file.write_text(otgctl("ssh-config").out)
    for n in (1, 2):
        understood = lab.host.run_inside("ssh", "-G", "-F", str(file), f"worker{n}").splitlines()
        assert f"hostname {guest_address(n)}" in understood


def test_inventory_and_metrics_follow_the_cables(
    lab: Lab, launch: Launcher, otgctl: Otgctl
) -> None:
    daemon = launch(count=2)

    def up() -> list[str]:
        listed = otgctl("inventory", "--list").document["gadgets_up"]["hosts"]
        counted = re.findall(
            r'^otgd_gadget_state\{gadget="ethus(.*)",state="(?:configured|reachable)"\} 1$',
            otgctl("metrics").out,
            re.MULTILINE,
        )
        assert [f"worker{name[1:]}" for name in counted] == listed
        return list(listed)

    assert up() == []
    lab.plug(2)
    daemon.wait_for("ethusb2", "reachable")
    assert up() == ["worker2"]
    lab.unplug(2)
    daemon.wait_for("ethusb2", "absent")
    assert up() == []


def test_printed_schema_holds_for_the_state_of_a_running_daemon(
    lab: Lab, launch: Launcher, otgctl: Otgctl
) -> None:
    daemon = launch(count=2)
    lab.plug(1)
    daemon.wait_for("ethusb1", "reachable")
    schema = otgctl("schema").document
    document = json.loads((daemon.runtime_dir / "state.json").read_text())
    jsonschema.validate(document, schema)
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(document | {"gadgets": None}, schema)


def test_import_of_a_hand_made_network_runs_it(
    lab: Lab, launch: Launcher, otgctl: Otgctl, tmp_path: Path
) -> None:
    """With the masquerade read out of the kernel, where the guide's command has put it."""
    top = tmp_path / "pi"
    for name, text in HAND_MADE.items():
        file = top / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text.format(mac=mac(1), address=host_address(1)))
    masquerade = ["POSTROUTING", "!", "-d", "10.0.11.0/24", "-o", "eth0", "-j", "MASQUERADE"]
    lab.host.run_inside("iptables-legacy", "-t", "nat", "-A", *masquerade)
    saved = tmp_path / "rules"
    saved.write_text(lab.host.run_inside("iptables-legacy-save"))
    said = otgctl("import", "--root", str(top), str(saved))
    assert said.code == 0, said.err
    lab.host.run_inside("iptables-legacy", "-t", "nat", "-D", *masquerade)

    daemon = launch()
    daemon.reload(said.out + IN_THE_LAB)
    assert [gadget["name"] for gadget in daemon.state()["gadgets"]] == ["ethusb1"]
    lab.plug(1)
    daemon.wait_for("ethusb1", "reachable")
    until(lambda: lab.online(1))


def test_top_shows_the_traffic_as_it_flows(lab: Lab, launch: Launcher, otgctl: Otgctl) -> None:
    daemon = launch(count=1)
    screen = Screen()
    command = otgctl.command("top", "--interval", "0.2")
    process = lab.host.start(
        *command, env=os.environ | TERMINAL, stdin=screen.slave, stderr=screen.slave
    )
    try:
        screen.wait_for("absent")
        lab.plug(1)
        daemon.wait_for("ethusb1", "reachable")
        screen.wait_for("10.0.11.1/24")
        with PingStream(lab.guest(1), host_address(1)) as stream:
            until(lambda: stream.answers >= 20)
            screen.wait_for("KiB/s")
        lab.unplug(1)
        screen.seen = ""
        screen.wait_for("absent")
        os.write(screen.master, b"q")
        assert process.wait(30) == 0
    finally:
        process.kill()
        process.wait()
        screen.close()
