"""``otgctl swarm``: a Docker Swarm over the cables."""

from __future__ import annotations

import os
import subprocess
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import click

from otgd.cli.installation import GadgetName
from otgd.cli.printing import print_json, print_line, print_table, progress_bars
from otgd.cli.swarm_test import SwarmTest
from otgd.errors import OtgdError, PermanentError
from otgd.swarm import cluster, roster
from otgd.swarm.members import chosen
from otgd.swarm.ssh import Policy

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from otgd.cli.installation import Installation
    from otgd.model import GadgetSpec, SwarmSpec
    from otgd.swarm.engine import Engine
    from otgd.swarm.members import Node

EX_FAILED = 1
FOLLOWER = "otgd-swarm.service"
LS_COLUMNS = ("GADGET", "CABLE", "PORT", "ADDRESS", "NODE", "HOSTNAME", "STATUS", "REASON")


class _Group(click.Group):
    """A group whose docstrings are raw: click's mark for "leave these lines" is spelt out."""

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        command = super().get_command(ctx, cmd_name)
        if command is not None:
            command.help = (command.help or "").replace("\\b", "\b")
        return command


@click.group(cls=_Group)
def swarm() -> None:
    r"""Make a Docker Swarm of the host and its gadgets, look after it and try it.

    Needs [swarm] in the config, Docker on this host, and ssh to the guests with this user's keys.

    \b
    Examples:
      otgctl swarm preflight        what is missing, and what to type
      otgctl swarm install          Docker on every guest, from its own apt
      otgctl swarm up               host and reachable gadgets become one swarm
      otgctl swarm ls               which cable is which node
    """


def _names(function: Callable[..., int]) -> Callable[..., int]:
    return click.argument("names", type=GadgetName(), nargs=-1, metavar="[NAME]...")(function)


_accept_new = click.option(
    "--accept-new-host-keys",
    "accept_new",
    is_flag=True,
    help="Trust a guest whose host key is not known yet; a changed one is refused all the same.",
)
_json = click.option("--json", "as_json", is_flag=True, help="Print it for programs.")


class Site:
    """The config's swarm, and what otgd tells of its gadgets."""

    def __init__(self, installation: Installation, *, accept_new: bool = False) -> None:
        config = installation.config()
        if config.swarm is None:
            raise PermanentError(
                f"{installation.config_file} has no swarm; write a table [swarm] with "
                'hub_address = "10.0.10.1", then: sudo systemctl reload otgd'
            )
        self.spec: SwarmSpec = config.swarm
        self.policy = Policy(user=self.spec.ssh_user, accept_new=accept_new)
        self.gadgets = config.desired.gadgets
        self._installation = installation

    def members(self, names: Sequence[str] = ()) -> tuple[GadgetSpec, ...]:
        """Return all members, or those of *names*."""
        return chosen(self.gadgets, self.spec.members, names)

    def places(self) -> tuple[roster.Place, ...]:
        """Return all members as otgd tells them now."""
        return roster.places(self.members(), self._installation.told_state())

    def present(
        self, names: Sequence[str] = ()
    ) -> tuple[tuple[GadgetSpec, ...], list[roster.Place]]:
        """Return the members, or those of *names*: whose cable is in, and the others."""
        wanted = {spec.name for spec in self.members(names)}
        places = [place for place in self.places() if place.spec.name in wanted]
        there = tuple(place.spec for place in places if place.may_answer)
        return there, [place for place in places if not place.may_answer]


def _tell_left_out(places: Sequence[roster.Place], what: str) -> None:
    """Say whose cable is out, or blocked, and what becomes of them."""
    absent = [place.spec.name for place in places if place.state == "absent"]
    if absent:
        print(f"not plugged in: {', '.join(absent)}; {what}")
    for place in places:
        if place.state != "absent":
            print_line(f"{place.spec.name} is {place.state}: {place.reason}; {what}")


def _manager(hub: Engine) -> tuple[Node, ...]:
    """Return the nodes of the host's swarm.

    Raises:
        PermanentError: it leads none.
    """
    if not hub.facts().manages:
        raise PermanentError("this host leads no swarm; type: otgctl swarm up")
    return hub.nodes()


