"""What surrounds the daemon, in memory: service manager, log, state file, triggers, adapters.

Triggers are real pipes, since a real selector waits on them.
"""

from __future__ import annotations

import os
import time
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from otgd.model import Neighbour, Passage, Traffic
from tests.fake_kernel import FakeKernel
from tests.fakes import FakeFirewall

if TYPE_CHECKING:
    from collections.abc import Callable
    from ipaddress import IPv4Address

    from otgd.errors import OtgdError
    from otgd.events import Event, Kind
    from otgd.ports import FirewallPort, ForwardingPort, LinkPort, PassagePort, TriggerPort


class FakeService:
    """Keeps what it is told, and when; implements ``ServicePort``."""

    def __init__(self, watchdog_s: float | None = None) -> None:
        self.watchdog_s = watchdog_s
        self.told: list[tuple[float, str]] = []

    def notify(self, *assignments: str) -> None:
        self.told += [(time.monotonic(), assignment) for assignment in assignments]

    @property
    def lines(self) -> list[str]:
        """Every assignment, oldest first."""
        return [assignment for _, assignment in self.told]

    def times(self, assignment: str) -> list[float]:
        """When exactly this was told (monotonic seconds)."""
        return [at_s for at_s, each in self.told if each == assignment]

    @property
    def status(self) -> str:
        """What ``systemctl status`` shows."""
        lines = [line for line in self.lines if line.startswith("STATUS=")]
        return lines[-1].removeprefix("STATUS=") if lines else ""


class FakeLog:
    """Keeps events; implements ``EventLogPort``."""

    def __init__(self) -> None:
        self.level = "info"
        self.events: list[Event] = []
        self.flushes = 0

    def write(self, event: Event) -> None:
        self.events.append(event)

    def flush(self) -> None:
        self.flushes += 1

    def of(self, kind: Kind) -> list[Event]:
        """The events of one kind, oldest first."""
        return [event for event in self.events if event.kind is kind]

    def messages(self, kind: Kind) -> list[str]:
        """Their sentences."""
        return [event.message for event in self.of(kind)]


class FakeState:
    """Keeps the state; implements ``StatePort``. *fault* is what the next writes raise."""

    def __init__(self) -> None:
        self.state: dict[str, Any] | None = None
        self.fault: OtgdError | None = None
        self.writes = 0

    def write(self, state: dict[str, Any]) -> None:
        if self.fault is not None:
            raise self.fault
        self.state = state
        self.writes += 1

    def remove(self) -> None:
        self.state = None

    def gadget(self, name: str) -> dict[str, Any]:
        """One gadget's entry; empty while there is none."""
        gadgets = (self.state or {}).get("gadgets", [])
        return next((gadget for gadget in gadgets if gadget["name"] == name), {})


class FakeTrigger:
    """A pipe; implements ``TriggerPort``.

    Attributes:
        fail_next: what the next drains raise, oldest first, after forgetting what is queued.
        names: what the next questions whom events named are answered with; None when empty.
        overflow_next: each makes one drain open a new descriptor; true: under the same number.
        newcomers_only: it plays the monitor of devices.
    """

    def __init__(self) -> None:
        self._reader, self._writer = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        self.overflows = 0
        self.fail_next: list[Exception] = []
        self.overflow_next: list[bool] = []
        self.drains = 0
        self.newcomers_only = False
        self.names: list[frozenset[int] | None] = []
        self.closed = False

    def fire(self, events: int = 1) -> None:
        """Something happens."""
        os.write(self._writer, b"." * events)

    def murmur(self) -> None:
        """Something happens that makes the descriptor readable, but is not about us."""
        os.write(self._writer, b"-")

    def fileno(self) -> int:
        return self._reader

    def touched(self) -> frozenset[int] | None:
        return self.names.pop(0) if self.names else None

    def drain(self) -> int:
        queued = b""
        with suppress(BlockingIOError):
            queued = os.read(self._reader, 1 << 16)
        if self.overflow_next:
            self._rebuild(same_number=self.overflow_next.pop(0))
        self.drains += 1
        if self.fail_next:
            raise self.fail_next.pop(0)
        return queued.count(b".")

    def _rebuild(self, *, same_number: bool) -> None:
        os.close(self._writer)
        reader, self._writer = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        if same_number:
            os.dup2(reader, self._reader, inheritable=False)
            os.close(reader)
        else:
            os.close(self._reader)
            self._reader = reader
        self.overflows += 1

    def close(self) -> None:
        os.close(self._reader)
        os.close(self._writer)
        self.closed = True


