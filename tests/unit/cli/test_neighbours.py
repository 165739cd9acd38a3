"""``otgctl hosts``, ``ssh-config`` and ``inventory``: read back as their readers read them."""

from __future__ import annotations

import shutil
import subprocess
from typing import TYPE_CHECKING

import pytest

from tests.conftest import need
from tests.unit.cli.conftest import absent, gadget, state

if TYPE_CHECKING:
    from pathlib import Path

    from tests.unit.cli.conftest import Tool

WITHOUT_HOSTNAME = '[gadget.camera]\nmac = "02:00:00:00:00:01"\nsubnet = "192.168.77.0/30"\n'


def test_hosts_gives_each_guest_its_names(otgctl: Tool) -> None:
    assert otgctl("hosts").lines == ["10.0.11.2\tworker1 ethusb1", "10.0.12.2\tworker2 ethusb2"]


def test_guest_without_hostname_is_called_as_its_link(otgctl: Tool) -> None:
    otgctl.write_config(WITHOUT_HOSTNAME)
    assert otgctl("hosts").lines == ["192.168.77.2\tcamera"]
    assert list(otgctl("inventory", "--list").document["_meta"]["hostvars"]) == ["camera"]


@pytest.mark.parametrize("name", ["worker2", "ethusb2"])
def test_ssh_understands_the_config(otgctl: Tool, tmp_path: Path, name: str) -> None:
    need(shutil.which("ssh"), "the program ssh (package openssh-client)")
    file = tmp_path / "ssh.conf"
    file.write_text(otgctl("ssh-config", "--user", "pi").out)
    done = subprocess.run(
        ["ssh", "-G", "-F", file, name], check=True, capture_output=True, text=True
    )
    understood = dict(line.split(" ", 1) for line in done.stdout.splitlines() if " " in line)
    assert understood["hostname"] == "10.0.12.2"
    assert understood["user"] == "pi"
    assert understood["hostkeyalias"] == "worker2"


def test_inventory_lists_all_and_those_that_are_up(otgctl: Tool) -> None:
    otgctl.run_daemon(state(gadget(), absent()))
    listed = otgctl("inventory", "--list").document
    assert listed["gadgets"] == {"hosts": ["worker1", "worker2"]}
    assert listed["gadgets_up"] == {"hosts": ["worker1"]}
    variables = listed["_meta"]["hostvars"]["worker2"]
    assert variables["ansible_host"] == "10.0.12.2"
    assert variables["otgd_state"] == "absent"
    assert otgctl("inventory", "--host", "worker2").document == variables
    assert otgctl("inventory", "--host", "stranger").document == {}


def test_inventory_without_a_daemon_knows_no_state(otgctl: Tool) -> None:
    listed = otgctl("inventory", "--list").document
    assert listed["gadgets"] == {"hosts": ["worker1", "worker2"]}
    assert listed["gadgets_up"] == {"hosts": []}


@pytest.mark.parametrize("arguments", [(), ("--list", "--host", "worker1")], ids=["none", "both"])
def test_inventory_wants_one_of_its_options(otgctl: Tool, arguments: tuple[str, ...]) -> None:
    assert otgctl("inventory", *arguments).code == 2
