"""What breaks on a host: each time a clear reason, no crash, and a cure when the cause goes."""

from __future__ import annotations

import ast
import os
import socket
import subprocess
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.lab.daemon import REPOSITORY, Daemon
from tests.lab.deadline import until
from tests.lab.debian import choose_flavour
from tests.lab.topology import Lab, config_text

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tests.daemon.conftest import Launcher

UP = ("configured", "reachable")
SERVICE = "resync_s = 0.3"


@contextmanager
def holding(lab: Lab, *command: str) -> Iterator[None]:
    """Have a program run on the host that holds on to something; it says when it has it."""
    reader, writer = os.pipe()
    with os.fdopen(reader, "rb") as ready, os.fdopen(writer, "wb") as out:
        process = lab.host.start(*command, env=dict(os.environ), stderr=out)
        out.close()
        ready.readline()
        try:
            yield
        finally:
            process.kill()
            process.wait()


def locked_tables(lab: Lab) -> tuple[str, ...]:
    del lab
    return ("flock", "--no-fork", "/run/xtables.lock", "sh", "-c", "echo locked; exec sleep 1000")


class Bench:
    """Starts daemons in a special way."""

    def __init__(self, lab: Lab, directory: Path, stack: ExitStack) -> None:
        self._lab = lab
        self._directory = directory
        self._stack = stack

    def daemon(self, *prefix: str, backend: str, service: str = SERVICE) -> Daemon:
        """Return a daemon that is not started yet; *prefix* starts it."""
        config = config_text(backend=backend, service=service)
        made = Daemon(self._lab.host, self._directory, config, prefix=prefix)
        self._stack.callback(made.close)
        return made


@pytest.fixture
def bench(lab: Lab, tmp_path: Path) -> Iterator[Bench]:
    with ExitStack() as stack:
        yield Bench(lab, tmp_path, stack)


def is_told(daemon: Daemon, *parts: str) -> Callable[[], bool]:
    """Return what asks whether gadget 1's reason has all of *parts*."""
    return lambda: all(part in daemon.gadget("ethusb1")["reason"] for part in parts)


def assert_quiet(daemon: Daemon) -> None:
    """Hold that a fault that lasts is not told again and again."""
    until(lambda: "ethusb1" in daemon.stderr() and "otgd: ready" in daemon.stderr())
    told = daemon.stderr()
    looks = daemon.wakeups()
    until(lambda: daemon.wakeups() >= looks + 4)  # resyncs and retries
    assert daemon.stderr() == told


# --- the packet filter ---------------------------------------------------------------------------


@pytest.mark.parametrize("backend", ["iptables"])
def test_lock_of_iptables_that_stays_held(lab: Lab, launch: Launcher) -> None:
    daemon = launch(service=SERVICE)
    with holding(lab, *locked_tables(lab)):
        lab.plug(1)
        daemon.wait_for("ethusb1", "failed")
        until(is_told(daemon, "lock /run/xtables.lock", "retrying"))
        assert_quiet(daemon)
        assert lab.addresses("ethusb1") == []  # not before its masquerade
    daemon.wait_for("ethusb1", *UP)
    until(lambda: lab.online(1))


def test_lock_of_iptables_that_keeps_forward_from_being_read(lab: Lab, launch: Launcher) -> None:
    choose_flavour(lab.host, "legacy")
    lab.host.run_inside("iptables", "-P", "FORWARD", "DROP")
    with holding(lab, *locked_tables(lab)):
        daemon = launch(service="resync_s = 3600")
        lab.plug(1)
        until(is_told(daemon, "lock"), 20)
    until(lambda: lab.online(1), 40, what=daemon.stderr)
    until(lambda: daemon.gadget("ethusb1")["reason"] == "")


@pytest.mark.parametrize("backend", ["nftables"])
def test_more_nf_tables_events_than_the_kernel_can_queue(lab: Lab, launch: Launcher) -> None:
    daemon = launch(service="resync_s = 3600")
    lab.plug(1)
    daemon.wait_for("ethusb1", *UP)
    until(lambda: lab.online(1))
    rules = lab.firewall()
    elements = ", ".join(f"10.{n >> 8}.{n & 255}.1" for n in range(4000))
    noise = f"table ip noise {{ set s {{ type ipv4_addr; elements = {{ {elements} }}; }}; }}\n"
    with daemon.paused():
        lab.host.run_inside("nft", "-f", "-", stdin=noise)
        lab.host.run_inside("nft", "flush", "ruleset")
    until(lambda: lab.firewall() == rules, what=daemon.stderr)
    assert "more events than the kernel could queue" in daemon.stderr()
    lab.host.run_inside("nft", "flush", "ruleset")  # it still hears them
    until(lambda: lab.firewall() == rules, what=daemon.stderr)


