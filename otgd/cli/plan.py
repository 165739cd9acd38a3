"""``otgctl plan``: what a pass would do now, and what it could not do."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from otgd.cli.printing import print_json, print_line
from otgd.describe import describe, slug
from otgd.model import Aspect, gadget_of

if TYPE_CHECKING:
    from otgd.cli.installation import Installation
    from otgd.cli.kernel_view import KernelView

EX_TO_DO = 1


@click.command()
@click.option("--json", "as_json", is_flag=True, help="Print it for programs.")
@click.option("--exit-code", is_flag=True, help="Exit with 1 if there is something to do.")
@click.pass_obj
def plan(installation: Installation, *, as_json: bool, exit_code: bool) -> int:
    r"""Say what otgd would do now; change nothing.

    Compares the config with what the kernel holds at this moment, whether otgd runs or not. Run
    it as root: for others the firewall's part is left out. Exits with 0, whatever the plan says,
    unless --exit-code is given.

    \b
    Examples:
      sudo otgctl plan
      sudo otgctl --config ./new.toml plan      what would change with another config
    """
    from otgd.cli.kernel_view import look

    view = look(installation, installation.config())
    if as_json:
        print_json(_document(view))
    else:
        _print(view)
    return EX_TO_DO if exit_code and view.plan.steps else 0


def _print(view: KernelView) -> None:
    if view.hidden:
        print_line(f"Left out: {view.hidden}.")
    if view.plan.converged:
        print("Nothing to do: the kernel holds what the config wants, as far as it can be had.")
    for number, step in enumerate(view.plan.steps, start=1):
        print_line(f"{number}. {describe(step)}")
    for blocked in view.plan.blocked:
        if blocked.aspect is not Aspect.HUB:
            print_line(f"Not possible: {blocked.gadget}: {blocked.reason}")
    if view.plan.hub_fault:
        print_line(f"Not possible: {view.plan.hub_fault}")
    for link in view.plan.unknown:
        print_line(
            f"Left alone: {link.ifname}: {link.reason} (MAC {link.mac}, driver {link.driver})"
        )


def _document(view: KernelView) -> dict[str, Any]:
    return {
        "converged": view.plan.converged,
        "steps": [
            {"action": slug(step), "gadget": gadget_of(step) or None, "text": describe(step)}
            for step in view.plan.steps
        ],
        "blocked": [
            {"gadget": blocked.gadget, "aspect": str(blocked.aspect), "reason": blocked.reason}
            for blocked in view.plan.blocked
        ],
        "unknown": [
            {"ifname": link.ifname, "mac": link.mac, "driver": link.driver, "reason": link.reason}
            for link in view.plan.unknown
        ],
        "uplink": view.plan.uplink or None,
        "uplink_fault": view.plan.uplink_fault or None,
        "hub_fault": view.plan.hub_fault or None,
        "left_out": view.hidden or None,
    }
