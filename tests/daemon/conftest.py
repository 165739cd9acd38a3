"""The lab and the daemon in it, as fixtures."""

from __future__ import annotations

import os
import shutil
from contextlib import ExitStack
from typing import TYPE_CHECKING, TypedDict

import pytest

from tests.conftest import need
from tests.lab.daemon import Daemon
from tests.lab.topology import Lab, config_text

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path
    from typing import Unpack

BACKENDS = ("iptables", "nftables")
TOOLS = ("ip", "iptables-legacy-save", "nft", "nsenter", "setpriv")


class ConfigParts(TypedDict, total=False):
    """What a test may choose in its config."""

    count: int
    service: str
    hotplug: str
    more: str


class Launcher:
    """Makes and starts daemons in the lab's host."""

    def __init__(self, lab: Lab, directory: Path, backend: str, stack: ExitStack) -> None:
        self._lab = lab
        self._directory = directory
        self._backend = backend
        self._stack = stack

    def config(self, **parts: Unpack[ConfigParts]) -> str:
        """Write a config with the backend that the test runs with."""
        return config_text(backend=self._backend, **parts)

    def __call__(
        self,
        *,
        watchdog_s: float | None = None,
        measured: bool = True,
        **parts: Unpack[ConfigParts],
    ) -> Daemon:
        """Start a daemon and return when it is ready."""
        config = self.config(**parts)
        daemon = Daemon(
            self._lab.host, self._directory, config, watchdog_s=watchdog_s, measured=measured
        )
        self._stack.callback(daemon.close)
        daemon.start_and_wait()
        return daemon


@pytest.fixture(params=BACKENDS)
def backend(request: pytest.FixtureRequest) -> str:
    """Return the packet filter that the daemon shall use."""
    return str(request.param)


@pytest.fixture
def lab() -> Iterator[Lab]:
    """Build a host, an Internet and guests (root only)."""
    need(os.geteuid() == 0, "root, for network namespaces")
    for tool in TOOLS:
        need(shutil.which(tool), f"the program {tool}")
    with Lab() as built:
        yield built


@pytest.fixture
def launch(lab: Lab, tmp_path: Path, backend: str) -> Iterator[Launcher]:
    """Return what starts the daemon; ends it after the test."""
    with ExitStack() as stack:
        yield Launcher(lab, tmp_path, backend, stack)
