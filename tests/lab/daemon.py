"""The real daemon, started in the lab's host and watched from outside.

Plays the service manager for it: listens on a NOTIFY_SOCKET, sends the signals that systemd sends.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tests.lab.deadline import until

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.lab.namespaces import Namespace

REPOSITORY = Path(__file__).resolve().parents[2]


@dataclass(frozen=True, slots=True, kw_only=True)
class Notification:
    """One ``KEY=value`` that the daemon told the service manager, and when (monotonic)."""

    at_s: float
    key: str
    value: str


class ServiceManager:
    """The receiving end of sd_notify(3)."""

    def __init__(self, path: Path) -> None:
        self.path = path
        path.unlink(missing_ok=True)
        self._sock = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC)
        self._sock.bind(str(path))
        self.received: list[Notification] = []
        self._thread = threading.Thread(target=self._listen, name="sd_notify", daemon=True)
        self._thread.start()

    def _listen(self) -> None:
        while message := self._sock.recv(65536):
            now_s = time.monotonic()
            for line in message.decode().splitlines():
                key, _, value = line.partition("=")
                self.received.append(Notification(at_s=now_s, key=key, value=value))

    def values(self, key: str) -> list[str]:
        """Return everything told under *key*, oldest first."""
        return [each.value for each in self.received if each.key == key]

    def close(self) -> None:
        """Stop listening."""
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
            sock.sendto(b"", str(self.path))
        self._thread.join()
        self._sock.close()


class Daemon:
    """``otgd`` in one host with one config file; may be started again after its end.

    Args:
        host: where it runs.
        directory: gets the config, the runtime directory, the socket and what it printed.
        config: the text of otgd.toml.
        watchdog_s: the service manager's WatchdogSec.
        measured: record coverage; off where time or memory is the test's subject.
        prefix: a program, with its arguments, that starts it in a special way.
    """

    def __init__(
        self,
        host: Namespace,
        directory: Path,
        config: str,
        *,
        watchdog_s: float | None = None,
        measured: bool = True,
        prefix: tuple[str, ...] = (),
    ) -> None:
        self._host = host
        self._prefix = prefix
        self.config_file = directory / "otgd.toml"
        self.runtime_dir = directory / "run"
        self._stderr_file = directory / "stderr"
        self._watchdog_s = watchdog_s
        self._measured = measured
        self.config_file.write_text(config)
        self.runtime_dir.mkdir(exist_ok=True)
        self.manager = ServiceManager(directory / "notify")
        self._process: subprocess.Popen[bytes] | None = None

    # Life

    def start(self) -> None:
        """Start it, and do not wait."""
        self.manager.received.clear()
        command = (*self._prefix, sys.executable, "-m", "otgd", "--config", str(self.config_file))
        where = ("--runtime-dir", str(self.runtime_dir))
        with self._stderr_file.open("wb") as stderr:
            self._process = self._host.start(
                *command, *where, env=self._environment(), stderr=stderr
            )

    def _environment(self) -> dict[str, str]:
        foreign = {"RUNTIME_DIRECTORY", "WATCHDOG_PID", "INVOCATION_ID", "JOURNAL_STREAM"}
        env = {key: value for key, value in os.environ.items() if key not in foreign}
        if not self._measured:
            env = {key: value for key, value in env.items() if not key.startswith("COV")}
        env |= {"PYTHONPATH": str(REPOSITORY), "NOTIFY_SOCKET": str(self.manager.path)}
        if self._watchdog_s is not None:
            env["WATCHDOG_USEC"] = str(round(self._watchdog_s * 1e6))
        return env

    def start_and_wait(self) -> None:
        """Start it and return when it says that it is ready."""
        self.start()
        self.wait_ready()

    def wait_ready(self, deadline_s: float = 60.0) -> None:
        """Return when it has said READY=1; fail at once when it is gone."""

        def ready_or_gone() -> bool:
            return "1" in self.manager.values("READY") or self._running().poll() is not None

        until(ready_or_gone, deadline_s, what=self.stderr)
        status = self._running().poll()
        assert status is None, f"otgd ended with {status}: {self.stderr()}"

    def _running(self) -> subprocess.Popen[bytes]:
        assert self._process is not None, "not started"
        return self._process

    @property
    def pid(self) -> int:
        """Its process id."""
        return self._running().pid

    def signal(self, number: signal.Signals) -> None:
        """Send it a signal."""
        self._running().send_signal(number)

    def wait(self, deadline_s: float = 60.0) -> int:
        """Wait for its end and return its exit status; negative means a signal."""
        return self._running().wait(deadline_s)

    def kill(self, *, after_s: float = 0.0) -> None:
        """SIGKILL it, wherever it is *after_s* seconds from now, and wait for its end."""
        time.sleep(after_s)
        self.signal(signal.SIGKILL)
        self.wait()

    @contextmanager
    def paused(self) -> Iterator[None]:
        """Stop it (SIGSTOP) for as long as the block lasts."""
        self.signal(signal.SIGSTOP)
        try:
            yield
        finally:
            self.signal(signal.SIGCONT)

    def terminate(self) -> int:
        """SIGTERM it, wait for its end and return its exit status."""
        self.signal(signal.SIGTERM)
        return self.wait()

    def reload(self, config: str | None = None) -> None:
        """Replace the config, send SIGHUP and return when the reload is over (READY=1 again)."""
        if config is not None:
            self.config_file.write_text(config)
        before = len(self.manager.values("READY"))
        self.signal(signal.SIGHUP)
        until(lambda: len(self.manager.values("READY")) > before, what=self.stderr)

    def close(self) -> None:
        """End it, however the test ended, and stop listening."""
        if self._process is not None and self._process.poll() is None:
            self._process.terminate()
            try:
                self._process.wait(10)
            except Exception:
                self._process.kill()
                self._process.wait()
                raise
        self.manager.close()

    # What it tells

    def stderr(self) -> str:
        """Return what it printed so far."""
        return self._stderr_file.read_text()

    def state(self) -> dict[str, Any]:
        """Return state.json as it is now."""
        state: dict[str, Any] = json.loads((self.runtime_dir / "state.json").read_text())
        return state

    def gadget(self, name: str) -> dict[str, Any]:
        """Return one gadget's entry of state.json."""
        found: list[dict[str, Any]] = [g for g in self.state()["gadgets"] if g["name"] == name]
        assert len(found) == 1, f"{name} is {len(found)} times in state.json"
        return found[0]

    def wait_for(self, name: str, *states: str, deadline_s: float = 30.0) -> dict[str, Any]:
        """Return the gadget's entry once it is in one of *states*.

        A gadget that is reachable is configured, too.
        """
        if "configured" in states:
            states = (*states, "reachable")

        def entry() -> dict[str, Any] | None:
            found = self.gadget(name)
            return found if found["state"] in states else None

        return until(entry, deadline_s, what=lambda: (self.gadget(name), self.stderr()[-2000:]))

    # What it costs

    def fds(self) -> int:
        """Count its open file descriptors."""
        return sum(1 for _ in Path(f"/proc/{self.pid}/fd").iterdir())

    def memory_bytes(self) -> int:
        """Return the part of its Pss that is its own.

        The rest, pages of libraries, grows by itself when another program that shares them ends.
        """
        rollup = Path(f"/proc/{self.pid}/smaps_rollup").read_text()
        line = next(line for line in rollup.splitlines() if line.startswith("Pss_Anon:"))
        return int(line.split()[1]) * 1024

    def cpu_s(self) -> float:
        """Return the seconds that it ran on a processor (nanoseconds in proc's schedstat)."""
        return int(Path(f"/proc/{self.pid}/schedstat").read_text().split()[0]) / 1e9

    def wakeups(self) -> int:
        """Return how often it gave up the processor by itself; it did wake up that often."""
        status = Path(f"/proc/{self.pid}/status").read_text()
        prefix = "voluntary_ctxt_switches:"
        return int(next(x for x in status.splitlines() if x.startswith(prefix)).split()[1])


def otgd(*arguments: str) -> subprocess.CompletedProcess[str]:
    """Run the daemon where it ends by itself, in the caller's network."""
    return subprocess.run(
        [sys.executable, "-m", "otgd", *arguments],
        check=False,
        capture_output=True,
        text=True,
        timeout=30,
        env={**os.environ, "PYTHONPATH": str(REPOSITORY)},
    )
