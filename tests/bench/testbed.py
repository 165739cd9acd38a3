"""A booted Debian with one peer in it, watched and charged from outside."""

from __future__ import annotations

import json
import shutil
import tempfile
import time
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tests.bench.cables import Plug, Watcher
from tests.bench.programs import build
from tests.lab.namespaces import Namespace, run
from tests.system.container import booted, make_root
from tests.system.host import Host

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from tests.bench.peers import Peer
    from tests.system.container import Container

REPOSITORY = Path(__file__).resolve().parents[2]

PACKAGES = (
    *("dbus", "dhcpcd", "dnsmasq-base", "iperf3", "iproute2", "iptables", "kmod"),
    *("network-manager", "nftables", "procps", "systemd", "systemd-sysv", "udev"),
    *("python3-click", "python3-iptables", "python3-nftables", "python3-pydantic"),
    *("python3-pyroute2", "python3-pyudev", "python3-rich", "python3-systemd"),
)

RESTING = (
    *("NetworkManager.service", "NetworkManager-wait-online.service", "dhcpcd.service"),
    *("systemd-networkd.service", "systemd-networkd.socket", "otgd.service"),
    *("apt-daily.timer", "apt-daily-upgrade.timer", "fstrim.timer", "e2scrub_all.timer"),
)
"""What must not start by itself: only the peer that is measured runs, and nothing wakes up."""

_QUIET_S = 0.25
_QUIET_SHARE = 0.01
_PATIENCE_S = 20.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Memory:
    """What processes hold; a page that several share counts in parts (Pss) or in full (Rss)."""

    pss_mib: float
    rss_mib: float


class Machine:
    """One booted system."""

    def __init__(self, container: Container, peer: Peer, watcher: Watcher) -> None:
        self.container = container
        self._peer = peer
        self._watcher = watcher
        self._cgroups = container.root / "sys/fs/cgroup"

    # Life

    def start(self) -> tuple[float, float]:
        """Start the peer; return wall and CPU milliseconds until systemd was told READY=1."""
        self.container.run("systemctl", "start", self._peer.unit)
        cpu_s = self.own_cpu_s()
        names = ("InactiveExitTimestampMonotonic", "ActiveEnterTimestampMonotonic")
        begin_us, ready_us = (int(self.container.unit(self._peer.unit, key)) for key in names)
        return (ready_us - begin_us) / 1000, cpu_s * 1000

    def stop(self) -> None:
        """Stop the peer."""
        self.container.run("systemctl", "stop", self._peer.unit)

    def plug(self, count: int) -> list[Plug]:
        """Plug gadgets 1 to *count* in at once."""
        return self._watcher.plug(count)

    def unplug(self) -> None:
        """Pull them out."""
        self._watcher.unplug()

    def settle(self) -> None:
        """Return when the whole system has had next to nothing to do for a moment."""
        end = time.monotonic() + _PATIENCE_S
        while time.monotonic() < end:
            before_s = self.system_cpu_s()
            time.sleep(_QUIET_S)
            if self.system_cpu_s() - before_s < _QUIET_S * _QUIET_SHARE:
                return

    def state(self) -> dict[str, Any]:
        """Return otgd's state file."""
        state: dict[str, Any] = json.loads(
            (self.container.root / "run/otgd/state.json").read_text()
        )
        return state

    # Cost

    def own_cpu_s(self) -> float:
        """Return the CPU time of the peer's unit since its start."""
        return _cpu_s(self._own_cgroup)

    def system_cpu_s(self) -> float:
        """Return the CPU time of everything in the container: udevd, journald, PID 1 too."""
        return _cpu_s(self._cgroups)

    def memory(self) -> Memory:
        """Return what the peer's processes hold."""
        rollups = [Path(f"/proc/{pid}/smaps_rollup").read_text() for pid in self._pids()]
        pss, rss = (sum(_kib(text, key) for text in rollups) / 1024 for key in ("Pss", "Rss"))
        return Memory(pss_mib=pss, rss_mib=rss)

    def wakeups(self) -> int:
        """Return how often the peer's threads have waited for something."""
        tasks = [task for pid in self._pids() for task in Path(f"/proc/{pid}/task").iterdir()]
        return sum(_kib((task / "status").read_text(), "voluntary_ctxt_switches") for task in tasks)

    @property
    def _own_cgroup(self) -> Path:
        return self._cgroups / "system.slice" / self._peer.unit

    def _pids(self) -> list[int]:
        lists = self._own_cgroup.rglob("cgroup.procs")
        return [int(pid) for each in lists for pid in each.read_text().split()]