class FakeNeighbours:
    """A neighbour table of which only the script tells anything; implements ``NeighbourPort``.

    Attributes:
        known: what the kernel knows; anybody else is being asked for ever.
        asked: whom it was told to ask, oldest first.
        fail_next: what the next questions raise.
    """

    def __init__(self) -> None:
        self._reader, self._writer = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        self._told: list[tuple[int, IPv4Address, Neighbour]] = []
        self._lost = False
        self.known: dict[tuple[int, IPv4Address], Neighbour] = {}
        self.carried: dict[int, Traffic] = {}
        self.asked: list[tuple[int, IPv4Address]] = []
        self.fail_next: list[OtgdError] = []

    def tell(self, ifindex: int, address: IPv4Address, known: Neighbour) -> None:
        """The kernel comes to know something."""
        self.known[ifindex, address] = known
        self._told.append((ifindex, address, known))
        os.write(self._writer, b".")

    def overflow(self) -> None:
        """More was told than could be queued."""
        self._lost = True
        os.write(self._writer, b".")

    def fileno(self) -> int:
        return self._reader

    def changes(self) -> list[tuple[int, IPv4Address, Neighbour]] | None:
        with suppress(BlockingIOError):
            os.read(self._reader, 1 << 16)
        told, self._told = self._told, []
        lost, self._lost = self._lost, False
        return None if lost else told

    def probe(self, ifindex: int, address: IPv4Address) -> Neighbour:
        self.asked.append((ifindex, address))
        if self.fail_next:
            raise self.fail_next.pop(0)
        known = self.known.get((ifindex, address), Neighbour.UNKNOWN)
        return known if known in (Neighbour.ANSWERS, Neighbour.FIXED) else Neighbour.ASKING

    def traffic(self, ifindex: int) -> Traffic | None:
        return self.carried.get(ifindex)

    def close(self) -> None:
        os.close(self._reader)
        os.close(self._writer)


class FakePassage:
    """Nothing is ever in the way; implements ``PassagePort``."""

    def look(self) -> Passage:
        return Passage.OPEN

    def open(self) -> None:
        raise AssertionError("nothing is in the way")

    def shut(self) -> None:
        raise AssertionError("nothing was opened")


class FakeWorld:
    """A kernel in memory with its adapters; implements the daemon's ``World``."""

    def __init__(
        self, kernel: FakeKernel | None = None, firewall: FakeFirewall | None = None
    ) -> None:
        self.kernel = kernel or FakeKernel()
        self.filter = firewall or FakeFirewall()
        self.trigger = FakeTrigger()
        self.other_trigger = FakeTrigger()
        self.neighbours = FakeNeighbours()
        self.left: tuple[FirewallPort, ...] = ()
        self.backend_reason = "the test says so"
        self.closed = False

    @property
    def links(self) -> LinkPort:
        return self.kernel

    @property
    def forwarding(self) -> ForwardingPort:
        return self.kernel

    @property
    def firewall(self) -> FirewallPort:
        return self.filter

    @property
    def passage(self) -> PassagePort:
        return FakePassage()

    @property
    def triggers(self) -> tuple[TriggerPort, ...]:
        return (self.trigger, self.other_trigger)

    def leftovers(self) -> tuple[FirewallPort, ...]:
        return self.left

    def close(self) -> None:
        for trigger in (self.trigger, self.other_trigger):
            trigger.close()
        self.neighbours.close()
        self.closed = True

    def happens(self, change: Callable[[], object]) -> None:
        """Change the kernel and let it be known."""
        change()
        self.trigger.fire()