def _report(
    results: Iterable[tuple[GadgetSpec, cluster.Outcome | OtgdError]],
) -> int:
    """Print each guest's outcome as it comes; return how many are bad."""
    bad = 0
    for spec, result in results:
        if isinstance(result, cluster.Outcome) and result.good:
            print_line(f"{spec.name}: {result.text}")
            continue
        bad += 1
        text = result.text if isinstance(result, cluster.Outcome) else str(result)
        print_line(f"otgctl: {spec.name}: {text.removeprefix(f'{spec.name}: ')}", error=True)
    return bad


# --- see -----------------------------------------------------------------------------------------


@swarm.command()
@_names
@_accept_new
@_json
@click.pass_obj
def preflight(
    installation: Installation, *, names: tuple[str, ...], accept_new: bool, as_json: bool
) -> int:
    r"""Look at the host and at each guest: can it be a node?

    Tells of each trouble what it is, why it matters and what to type. Changes nothing. Exits with
    0 if nothing is wrong, with 1 if anything is.

    \b
    Examples:
      sudo otgctl swarm preflight
      otgctl swarm preflight ethusb1
    """
    from otgd.cli.findings import document, print_findings
    from otgd.diagnosis.findings import skip
    from otgd.swarm.preflight import judge_guest, judge_host

    site = Site(installation, accept_new=accept_new)
    there, left_out = site.present(names)
    findings = list(judge_host(cluster.look_at_host(site.spec)))
    reports = dict(cluster.each_guest(there, lambda spec: cluster.look_at_guest(spec, site.policy)))
    for spec in there:
        report = reports[spec]
        if isinstance(report, OtgdError):
            raise report
        findings += judge_guest(report)
    for place in left_out:
        text = f"not looked at: it is {place.state}, {place.reason}"
        findings.append(replace(skip(text), check="cable", gadget=place.spec.name))
    trouble = sum(finding.is_trouble for finding in findings)
    if as_json:
        print_json({"fine": not trouble, "findings": [document(each) for each in findings]})
    else:
        print_findings(findings, trouble)
    return EX_FAILED if trouble else 0


@swarm.command(short_help="List nodes and gadgets together: which cable is which node.")
@_json
@click.pass_obj
def ls(installation: Installation, *, as_json: bool) -> int:
    r"""List nodes and gadgets together: which cable is which node, and how both are.

    CABLE is the gadget's state as otgd has it, STATUS the node's as Docker has it.

    \b
    Examples:
      otgctl swarm ls
      otgctl swarm ls --json | jq -r '.nodes[] | select(.status != "ready") | .name'
    """
    from otgd.swarm.engine import open_local

    site = Site(installation)
    with closing(open_local()) as hub:
        nodes = _manager(hub)
    rows = roster.make_roster(nodes, site.places(), site.spec.hub_address)
    if as_json:
        print_json({"version": 1, "nodes": [roster.document(row) for row in rows]})
    else:
        print_table(LS_COLUMNS, [_ls_row(row) for row in rows])
    return 0


def _ls_row(row: roster.Row) -> tuple[str, ...]:
    node, place = row.node, row.place
    status = node.state if node else "none"
    if node and node.leader:
        status += " (leader)"
    return (
        row.name,
        place.state if place else "",
        place.port if place else "",
        str(place.spec.guest) if place else node.address if node else "",
        node.id[:12] if node else "",
        node.hostname if node else (place.spec.hostname or "") if place else "",
        status,
        row.reason,
    )


# --- change --------------------------------------------------------------------------------------


@swarm.command()
@_names
@_accept_new
@click.pass_obj
def install(installation: Installation, *, names: tuple[str, ...], accept_new: bool) -> int:
    r"""Install Docker on the gadgets, from their own apt.

    On all that are plugged in, or on those of NAME, at once; one that has it is left alone. The
    guests need a way to their apt's servers (masquerade) and a user who may use sudo without a
    password; it may use Docker afterwards.

    \b
    Examples:
      otgctl swarm install
      otgctl swarm install ethusb3 --accept-new-host-keys
    """
    from otgd.swarm.install import install as install_docker

    site = Site(installation, accept_new=accept_new)
    there, left_out = site.present(names)
    with progress_bars() as progress:
        bad = _report(
            cluster.each_guest(there, lambda spec: install_docker(spec, site.policy, progress))
        )
    _tell_left_out(left_out, "type this again when they are there")
    return EX_FAILED if bad else 0


