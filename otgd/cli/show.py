"""``otgctl show``: everything about one gadget."""

from __future__ import annotations

from dataclasses import asdict
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import click

from otgd.cli.counters import human_bytes, ifname_of, read_counters
from otgd.cli.installation import GadgetName
from otgd.cli.otgd_journal import last_entries
from otgd.cli.printing import print_json, print_line, yes_no
from otgd.cli.status import age
from otgd.cli.telling import tell
from otgd.errors import ConfigError
from otgd.identity import Sign

if TYPE_CHECKING:
    from collections.abc import Iterator

    from otgd.cli.installation import Installation
    from otgd.model import GadgetSpec

EVENTS = 10


@click.command()
@click.argument("name", type=GadgetName())
@click.option("--json", "as_json", is_flag=True, help="Print it for programs.")
@click.pass_obj
def show(installation: Installation, *, name: str, as_json: bool) -> int:
    r"""Show all that is known about the gadget NAME.

    Its state, what the config says, its counters and, for who may read the journal, the last
    things that happened to it.

    \b
    Examples:
      otgctl show ethusb1
      otgctl show ethusb1 --json | jq .counters.rx_bytes
    """
    document = _document(installation, name)
    if as_json:
        print_json(document)
        return 0
    lines = list(_lines(document))
    width = max(len(key) for key, _ in lines) + 1
    for key, value in lines:
        print_line(f"{key + ':':{width}}  {value}")
    for event in document["events"]:
        time = datetime.fromisoformat(event["time"]).astimezone()
        print_line(f"  {time:%b %d %H:%M:%S}  {event['message']}")
    return 0


def _document(installation: Installation, name: str) -> dict[str, Any]:
    state = tell(installation).state
    gadget = next((gadget for gadget in state["gadgets"] if gadget["name"] == name), None)
    if gadget is None:
        known = ", ".join(gadget["name"] for gadget in state["gadgets"]) or "none"
        raise click.UsageError(f"there is no gadget {name}; there are {known}")
    ifname = ifname_of(gadget["ifindex"])
    counters = read_counters(ifname) if ifname else None
    spec = _spec(installation, name)
    return {
        "running": state["running"],
        "gadget": gadget,
        "ifname": ifname,
        "config": _config(spec) if spec else None,
        "counters": asdict(counters) if counters else None,
        "events": [
            {
                "time": entry.time.astimezone(UTC).isoformat(timespec="seconds"),
                "message": entry.message,
            }
            for entry in last_entries(name, EVENTS)
        ],
    }


def _spec(installation: Installation, name: str) -> GadgetSpec | None:
    """Return what the config says now; a daemon may run with an older, better one."""
    try:
        gadgets = installation.config().desired.gadgets
    except ConfigError:
        return None
    return next((spec for spec in gadgets if spec.name == name), None)


def _config(spec: GadgetSpec) -> dict[str, Any]:
    return {
        "mac": spec.mac,
        "serial": spec.serial,
        "port": spec.port,
        "guest_mac": spec.guest_mac,
        "subnet": str(spec.subnet),
        "host_address": str(spec.host.ip),
        "guest_address": str(spec.guest),
        "hostname": spec.hostname,
        "masquerade": spec.masquerade,
        "isolate": spec.isolate,
    }


def _lines(document: dict[str, Any]) -> Iterator[tuple[str, str]]:
    gadget, config, counters = document["gadget"], document["config"], document["counters"]
    since = age(gadget["since"], datetime.now(tz=UTC))
    yield "Gadget", gadget["name"]
    yield "State", gadget["state"] + (f", since {since}" if since else "")
    if gadget["reason"]:
        yield "Reason", gadget["reason"]
    if not document["running"]:
        yield "Service", "otgd is stopped; this is what the kernel holds"
    if gadget["ifindex"]:
        yield "Link", f"{document['ifname'] or 'gone'} (ifindex {gadget['ifindex']})"
        yield "Driver", gadget["driver"] or "unknown"
        yield "USB port", gadget["port"] or "unknown"
        yield "USB serial", gadget.get("serial") or "none"
        yield "Known by its", Sign(gadget.get("known_by") or Sign.MAC).words
        yield "Addresses", " ".join(gadget["addresses"]) or "none"
        yield "Masquerade", yes_no(gadget["masquerade"])
    yield "MAC", gadget["mac"] or "none in the config"
    if config:
        guest = [config["guest_address"], config["hostname"], config["guest_mac"]]
        yield "Guest", ", ".join(each for each in guest if each)
        yield "Subnet", f"{config['subnet']}, host {config['host_address']}"
        yield "May reach", _reach(config)
    if counters:
        yield "From gadget", _traffic(counters, "rx")
        yield "To gadget", _traffic(counters, "tx")
    yield "Events", "" if document["events"] else "none in the journal, or it may not be read"


def _reach(config: dict[str, Any]) -> str:
    places = ["the host"]
    places += [] if config["isolate"] else ["other gadgets"]
    places += ["the uplink"] if config["masquerade"] else []
    return ", ".join(places)


def _traffic(counters: dict[str, int], way: str) -> str:
    parts = [human_bytes(counters[f"{way}_bytes"]), f"{counters[f'{way}_packets']} packets"]
    faults = ((what, counters[f"{way}_{what}"]) for what in ("errors", "dropped"))
    parts += [f"{count} {what}" for what, count in faults if count]
    return ", ".join(parts)
