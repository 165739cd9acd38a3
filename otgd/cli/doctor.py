"""``otgctl doctor``: what is wrong on the way from a USB port to the Internet."""

from __future__ import annotations

import os
import platform
from pathlib import Path
from typing import TYPE_CHECKING

import click

from otgd.cli.findings import document, print_findings
from otgd.cli.installation import GadgetName
from otgd.cli.printing import print_json
from otgd.errors import ConfigError, OtgdError
from otgd.model import Config, DesiredState

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from otgd.cli.installation import Installation
    from otgd.diagnosis.facts import Facts, Probe
    from otgd.errors import Problem
    from otgd.model import GadgetSpec, ObservedLink

EX_TROUBLE = 1
ROOT = Path("/")
LEGACY_TABLES = Path("/proc/thread-self/net/ip_tables_names")


@click.command()
@click.argument("name", type=GadgetName(), required=False)
@click.option("--json", "as_json", is_flag=True, help="Print it for programs.")
@click.pass_obj
def doctor(installation: Installation, *, name: str | None, as_json: bool) -> int:
    r"""Look for what is wrong, from the USB port to the Internet.

    Tells of each trouble what it is, why it matters and what to type. Changes nothing. Guests are
    asked (ARP, ping, DHCP) for a second. Run it as root: others may not see the firewall, the
    kernel's log, nor ask guests. Of the gadgets only NAME is examined, if given; then it has to
    be plugged in. Exits with 0 if nothing is wrong, with 1 if anything is.

    \b
    Examples:
      sudo otgctl doctor
      sudo otgctl doctor ethusb1
      sudo otgctl doctor --json | jq -r '.findings[] | select(.mark == "fail") | .remedy'
    """
    from otgd.diagnosis.examination import examine

    facts = gather(installation)
    known = [spec.name for spec in facts.desired.gadgets]
    if name and name not in known and not facts.problems:
        raise click.UsageError(f"there is no gadget {name}; there are {', '.join(known) or 'none'}")
    findings = list(examine(facts, name or ""))
    trouble = sum(finding.is_trouble for finding in findings)
    if as_json:
        print_json({"fine": not trouble, "findings": [document(each) for each in findings]})
    else:
        print_findings(findings, trouble)
    return EX_TROUBLE if trouble else 0


# --- gather --------------------------------------------------------------------------------------


def gather(installation: Installation, *, root: Path = ROOT) -> Facts:
    """Look at everything once.

    Raises:
        OtgdError: the kernel's links cannot be seen.
    """
    from otgd.adapters.hotplug import choose_source
    from otgd.cli.kernel_view import look
    from otgd.diagnosis import programs, readers
    from otgd.diagnosis.facts import Facts

    config, problems = _config(installation)
    view = look(installation, config)
    facts = Facts(
        config_file=str(installation.config_file),
        problems=problems,
        desired=config.desired,
        runs=installation.runs,
        as_root=os.geteuid() == 0,
        release=platform.release(),
        usb=readers.read_usb(root),
        kernel_log=readers.read_kernel_log(root),
        throttled=programs.read_throttled(),
        udev=readers.read_udev(root) if choose_source(config.settings.source) == "udev" else None,
        observed=view.observed,
        plan=view.plan,
        hidden=view.hidden,
        flavour=programs.read_flavour(),
        legacy_filter=programs.read_legacy_filter(LEGACY_TABLES),
        chains=programs.read_forward_chains(),
    )
    return _with_links(_with_told(facts, installation, root), root)


def _with_links(facts: Facts, root: Path) -> Facts:
    """Add what can only be asked where it is known which link is whose."""
    from dataclasses import replace

    from otgd.diagnosis.readers import read_managers

    managers = {link.ifindex: read_managers(root, link) for _, link in facts.present}
    return replace(facts, managers=managers, probes=_probes(facts.present))


def _config(installation: Installation) -> tuple[Config, tuple[Problem, ...]]:
    try:
        return installation.config(), ()
    except ConfigError as err:
        return Config(desired=DesiredState()), err.problems


def _with_told(facts: Facts, installation: Installation, root: Path) -> Facts:
    """Add what the daemon says, and whether it can say anything new."""
    from dataclasses import replace

    from otgd.diagnosis.readers import is_halted

    try:
        state = installation.told_state()
    except OtgdError as err:
        return replace(facts, told_fault=str(err))
    if state is None:
        return facts
    told = {gadget["name"]: (gadget["state"], gadget["reason"]) for gadget in state["gadgets"]}
    return replace(
        facts,
        told=told,
        halted=state["pid"] if is_halted(root, state["pid"]) else None,
        config_fault=state.get("config_fault") or "",
    )


def _probes(present: Iterable[tuple[GadgetSpec, ObservedLink]]) -> Mapping[str, Probe]:
    """Ask the guests whose link has carrier, if this user may."""
    from otgd.diagnosis.probes import Target, probe

    if os.geteuid() != 0:
        return {}
    targets = {
        spec.name: Target(
            ifname=link.ifname,
            mac=link.mac,
            guest=spec.guest,
            ping=any(address.interface == spec.host for address in link.addresses),
        )
        for spec, link in present
        if link.carrier
    }
    found = probe(list(targets.values()))
    return {name: found[t.ifname] for name, t in targets.items() if t.ifname in found}
