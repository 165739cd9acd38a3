"""Others undo what otgd did: by accident, a hundred times, or without an end."""

from __future__ import annotations

import os
import subprocess
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING

import pytest

from otgd.damper import FREE
from tests.lab.daemon import Daemon
from tests.lab.deadline import until
from tests.lab.debian import choose_flavour
from tests.lab.topology import FAR_SIDE, Lab, config_text
from tests.lab.traffic import ping

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.daemon.conftest import Launcher

UP = ("configured", "reachable")
AT_ONCE_S = 1.0
RESYNC_S = 0.2
MEBIBYTE = 1 << 20
FLUSHES = 100
WARM_UP = 30

TOLD = {
    "address deleted": "ip address delete 10.0.11.1/24 dev ethusb1",
    "link down": "ip link set ethusb1 down",
    "renamed": "ip link set ethusb1 down name usb7",
    "forwarding off": "echo 0 > /proc/sys/net/ipv4/ip_forward",
}
"""What rtnetlink tells of."""
FLUSH = {
    "iptables": "for t in raw mangle nat; do iptables-legacy -w -t $t -F; done",
    "nftables": "nft flush ruleset",
}
TELLS = {"nftables"}
"""The backends whose changes the kernel tells of."""


@pytest.mark.parametrize("damage", TOLD.values(), ids=TOLD)
def test_what_rtnetlink_tells_of_is_back_within_a_second(
    lab: Lab, launch: Launcher, damage: str
) -> None:
    daemon = launch(service="resync_s = 3600")
    lab.plug(1)
    daemon.wait_for("ethusb1", *UP)
    until(lambda: lab.online(1))
    lab.host.run_inside("sh", "-c", damage)
    until(lambda: ping(lab.guest(1), FAR_SIDE, timeout_s=0.1), AT_ONCE_S, what=daemon.stderr)
    assert lab.addresses("ethusb1") == ["10.0.11.1/24"]


def test_flushed_rules_are_back_in_time(lab: Lab, launch: Launcher, backend: str) -> None:
    """Within a second where the kernel tells of it, else at the next resync."""
    daemon = launch(service=f"resync_s = {3600 if backend in TELLS else RESYNC_S}")
    lab.plug(1)
    daemon.wait_for("ethusb1", *UP)
    until(lambda: lab.online(1))
    rules = lab.firewall()
    lab.host.run_inside("sh", "-c", FLUSH[backend])
    until(lambda: ping(lab.guest(1), FAR_SIDE, timeout_s=0.1), AT_ONCE_S, what=daemon.stderr)
    until(lambda: lab.firewall() == rules, AT_ONCE_S, what=daemon.stderr)


def test_flushed_passage_is_back_at_once(lab: Lab, launch: Launcher) -> None:
    iptables = "iptables-nft"
    choose_flavour(lab.host, "nft")
    lab.host.run_inside(iptables, "-P", "FORWARD", "DROP")
    daemon = launch(service="resync_s = 3600")
    lab.plug(1)
    daemon.wait_for("ethusb1", *UP)
    until(lambda: lab.online(1))
    for _ in range(3):
        lab.host.run_inside(iptables, "-F")
        until(lambda: ping(lab.guest(1), FAR_SIDE, timeout_s=0.1), AT_ONCE_S, what=daemon.stderr)
        assert "--comment otgd" in lab.host.run_inside(iptables, "-S")


class Flushed:
    """A host whose rules are flushed again and again, and what that costs its daemon."""

    def __init__(self, lab: Lab, directory: Path, backend: str) -> None:
        self.lab = lab
        directory.mkdir()
        config = config_text(backend=backend, service=f"resync_s = {RESYNC_S}")
        self.daemon = Daemon(lab.host, directory, config, measured=False)
        self._flush = FLUSH[backend]

    def start(self) -> None:
        """Bring two gadgets up."""
        self.daemon.start_and_wait()
        self.lab.plug_all(1, 2)
        for n in (1, 2):
            self.daemon.wait_for(f"ethusb{n}", *UP)
        self.rules = self.lab.firewall()

    def flush(self) -> None:
        """Flush the rules; the daemon may have put one back before the last is gone."""
        self.lab.host.run_inside("sh", "-c", self._flush)

    def is_whole(self) -> bool:
        """Tell whether all rules are back."""
        return self.lab.firewall() == self.rules

    @property
    def costs(self) -> tuple[int, int]:
        """Descriptors and bytes."""
        return self.daemon.fds(), self.daemon.memory_bytes()


