"""Namespaces: enter one for the length of a test, or make several as separate hosts."""

from __future__ import annotations

import ctypes
import os
import subprocess
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import IO

CLONE_NEWNS = 0x00020000
CLONE_NEWNET = 0x40000000
_MS_REC_PRIVATE = 0x4000 | (1 << 18)
_MNT_DETACH = 2

_libc = ctypes.CDLL(None, use_errno=True)


def _check(result: int) -> None:
    if result != 0:
        errno = ctypes.get_errno()
        raise OSError(errno, os.strerror(errno))


@contextmanager
def private_network() -> Iterator[None]:
    """Put this process into a network namespace of its own, with its own /sys, and come back.

    Loopback is up. ``/run/xtables.lock`` is private too, so tests never wait for the machine's.
    """
    own = [os.open(f"/proc/self/ns/{kind}", os.O_RDONLY) for kind in ("net", "mnt")]
    cwd = Path.cwd()
    try:
        _check(_libc.unshare(CLONE_NEWNET | CLONE_NEWNS))
        _check(_libc.mount(b"none", b"/", None, _MS_REC_PRIVATE, None))
        _check(_libc.mount(b"sysfs", b"/sys", b"sysfs", 0, None))
        _check(_libc.mount(b"tmpfs", b"/run", b"tmpfs", 0, b"mode=755"))
        run("ip", "link", "set", "lo", "up")
        yield
    finally:
        for handle in own:
            _check(_libc.setns(handle, 0))
            os.close(handle)
        os.chdir(cwd)


@contextmanager
def private_mounts() -> Iterator[None]:
    """Keep what is mounted meanwhile to this process and its children, and come back.

    Whatever kills the run, no mount is left on the machine.
    """
    own = os.open("/proc/self/ns/mnt", os.O_RDONLY)
    cwd = Path.cwd()
    _check(_libc.unshare(CLONE_NEWNS))
    try:
        _check(_libc.mount(b"none", b"/", None, _MS_REC_PRIVATE, None))
        yield
    finally:
        _check(_libc.setns(own, CLONE_NEWNS))
        os.close(own)
        os.chdir(cwd)


def run(*command: str, check: bool = True, stdin: str | None = None) -> str:
    """Run a program in the current namespace and return what it printed."""
    done = subprocess.run(command, check=False, capture_output=True, text=True, input=stdin)
    if check and done.returncode != 0:
        raise AssertionError(f"{' '.join(command)}: exit {done.returncode}: {done.stderr.strip()}")
    return done.stdout


class Namespace:
    """A network namespace of its own, with its own /sys and /run, for one simulated machine.

    It has no name and lives by two descriptors and by the processes in it, which die with the
    test run: nothing is left on the machine, whatever kills the run.
    """

    def __init__(self) -> None:
        with private_network():
            self._net = os.open("/proc/self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
            self._mnt = os.open("/proc/self/ns/mnt", os.O_RDONLY | os.O_CLOEXEC)

    @property
    def path(self) -> str:
        """Name the namespace for ``ip link … netns``; valid for every process of this user."""
        return f"/proc/{os.getpid()}/fd/{self._net}"

    @contextmanager
    def entered(self) -> Iterator[None]:
        """Put this thread into the network namespace (not into its mounts) and come back.

        A socket made here stays in the namespace for as long as it lives.
        """
        own = os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
        try:
            _check(_libc.setns(self._net, CLONE_NEWNET))
            yield
        finally:
            _check(_libc.setns(own, CLONE_NEWNET))
            os.close(own)

    def run(self, *command: str, check: bool = True, stdin: str | None = None) -> str:
        """Run a program that needs the network only, and return what it printed."""
        with self.entered():
            return run(*command, check=check, stdin=stdin)

    def run_inside(self, *command: str, check: bool = True, stdin: str | None = None) -> str:
        """Run a program in the network and among the mounts (/sys, /run/xtables.lock)."""
        done = subprocess.run(
            self._inside(command),
            check=False,
            capture_output=True,
            text=True,
            input=stdin,
            pass_fds=(self._net, self._mnt),
        )
        if check and done.returncode != 0:
            text = f"{' '.join(command)}: exit {done.returncode}: {done.stderr.strip()}"
            raise AssertionError(text)
        return done.stdout

    def start(
        self,
        *command: str,
        env: dict[str, str] | None = None,
        stdin: int = subprocess.DEVNULL,
        stderr: IO[bytes] | int = subprocess.DEVNULL,
    ) -> subprocess.Popen[bytes]:
        """Start a program in the network and among the mounts; its pid is the program's own.

        *stderr* gets what it prints, too.
        """
        return subprocess.Popen(
            self._inside(command),
            env=env,
            stdin=stdin,
            stdout=stderr,
            stderr=stderr,
            pass_fds=(self._net, self._mnt),
        )

    def _inside(self, command: tuple[str, ...]) -> list[str]:
        return [
            *("setpriv", "--pdeathsig", "KILL"),
            *("nsenter", f"--net=/proc/self/fd/{self._net}", f"--mount=/proc/self/fd/{self._mnt}"),
            "--",
            *command,
        ]

    def close(self) -> None:
        """Let go; the kernel takes the namespace away when no process is left in it."""
        os.close(self._net)
        os.close(self._mnt)
