"""otgctl beside a real daemon and a real kernel: status, plan, release."""

from __future__ import annotations

from ipaddress import IPv4Network
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

import pytest

from otgd.model import Backend, Masquerade
from otgd.wiring import open_firewall
from tests.lab.otgctl import Otgctl
from tests.lab.topology import mac

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.daemon.conftest import Launcher
    from tests.lab.topology import Lab

NOBODY = 65534


@pytest.fixture
def tmp_path() -> Iterator[Path]:
    """Return a directory that everybody may enter, as they may /etc and /run."""
    with TemporaryDirectory(prefix="otgctl-") as directory:
        path = Path(directory)
        path.chmod(0o755)
        yield path


@pytest.fixture
def otgctl(lab: Lab, tmp_path: Path) -> Otgctl:
    """Return otgctl in the lab's host."""
    return Otgctl(lab.host, tmp_path)


def states(otgctl: Otgctl, user: int = 0) -> dict[str, str]:
    document = otgctl("status", "--json", user=user).document
    return {gadget["name"]: gadget["state"] for gadget in document["gadgets"]}


def test_status_of_a_running_daemon_needs_no_root(
    lab: Lab, launch: Launcher, otgctl: Otgctl
) -> None:
    daemon = launch(count=2)
    lab.plug(1)
    daemon.wait_for("ethusb1", "reachable")
    said = otgctl("status", user=NOBODY)
    assert (said.code, said.err) == (0, "")
    assert said.lines[0] == f"otgd 0.1.0 runs (pid {daemon.pid})"
    assert states(otgctl, user=NOBODY) == {"ethusb1": "reachable", "ethusb2": "absent"}


def test_status_of_a_stopped_daemon_shows_what_the_kernel_holds(
    lab: Lab, launch: Launcher, otgctl: Otgctl
) -> None:
    daemon = launch(count=3)
    lab.plug(1)
    daemon.wait_for("ethusb1", "configured")
    daemon.terminate()
    lab.plug(2)
    said = otgctl("status")
    assert said.lines[0].startswith("otgd is stopped")
    document = otgctl("status", "--json").document
    first, second, third = document["gadgets"]
    assert document["running"] is False
    assert (first["state"], first["masquerade"]) == ("configured", True)
    assert first["addresses"] == ["10.0.11.1/24"]
    assert second["state"] == "failed"
    assert second["reason"].startswith("not done: ")
    assert third["state"] == "absent"


def test_killed_daemon_is_told_as_stopped(lab: Lab, launch: Launcher, otgctl: Otgctl) -> None:
    daemon = launch(count=1)
    lab.plug(1)
    daemon.wait_for("ethusb1", "configured")
    daemon.kill()
    lab.unplug(1)
    assert (daemon.runtime_dir / "state.json").exists()  # it could not tidy up
    assert states(otgctl) == {"ethusb1": "absent"}


def test_firewall_hidden_from_users_is_said_not_failed(
    lab: Lab, launch: Launcher, otgctl: Otgctl
) -> None:
    daemon = launch(count=1)
    lab.plug(1)
    daemon.wait_for("ethusb1", "configured")
    daemon.terminate()
    said = otgctl("status", user=NOBODY)
    assert said.code == 0
    assert "only root can read the firewall" in said.lines[0]
    (gadget,) = otgctl("status", "--json", user=NOBODY).document["gadgets"]
    assert (gadget["state"], gadget["masquerade"]) == ("configured", None)
    plan = otgctl("plan", "--json", user=NOBODY).document
    assert plan["steps"] == []
    assert plan["left_out"] == "only root can read the firewall"


def test_plan_tells_the_steps_and_takes_none(lab: Lab, launch: Launcher, otgctl: Otgctl) -> None:
    launch(count=1).terminate()
    lab.plug(1, "usb7")
    lab.plug(3)
    before = lab.firewall(), lab.addresses("usb7")
    said = otgctl("plan")
    assert said.code == 0
    for text in (
        "rename usb7 to ethusb1",
        "add address 10.0.11.1/24 to ethusb1",
        "add masquerade of 10.0.11.0/24 through eth0",
        "set ethusb1 up",
    ):
        assert any(line.endswith(f". {text}") for line in said.lines), said.out
    assert f"MAC {mac(3)}" in said.lines[-1]
    assert otgctl("plan", "--exit-code").code == 1
    assert (lab.firewall(), lab.addresses("usb7")) == before


def test_plan_of_a_converged_kernel_is_empty(lab: Lab, launch: Launcher, otgctl: Otgctl) -> None:
    daemon = launch(count=1)
    lab.plug(1)
    daemon.wait_for("ethusb1", "configured")
    assert otgctl("plan", "--json").document["converged"] is True
    assert otgctl("plan", "--exit-code").code == 0


def test_plan_tells_what_is_not_possible(lab: Lab, launch: Launcher, otgctl: Otgctl) -> None:
    launch(count=1).terminate()
    lab.plug(1)
    lab.host.run("ip", "addr", "add", "10.0.11.77/24", "dev", "eth0")
    said = otgctl("plan")
    assert any(line.startswith("Not possible: ethusb1: subnet 10.0.11.0/24") for line in said.lines)


