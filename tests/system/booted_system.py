"""What a test asks of a booted system, whether a container or a virtual machine."""

from __future__ import annotations

import json
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True, kw_only=True)
class Completed:
    """What a command inside the system came to."""

    code: int
    out: str
    err: str


class BootedSystem(ABC):
    """A system that runs, seen through the commands it has."""

    @abstractmethod
    def attempt(self, *command: str, stdin: str | None = None) -> Completed:
        """Run a program as root inside, whatever it comes to."""

    def run(self, *command: str, stdin: str | None = None) -> str:
        """Run a program as root inside, expect it to succeed and return what it printed."""
        done = self.attempt(*command, stdin=stdin)
        if done.code != 0:
            text = f"{' '.join(command)}: exit {done.code}:\n{done.out[-4000:]}{done.err[-4000:]}"
            raise AssertionError(text)
        return done.out

    def write(self, path: str, text: str) -> None:
        """Write a file inside, with its directories."""
        self.run("sh", "-c", 'mkdir -p "$(dirname "$0")" && cat > "$0"', path, stdin=text)

    def unit(self, name: str, key: str) -> str:
        """Return one property of a unit, as ``systemctl show`` tells it."""
        return self.run("systemctl", "show", "--value", "--property", key, name).strip()

    def journal(self, *matches: str) -> list[dict[str, Any]]:
        """Return the journal's entries that match, oldest first, with every field."""
        text = self.run("journalctl", "--output", "json", "--all", "--quiet", *matches)
        return [json.loads(line) for line in text.splitlines()]

    def udev(self, ifname: str) -> dict[str, str]:
        """Return what udev's database says about a link."""
        query = ("udevadm", "info", "--query", "property", f"/sys/class/net/{ifname}")
        text = self.attempt(*query).out
        return dict(line.split("=", 1) for line in text.splitlines() if "=" in line)

    def links(self) -> dict[str, dict[str, Any]]:
        """Return the links by name, with their addresses, as ``ip -json`` shows them."""
        listed = json.loads(self.run("ip", "-json", "-details", "address", "show"))
        return {link["ifname"]: link for link in listed}
