"""Which packet filter otgctl looks at: the one that the running daemon took for "auto"."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from otgd.cli.installation import Installation
from otgd.model import Backend
from tests.unit.cli.conftest import CONFIG, state

if TYPE_CHECKING:
    from tests.unit.cli.conftest import Tool

TOLD = {"backend": "iptables", "reason": ""}


def backend_looked_at(otgctl: Tool) -> Backend:
    place = Installation(config_file=otgctl.config_file, runtime_dir=otgctl.daemon.directory)
    return place.settled(place.config()).settings.backend


@pytest.mark.parametrize("said", ["", '[firewall]\nbackend = "auto"\n'], ids=["default", "auto"])
def test_auto_is_what_the_running_daemon_took(otgctl: Tool, said: str) -> None:
    otgctl.write_config(CONFIG + said)
    otgctl.run_daemon(state(firewall=TOLD))
    assert backend_looked_at(otgctl) is Backend.IPTABLES


def test_config_that_names_one_is_looked_at_as_it_is(otgctl: Tool) -> None:
    otgctl.write_config(CONFIG + '[firewall]\nbackend = "nftables"\n')
    otgctl.run_daemon(state(firewall=TOLD))
    assert backend_looked_at(otgctl) is Backend.NFTABLES


def test_state_that_a_killed_daemon_left_says_nothing(otgctl: Tool) -> None:
    otgctl.daemon.directory.mkdir()
    otgctl.daemon.write(state(firewall=TOLD))
    assert backend_looked_at(otgctl) is Backend.AUTO


@pytest.mark.parametrize("command", ["plan", "doctor", "status", "show ethusb1", "metrics"])
def test_state_that_lacks_a_part_is_no_bug_of_otgctls(otgctl: Tool, command: str) -> None:
    otgctl.run_daemon({"version": 1})
    said = otgctl(*command.split())
    assert "bug" not in said.err
    assert command == "plan" or "it lacks firewall, forwarding, gadgets" in said.out + said.err


def test_state_of_another_release_says_nothing(otgctl: Tool) -> None:
    otgctl.run_daemon(state(firewall=TOLD, version=99))
    assert backend_looked_at(otgctl) is Backend.AUTO
