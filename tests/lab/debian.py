"""Other programs of a Debian host (dockerd, ufw, firewalld), run beside the daemon under test.

They come from a Debian root of their own, so nothing is installed on this machine, and nothing of
theirs outlives the test: they see the lab host's network and its /run, and write to memory.
"""

from __future__ import annotations

import shutil
import socket
from pathlib import Path
from typing import TYPE_CHECKING

from tests.conftest import need
from tests.lab.deadline import until
from tests.lab.namespaces import run

if TYPE_CHECKING:
    import subprocess

    from tests.lab.namespaces import Namespace

MAKE_ROOT = Path(__file__).resolve().parents[2] / "packaging" / "lib" / "make-root.sh"
PACKAGES = ("dbus", "docker.io", "firewalld", "iproute2", "iptables", "nftables", "procps", "ufw")
FLAVOURS = ("nft", "legacy")

_ROOT = "/mnt/root"
_MOUNTS = f"""\
set -e
mount -t tmpfs tmpfs /mnt
mkdir /mnt/up /mnt/work /mnt/root
mount -t overlay overlay -o lowerdir="$1",upperdir=/mnt/up,workdir=/mnt/work {_ROOT}
mount -t proc proc {_ROOT}/proc
mount --rbind /sys {_ROOT}/sys
mount -t cgroup2 cgroup2 {_ROOT}/sys/fs/cgroup
mount --rbind /dev {_ROOT}/dev
mount --bind /run {_ROOT}/run
mkdir -p {_ROOT}/var/lib/docker
mount -t tmpfs tmpfs {_ROOT}/var/lib/docker
mkdir -p /run/lock
"""
_ALTERNATIVES = """\
set -e
if [ ! -e /run/alternatives ]; then
    cp -a /etc/alternatives /run/alternatives
    mount --bind /run/alternatives /etc/alternatives
fi
for program in iptables iptables-save iptables-restore; do
    ln -sfn "/usr/sbin/${program%%-*}-$1${program#iptables}" /etc/alternatives/$program
done
"""


def _suite() -> str:
    """Return this machine's Debian, so that both ends have one version of iptables."""
    release = Path("/etc/os-release").read_text(encoding="utf-8")
    words = dict(line.split("=", 1) for line in release.splitlines() if "=" in line)
    need(words.get("ID") == "debian", "Debian, for a root like this machine")
    return words["VERSION_CODENAME"]


def choose_flavour(host: Namespace, flavour: str) -> None:
    """Make ``iptables`` on *host* what update-alternatives(1) would make it."""
    host.run_inside("sh", "-c", _ALTERNATIVES, "sh", flavour)


def _answers(docker_socket: str) -> bool:
    with socket.socket(socket.AF_UNIX) as sock:
        sock.settimeout(5)
        try:
            sock.connect(docker_socket)
        except OSError:
            return False
        sock.sendall(b"GET /_ping HTTP/1.0\r\n\r\n")
        return b" 200 OK" in sock.recv(99)


class DebianHost:
    """A Debian root on the lab's host: same network, same /run, its own files.

    Args:
        flavour: what its ``iptables`` writes, and the host's: ``nft`` or ``legacy``.
    """

    def __init__(self, host: Namespace, directory: Path, *, flavour: str) -> None:
        need(shutil.which("mmdebstrap"), "mmdebstrap, to build a Debian root")
        root = run(str(MAKE_ROOT), _suite(), *PACKAGES).strip()
        self._host = host
        self._log = directory / "programs.log"
        self._running: list[subprocess.Popen[bytes]] = []
        host.run_inside("sh", "-c", _MOUNTS, "sh", root)
        choose_flavour(host, flavour)
        host.run_inside("chroot", _ROOT, "sh", "-c", _ALTERNATIVES, "sh", flavour)

    def run(self, *command: str) -> str:
        """Run a program to its end and return what it printed."""
        return self._host.run_inside("chroot", _ROOT, *command)

    def start(self, *command: str) -> subprocess.Popen[bytes]:
        """Start a program; it ends with the test."""
        path = "/usr/sbin:/usr/bin:/sbin:/bin"
        with self._log.open("ab") as log:
            process = self._host.start(
                *("chroot", _ROOT, *command), env={"PATH": path, "HOME": "/root"}, stderr=log
            )
        self._running.append(process)
        return process

    def start_docker(self) -> subprocess.Popen[bytes]:
        """Start dockerd and return when it answers: its rules are there by then."""
        flags = ("--storage-driver=vfs", "--host=unix:///run/docker.sock")
        dockerd = self.start("dockerd", *flags)

        def answers() -> bool:
            assert dockerd.poll() is None, self.log()
            return _answers(f"/proc/{dockerd.pid}/root/run/docker.sock")

        until(answers, 60, what=self.log)
        return dockerd

    def log(self) -> str:
        """Return what the programs printed."""
        return self._log.read_text(errors="replace")

    def stop(self, process: subprocess.Popen[bytes]) -> None:
        """End a program as an init system does."""
        process.terminate()
        process.wait(30)

    def close(self) -> None:
        """End what still runs."""
        for process in self._running:
            if process.poll() is None:
                self.stop(process)
