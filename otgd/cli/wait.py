"""``otgctl wait``: for scripts that need a gadget before they go on."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from otgd.cli.following import follow
from otgd.cli.installation import GadgetName
from otgd.cli.printing import print_line

if TYPE_CHECKING:
    from collections.abc import Sequence

    from otgd.cli.installation import Installation

GOOD_ENOUGH = {
    "configured": ("configured", "reachable"),
    "reachable": ("reachable",),
}
"""A gadget that answers is configured, too."""


@click.command()
@click.argument("names", type=GadgetName(), nargs=-1, required=True, metavar="NAME...")
@click.option(
    "--state",
    type=click.Choice(list(GOOD_ENOUGH)),
    default="configured",
    show_default=True,
    help="What to wait for; reachable: the gadget has answered on its link.",
)
@click.option(
    "--timeout",
    "timeout_s",
    type=click.FloatRange(min=0),
    default=60.0,
    show_default=True,
    metavar="SECONDS",
    help="How long to wait.",
)
@click.pass_obj
def wait(
    installation: Installation, *, names: tuple[str, ...], state: str, timeout_s: float
) -> int:
    r"""Wait until every gadget named is there.

    Exits with 0 as soon as all are, with 1 when the time is over; then it says what is missing
    and why. It also waits for otgd itself, so that it can be used early at boot.

    \b
    Examples:
      otgctl wait ethusb1 && ssh pi@10.0.11.2
      otgctl wait ethusb1 ethusb2 --state reachable --timeout 10
    """
    reasons: list[str] = []
    for told in follow(installation, timeout_s=timeout_s):
        reasons = [f"otgd does not run, or has told nothing in {installation.runtime_dir}"]
        if told is not None:
            reasons = _missing(names, GOOD_ENOUGH[state], _by_name(told))
        if not reasons:
            return 0
    for reason in reasons:
        print_line(f"otgctl: {reason}", error=True)
    return 1


def _by_name(told: dict[str, Any]) -> dict[str, dict[str, Any]]:
    return {gadget["name"]: gadget for gadget in told["gadgets"]}


def _missing(
    names: Sequence[str], enough: Sequence[str], gadgets: dict[str, dict[str, Any]]
) -> list[str]:
    """Say of each gadget that is not there why it is not."""
    reasons = []
    for name in names:
        if name not in gadgets:
            known = ", ".join(gadgets) or "none"
            raise click.UsageError(f"otgd knows no gadget {name}; it knows {known}")
        gadget = gadgets[name]
        if gadget["state"] not in enough:
            reason = f": {gadget['reason']}" if gadget["reason"] else ""
            reasons.append(f"{name} is {gadget['state']}{reason}")
    return reasons