def _cpu_s(cgroup: Path) -> float:
    fields = dict(line.split() for line in (cgroup / "cpu.stat").read_text().splitlines())
    return int(fields["usage_usec"]) / 1e6


def _kib(text: str, key: str) -> int:
    """Return the number after ``key:`` of a file in /proc."""
    return next(int(line.split()[1]) for line in text.splitlines() if line.startswith(f"{key}:"))


class Testbed:
    """What all boots of a run share: roots, guests, programs."""

    __test__ = False  # pytest: not a test

    def __init__(self, *, stack: ExitStack, guests: int) -> None:
        self._workspace = _tmpfs(stack)
        self._watcher = build("watcher", self._workspace)
        self.bound = build("bound", self._workspace)
        self.guests = [Namespace() for _ in range(guests)]
        for each in self.guests:
            stack.callback(each.close)
        self._base = make_root("trixie", *PACKAGES)
        self._packaged = self._install(build_deb(self._workspace))

    def _install(self, deb: Path) -> Path:
        """Install the package in a booted system, and return the layer that it made."""
        where = Path(tempfile.mkdtemp(dir=self._workspace))
        with booted(where, (self._base,), prepare=_rest) as container:
            shutil.copy(deb, container.root / "root")
            container.run("apt-get", "install", "--yes", f"/root/{deb.name}")
        return where / "upper"

    @contextmanager
    def boot(self, peer: Peer) -> Iterator[tuple[Machine, Host]]:
        """Boot a fresh system with *peer* in it, not started yet; yield it and its uplink."""
        where = Path(tempfile.mkdtemp(prefix=f"{peer.key}-", dir=self._workspace))
        layers = (self._packaged, self._base) if peer.packaged else (self._base,)

        def prepare(root: Path) -> None:
            _rest(root)
            peer.prepare(root)

        with (
            booted(where, layers, prepare=prepare) as container,
            Host(container) as host,
            self._watch(container) as watcher,
        ):
            container.run("sysctl", "--quiet", "--write", "net.ipv4.ip_forward=1")
            if peer.rules:
                container.run("iptables-restore", "--noflush", stdin=peer.rules)
            machine = Machine(container, peer, watcher)
            machine.settle()
            yield machine, host
        shutil.rmtree(where)

    def _watch(self, container: Container) -> Watcher:
        return Watcher(self._watcher, container.network, self.guests)

    def versions(self, packages: Sequence[str]) -> str:
        """Return the versions of Debian packages, for people."""
        show = ("dpkg-query", "--show", "--showformat", "${Package} ${Version}, ")
        admin = f"--admindir={self._base}/var/lib/dpkg"
        return run(show[0], admin, *show[1:], *packages).rstrip(", ")


def _rest(root: Path) -> None:
    there = [each for each in RESTING if (root / "usr/lib/systemd/system" / each).exists()]
    run("systemctl", f"--root={root}", "--quiet", "disable", *there)


def build_deb(directory: Path) -> Path:
    """Build the package from the checkout."""
    return Path(run(str(REPOSITORY / "packaging/build-deb.sh"), str(directory / "dist")).strip())


def _tmpfs(stack: ExitStack) -> Path:
    path = Path(tempfile.mkdtemp(prefix="otgd-bench-"))
    run("mount", "-t", "tmpfs", "-o", "mode=755", "otgd-bench", str(path))
    stack.callback(path.rmdir)
    stack.callback(run, "umount", "--lazy", str(path))
    return path
