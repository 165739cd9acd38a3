"""A Debian system under a real systemd: PID 1, udevd, journald and dbus, in a container.

The root is an overlay on read-only layers, thrown away afterwards. What happens inside is seen from
outside through the container's namespaces; nothing is installed in it for the test's sake.
"""

from __future__ import annotations

import os
import signal
import subprocess
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING

from tests.lab.namespaces import Namespace, run
from tests.system.booted_system import BootedSystem, Completed
from tests.system.deadline import until

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

MAKE_ROOT = Path(__file__).resolve().parents[2] / "packaging" / "lib" / "make-root.sh"

BOOTED = {"running", "degraded"}
BOOT_S = 180
_POWER_OFF = signal.SIGRTMIN + 4  # systemd(1), "SIGNALS"

_ENVIRONMENT = {
    "PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
    "HOME": "/root",
    "LC_ALL": "C.UTF-8",
    "TERM": "dumb",
    "DEBIAN_FRONTEND": "noninteractive",
}
_NSPAWN_ENVIRONMENT = {
    "PATH": _ENVIRONMENT["PATH"],
    "SYSTEMD_NSPAWN_UNIFIED_HIERARCHY": "1",  # also where the machine itself is on cgroup v1
    "SYSTEMD_NSPAWN_API_VFS_WRITABLE": "yes",  # udevd runs only where /sys is writable
}


def make_root(
    suite: str, *packages: str, download: Sequence[str] = (), variant: str = "minbase"
) -> Path:
    """Return a cached Debian root with *packages*, and *download* ready in its apt cache."""
    options = ["--variant", variant]
    if download:
        options += ["--download", " ".join(download)]
    return Path(run(str(MAKE_ROOT), *options, suite, *packages).strip())


class ContainerNamespace(Namespace):
    """The container's network and mounts, in the terms of the lab."""

    def __init__(self, pid: int) -> None:
        self._net = os.open(f"/proc/{pid}/ns/net", os.O_RDONLY | os.O_CLOEXEC)
        self._mnt = os.open(f"/proc/{pid}/ns/mnt", os.O_RDONLY | os.O_CLOEXEC)


class Container(BootedSystem):
    """One booted system."""

    def __init__(self, pid: int) -> None:
        self.pid = pid
        self.network = ContainerNamespace(pid)

    @property
    def root(self) -> Path:
        """The root directory, seen from outside."""
        return Path(f"/proc/{self.pid}/root")

    def attempt(self, *command: str, stdin: str | None = None) -> Completed:
        """Run a program as root inside, whatever it comes to."""
        done = subprocess.run(
            ["nsenter", "--target", str(self.pid), "--all", "--", *command],
            check=False,
            capture_output=True,
            text=True,
            input=stdin,
            env=_ENVIRONMENT,
        )
        return Completed(code=done.returncode, out=done.stdout, err=done.stderr)


def _cgroup2() -> Path:
    """Return where cgroup v2 is mounted, alone or beside v1."""
    for line in Path("/proc/self/mounts").read_text().splitlines():
        _, where, kind, *_ = line.split()
        if kind == "cgroup2":
            return Path(where)
    raise AssertionError("no cgroup2 file system is mounted")


@contextmanager
def _cgroup(name: str) -> Iterator[Path]:
    """Make a cgroup2 subtree for one container, and take it away."""
    path = _cgroup2() / name
    path.mkdir()
    try:
        yield path
    finally:
        (path / "cgroup.kill").write_text("1")
        until(lambda: "populated 0" in (path / "cgroup.events").read_text())
        for child in sorted(path.rglob("*/"), reverse=True):
            child.rmdir()
        path.rmdir()


@contextmanager
def overlay(where: Path, layers: Sequence[Path]) -> Iterator[Path]:
    """Mount a writable root over *layers* (top first) and yield it; changes go to *where*/upper."""
    for name in ("upper", "work", "root"):
        (where / name).mkdir(parents=True, exist_ok=True)
    lower = ":".join(str(layer) for layer in layers)
    options = f"lowerdir={lower},upperdir={where / 'upper'},workdir={where / 'work'}"
    root = where / "root"
    run("mount", "-t", "overlay", "otgd-test", "-o", options, str(root))
    try:
        yield root
    finally:
        run("umount", str(root))


def _spare_the_machine(root: Path) -> None:
    """Keep the distribution's sysctl files from setting values that the machine shares."""
    for each in (root / "usr/lib/sysctl.d").glob("*.conf"):
        mask = root / "etc/sysctl.d" / each.name
        if "otgd" not in each.name and not mask.is_symlink():
            mask.unlink(missing_ok=True)
            mask.symlink_to("/dev/null")


def _first_process(nspawn: subprocess.Popen[bytes]) -> int | None:
    """Return the container's PID 1, once it runs systemd."""
    assert nspawn.poll() is None, f"systemd-nspawn: exit {nspawn.returncode}"
    for task in Path(f"/proc/{nspawn.pid}/task").iterdir():
        for child in (task / "children").read_text().split():
            with suppress(FileNotFoundError, ProcessLookupError):
                if Path(f"/proc/{child}/comm").read_text().strip() == "systemd":
                    return int(child)
    return None


def _start_nspawn(root: Path, *, name: str, cgroup: Path, log: Path) -> subprocess.Popen[bytes]:
    command = (
        *("systemd-nspawn", "--quiet", f"--directory={root}", f"--machine={name}", "--boot"),
        *("--private-network", "--register=no", "--keep-unit", "--console=pipe"),
        *("--resolv-conf=off", "--timezone=off", "--link-journal=no"),
    )
    enter = f'echo $$ > {cgroup}/cgroup.procs && exec setpriv --pdeathsig TERM "$@"'
    with log.open("wb") as output:
        return subprocess.Popen(
            ["sh", "-c", enter, "sh", *command],
            env=_NSPAWN_ENVIRONMENT,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            start_new_session=True,
        )


def _await_boot(container: Container) -> None:
    state = ("systemctl", "is-system-running")
    until(
        lambda: container.attempt(*state).out.strip() in BOOTED, BOOT_S, what=lambda: "not booted"
    )
    # PID 1 started before udevd, and libudev mutes a monitor opened while /run/udev/control is
    # missing and /dev is no devtmpfs, as in a container: without this no .device unit appears.
    container.run("systemctl", "daemon-reexec")


@contextmanager
def booted(
    where: Path, layers: Sequence[Path], *, prepare: Callable[[Path], None] | None = None
) -> Iterator[Container]:
    """Boot the system that *layers* (top first) hold, and power it off in the end.

    Args:
        where: a directory of its own on a file system that an overlay can write to.
        layers: read-only directories; none is changed.
        prepare: called with the root directory before the boot.
    """
    name = f"otgd-{where.name}-{os.getpid()}".replace("_", "-")  # a host name has no underscore
    with overlay(where, layers) as root, _cgroup(name) as cgroup:
        _spare_the_machine(root)
        if prepare is not None:
            prepare(root)
        log = where / "console.log"
        nspawn = _start_nspawn(root, name=name, cgroup=cgroup, log=log)
        try:
            pid = until(lambda: _first_process(nspawn), what=log.read_text)
            container = Container(pid)
            _await_boot(container)
            yield container
            container.network.close()
            os.kill(pid, _POWER_OFF)
            nspawn.wait(timeout=60)
        finally:
            if nspawn.poll() is None:
                nspawn.kill()
                nspawn.wait()
