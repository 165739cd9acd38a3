"""``otgctl release``: take back all that is otgd's, for one gadget or for all.

Needs no config: what is ours is marked in the kernel.
"""

from __future__ import annotations

import os
from contextlib import closing, contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

import click

from otgd.cli.installation import GadgetName
from otgd.cli.printing import print_line
from otgd.describe import describe
from otgd.errors import ConfigError, OtgdError, PermanentError
from otgd.model import (
    Backend,
    ClosePassage,
    Passage,
    RemoveAddress,
    RemoveRoute,
    RemoveRule,
    Rule,
    SourceGuard,
    gadget_of,
)

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from otgd.cli.installation import Installation
    from otgd.model import Action, ObservedLink, ObservedRoute
    from otgd.ports import FirewallPort, LinkPort


@click.command()
@click.argument("name", type=GadgetName(), required=False)
@click.pass_obj
def release(installation: Installation, *, name: str | None) -> int:
    r"""Undo all that is otgd's in the kernel, or only what is for the gadget NAME.

    Removes the addresses and routes that carry otgd's mark and otgd's firewall rules, in iptables
    and in nftables. Links keep their names; forwarding stays on; what otgd did not make is not
    touched. otgd must be stopped, or it would bring all of it back at once. A NAME that neither the
    config nor the kernel knows is wrong usage.

    \b
    Examples:
      sudo systemctl stop otgd && sudo otgctl release
      sudo otgctl release ethusb2
    """
    if os.geteuid() != 0:
        raise OtgdError("release needs root: sudo otgctl release")
    if not installation.state_file.lock():
        raise OtgdError("otgd runs and would bring everything back: systemctl stop otgd first")
    from otgd.adapters.links import NetlinkLinks

    with closing(NetlinkLinks()) as links:
        outcome = _release(name, links, _firewalls())
        if name is None:
            _shut_passage(outcome)
        elif outcome.clean:
            _hold_that_it_exists(name, installation, links)
    if outcome.clean:
        print(f"Nothing of otgd's is there{f' for {name}' if name else ''}.")
    return 1 if outcome.failed else 0


def _hold_that_it_exists(name: str, installation: Installation, links: LinkPort) -> None:
    """Tell a gadget with nothing to undo from a name that nobody knows.

    Raises:
        UsageError: neither the config nor a link has the name.
        PermanentError: no link has it, and the config cannot be asked.
    """
    if any(link.ifname == name for link in links.observe_links()):
        return
    try:
        known = [spec.name for spec in installation.config().desired.gadgets]
    except ConfigError as err:
        raise PermanentError(
            f"nothing of otgd's is there for {name}, and no link is called so; whether the config"
            f" knows it cannot be told: {err.problems[0]}"
        ) from err
    if name not in known:
        raise click.UsageError(f"there is no gadget {name}; there are {', '.join(known) or 'none'}")


@dataclass(slots=True)
class _Outcome:
    """Tells each thing as it is done."""

    done: int = 0
    failed: int = 0

    @property
    def clean(self) -> bool:
        return not self.done and not self.failed

    @contextmanager
    def telling(self, steps: Sequence[Action], where: str = "") -> Iterator[None]:
        """Tell how *steps*, which are done as one, end."""
        try:
            yield
        except OtgdError as err:
            self.failed += len(steps)
            for step in steps:
                print_line(f"otgctl: {describe(step)}{where}: {err}", error=True)
        else:
            self.done += len(steps)
            for step in steps:
                print_line(f"done: {describe(step)}{where}")


def _release(name: str | None, links: LinkPort, firewalls: Iterable[FirewallPort]) -> _Outcome:
    """Take back routes and addresses, then rules: what protects an address outlives it."""
    outcome = _Outcome()
    held = {firewall: rules for firewall in firewalls if (rules := _look(firewall)) is not None}
    if not held:
        raise OtgdError("no firewall can be looked at, so nothing was touched")
    rules = frozenset[Rule]().union(*held.values())
    observed = links.observe_links()
    for route in _routes(name, observed, links.observe_routes()):
        with outcome.telling([route]):
            links.remove_route(route.ifindex, route.subnet, route.source)
    for step in _addresses(name, observed, rules):
        with outcome.telling([step]):
            links.remove_address(step.ifindex, step.interface)
    for firewall, theirs in held.items():
        steps = [RemoveRule(rule=r) for r in sorted(theirs, key=repr) if _is_for(name, r)]
        if steps:
            with outcome.telling(steps, f" ({firewall.name})"):
                firewall.apply(remove=[step.rule for step in steps], add=())
    for firewall in held:
        firewall.tidy()
    return outcome


def _shut_passage(outcome: _Outcome) -> None:
    """Take our one rule out of other programs' FORWARD; it serves all gadgets together."""
    from otgd.adapters.docker_user import IptablesPassage

    passage = IptablesPassage(changes=None)
    try:
        ours = passage.look() in (Passage.GRANTED, Passage.SPARE)
    except OtgdError as err:
        _not_looked_at("FORWARD", err)
        return
    if ours:
        with outcome.telling([ClosePassage()]):
            passage.shut()


def _firewalls() -> Iterator[FirewallPort]:
    """Open every backend that this host has; an earlier config may have chosen another one."""
    from otgd.wiring import open_firewall

    for backend in (Backend.IPTABLES, Backend.NFTABLES):
        try:
            yield open_firewall(backend)
        except OtgdError as err:
            _not_looked_at(backend, err)


def _look(firewall: FirewallPort) -> frozenset[Rule] | None:
    try:
        return firewall.observe()
    except OtgdError as err:
        _not_looked_at(firewall.name, err)
        return None


def _not_looked_at(backend: str, err: OtgdError) -> None:
    """A backend that does not work here holds no rules, most likely: no reason to stop."""
    print_line(f"otgctl: {backend}: not looked at: {err}", error=True)


def _addresses(
    name: str | None, links: Iterable[ObservedLink], rules: Iterable[Rule]
) -> Iterator[RemoveAddress]:
    """Yield our addresses; those of one gadget are on its link or in its subnet."""
    subnets = {
        rule.subnet for rule in rules if isinstance(rule, SourceGuard) and rule.gadget == name
    }
    for link in links:
        for address in link.addresses:
            wanted = name in (None, link.ifname) or address.interface.network in subnets
            if address.owned and wanted:
                yield RemoveAddress(
                    gadget=link.ifname, ifindex=link.ifindex, interface=address.interface
                )


def _routes(
    name: str | None, links: Iterable[ObservedLink], routes: Iterable[ObservedRoute]
) -> Iterator[RemoveRoute]:
    """Yield our routes; those of one gadget are by its link."""
    names = {link.ifindex: link.ifname for link in links}
    for route in routes:
        ifname = names.get(route.ifindex, "")
        if route.owned and route.source and name in (None, ifname):
            yield RemoveRoute(
                gadget=ifname,
                ifindex=route.ifindex,
                subnet=route.destination,
                source=route.source,
            )


def _is_for(name: str | None, rule: Rule) -> bool:
    """Tell whether *rule* is to go: all of them, or those of one gadget."""
    return name is None or gadget_of(RemoveRule(rule=rule)) == name