@swarm.command()
@_names
@_accept_new
@click.pass_obj
def up(installation: Installation, *, names: tuple[str, ...], accept_new: bool) -> int:
    r"""Make the host a manager and every reachable gadget a worker.

    Does what is missing and nothing else, so it can be run at any time. A gadget that comes later
    joins with the next up, or at once with auto_join = true in the config. The token goes from
    engine to engine; nobody sees it.

    \b
    Examples:
      otgctl swarm up
      otgctl swarm up ethusb3 --accept-new-host-keys
    """
    from otgd.swarm.engine import open_local

    site = Site(installation, accept_new=accept_new)
    there, left_out = site.present(names)
    with closing(open_local()) as hub:
        new = cluster.found(hub, site.spec)
        print(f"host: {'is now' if new else 'is'} the manager, at {site.spec.hub_address}")
        nodes = hub.nodes()
        bad = _report(
            cluster.each_guest(
                there, lambda spec: cluster.join(hub, site.spec, spec, site.policy, nodes)
            )
        )
    if site.spec.auto_join:
        _tell_left_out(left_out, "they join when they are there")
        _start_following()
    else:
        _tell_left_out(left_out, "they join with the next otgctl swarm up")
    return EX_FAILED if bad else 0


def _start_following() -> None:
    """Have later gadgets join by themselves, as ``auto_join`` says."""
    command = ["systemctl", "enable", "--now", "--quiet", FOLLOWER]
    if not Path("/run/systemd/system").exists():
        return
    if os.geteuid() != 0:
        print(f"so that they do, type: sudo {' '.join(command)}")
        return
    done = subprocess.run(command, check=False, capture_output=True, text=True)  # noqa: S603 - constant words
    if done.returncode != 0:
        raise PermanentError(f"{' '.join(command)}: {done.stderr.strip()}")


@swarm.command(short_help="Tell each node's changes, and join gadgets that come later.")
@click.pass_obj
def follow(installation: Installation) -> int:
    r"""Tell each node's changes as they happen; with auto_join, join gadgets that come later.

    Runs until Ctrl-C. otgd-swarm.service runs it, as root and with root's ssh key; up enables that
    where the config says auto_join = true.

    \b
    Examples:
      otgctl swarm follow
      sudo systemctl enable --now otgd-swarm.service && journalctl -f -u otgd-swarm
    """
    from otgd.cli.inotify import DirectoryWatch
    from otgd.cli.swarm_follow import follow as follow_for_ever

    with DirectoryWatch(installation.runtime_dir) as watch:
        follow_for_ever(lambda: Site(installation), watch)


@swarm.command()
@_names
@click.option("--all", "everybody", is_flag=True, help="All guests and the host: ends the swarm.")
@_accept_new
@click.pass_obj
def leave(
    installation: Installation, *, names: tuple[str, ...], everybody: bool, accept_new: bool
) -> int:
    r"""Take gadgets out of the swarm, or end it.

    What runs on them moves to the other nodes. Ending the swarm forgets its services, networks
    and secrets.

    \b
    Examples:
      otgctl swarm leave ethusb3
      otgctl swarm leave --all
    """
    from otgd.swarm.engine import open_local

    if bool(names) == everybody:
        raise click.UsageError("give gadgets' names, or --all to end the swarm")
    site = Site(installation, accept_new=accept_new)
    there, left_out = site.present(names)
    with closing(open_local()) as hub:
        facts = hub.facts()
        nodes = hub.nodes() if facts.manages else ()
        bad = _report(
            cluster.each_guest(there, lambda spec: cluster.leave(hub, spec, site.policy, nodes))
        )
        _tell_left_out(left_out, "they learn of it when they are back")
        if everybody and facts.state != "inactive":
            hub.leave(force=True)
            print("host: has left the swarm, which is no more")
    return EX_FAILED if bad else 0


