"""All checks in the order of the way: host and USB, each gadget, out to the Internet."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from otgd.diagnosis import gadget, host
from otgd.diagnosis.facts import link_of
from otgd.diagnosis.findings import skip

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from otgd.diagnosis.facts import Facts
    from otgd.diagnosis.findings import Finding

BEFORE: Mapping[str, Callable[[Facts], Iterator[Finding]]] = {
    "config": host.check_config,
    "daemon": host.check_daemon,
    "kernel": host.check_kernel,
    "usb": host.check_usb,
    "drivers": host.check_drivers,
    "kernel-log": host.check_kernel_log,
    "power": host.check_power,
}
GADGET: Mapping[str, Callable[[Facts, gadget.Patient], Iterator[Finding]]] = {
    "plugged": gadget.check_plugged,
    "udev": gadget.check_udev,
    "overlap": gadget.check_overlap,
    "name": gadget.check_name,
    "address": gadget.check_address,
    "carrier": gadget.check_carrier,
    "managers": gadget.check_managers,
    "rules": gadget.check_rules,
    "arp": gadget.check_arp,
    "ping": gadget.check_ping,
    "dhcp": gadget.check_dhcp,
    "otgd": gadget.check_word,
}
FOLLOWS_OVERLAP = frozenset({"name", "address", "carrier", "arp", "ping", "otgd"})
"""What is amiss by design where otgd leaves a link alone because its subnet is another's."""

AFTER: Mapping[str, Callable[[Facts], Iterator[Finding]]] = {
    "forwarding": host.check_forwarding,
    "firewall": host.check_firewall,
    "uplink": host.check_uplink,
    "hub": host.check_hub,
}


def examine(facts: Facts, name: str = "") -> Iterator[Finding]:
    """Yield what every check says; of the gadgets only *name*, if it is given."""
    for check, look in BEFORE.items():
        yield from (replace(finding, check=check) for finding in look(facts))
    for spec in facts.desired.gadgets:
        if name in ("", spec.name):
            patient = gadget.Patient(spec=spec, link=link_of(spec, facts), named=bool(name))
            yield from _examine_gadget(facts, patient)
    for check, look in AFTER.items():
        yield from (replace(finding, check=check) for finding in look(facts))


def _examine_gadget(facts: Facts, patient: gadget.Patient) -> Iterator[Finding]:
    """Yield what the gadget's checks say, but not the troubles that only follow from another."""
    overlaps = False
    for check, look in GADGET.items():
        for finding in look(facts, patient):
            follows = overlaps and finding.is_trouble and check in FOLLOWS_OVERLAP
            told = skip("not looked at, because its subnet overlaps") if follows else finding
            yield replace(told, check=check, gadget=patient.spec.name)
            overlaps = overlaps or (check == "overlap" and finding.is_trouble)
