"""``otgctl export``: the static files that do the same without otgd."""

from __future__ import annotations

import sys
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING

import click

from otgd.cli.static_files import FORMATS, NAMING, WITH_UPLINK, Network
from otgd.errors import OtgdError
from otgd.identity import describe_signs, udev_signs

if TYPE_CHECKING:
    from collections.abc import Sequence

    from otgd.cli.installation import Installation
    from otgd.cli.static_files import StaticFile
    from otgd.model import DesiredState


@click.command()
@click.option(
    "--format",
    "formats",
    type=click.Choice(list(FORMATS)),
    multiple=True,
    required=True,
    help="What to write; repeatable.",
)
@click.option(
    "--uplink",
    "uplinks",
    multiple=True,
    metavar="NAME",
    help="Link to the Internet; repeatable [default: the config's, or the default route's].",
)
@click.option(
    "--output",
    type=click.Path(file_okay=False, path_type=Path),
    help="Write the files below this directory instead of printing them.",
)
@click.pass_obj
def export(
    installation: Installation,
    *,
    formats: tuple[str, ...],
    uplinks: tuple[str, ...],
    output: Path | None,
) -> int:
    r"""Print the files that make the same network without otgd.

    Names: udev or networkd. Addresses: dhcpcd or networkd. Rules: nftables or iptables-restore.
    Take one of each. Static files cannot follow a changing uplink: it is written down.

    \b
    Examples:
      otgctl export --format networkd --format nftables
      otgctl export --format udev --format dhcpcd --format iptables-restore --output ./files
    """
    desired = installation.config().desired
    if not uplinks and WITH_UPLINK & set(formats):
        uplinks = _uplinks(desired)
    network = Network(gadgets=desired.gadgets, uplinks=uplinks)
    files = {file.path: file for name in formats for file in FORMATS[name](network)}
    if NAMING & set(formats):
        _tell_nameless(network)
    if output is None:
        _print(list(files.values()))
    else:
        _write(list(files.values()), output)
    return 0


def _uplinks(desired: DesiredState) -> tuple[str, ...]:
    """Return what the config names, or what holds the default route now."""
    if not desired.uplink_policy.is_auto:
        return desired.uplink_policy.interfaces
    from otgd.adapters.links import NetlinkLinks
    from otgd.model import ObservedState
    from otgd.planner import make_plan

    with closing(NetlinkLinks()) as netlink:
        observed = ObservedState(links=netlink.observe_links(), routes=netlink.observe_routes())
    plan = make_plan(desired, observed)
    if not plan.uplink:
        raise OtgdError(f"{plan.uplink_fault}: name the uplink with --uplink")
    return (plan.uplink,)


def _tell_nameless(network: Network) -> None:
    for spec in network.gadgets:
        if not udev_signs(spec):
            signs = describe_signs(spec)
            text = f"{spec.name}: udev cannot look for {signs}, so no file here names its link"
            print(f"otgctl: {text}; give it a mac or a port", file=sys.stderr)


def _print(files: Sequence[StaticFile]) -> None:
    for number, file in enumerate(files):
        if number:
            print()
        print(f"# /{file.path}")
        print(file.text, end="")


def _write(files: Sequence[StaticFile], directory: Path) -> None:
    """Write all of *files* or none; never over a file that is there."""
    for file in files:
        if (directory / file.path).exists():
            raise OtgdError(f"{directory / file.path} exists; choose an empty directory")
    for file in files:
        path = directory / file.path
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(file.text, encoding="utf-8")
        print(path)
