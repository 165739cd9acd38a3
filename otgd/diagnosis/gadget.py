"""Checks of one gadget, from its plug to its guest; pure.

Each takes the facts and a gadget; what makes sense only with a link yields nothing without one.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from otgd.describe import describe
from otgd.diagnosis.facts import claimants
from otgd.diagnosis.findings import fail, fine, skip, warn
from otgd.identity import describe_signs, signs_of
from otgd.model import AddRule, RemoveRule, gadget_of
from otgd.status import State

if TYPE_CHECKING:
    from collections.abc import Iterator
    from ipaddress import IPv4Network

    from otgd.diagnosis.facts import Facts
    from otgd.diagnosis.findings import Finding
    from otgd.model import GadgetSpec, ObservedLink

HALF_OF_EVERYTHING = 1
"""Prefix length of the routes that VPNs add in pairs instead of a default route (0/1, 128/1)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Patient:
    """A gadget under examination.

    Attributes:
        link: its link; None if there is none, or more than one.
        named: the user has asked for it by name, so it should be there.
    """

    spec: GadgetSpec
    link: ObservedLink | None = None
    named: bool = False


def check_plugged(facts: Facts, patient: Patient) -> Iterator[Finding]:
    """Hold that exactly one link is known to be the gadget's."""
    spec, links = patient.spec, claimants(patient.spec, facts)
    words = " and ".join(sign.words for sign in signs_of(spec))
    if patient.link:
        port = f" on USB port {patient.link.port}" if patient.link.port else ""
        yield fine(f"plugged in{port}, driver {patient.link.driver}")
    elif links:
        names = " and ".join(link.ifname for link in links)
        yield fail(
            f"{names} both have its {describe_signs(spec)}",
            why="nobody can tell which of them it is",
            remedy="unplug one, or give its guest a host_addr of its own; then otgctl gadgets",
        )
    elif patient.named:
        yield fail(
            f"no link has its {describe_signs(spec)}",
            why=f"it is not plugged in, not booted, or has another {words}",
            remedy="otgctl gadgets",
        )
    else:
        yield skip("not plugged in")


def check_udev(facts: Facts, patient: Patient) -> Iterator[Finding]:
    """Hold that udevd has finished with the link."""
    link = patient.link
    if link is None or facts.udev is None:
        return
    if link.ifindex in facts.udev:
        yield fine("udev has finished with its link")
    else:
        yield fail(
            f"udev has not finished with {link.ifname}",
            why="otgd waits for it, so that they do not both rename the link",
            remedy=f"udevadm settle; udevadm info /sys/class/net/{link.ifname}",
        )


def check_name(facts: Facts, patient: Patient) -> Iterator[Finding]:
    """Hold that the link has its name."""
    spec, link = patient.spec, patient.link
    if link is None:
        return
    if link.ifname == spec.name:
        yield fine(f"its link is called {link.ifname}")
        return
    what = f"its link is called {link.ifname}, not {spec.name}"
    others = (other for other in facts.observed.links if other.ifindex != link.ifindex)
    holder = next((x for x in others if spec.name in (x.ifname, *x.altnames)), None)
    if holder is None:
        yield fail(what, why="nobody has renamed it", remedy=_restart(spec))
    elif holder.ifname == spec.name:
        yield fail(
            what,
            why=f"another link, ifindex {holder.ifindex}, has the name",
            remedy=f"sudo ip link set dev {spec.name} down name other{holder.ifindex} && "
            "sudo systemctl reload otgd",
        )
    else:
        yield fail(
            what,
            why=f"it is an alternative name of {holder.ifname}",
            remedy=f"sudo ip link property del dev {holder.ifname} altname {spec.name} && "
            "sudo systemctl reload otgd",
        )


def _restart(spec: GadgetSpec) -> str:
    return f"sudo systemctl restart otgd; journalctl -u otgd -e OTGD_GADGET={spec.name}"


def check_overlap(facts: Facts, patient: Patient) -> Iterator[Finding]:
    """Hold that its subnet is no other network's, plugged in or not."""
    spec = patient.spec
    own = {link.ifindex for link in claimants(spec, facts)}
    names = {other.ifindex: other.ifname for other in facts.observed.links}
    taken = [
        f"{network} of {names.get(ifindex, f'ifindex {ifindex}')}"
        for ifindex, network in dict.fromkeys(_foreign_networks(facts))
        if network.overlaps(spec.subnet) and ifindex not in own
    ]
    if taken:
        yield fail(
            f"its subnet {spec.subnet} overlaps {', '.join(taken)}",
            why="packets for one of them would go to the other",
            remedy=f"sudoedit {facts.config_file} (another subnet for {spec.name}) && "
            "otgctl check && sudo systemctl reload otgd; then prepare its card again",
        )
    elif patient.link:
        yield fine(f"its subnet {spec.subnet} is its own")


def _foreign_networks(facts: Facts) -> Iterator[tuple[int, IPv4Network]]:
    """Yield ifindex and network of each address and route that is no gadget's doing."""
    ours = {(link.ifindex, spec.subnet) for spec, link in facts.present}
    for link in facts.observed.links:
        for address in link.addresses:
            if not address.owned and (link.ifindex, address.interface.network) not in ours:
                yield link.ifindex, address.interface.network
    for route in facts.observed.routes:
        everything = route.destination.prefixlen <= HALF_OF_EVERYTHING
        if not everything and (route.ifindex, route.destination) not in ours:
            yield route.ifindex, route.destination


