"""``otgctl import``: the config that does what was written by hand."""

from __future__ import annotations

from pathlib import Path

import click

from otgd.errors import OtgdError

DIRECTORY = click.Path(exists=True, file_okay=False, path_type=Path)


@click.command("import")
@click.argument("files", type=click.Path(exists=True, dir_okay=False, path_type=Path), nargs=-1)
@click.option(
    "--root", type=DIRECTORY, default=Path("/"), show_default=True, help="Where /etc is found."
)
@click.option(
    "--card",
    "cards",
    type=DIRECTORY,
    multiple=True,
    help="A Zero's mounted card, for guest_mac and hostname; repeatable.",
)
def import_(*, files: tuple[Path, ...], root: Path, cards: tuple[Path, ...]) -> int:
    r"""Print the otgd.toml that does the same as files written by hand.

    Reads udev rules and .link files (names), dhcpcd.conf, .network files and NetworkManager's
    connections (addresses), iptables and nftables rules (masquerade) below /etc, and FILES: what
    iptables-save or nft list ruleset printed, or a script with iptables commands. What it cannot
    take over is in comments. Changes nothing.

    \b
    Examples:
      sudo iptables-save > rules && sudo otgctl import rules > otgd.toml
      otgctl import --root /mnt/old-pi --card /mnt/zero1 --card /mnt/zero2
    """
    from otgd.cli.importing.document import write
    from otgd.cli.importing.files import read_card, read_root, read_rules
    from otgd.cli.importing.network import build
    from otgd.config import parse_config

    findings = [*read_root(root), *read_rules(files)]
    for card in cards:
        findings += read_card(card)
    network = build(findings)
    text = write(network)
    print(text, end="")
    if not network.gadgets:
        raise OtgdError(
            f"no link below {root} has a name, an address, and a MAC, USB serial or USB port"
        )
    parse_config(text, file="otgd.toml")
    return 0
