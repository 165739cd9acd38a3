"""``otgctl status``: what the running daemon says, or what the kernel holds where none runs."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import click

from otgd.cli.printing import print_json, print_line, print_table, yes_no
from otgd.cli.telling import tell
from otgd.printable import printable

if TYPE_CHECKING:
    from otgd.cli.installation import Installation

COLUMNS = ("NAME", "STATE", "ADDRESS", "MASQUERADE", "PORT", "SINCE", "REASON")
UNKNOWN_COLUMNS = ("UNKNOWN LINK", "MAC", "DRIVER", "PORT", "REASON")
UNITS = (("d", 86400), ("h", 3600), ("min", 60), ("s", 1))


@click.command()
@click.option("--json", "as_json", is_flag=True, help="Print state.json's layout.")
@click.pass_obj
def status(installation: Installation, *, as_json: bool) -> int:
    r"""Show every gadget, its state and why.

    Needs no root. Where otgd does not run, it says so and shows what the kernel holds by itself.

    \b
    Examples:
      otgctl status
      otgctl status --json | jq '.gadgets[] | select(.state != "configured")'
    """
    told = tell(installation)
    state = told.state
    if as_json:
        print_json(state)
        return 0
    print_line(told.source)
    if state.get("config_fault"):  # an otgd older than this otgctl does not tell all
        fault = f"config refused, the old one is in force: {state['config_fault']}"
        click.secho(printable(fault), fg="red")
    print_line(_surroundings(state))
    now = datetime.now(tz=UTC)
    if state["gadgets"]:
        print()
        print_table(COLUMNS, [_row(gadget, now) for gadget in state["gadgets"]])
    if state["unknown"]:
        print()
        print_table(UNKNOWN_COLUMNS, [_unknown_row(link) for link in state["unknown"]])
    return 0


def _surroundings(state: dict[str, Any]) -> str:
    forwarding = "on" if state["forwarding"] else "off"
    uplink = state["uplink"] or "none" + _in_brackets(state.get("uplink_fault"))
    firewall = state["firewall"]["backend"] + _in_brackets(state["firewall"].get("reason"))
    hub = state.get("hub")  # no otgd before the swarm wrote it
    with_hub = ""
    if hub:
        with_hub = f", no hub: {hub['reason']}" if hub["reason"] else f", hub {hub['address']}"
    return f"uplink {uplink}, firewall {firewall}, forwarding {forwarding}{with_hub}"


def _in_brackets(reason: str | None) -> str:
    return f" ({reason})" if reason else ""


def _row(gadget: dict[str, Any], now: datetime) -> tuple[str, ...]:
    return (
        gadget["name"],
        gadget["state"],
        " ".join(gadget["addresses"]),
        yes_no(gadget["masquerade"]) if gadget["ifindex"] else "",
        gadget["port"] or "",
        age(gadget["since"], now),
        gadget["reason"],
    )


def _unknown_row(link: dict[str, Any]) -> tuple[str, ...]:
    return link["ifname"], link["mac"], link["driver"], link["port"] or "", link["reason"]


def age(since: str | None, now: datetime) -> str:
    """Say how long ago *since* (RFC 3339) was, in its largest unit."""
    if since is None:
        return ""
    seconds = max(0, round((now - datetime.fromisoformat(since)).total_seconds()))
    name, unit = next((each for each in UNITS if seconds >= each[1]), UNITS[-1])
    return f"{seconds // unit} {name} ago"
