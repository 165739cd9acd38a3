"""Cables between guests and a host: a few that are timed, and many that are just there."""

from __future__ import annotations

import subprocess
from dataclasses import dataclass
from typing import TYPE_CHECKING

from tests.bench.gadgets import guest_address, guest_mac, mac
from tests.lab.namespaces import Namespace

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path
    from types import TracebackType
    from typing import Self


@dataclass(frozen=True, slots=True, kw_only=True)
class Plug:
    """Milliseconds from the kernel's RTM_NEWLINK of one gadget; None for what did not happen.

    Attributes:
        answered_ms: to the guest's first ping answered through the masquerade.
    """

    named_ms: float | None
    addressed_ms: float | None
    up_ms: float | None
    answered_ms: float | None


def _plug(line: str) -> Plug:
    _, *moments = line.split()
    named, addressed, up, answered = (None if x == "-" else int(x) / 1000 for x in moments)
    return Plug(named_ms=named, addressed_ms=addressed, up_ms=up, answered_ms=answered)


class Watcher:
    """watcher.c at work: timed plugs of gadgets 1, 2, ... into one host."""

    def __init__(self, program: Path, host: Namespace, guests: Sequence[Namespace]) -> None:
        self._process = subprocess.Popen(
            ["setpriv", "--pdeathsig", "KILL", program, host.path, *(g.path for g in guests)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._process.communicate()

    def plug(self, count: int, *, timeout_s: float = 20.0) -> list[Plug]:
        """Plug gadgets 1 to *count* in at once; return when each was answered, or too late."""
        return [_plug(line) for line in self._ask(f"plug {count} {round(timeout_s * 1000)}")]

    def unplug(self) -> None:
        """Pull them out; return when the kernel says that they are gone."""
        self._ask("unplug")

    def _ask(self, command: str) -> list[str]:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(f"{command}\n")
        self._process.stdin.flush()
        lines = []
        while (line := self._process.stdout.readline().strip()) != ".":
            assert line, f"the watcher ended at {command!r}"
            lines.append(line)
        return lines


class Crowd:
    """Gadgets that are plugged in and only answer, from number 2 on; all in one namespace."""

    def __init__(self, host: Namespace) -> None:
        self._host = host
        self._far_ends = Namespace()
        self._next = 2

    def grow_to(self, present: int) -> None:
        """Plug in what is missing, so that with gadget 1 *present* gadgets are there."""
        numbers = range(self._next, present + 1)
        lines = [
            f"link add name g{n} address {guest_mac(n)} type veth peer name usb%d"
            f" address {mac(n)} netns {self._host.path}\n"
            f"address add {guest_address(n)} dev g{n}\nlink set g{n} up\n"
            for n in numbers
        ]
        self._far_ends.run("ip", "-batch", "-", stdin="".join(lines))
        self._next = max(self._next, present + 1)

    def close(self) -> None:
        """Pull all of them out."""
        self._far_ends.close()