def check_address(facts: Facts, patient: Patient) -> Iterator[Finding]:  # noqa: ARG001 - one form
    """Hold that the host has its address on the link."""
    spec, link = patient.spec, patient.link
    if link is None:
        return
    if any(address.interface == spec.host for address in link.addresses):
        yield fine(f"the host has {spec.host} there")
    else:
        held = ", ".join(str(address.interface) for address in link.addresses) or "no address"
        yield fail(
            f"the host has {held} on {link.ifname}, not {spec.host}",
            why="nobody has added it, or somebody takes it away",
            remedy=_restart(spec),
        )


def check_carrier(facts: Facts, patient: Patient) -> Iterator[Finding]:  # noqa: ARG001 - one form
    """Hold that both ends of the link are up."""
    link = patient.link
    if link is None:
        return
    if not link.up:
        yield fail(
            f"{link.ifname} is down",
            why="somebody has taken it down, or nobody up",
            remedy=f"sudo ip link set {link.ifname} up; {_restart(patient.spec)}",
        )
    elif not link.carrier:
        yield fail(
            f"{link.ifname} has no carrier",
            why="the guest's end is down: it boots, or does not configure its usb0",
            remedy="on the guest: sudo ip link set usb0 up; its card: otgctl verify",
        )
    else:
        yield fine("up, with carrier")


def check_managers(facts: Facts, patient: Patient) -> Iterator[Finding]:
    """Hold that no other program manages the link."""
    link = patient.link
    if link is None:
        return
    managers = facts.managers.get(link.ifindex, ())
    for program in managers:
        yield fail(
            f"{program} manages {link.ifname}, too",
            why="it replaces the address, or starts DHCP there",
            remedy=_LEAVE_ALONE[program].format(name=link.ifname),
        )
    if not managers:
        yield fine("no other program manages its link")


_LEAVE_ALONE = {
    "NetworkManager": "sudo nmcli device set {name} managed no",
    "dhcpcd": "echo 'denyinterfaces {name}' | sudo tee -a /etc/dhcpcd.conf && "
    "sudo systemctl restart dhcpcd",
    "systemd-networkd": r"printf '[Match]\nName={name}\n[Link]\nUnmanaged=yes\n' | "
    "sudo tee /etc/systemd/network/00-{name}.network && sudo networkctl reload",
}


def check_rules(facts: Facts, patient: Patient) -> Iterator[Finding]:
    """Hold that its firewall rules are in force."""
    if patient.link is None or facts.hidden or facts.observed.firewall_fault:
        return
    steps = facts.plan.steps
    missing = [
        describe(step)
        for step in steps
        if isinstance(step, AddRule | RemoveRule) and gadget_of(step) == patient.spec.name
    ]
    if missing:
        yield fail(
            f"its firewall rules are not in force: {'; '.join(missing)} is still to be done",
            why="otgd has not set them, or somebody has flushed them",
            remedy=_restart(patient.spec),
        )
    else:
        yield fine("its firewall rules are in force")


# --- the guest -----------------------------------------------------------------------------------


def check_arp(facts: Facts, patient: Patient) -> Iterator[Finding]:
    """Hold that the guest is there, and that it is the right one."""
    spec, link = patient.spec, patient.link
    if link is None or not link.carrier:
        return
    probe = facts.probes.get(spec.name)
    if probe is None:
        yield skip("the guest was not asked; only root can", remedy="sudo otgctl doctor")
    elif not probe.mac:
        yield fail(
            f"the guest does not answer ARP for {spec.guest}",
            why="it hangs, or has another address",
            remedy="on the guest: ip address show usb0; its card: otgctl verify",
        )
    elif spec.guest_mac and probe.mac != spec.guest_mac:
        yield warn(
            f"{spec.guest} is {probe.mac}, not {spec.guest_mac}",
            why="another guest is on the cable, or its dev_addr is not as in the config",
            remedy="on the guest: cat /sys/class/net/usb0/address; its card: otgctl verify",
        )
    else:
        yield fine(f"the guest answers ARP for {spec.guest}")


def check_ping(facts: Facts, patient: Patient) -> Iterator[Finding]:
    """Hold that the guest answers a ping, where it answers at all."""
    spec = patient.spec
    probe = facts.probes.get(spec.name)
    if patient.link is None or probe is None or not probe.mac:
        return
    if not any(address.interface == spec.host for address in patient.link.addresses):
        return
    if probe.echoed:
        yield fine(f"{spec.guest} answers a ping")
    else:
        yield warn(
            f"{spec.guest} answers ARP, but no ping",
            why="its firewall drops it, its prefix length is wrong, or the host's OUTPUT drops it",
            remedy=f"ip route get {spec.guest}; on the guest: ip -4 address show usb0",
        )


def check_dhcp(facts: Facts, patient: Patient) -> Iterator[Finding]:
    """Hold that the guest gives no addresses away."""
    probe = facts.probes.get(patient.spec.name)
    if patient.link is None or probe is None:
        return
    if probe.dhcp_server:
        yield warn(
            f"a DHCP server, {probe.dhcp_server}, answers on {patient.link.ifname}",
            why="a DHCP client on the host would take its address and a default route to the guest",
            remedy="on the guest: sudo ss -lunp 'sport = :67', then stop what that names",
        )
    else:
        yield fine("no DHCP server answers on its link")


def check_word(facts: Facts, patient: Patient) -> Iterator[Finding]:
    """Hold that otgd itself has no trouble with it."""
    state, reason = (facts.told or {}).get(patient.spec.name, ("", ""))
    said = f"otgd says: {state}{f': {reason}' if reason else ''}"
    if state in (State.FAILED, State.BLOCKED):
        yield fail(
            said,
            why="a step towards its network does not work, does not last, or may not be taken",
            remedy=f"journalctl -u otgd -e OTGD_GADGET={patient.spec.name}",
        )
    elif state and patient.link:
        yield fine(said)