def test_rules_are_back_a_hundred_times_without_growth(tmp_path: Path, lab: Lab) -> None:
    """Both backends side by side, each on a host of its own: the damper's waits take the time."""
    with Lab() as other:
        hosts = [
            Flushed(lab, tmp_path / "legacy", "iptables"),
            Flushed(other, tmp_path / "nft", "nftables"),
        ]
        try:
            for host in hosts:
                host.start()
            before = []
            for turn in range(FLUSHES + WARM_UP):
                if turn == WARM_UP:  # caches are filled
                    before = [host.costs for host in hosts]
                for host in hosts:
                    host.flush()
                for host in hosts:
                    until(host.is_whole, AT_ONCE_S + RESYNC_S, what=host.daemon.stderr)
            for host, (fds, memory_bytes) in zip(hosts, before, strict=True):
                assert host.costs[0] == fds
                assert host.costs[1] - memory_bytes < 2 * MEBIBYTE
                until(lambda host=host: host.lab.online(1))  # type: ignore[misc] # bound
        finally:
            for host in hosts:
                host.daemon.close()


# --- fights --------------------------------------------------------------------------------------

FIGHTS = {
    "link": ("ip link set ethusb1 down", "set ethusb1 up"),
    "address": ("ip address flush dev ethusb1", "add address 10.0.11.1/24 to ethusb1"),
    "forwarding": ("echo 0 > /proc/sys/net/ipv4/ip_forward", "set net.ipv4.ip_forward to 1"),
    "rule": ("{take}", "add masquerade of 10.0.11.0/24 through eth0"),
}
TAKE = {
    "iptables": "iptables-legacy -w -t nat -F OTGD-POSTROUTING",
    "nftables": "nft flush set inet otgd masqueraded",
}


@contextmanager
def fighter(lab: Lab, blow: str) -> Iterator[None]:
    """Have somebody on the host who does one thing over and over, as fast as he can."""
    script = f"while :; do {blow}; done 2>/dev/null"
    process = lab.host.start(
        "sh",
        "-c",
        script,
        env=dict(os.environ),
        stderr=subprocess.DEVNULL,
    )
    try:
        yield
    finally:
        process.kill()
        process.wait()


def observed_for(daemon: Daemon, keep_alives: int) -> None:
    """Let so many keep-alives go by."""

    def fed() -> int:
        return len(daemon.manager.values("WATCHDOG"))

    enough = fed() + keep_alives
    until(lambda: fed() >= enough, 60)


@pytest.mark.parametrize(("blow", "name"), FIGHTS.values(), ids=FIGHTS)
def test_fight_is_rate_limited_and_told_once(
    lab: Lab, launch: Launcher, backend: str, blow: str, name: str
) -> None:
    daemon = launch(watchdog_s=1.0, service="resync_s = 0.1", measured=False)
    lab.plug(1)
    daemon.wait_for("ethusb1", *UP)
    until(lambda: lab.online(1))
    until(lambda: "ethusb1: configured" in daemon.stderr())
    known = len(daemon.stderr().splitlines())
    # A lock of his own: whom he makes wait, and how that is told, is another test's matter.
    take = f"export XTABLES_LOCKFILE=/run/his.lock; {TAKE[backend]}; sleep 0.05"
    with fighter(lab, blow.format(take=take)):
        until(lambda: "keeps undoing" in daemon.gadget("ethusb1")["reason"], what=daemon.stderr)
        entry = daemon.gadget("ethusb1")
        assert entry["state"] == "failed"
        assert entry["reason"].startswith(name)
        observed_for(daemon, 2)
        told, cpu_s, start_s = daemon.stderr(), daemon.cpu_s(), time.monotonic()
        observed_for(daemon, 6)
        # A busy loop takes all of it; resyncs, ten a second, are the most of what is left.
        assert daemon.cpu_s() - cpu_s < 0.25 * (time.monotonic() - start_s)
        assert daemon.stderr() == told  # quiet
        assert daemon.gadget("ethusb1")["since"] == entry["since"]
    lines = told.splitlines()[known:]
    verdict = f"otgd: err: ethusb1: failed: {entry['reason']}"
    assert [line for line in lines if "repaired" not in line] == [verdict], "\n".join(lines)
    rounds = [line for line in lines if name in line]
    assert len(rounds) <= FREE + 2  # then it was held back

    daemon.wait_for("ethusb1", *UP, deadline_s=20)
    until(lambda: lab.online(1), what=daemon.stderr)
    until(lambda: "ethusb1: configured" in daemon.stderr()[len(told) :], what=daemon.stderr)
    assert len(daemon.stderr().splitlines()) == len(told.splitlines()) + 1, daemon.stderr()
