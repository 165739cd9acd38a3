"""``otgctl metrics``: the state and the counters in Prometheus' text format."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import click

from otgd.cli.counters import ifname_of, read_counters
from otgd.metrics import collect

if TYPE_CHECKING:
    from otgd.cli.installation import Installation


@click.command()
@click.pass_obj
def metrics(installation: Installation) -> int:
    r"""Print state and counters for Prometheus.

    For node_exporter's textfile collector, written whole or not at all. otgd_up is 0 where otgd
    does not run, and then it is the only one.

    \b
    Examples:
      otgctl metrics
      otgctl metrics | sponge /var/lib/prometheus/node-exporter/otgd.prom
    """
    state = installation.told_state()
    for metric in collect(state, _count(state)):
        print(metric)
    return 0


def _count(state: dict[str, Any] | None) -> dict[str, dict[str, int]]:
    counts = {}
    for gadget in state["gadgets"] if state else ():
        ifname = ifname_of(gadget["ifindex"])
        counters = read_counters(ifname) if ifname else None
        if counters:
            counts[gadget["name"]] = asdict(counters)
    return counts