@pytest.mark.parametrize("backend", ["iptables", "nftables"])
def test_without_the_right_to_it(lab: Lab, bench: Bench, backend: str) -> None:
    without = ("setpriv", "--bounding-set", "-net_admin,-net_raw")
    daemon = bench.daemon(*without, backend=backend)
    lab.plug(1)
    daemon.start_and_wait()
    entry = daemon.wait_for("ethusb1", "failed")
    assert "CAP_NET_ADMIN" in entry["reason"] or "not permitted" in entry["reason"]
    assert_quiet(daemon)
    assert daemon.terminate() == 0
    assert "Traceback" not in daemon.stderr()


HIDE_IPTABLES = """\
for file in /usr/sbin/xtables-*-multi /usr/lib/*/libxtables.so.* /usr/lib/*/libip4tc.so.*; do
    mount --bind /dev/null "$file"
done
exec "$@"
"""
SHOW_IPTABLES = """\
for file in /usr/sbin/xtables-*-multi /usr/lib/*/libxtables.so.* /usr/lib/*/libip4tc.so.*; do
    umount "$file"
done
"""


@pytest.mark.parametrize("backend", ["iptables"])
def test_package_iptables_is_not_installed(lab: Lab, bench: Bench, backend: str) -> None:
    daemon = bench.daemon("sh", "-c", HIDE_IPTABLES, "sh", backend=backend)
    lab.plug(1)
    daemon.start_and_wait()
    until(is_told(daemon, "install iptables"), what=lambda: daemon.gadget("ethusb1"))
    assert daemon.gadget("ethusb1")["state"] == "failed"
    assert_quiet(daemon)
    lab.host.run_inside("sh", "-c", SHOW_IPTABLES)
    daemon.wait_for("ethusb1", *UP)
    until(lambda: lab.online(1))


@pytest.mark.parametrize("backend", ["nftables"])
def test_nftables_needs_no_package_iptables(lab: Lab, bench: Bench, backend: str) -> None:
    hide = HIDE_IPTABLES.replace("/usr/lib/*/libxtables.so.*", "")  # libnftables has use for it
    daemon = bench.daemon("sh", "-c", hide, "sh", backend=backend)
    lab.plug(1)
    daemon.start_and_wait()
    daemon.wait_for("ethusb1", *UP)
    assert daemon.gadget("ethusb1")["reason"] == ""
    until(lambda: lab.online(1))


# --- files ---------------------------------------------------------------------------------------


class RuntimeDir:
    """The daemon's runtime directory as a file system of its own, seen from outside."""

    def __init__(self, lab: Lab, daemon: Daemon) -> None:
        self._lab = lab
        self._path = daemon.runtime_dir
        self.mount("-t", "tmpfs", "-o", "size=64k", "tmpfs")

    def mount(self, *options: str) -> None:
        """Run mount(8) for it."""
        self._lab.host.run_inside("mount", *options, str(self._path))

    def run(self, script: str) -> None:
        """Run a script in it."""
        self._lab.host.run_inside("sh", "-c", f"cd {self._path}; {script}")


def seen_from_outside(daemon: Daemon) -> None:
    daemon.runtime_dir = Path(f"/proc/{daemon.pid}/root{daemon.runtime_dir}")


FULL = {
    "full": ("head -c 100k /dev/zero >ballast; true", "rm ballast", "No space left on device"),
    "read-only": ("mount -o remount,ro $PWD", "mount -o remount,rw $PWD", "Read-only file system"),
}


@pytest.mark.parametrize("backend", ["nftables"])
@pytest.mark.parametrize(("fault", "cure", "cause"), FULL.values(), ids=FULL)
def test_state_that_cannot_be_written(
    lab: Lab, bench: Bench, backend: str, fault: str, cure: str, cause: str
) -> None:
    daemon = bench.daemon(backend=backend)
    directory = RuntimeDir(lab, daemon)
    daemon.start_and_wait()
    seen_from_outside(daemon)
    directory.run(fault)
    lab.plug(1)
    until(lambda: lab.online(1), what=daemon.stderr)  # the network does not wait for a disk
    until(lambda: cause in daemon.stderr(), what=daemon.stderr)
    assert daemon.gadget("ethusb1")["state"] == "absent"  # the old state, and whole
    lab.plug(2)
    until(lambda: lab.online(2))
    assert daemon.stderr().count(cause) == 1
    directory.run(cure)
    for n in (1, 2):
        daemon.wait_for(f"ethusb{n}", *UP)