@swarm.command()
@click.argument("names", nargs=-1, required=True, metavar="NODE...")
@click.pass_obj
def rm(installation: Installation, *, names: tuple[str, ...]) -> int:
    r"""Forget nodes that are down for good.

    NODE is a node's id or its beginning, its hostname, or its gadget's name. One that is ready is
    refused: let it leave.

    \b
    Examples:
      otgctl swarm rm worker3
    """
    from otgd.swarm.engine import open_local

    site = Site(installation)
    with closing(open_local()) as hub:
        rows = roster.make_roster(_manager(hub), site.places(), site.spec.hub_address)
        for node in [roster.dead_node(rows, name) for name in names]:
            hub.remove(node)
            print_line(f"{node.hostname} ({node.id[:12]}): forgotten")
    return 0


@swarm.command(short_help="Send an image from this host to gadgets, without a registry.")
@click.argument("image")
@_names
@click.option("--force", is_flag=True, help="Send it although it is for another architecture.")
@_accept_new
@click.pass_obj
def push(
    installation: Installation, *, image: str, names: tuple[str, ...], force: bool, accept_new: bool
) -> int:
    r"""Send an image from this host to the gadgets, without a registry.

    To all that are plugged in, or to those of NAME, at once. Over each cable go only the layers
    that the guest does not have. An image for another architecture is refused; a Zero or Zero W
    takes arm/v6.

    \b
    Examples:
      docker pull --platform linux/arm/v6 alpine && otgctl swarm push alpine
      otgctl swarm push my/app:2 ethusb1 ethusb2
    """
    from otgd.swarm import images
    from otgd.swarm.engine import open_local

    site = Site(installation, accept_new=accept_new)
    there, left_out = site.present(names)
    with (
        closing(open_local()) as hub,
        images.packed(hub, image) as parcel,
        progress_bars() as progress,
    ):
        bad = _report(
            cluster.each_guest(
                there, lambda spec: images.push(parcel, spec, site.policy, progress, force=force)
            )
        )
    _tell_left_out(left_out, "push it again when they are there")
    return EX_FAILED if bad else 0


@swarm.command(short_help="Try a small service on every node, and put load on it.")
@click.option(
    "--port",
    "published",
    type=click.IntRange(1, 65535),
    default=9000,
    show_default=True,
    help="The port to publish on every node.",
)
@click.option(
    "--publish",
    type=click.Choice(["auto", "ingress", "host"]),
    default="auto",
    show_default=True,
    help="ingress: every node answers for all; host: each for itself; auto: ingress with ip_vs.",
)
@click.option(
    "--seconds",
    type=click.FloatRange(min=0),
    default=10.0,
    show_default=True,
    help="How long the longer load test takes per node; 0 leaves it out.",
)
@_accept_new
@_json
@click.pass_obj
def test(
    installation: Installation,
    *,
    published: int,
    publish: str,
    seconds: float,
    accept_new: bool,
    as_json: bool,
) -> int:
    r"""Run a small service on every node, ask it everywhere, and put load on it.

    The service tells a GUID and which container made it, as the guide's. Its image is made of
    Debian's busybox-static for each guest's architecture. Asks every node's port, has every replica
    ask every other one through the overlay network, then measures: 100 requests one at a time, 100
    five at a time, and a longer run. In the end it removes all that it made.

    \b
    Examples:
      otgctl swarm test
      otgctl swarm test --seconds 60 --json > figures.json
    """
    from otgd.swarm.engine import open_local

    site = Site(installation, accept_new=accept_new)
    with closing(open_local()) as hub:
        nodes = _manager(hub)
        rows = roster.make_roster(nodes, site.places(), site.spec.hub_address)
        trial_run = SwarmTest(hub=hub, published=published, seconds=seconds, quiet=as_json)
        verdicts = trial_run(rows, site.policy, publish)
    if as_json:
        print_json(trial_run.document(verdicts))
    else:
        trial_run.print_load(verdicts)
    return 0 if all(verdict.good for verdict in verdicts) else EX_FAILED
