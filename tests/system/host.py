"""A Debian with otgd installed, with USB ports, an uplink and guests on cables.

The machine is a container, so its cables are veth pairs and its config counts veth links in.
"""

from __future__ import annotations

import json
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any

from tests.lab.topology import Lab, config_text, mac
from tests.system.deadline import until

if TYPE_CHECKING:
    from tests.system.container import Container

CONFIG = "/etc/otgd/otgd.toml"
NAMES = "/var/lib/otgd/names"
NEW_NAMES = f"{NAMES}.new"


def names_list(*numbers: int) -> str:
    """Write the list that otgd keeps for udev: MAC, name and drivers of these gadgets."""
    return "".join(f"{mac(n)} ethusb{n} veth\n" for n in numbers)


def container_config(*, count: int = 4) -> str:
    """Write the lab's config for a machine where udev runs."""
    text = config_text(backend="auto", count=count, service="resync_s = 3600")
    return text.replace('source = "kernel"', 'source = "auto"')


class Host(Lab):
    """The lab, around a system that really booted."""

    def __init__(self, system: Container) -> None:
        self.system = system
        with ExitStack() as stack:
            self.host = system.network
            self.internet = self._machine(stack)
            self._guests = {}
            self._connect_uplink()
            self._stack = stack.pop_all()

    @property
    def pid(self) -> int:
        """The daemon's PID inside, as systemd knows it; 0 if it does not run."""
        return int(self.system.unit("otgd.service", "MainPID"))

    def state(self) -> dict[str, Any]:
        """Return the daemon's state file."""
        path = self.system.root / "run/otgd/state.json"
        loaded: dict[str, Any] = json.loads(path.read_text())
        return loaded

    def gadget(self, name: str) -> dict[str, Any]:
        """Return what the daemon says about one gadget."""
        return next(each for each in self.state()["gadgets"] if each["name"] == name)

    def status(self) -> str:
        """Return the line that ``systemctl status`` shows."""
        return self.system.unit("otgd.service", "StatusText")

    def told(self, gadget: str) -> list[str]:
        """Return what the journal tells about one gadget, oldest first."""
        entries = self.system.journal("_SYSTEMD_UNIT=otgd.service", f"OTGD_GADGET={gadget}")
        return [entry["MESSAGE"] for entry in entries]

    def told_by_anybody(self, gadget: str) -> list[str]:
        """Return what the journal tells about one gadget, whoever wrote it, oldest first."""
        return [entry["MESSAGE"] for entry in self.system.journal(f"OTGD_GADGET={gadget}")]

    def await_active(self) -> None:
        """Wait until systemd has heard READY=1."""
        unit = ("otgd.service", "ActiveState")
        until(
            lambda: self.system.unit(*unit) == "active",
            what=lambda: self.system.attempt("systemctl", "status", "otgd.service").out,
        )

    def await_online(self, n: int) -> None:
        """Wait until gadget *n* reaches the host and the uplink's far side."""
        until(lambda: self.online(n), what=lambda: (self.status(), self.links()))
