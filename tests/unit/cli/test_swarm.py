"""``otgctl swarm`` as far as the host's own engine goes."""

from __future__ import annotations

import socket
import sys
from typing import TYPE_CHECKING

import pytest

from tests.lab.namespaces import run
from tests.unit.cli.conftest import CONFIG, absent, gadget, state
from tests.unit.cli.fake_engine import FakeEngine, Serving, raw_node

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.unit.cli.conftest import Tool

SWARM = '\n[swarm]\nhub_address = "10.0.10.1"\n'
GONE = absent("ethusb1")


@pytest.fixture
def engine(otgctl: Tool, monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeEngine]:
    """An engine, a config with a swarm, and a daemon that sees no gadget."""
    otgctl.write_config(CONFIG + SWARM)
    otgctl.run_daemon(state(GONE, absent("ethusb2")))
    path = otgctl.directory / "docker.sock"
    monkeypatch.setenv("DOCKER_HOST", f"unix://{path}")
    fake = FakeEngine()
    serving = Serving(fake, path)
    yield fake
    serving.close()


def test_config_without_a_swarm_says_what_to_write(otgctl: Tool) -> None:
    said = otgctl("swarm", "ls")
    assert said.code == 1
    assert "has no swarm; write a table [swarm]" in said.err


def test_host_that_leads_no_swarm(otgctl: Tool, engine: FakeEngine) -> None:
    said = otgctl("swarm", "ls")
    assert (said.code, said.err) == (1, "otgctl: this host leads no swarm; type: otgctl swarm up\n")
    assert engine.nodes == []


def test_ls_tells_both_levels(otgctl: Tool, engine: FakeEngine) -> None:
    engine.lead()
    engine.nodes.append(raw_node("n1", "worker1", "10.0.11.2", "down"))
    otgctl.daemon.write(state(gadget("ethusb1", state="reachable"), absent("ethusb2")))
    lines = otgctl("swarm", "ls").lines
    assert lines[0].split() == [
        *("GADGET", "CABLE", "PORT", "ADDRESS", "NODE", "HOSTNAME", "STATUS", "REASON"),
    ]
    assert lines[1].split()[:7] == ["host", "-", "-", "10.0.10.1", "hub", "pi3", "ready"]
    assert lines[2].split()[:7] == [
        *("ethusb1", "reachable", "1-1.2", "10.0.11.2", "n1", "worker1", "down"),
    ]
    assert lines[3].split()[:7] == ["ethusb2", "absent", "-", "10.0.12.2", "-", "worker2", "none"]
    document = otgctl("swarm", "ls", "--json").document
    assert [row["name"] for row in document["nodes"]] == ["host", "ethusb1", "ethusb2"]


def test_up_wants_the_hub_address_first(otgctl: Tool, engine: FakeEngine) -> None:
    said = otgctl("swarm", "up")
    assert said.code == 1
    assert "does not have hub_address 10.0.10.1" in said.err
    assert engine.initialised is None


@pytest.mark.usefixtures("netns")
def test_up_advertises_the_hub_and_leaves_out_who_is_not_there(
    otgctl: Tool, engine: FakeEngine
) -> None:
    run("ip", "address", "add", "10.0.10.1/32", "dev", "lo")
    said = otgctl("swarm", "up")
    assert said.code == 0, said
    assert said.lines == [
        "host: is now the manager, at 10.0.10.1",
        "not plugged in: ethusb1, ethusb2; they join with the next otgctl swarm up",
    ]
    assert engine.initialised is not None
    assert engine.initialised["ListenAddr"] == "10.0.10.1:2377"
    assert engine.initialised["DefaultAddrPool"] == ["10.20.0.0/16"]
    assert otgctl("swarm", "up").lines[0] == "host: is the manager, at 10.0.10.1"


def test_rm_forgets_the_dead_only(otgctl: Tool, engine: FakeEngine) -> None:
    engine.lead()
    engine.nodes.append(raw_node("n1", "worker1", "10.0.11.2", "down"))
    engine.nodes.append(raw_node("n2", "worker2", "10.0.12.2"))
    assert otgctl("swarm", "rm", "worker2").code == 1
    said = otgctl("swarm", "rm", "ethusb1")
    assert said.out == "worker1 (n1): forgotten\n"
    assert [node["ID"] for node in engine.nodes] == ["hub", "n2"]


def test_leave_asks_for_names_or_all(otgctl: Tool, engine: FakeEngine) -> None:
    assert otgctl("swarm", "leave").code == 2
    engine.lead()
    said = otgctl("swarm", "leave", "--all")
    assert said.code == 0
    assert "host: has left the swarm" in said.out
    assert "not plugged in: ethusb1, ethusb2" in said.out
    assert engine.swarm["LocalNodeState"] == "inactive"


def test_preflight_of_the_host(otgctl: Tool, engine: FakeEngine) -> None:
    assert engine.swarm
    said = otgctl("swarm", "preflight")
    assert said.code == 1
    assert "Docker 28.1.0 on aarch64, is in no swarm yet" in said.out
    assert "does not have its hub address 10.0.10.1" in said.out
    document = otgctl("swarm", "preflight", "--json").document
    assert {each["gadget"] for each in document["findings"]} == {None, "ethusb1", "ethusb2"}


def test_engines_refusal_is_told_in_its_words(otgctl: Tool, engine: FakeEngine) -> None:
    engine.refusal = (503, "the swarm has no leader")
    said = otgctl("swarm", "ls")
    assert (said.code, said.err) == (1, "otgctl: docker info: the swarm has no leader\n")


@pytest.mark.parametrize("there", [False, True], ids=["no-socket", "nobody-listens"])
def test_engine_that_is_down(otgctl: Tool, monkeypatch: pytest.MonkeyPatch, *, there: bool) -> None:
    otgctl.write_config(CONFIG + SWARM)
    path = otgctl.directory / "gone.sock"
    if there:
        with socket.socket(socket.AF_UNIX) as sock:
            sock.bind(str(path))
    monkeypatch.setenv("DOCKER_HOST", f"unix://{path}")
    said = otgctl("swarm", "ls")
    assert said.code == 1
    assert "sudo systemctl start docker" in said.err
    assert len(said.err.splitlines()) == 1


def test_without_the_sdk_it_says_how_to_get_it(
    otgctl: Tool, engine: FakeEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert engine.swarm
    monkeypatch.setitem(sys.modules, "docker", None)
    said = otgctl("swarm", "ls")
    assert said.code == 1
    assert "sudo apt-get install python3-docker" in said.err
