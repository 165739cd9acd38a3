"""The packet filter is chosen by what the host uses, and changes without a gap."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import pytest

from tests.lab.deadline import until
from tests.lab.topology import FAR_SIDE, Lab, config_text, guest_address
from tests.lab.traffic import PingStream

if TYPE_CHECKING:
    from tests.daemon.conftest import Launcher
    from tests.lab.daemon import Daemon

UP = ("configured", "reachable")
BACKENDS = ("iptables", "nftables")


def holds_rules(lab: Lab) -> list[str]:
    """Return the backends in which the host has anything of ours."""
    legacy = lab.host.run_inside("iptables-legacy-save")
    tables = lab.host.run_inside("nft", "list", "tables").split()
    found = {"iptables": "OTGD" in legacy or "otgd" in legacy, "nftables": "otgd" in tables}
    return [name for name, holds in found.items() if holds]


def firewall_of(daemon: Daemon) -> tuple[str, str]:
    shown = daemon.state()["firewall"]
    return shown["backend"], shown["reason"]


@pytest.mark.parametrize("backend", ["iptables"])
def test_backend_changes_by_reload_without_a_gap(lab: Lab, launch: Launcher) -> None:
    daemon = launch()
    lab.plug_all(1, 2)
    for n in (1, 2):
        daemon.wait_for(f"ethusb{n}", *UP)
        until(lambda n=n: lab.online(n))  # type: ignore[misc] # n is bound on purpose
    with (
        PingStream(lab.guest(1), FAR_SIDE, interval_s=0.002) as out,
        PingStream(lab.guest(1), guest_address(2), interval_s=0.002) as across,
    ):
        until(lambda: out.answers and across.answers)
        since_s = time.monotonic()
        for turn in range(1, 7):
            backend = BACKENDS[turn % 2]
            daemon.reload(config_text(backend=backend))
            until(lambda: holds_rules(lab) == [backend], what=daemon.stderr)  # noqa: B023 - at once
            seen = out.answers
            until(lambda: out.answers > seen + 10)  # noqa: B023 - at once
            assert firewall_of(daemon) == (backend, "the config says so")
        assert out.lost_since(since_s) == []
        assert across.lost_since(since_s) == []
    lab.unplug(1, 2)
    until(lambda: holds_rules(lab) == [], what=lab.firewall)


@pytest.mark.parametrize("backend", BACKENDS)
def test_auto_moves_over_what_an_earlier_run_left(lab: Lab, launch: Launcher, backend: str) -> None:
    daemon = launch()
    lab.plug(1)
    daemon.wait_for("ethusb1", *UP)
    until(lambda: lab.online(1))
    with PingStream(lab.guest(1), FAR_SIDE) as stream:
        until(lambda: stream.answers)
        since_s = time.monotonic()
        assert daemon.terminate() == 0  # on_stop = "keep"
        assert holds_rules(lab) == [backend]
        daemon.config_file.write_text(config_text(backend="auto"))
        daemon.start_and_wait()
        until(lambda: holds_rules(lab) == ["nftables"], what=daemon.stderr)
        seen = stream.answers
        until(lambda: stream.answers > seen + 10)
        assert stream.lost_since(since_s) == []
    assert firewall_of(daemon) == ("nftables", "no other firewall is in use")


@pytest.mark.parametrize("backend", ["auto"])
@pytest.mark.parametrize(
    ("use", "chosen", "reason"),
    [
        ("true", "nftables", "no other firewall is in use"),
        ("nft add table inet lan", "nftables", "nf_tables are in use (lan)"),
        (
            "iptables-legacy -A INPUT -s 192.0.2.1 -j DROP",
            "iptables",
            "legacy tables are in use (filter), nf_tables not",
        ),
    ],
    ids=["nothing", "nft", "legacy"],
)
def test_auto_takes_what_the_host_uses_and_says_why(
    lab: Lab, launch: Launcher, use: str, chosen: str, reason: str
) -> None:
    lab.host.run_inside("sh", "-c", use)
    daemon = launch()
    lab.plug(1)
    daemon.wait_for("ethusb1", *UP)
    until(lambda: lab.online(1))
    assert holds_rules(lab) == [chosen]
    assert firewall_of(daemon) == (chosen, reason)
    assert f"firewall {chosen}, since {reason}" in daemon.stderr()
