"""``otgctl gadgets``: every USB network device that is there, and what the config makes of it."""

from __future__ import annotations

from contextlib import closing
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

import click

from otgd.cli.printing import print_json, print_line, print_table
from otgd.errors import OtgdError
from otgd.identity import Directory, Sign

if TYPE_CHECKING:
    from collections.abc import Mapping

    from otgd.cli.installation import Installation
    from otgd.cli.proposal import Proposer
    from otgd.model import Config, ObservedLink

COLUMNS = ("LINK", "MAC", "DRIVER", "PORT", "SERIAL", "CONFIG")
FLEET = "", Sign.MAC
"""The key of the fleet's place; no gadget is called so."""


@click.command()
@click.option("--json", "as_json", is_flag=True, help="Print it for programs.")
@click.pass_obj
def gadgets(installation: Installation, *, as_json: bool) -> int:
    r"""List every USB network device with the config line that matches it.

    For a device that no line matches, it prints the lines to write. Needs no root.

    \b
    Examples:
      otgctl gadgets
      otgctl gadgets --json | jq -r '.[] | select(.gadget == null) | .mac'
    """
    from otgd.adapters.links import NetlinkLinks
    from otgd.cli.proposal import Proposer

    config = installation.config()
    with closing(NetlinkLinks()) as netlink:
        links, routes = netlink.observe_links(), netlink.observe_routes()
    matcher = Matcher(config, places_of(installation.config_file))
    proposer = Proposer(config, links, routes)
    found = [with_proposal(matcher, link, proposer) for link in links if matcher.concerns(link)]
    if as_json:
        print_json([asdict(device) for device in found])
    elif not found:
        print("There is no USB network device.")
    else:
        print_table(COLUMNS, [_row(device) for device in found])
        for device in found:
            if device.proposal:
                print()
                print_line(f"For {device.ifname}: sudo otgctl adopt {device.ifname}, which writes:")
                print()
                for line in device.proposal:
                    print_line(line)
    return 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Device:
    """A USB network device and what the config makes of it.

    Attributes:
        serial: the USB device's iSerial, if it has one.
        gadget: the gadget that the config takes it for, if any.
        config: which line says so, or why none does.
        proposal: lines that would make the config know it.
    """

    ifname: str
    mac: str
    driver: str
    port: str
    serial: str
    gadget: str | None
    config: str
    proposal: tuple[str, ...] = ()


@dataclass(slots=True)
class Matcher:
    """Tells which entry of the config has a link; *places* are the lines of the entries' MACs."""

    config: Config
    places: Mapping[tuple[str, Sign], str]
    _directory: Directory = field(init=False)

    def __post_init__(self) -> None:
        self._directory = Directory(self.config.desired.gadgets)

    def concerns(self, link: ObservedLink) -> bool:
        """Tell whether the link is on USB, or might be a gadget's all the same."""
        return bool(link.port) or link.driver in self.config.desired.drivers

    def match(self, link: ObservedLink) -> Device:
        """Say what the config makes of the link."""
        spec, sign = self._directory.claim(link) or (None, None)
        if link.driver not in self.config.desired.drivers:
            spec, config = None, f"none: driver {link.driver} is not in [hotplug] drivers"
        elif spec:
            config = self.places.get((spec.name, sign or Sign.MAC), self.places.get(FLEET, ""))
        else:
            config = "none has a sign of it"
        return Device(
            ifname=link.ifname,
            mac=link.mac,
            driver=link.driver,
            port=link.port,
            serial=link.serial,
            gadget=spec.name if spec else None,
            config=config,
        )


def with_proposal(matcher: Matcher, link: ObservedLink, proposer: Proposer) -> Device:
    """Say what the config makes of the link, and what to write if that is nothing."""
    device = matcher.match(link)
    if device.gadget or link.driver not in matcher.config.desired.drivers:
        return device
    try:
        return replace(device, proposal=proposer.propose(link).lines)
    except OtgdError as err:
        return replace(device, config=f"{device.config}; {err}")


def places_of(file: Path) -> dict[tuple[str, Sign], str]:
    """Return where each sign of each entry stands, and the fleet's MAC."""
    from otgd.config.sources import merge_sources, read_sources

    found: dict[tuple[str, Sign], str] = {}
    for path, place in merge_sources(read_sources(file))[1].items():
        where = f"{Path(place.file).name}:{place.line}"
        match path:
            case ("gadget", str(name), "mac"):
                found[name, Sign.MAC] = f"{where}: gadget.{name}.mac"
            case ("gadget", str(name), "match", str(key)) if key in list(Sign):
                found[name, Sign(key)] = f"{where}: gadget.{name}.match.{key}"
            case ("fleet", "mac"):
                found[FLEET] = f"{where}: fleet.mac"
    return found


def _row(device: Device) -> tuple[str, ...]:
    name = f"{device.gadget} ({device.config})" if device.gadget else device.config
    return device.ifname, device.mac, device.driver, device.port, device.serial, name
