"""Everything that the checks look at, gathered beforehand."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from otgd.identity import Directory, Sign
from otgd.model import DesiredState, GadgetSpec, ObservedLink, ObservedState, Plan

if TYPE_CHECKING:
    from collections.abc import Mapping

    from otgd.errors import Problem


@dataclass(frozen=True, slots=True, kw_only=True)
class UsbInterface:
    """One interface of a USB device.

    Attributes:
        kind: class, subclass and protocol, two hex digits each: ``02/06/00``.
        driver: empty where none is bound.
        links: names of the network links that the driver made.
    """

    kind: str
    driver: str = ""
    links: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class UsbDevice:
    """A USB device.

    Attributes:
        port: its port path, ``1-1.2``.
        ids: vendor and product, ``0525:a4a2``.
        product: what it calls itself.
    """

    port: str
    ids: str
    product: str = ""
    interfaces: tuple[UsbInterface, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Probe:
    """What a guest answered within the time.

    Attributes:
        mac: who answered ARP for the guest's address; empty if nobody.
        echoed: whether the guest's address answered a ping.
        dhcp_server: address of a DHCP server on the link; empty if none answered.
    """

    mac: str = ""
    echoed: bool = False
    dhcp_server: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class ForwardChain:
    """A foreign base chain at nftables' forward hook.

    Attributes:
        drops: whether its policy is drop.
        text: the chain as nft(8) lists it; of firewalld the whole table.
    """

    family: str
    table: str
    name: str
    drops: bool
    text: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Facts:
    """A host, looked at once.

    Attributes:
        config_file: the config's name.
        problems: why the config is refused; then *desired* is empty.
        runs: whether the daemon runs.
        halted: the daemon's pid, if a signal has stopped it; else None.
        as_root: whether it was root that looked.
        told: each gadget's state and reason in the daemon's own words; None if it told nothing.
        told_fault: why the daemon's state cannot be read; empty if it can.
        config_fault: why the running daemon refused the config at its last reload; empty if it
            did not.
        release: the kernel's release, ``6.12.25+rpt-rpi-v8``.
        usb: the USB devices that are there.
        kernel_log: the kernel's messages, oldest first; None if they may not be read.
        throttled: what the Pi's firmware tells of its supply (``vcgencmd get_throttled``); None
            where there is no such program.
        udev: ifindexes of the links that udevd has finished with; None where no udevd counts.
        observed: what the kernel holds.
        plan: what otgd would do about it.
        hidden: why the firewall was not looked at; empty if it was.
        probes: what each gadget's guest answered; a gadget that was not asked is not there.
        managers: other programs that manage a link, by ifindex.
        flavour: what ``iptables`` writes: ``nf_tables``, ``legacy``, or empty if it is not there.
        legacy_filter: the legacy filter table (iptables-save); empty where it is not in use.
        chains: foreign base chains at nftables' forward hook; None if they cannot be seen.
    """

    config_file: str = "/etc/otgd/otgd.toml"
    problems: tuple[Problem, ...] = ()
    desired: DesiredState = field(default_factory=DesiredState)
    runs: bool = False
    halted: int | None = None
    as_root: bool = False
    told: Mapping[str, tuple[str, str]] | None = None
    told_fault: str = ""
    config_fault: str = ""
    release: str = ""
    usb: tuple[UsbDevice, ...] = ()
    kernel_log: tuple[str, ...] | None = None
    throttled: int | None = None
    udev: frozenset[int] | None = None
    observed: ObservedState = field(default_factory=ObservedState)
    plan: Plan = field(default_factory=Plan)
    hidden: str = ""
    probes: Mapping[str, Probe] = field(default_factory=dict)
    managers: Mapping[int, tuple[str, ...]] = field(default_factory=dict)
    flavour: str = ""
    legacy_filter: str = ""
    chains: tuple[ForwardChain, ...] | None = None

    @property
    def present(self) -> tuple[tuple[GadgetSpec, ObservedLink], ...]:
        """The gadgets whose link is known."""
        found = ((spec, link_of(spec, self)) for spec in self.desired.gadgets)
        return tuple((spec, link) for spec, link in found if link is not None)


def claimants(spec: GadgetSpec, facts: Facts) -> tuple[ObservedLink, ...]:
    """Return the links that say they are the gadget, by their best signs alone."""
    directory = Directory(facts.desired.gadgets)
    found: dict[Sign, list[ObservedLink]] = {}
    for link in facts.observed.links:
        claim = directory.claim(link) if link.driver in facts.desired.drivers else None
        if claim and claim[0].name == spec.name:
            found.setdefault(claim[1], []).append(link)
    return tuple(next((found[sign] for sign in Sign if sign in found), ()))


def link_of(spec: GadgetSpec, facts: Facts) -> ObservedLink | None:
    """Return the gadget's link, bound by the plan or waiting for udev; None if there is none."""
    links = claimants(spec, facts)
    ifindex = dict(facts.plan.bindings).get(spec.name)
    if ifindex is None:
        return links[0] if len(links) == 1 else None
    return next((link for link in links if link.ifindex == ifindex), None)
