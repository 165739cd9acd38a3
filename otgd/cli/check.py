"""``otgctl check``: is a config file fine, and what does it mean."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import click

from otgd.cli.printing import print_table, yes_no
from otgd.identity import Sign, signs_of

if TYPE_CHECKING:
    from otgd.cli.installation import Installation
    from otgd.model import Config, GadgetSpec

COLUMNS = (
    "NAME",
    "MAC",
    "ELSE BY",
    "GUEST MAC",
    "SUBNET",
    "HOST",
    "GUEST",
    "HOSTNAME",
    "MASQUERADE",
)


@click.command()
@click.argument("file", type=click.Path(path_type=Path), required=False)
@click.pass_obj
def check(installation: Installation, *, file: Path | None) -> int:
    r"""Check a config, with its drop-ins, and say what it means.

    FILE is the config, FILE.d/*.toml its drop-ins; the default is the one of --config. Prints every
    problem with file, line and what to write instead, and exits with 78; or the gadgets that the
    file means. Neither needs root nor looks at the kernel.

    \b
    Examples:
      otgctl check
      otgctl check ./otgd.toml && sudo systemctl reload otgd
    """
    where = replace(installation, config_file=file) if file else installation
    config = where.config()
    print(f"{_files(where.config_file)} fine: {_summary(config)}")
    if config.desired.gadgets:
        print_table(COLUMNS, [_row(spec) for spec in config.desired.gadgets])
    return 0


def _files(path: Path) -> str:
    """Name what was checked, with its verb."""
    from otgd.config.sources import read_sources

    match len(read_sources(path)) - 1:
        case 0:
            return f"{path} is"
        case 1:
            return f"{path} and 1 drop-in are"
        case count:
            return f"{path} and {count} drop-ins are"


def _summary(config: Config) -> str:
    count = len(config.desired.gadgets)
    uplink = ", ".join(config.desired.uplink_policy.interfaces) or "auto"
    gadgets = f"{count} gadget{'' if count == 1 else 's'}"
    return f"{gadgets}, uplink {uplink}, firewall {config.settings.backend}"


def _row(spec: GadgetSpec) -> tuple[str, ...]:
    return (
        spec.name,
        spec.mac or "",
        " ".join(
            f"{sign} {value}" for sign, value in signs_of(spec).items() if sign is not Sign.MAC
        ),
        spec.guest_mac or "",
        str(spec.subnet),
        str(spec.host.ip),
        str(spec.guest),
        spec.hostname or "",
        yes_no(spec.masquerade),
    )
