"""Real Docker engines as machines of their own: network, mounts, processes, hostname and cgroups.

Each is a Debian root on one of the lab's namespaces, with sshd and dockerd as its only services.
Nothing of it touches the machine's own Docker, if there is one, and all of it dies with the test.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from tests.lab.deadline import until
from tests.system.booted_system import BootedSystem, Completed

if TYPE_CHECKING:
    from types import TracebackType
    from typing import Self

    from tests.lab.namespaces import Namespace

PACKAGES = (
    *("busybox-static", "curl", "docker-cli", "docker.io", "iproute2", "iptables", "nftables"),
    *("openssh-client", "openssh-server", "procps"),
)
START_S = 60

_SCRIPT = Path(__file__).with_name("docker-machine.sh")
_CGROUPS = Path("/sys/fs/cgroup")
_ENVIRONMENT = {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "HOME": "/root", "LC_ALL": "C.UTF-8"}


class DockerMachine(BootedSystem):
    """One machine with Docker, until the end of the block.

    Args:
        namespace: its network.
        root: a Debian root with ``PACKAGES``; it is not changed.
        hostname: no two may have the same one.
        directory: for what its services print.
        shares_run: its /run is the namespace's, so that a program outside finds its Docker.
    """

    def __init__(
        self,
        namespace: Namespace,
        root: Path,
        hostname: str,
        directory: Path,
        *,
        shares_run: bool = False,
    ) -> None:
        self.hostname = hostname
        self._directory = directory
        self._cgroup = f"otgd-{os.getpid()}-{hostname}"
        self._services: dict[str, subprocess.Popen[bytes]] = {}
        with self.log("machine").open("wb") as log:
            self._outer = namespace.start(
                *(
                    str(_SCRIPT),
                    self._cgroup,
                    hostname,
                    str(root),
                    "shared" if shares_run else "own",
                ),
                env=_ENVIRONMENT,
                stderr=log,
            )
        self.pid = until(self._first_process, START_S, what=self.logs)

    def _first_process(self) -> int:
        """Return the PID of the machine's init as this machine sees it, once it is up."""
        assert self._outer.poll() is None, self.logs()
        children = Path(f"/proc/{self._outer.pid}/task/{self._outer.pid}/children")
        for child in children.read_text().split():
            with suppress(OSError):
                if Path(f"/proc/{child}/root/run/machine-ready").exists():
                    return int(child)
        return 0

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._outer.kill()
        self._outer.wait()
        for service in self._services.values():
            service.wait()
        for tree in _CGROUPS.glob(f"*/{self._cgroup}"):
            until(lambda tree=tree: not _pids(tree), 20)  # type: ignore[misc] # bound
            for child in sorted(tree.rglob("*/"), reverse=True):
                child.rmdir()
            tree.rmdir()

    @property
    def root(self) -> Path:
        """Its root directory, seen from outside."""
        return Path(f"/proc/{self.pid}/root")

    def attempt(self, *command: str, stdin: str | None = None) -> Completed:
        """Run a program as root inside, whatever it comes to."""
        done = subprocess.run(
            self._inside(command),
            check=False,
            capture_output=True,
            text=True,
            input=stdin,
            env=_ENVIRONMENT,
        )
        return Completed(code=done.returncode, out=done.stdout, err=done.stderr)

    def _inside(self, command: tuple[str, ...]) -> list[str]:
        enter = ("nsenter", "--target", str(self.pid), "--all", "--root", "--wd", "--")
        return ["setpriv", "--pdeathsig", "KILL", *enter, *command]

    # Services

    def start(self, service: str, *command: str) -> None:
        """Start a service."""
        with self.log(service).open("ab") as log:
            self._services[service] = subprocess.Popen(
                self._inside(command),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env=_ENVIRONMENT,
            )

    def stop(self, service: str) -> None:
        """End a service as systemd does."""
        process = self._services.pop(service)
        # nsenter waits for the program, its child, since that is in another PID namespace.
        children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text()
        for child in children.split():
            os.kill(int(child), signal.SIGTERM)
        process.wait(60)

    def start_docker(self, *flags: str) -> None:
        """Start dockerd, and do not wait."""
        self.start("dockerd", "dockerd", *flags)

    def await_docker(self) -> None:
        """Return when Docker answers."""
        until(lambda: self.attempt("docker", "version").code == 0, START_S, what=self.logs)

    def start_ssh(self, key: Path) -> None:
        """Start sshd, which lets the owner of *key* (a public one) in as root."""
        home = self.root / "root/.ssh"
        home.mkdir(exist_ok=True)
        shutil.copy(key, home / "authorized_keys")
        if not (self.root / "etc/ssh/ssh_host_ed25519_key").exists():
            self.run("ssh-keygen", "-A")
        self.start("sshd", "/usr/sbin/sshd", "-D", "-e")

    def docker(self, *arguments: str) -> str:
        """Run the docker command."""
        return self.run("docker", *arguments)

    def log(self, service: str) -> Path:
        """Return the file of what a service printed."""
        return self._directory / f"{self.hostname}.{service}.log"

    def logs(self) -> str:
        """Return the ends of all that was printed."""
        files = self._directory.glob(f"{self.hostname}.*.log")
        return "\n".join(
            f"{file.name}: {file.read_text(errors='replace')[-3000:]}" for file in files
        )


def _pids(tree: Path) -> list[str]:
    """Return the processes in a cgroup and in those below it."""
    files = [tree / "cgroup.procs", *tree.rglob("cgroup.procs")]
    return [pid for file in files for pid in file.read_text().split()]