def test_release_is_refused_while_the_daemon_runs(
    lab: Lab, launch: Launcher, otgctl: Otgctl
) -> None:
    daemon = launch(count=1)
    lab.plug(1)
    daemon.wait_for("ethusb1", "configured")
    said = otgctl("release")
    assert said.code == 1
    assert "systemctl stop otgd" in said.err
    assert lab.addresses("ethusb1") == ["10.0.11.1/24"]
    assert lab.masquerades(1) == 1


def test_release_needs_root(lab: Lab, launch: Launcher, otgctl: Otgctl) -> None:
    launch(count=1).terminate()
    said = otgctl("release", user=NOBODY)
    assert (said.code, said.out) == (1, "")
    assert said.err == "otgctl: release needs root: sudo otgctl release\n"
    assert lab.addresses("ethusb1") == []


def test_release_leaves_only_what_is_foreign(lab: Lab, launch: Launcher, otgctl: Otgctl) -> None:
    lab.host.run_inside("iptables-legacy", "-t", "nat", "-A", "POSTROUTING", "-s", "192.0.2.0/24")
    foreign = lab.firewall()
    daemon = launch(count=2)
    lab.plug_all(1, 2)
    for name in ("ethusb1", "ethusb2"):
        daemon.wait_for(name, "configured")
    lab.host.run("ip", "addr", "add", "192.0.2.7/32", "dev", "ethusb1")
    daemon.terminate()
    said = otgctl("release")
    assert (said.code, said.err) == (0, "")
    assert "done: remove address 10.0.11.1/24 from ethusb1" in said.lines
    assert lab.addresses("ethusb1") == ["192.0.2.7/32"]
    assert lab.addresses("ethusb2") == []
    assert _rules(lab.firewall()) == _rules(foreign)
    assert otgctl("release").lines == ["Nothing of otgd's is there."]


def test_release_of_one_gadget_leaves_the_others(
    lab: Lab, launch: Launcher, otgctl: Otgctl
) -> None:
    daemon = launch(count=2)
    lab.plug_all(1, 2)
    for name in ("ethusb1", "ethusb2"):
        daemon.wait_for(name, "configured")
    daemon.terminate()
    said = otgctl("release", "ethusb2")
    assert said.code == 0
    assert lab.addresses("ethusb1") == ["10.0.11.1/24"]
    assert lab.addresses("ethusb2") == []
    assert (lab.masquerades(1), lab.masquerades(2)) == (1, 0)
    assert states(otgctl) == {"ethusb1": "configured", "ethusb2": "failed"}
    assert lab.online(1)
    again = otgctl("release", "ethusb2")
    assert (again.code, again.lines) == (0, ["Nothing of otgd's is there for ethusb2."])


def test_release_of_a_name_that_nobody_knows_is_wrong_usage(
    lab: Lab, launch: Launcher, otgctl: Otgctl
) -> None:
    daemon = launch(count=1)
    daemon.terminate()
    typo = otgctl("release", "ethusb7")
    assert (typo.code, typo.out) == (2, "")
    assert typo.err.endswith("Error: there is no gadget ethusb7; there are ethusb1\n")
    daemon.config_file.unlink()
    untold = otgctl("release", "ethusb7")
    assert (untold.code, untold.out) == (1, "")
    assert "no link is called so" in untold.err
    lab.host.run("ip", "link", "add", "ethusb7", "type", "bridge")  # the config had it once
    known = otgctl("release", "ethusb7")
    assert (known.code, known.lines) == (0, ["Nothing of otgd's is there for ethusb7."])


def test_release_takes_its_rule_out_of_forward(lab: Lab, launch: Launcher, otgctl: Otgctl) -> None:
    lab.host.run_inside("iptables", "-P", "FORWARD", "DROP")
    before = lab.host.run_inside("iptables", "-S")
    daemon = launch(count=1)
    lab.plug(1)
    daemon.wait_for("ethusb1", "configured")
    daemon.terminate()
    assert lab.host.run_inside("iptables", "-S") != before
    said = otgctl("release")
    assert (said.code, said.err) == (0, "")
    assert lab.host.run_inside("iptables", "-S") == before


def test_release_clears_both_backends(lab: Lab, otgctl: Otgctl) -> None:
    for backend in ("iptables", "nftables"):
        firewall = open_firewall(Backend(backend))
        with lab.host.entered():
            rule = Masquerade(gadget="old", subnet=IPv4Network("10.9.9.0/24"), uplink="eth0")
            firewall.apply(remove=(), add=(rule,))
    assert lab.firewall().count("10.9.9.0/24") >= 2
    said = otgctl("release")
    assert said.code == 0
    for backend in ("iptables", "nftables"):
        assert f"done: remove masquerade of 10.9.9.0/24 through eth0 ({backend})" in said.lines
    assert "10.9.9.0/24" not in lab.firewall()


def _rules(firewall: str) -> list[str]:
    """Return the rules and tables, without chains of legacy tables that were merely looked at."""
    return [line for line in firewall.splitlines() if line[:1] not in {"*", ":", "C"}]