@pytest.mark.parametrize("backend", ["nftables"])
def test_runtime_directory_that_is_read_only_from_the_start(
    lab: Lab, bench: Bench, backend: str
) -> None:
    daemon = bench.daemon(backend=backend)
    directory = RuntimeDir(lab, daemon)
    directory.mount("-o", "remount,ro")
    daemon.start()
    assert daemon.wait() == 1  # systemd starts it again
    assert "Read-only file system" in daemon.stderr()
    assert "Traceback" not in daemon.stderr()
    directory.mount("-o", "remount,rw")
    daemon.start_and_wait()


# --- journald ------------------------------------------------------------------------------------


class StalledJournald:
    """A journald that has its socket and does not read, until it is asked to."""

    def __init__(self, lab: Lab) -> None:
        directory = "/run/systemd/journal"
        lab.host.run_inside("mkdir", "-p", directory)
        self._sock = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._bind(lab, directory)
        self._sock.settimeout(0)

    def _bind(self, lab: Lab, directory: str) -> None:
        """Give it its address, which exists among the host's mounts only."""
        sleeper = lab.host.start("sleep", "60", env=dict(os.environ), stderr=subprocess.DEVNULL)
        try:
            place = f"/proc/{sleeper.pid}/root{directory}"
            until(lambda: Path(place).exists())
            self._sock.bind(f"{place}/socket")
        finally:
            sleeper.kill()
            sleeper.wait()

    def read(self) -> list[str]:
        """Return the messages that are there."""
        messages: list[str] = []
        while True:
            try:
                entry = self._sock.recv(65536)
            except BlockingIOError:
                return messages
            fields = dict(line.split("=", 1) for line in entry.decode().splitlines() if "=" in line)
            messages.append(fields["MESSAGE"])

    def close(self) -> None:
        """Go away."""
        self._sock.close()


@pytest.mark.parametrize("backend", ["nftables"])
def test_journald_that_does_not_read(lab: Lab, bench: Bench, tmp_path: Path, backend: str) -> None:
    stderr = tmp_path / "stderr"
    stderr.touch()
    stat = stderr.stat()
    stream = f"JOURNAL_STREAM={stat.st_dev}:{stat.st_ino}"
    daemon = bench.daemon("env", stream, backend=backend)
    journald = StalledJournald(lab)
    daemon.start_and_wait()
    queue = int(Path("/proc/sys/net/unix/max_dgram_qlen").read_text())
    for _ in range(queue):  # two events each
        lab.plug(1)
        daemon.wait_for("ethusb1", *UP)
        lab.unplug(1)
        daemon.wait_for("ethusb1", "absent")
    lab.plug(2)
    daemon.wait_for("ethusb2", *UP)
    until(lambda: lab.online(2))

    messages: list[str] = []

    def caught_up() -> bool:
        messages.extend(journald.read())
        return any("ethusb2: configured" in message for message in messages)

    daemon.reload()  # something to tell, and with it what had to wait
    until(caught_up, what=lambda: messages[-3:])
    assert sum("ethusb1: unplugged" in message for message in messages) == queue
    assert daemon.stderr() == ""
    journald.close()


# --- clocks --------------------------------------------------------------------------------------

WALL_CLOCKS = {"time.time", "time.time_ns", "datetime.now", "datetime.utcnow", "datetime.today"}


def calls(tree: ast.AST) -> Iterator[str]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Call):
            yield ast.unparse(node.func)


def test_no_decision_of_the_service_reads_a_clock_that_may_jump() -> None:
    """The system's clock cannot be set in a namespace; so hold that nobody asks it.

    The one reading is for people: since when a gadget is in its state.
    """
    programs = {"cli", "swarm"}  # otgctl's; a swarm's preflight compares the clocks
    files = [f for f in (REPOSITORY / "otgd").rglob("*.py") if not programs & set(f.parts)]
    readers = [
        f"{file.name}:{node.name}"
        for file in files
        for node in ast.walk(ast.parse(file.read_text()))
        if isinstance(node, ast.FunctionDef) and WALL_CLOCKS & set(calls(node))
    ]
    assert readers == ["reporter.py:_note_times"]
