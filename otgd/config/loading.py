"""From a file to ``Config``: read, understand, check, translate."""

from __future__ import annotations

from typing import TYPE_CHECKING

from otgd.config.checks import check_complete, check_entries, check_gadgets
from otgd.config.drafts import merge_entries
from otgd.config.findings import Findings
from otgd.config.fleet import check_fleet, unfold_fleet
from otgd.config.schema import validate
from otgd.config.sources import Source, merge_sources, read_sources
from otgd.config.swarm import check_members, check_swarm, swarm_spec, via_hub
from otgd.model import Config, DesiredState, Settings, UplinkPolicy

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path


def load_config(path: Path) -> Config:
    """Read the config file at *path*, and its drop-ins (``otgd.toml.d/*.toml``) after it.

    Raises:
        ConfigError: one cannot be read or is refused; carries every problem.
    """
    return parse_sources(read_sources(path))


def parse_config(text: str, *, file: str) -> Config:
    """Understand *text*, the content of a config file; *file* is its name in messages.

    Raises:
        ConfigError: the config is refused; carries every problem.
    """
    return parse_sources((Source(file=file, text=text),))


def parse_sources(sources: Sequence[Source]) -> Config:
    """Understand files, at least one, that make one config.

    Raises:
        ConfigError: the config is refused; carries every problem.
    """
    raw, places, doubled = merge_sources(sources)
    findings = Findings(files=[source.file for source in sources], places=places, found=doubled)
    document, faults = validate(raw)
    for fault in faults:
        findings.add(fault.path, cause=fault.cause, remedy=fault.remedy)
    faulty = frozenset(fault.path for fault in faults)
    uplinks = document.uplink.interface

    fleet = document.fleet
    members = tuple(unfold_fleet(fleet)) if fleet else ()
    if fleet:
        check_fleet(fleet, faulty=faulty, uplinks=uplinks, findings=findings)
    drafts = merge_entries(members, document.gadget, faulty=faulty)
    is_all_known = bool(members) or not (fleet or ("fleet",) in faulty)
    if is_all_known:
        check_complete(drafts, findings=findings)
    check_entries(document.gadget, findings=findings)
    check_gadgets(drafts, uplinks=uplinks, findings=findings)
    swarm = document.swarm
    if swarm:
        check_swarm(swarm, drafts, faulty=faulty, findings=findings)
    if swarm and is_all_known:
        check_members(swarm, [draft.name for draft in drafts], findings=findings)
    gadgets = tuple(spec for draft in drafts if (spec := draft.spec()))
    findings.raise_any()
    cluster = swarm_spec(document.swarm, gadgets)

    return Config(
        desired=DesiredState(
            gadgets=via_hub(gadgets, cluster) if cluster else gadgets,
            uplink_policy=UplinkPolicy(interfaces=uplinks),
            drivers=document.hotplug.drivers,
            unknown=document.hotplug.unknown,
            hub=cluster.hub_address if cluster else None,
        ),
        settings=Settings(
            source=document.hotplug.source,
            backend=document.firewall.backend,
            on_stop=document.service.on_stop,
            resync_s=document.service.resync_s,
            log_level=document.service.log_level,
            metrics_file=document.service.metrics_file,
        ),
        swarm=cluster,
    )
