"""Network namespaces: enter one for the length of a test, or make named ones as separate hosts."""

from __future__ import annotations

import ctypes
import os
import subprocess
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

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


def run(*command: str, check: bool = True, stdin: str | None = None) -> str:
    """Run a program in the current namespace and return what it printed."""
    done = subprocess.run(command, check=False, capture_output=True, text=True, input=stdin)
    if check and done.returncode != 0:
        raise AssertionError(f"{' '.join(command)}: exit {done.returncode}: {done.stderr.strip()}")
    return done.stdout
