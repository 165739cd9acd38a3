"""What other tools want to know of the gadgets: /etc/hosts, ssh, Ansible.

All of it comes from the config, so it is there before the first gadget is plugged.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from otgd.cli.installation import GadgetName
from otgd.cli.printing import print_json

if TYPE_CHECKING:
    from collections.abc import Iterable

    from otgd.cli.installation import Installation
    from otgd.model import GadgetSpec

UP = frozenset({"configured", "reachable"})


@click.command()
@click.pass_obj
def hosts(installation: Installation) -> int:
    r"""Print lines for /etc/hosts: each guest by its hostname and its link's name.

    \b
    Examples:
      otgctl hosts | sudo tee -a /etc/hosts
      ping worker1
    """
    for spec in installation.config().desired.gadgets:
        print(f"{spec.guest}\t{' '.join(_names(spec))}")
    return 0


@click.command("ssh-config")
@click.option("--user", help="Whom to log in as.")
@click.pass_obj
def ssh_config(installation: Installation, *, user: str | None) -> int:
    r"""Print a file for ssh's Include: each guest by its hostname and its link's name.

    A host key belongs to the guest's name, not to its address.

    \b
    Examples:
      otgctl ssh-config --user pi > ~/.ssh/otgd.conf
      sed -i '1i Include otgd.conf' ~/.ssh/config
      ssh worker1
    """
    for spec in installation.config().desired.gadgets:
        names = _names(spec)
        print(f"Host {' '.join(names)}")
        print(f"    HostName {spec.guest}")
        print(f"    HostKeyAlias {names[0]}")
        if user:
            print(f"    User {user}")
        print()
    return 0


@click.command()
@click.option("--list", "everything", is_flag=True, help="Print all groups and hosts.")
@click.option("--host", type=GadgetName(), metavar="NAME", help="Print one host's variables.")
@click.pass_obj
def inventory(installation: Installation, *, everything: bool, host: str | None) -> int:
    r"""Print the gadgets as Ansible's dynamic inventory.

    Group gadgets holds all of the config, group gadgets_up those that are up now. Ansible wants
    an executable file; two lines make one:

    \b
    Examples:
      printf '#!/bin/sh\nexec otgctl inventory "$@"\n' > gadgets.sh && chmod +x gadgets.sh
      ansible -i gadgets.sh gadgets_up -m ping
    """
    if everything == (host is not None):
        raise click.UsageError("give either --list or --host NAME")
    specs = installation.config().desired.gadgets
    states = _states(installation)
    if host is None:
        print_json(_inventory(specs, states))
        return 0
    spec = next((spec for spec in specs if host in _names(spec)), None)
    print_json(_variables(spec, states) if spec else {})  # as Ansible wants it for strangers
    return 0


def _names(spec: GadgetSpec) -> tuple[str, ...]:
    """Return what a guest is called, its own name first."""
    return (spec.hostname, spec.name) if spec.hostname else (spec.name,)


def _states(installation: Installation) -> dict[str, str]:
    """Return what the daemon says of each gadget; nothing where none runs."""
    told = installation.told_state()
    return {gadget["name"]: gadget["state"] for gadget in told["gadgets"]} if told else {}


def _inventory(specs: Iterable[GadgetSpec], states: dict[str, str]) -> dict[str, Any]:
    variables = {_names(spec)[0]: _variables(spec, states) for spec in specs}
    up = [name for name, facts in variables.items() if facts["otgd_state"] in UP]
    return {
        "gadgets": {"hosts": list(variables)},
        "gadgets_up": {"hosts": up},
        "_meta": {"hostvars": variables},
    }


def _variables(spec: GadgetSpec, states: dict[str, str]) -> dict[str, Any]:
    return {
        "ansible_host": str(spec.guest),
        "otgd_interface": spec.name,
        "otgd_state": states.get(spec.name),
        "otgd_mac": spec.mac,
        "otgd_serial": spec.serial,
        "otgd_port": spec.port,
        "otgd_host_address": str(spec.host.ip),
        "otgd_subnet": str(spec.subnet),
        "otgd_masquerade": spec.masquerade,
        "otgd_isolate": spec.isolate,
    }
