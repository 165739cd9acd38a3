"""Checks of the host: what every gadget needs; pure."""

from __future__ import annotations

import re
from collections import Counter
from typing import TYPE_CHECKING

from otgd.describe import describe
from otgd.diagnosis.findings import fail, fine, skip, warn
from otgd.model import FORWARD_MARK, LOOPBACK, AddAddress, AddRoute, Passage

if TYPE_CHECKING:
    from collections.abc import Iterator

    from otgd.diagnosis.facts import Facts, ForwardChain, UsbDevice
    from otgd.diagnosis.findings import Finding

OLDEST_KERNEL = (5, 18)
"""The first with IFA_PROTO, by which otgd knows its own addresses."""

ETHERNET_GADGETS = frozenset({"0525:a4a1", "0525:a4a2"})
"""The kernel's own Ethernet gadgets (drivers/usb/gadget/legacy/ether.c)."""

BOOT_ROMS = frozenset({"0a5c:2763", "0a5c:2764"})
"""A Pi's boot ROM that found no card: BCM2708 (Zero) and BCM2710 (Zero 2 W)."""

NETWORK_DRIVERS = {
    "02/06/00": "cdc_ether",
    "02/0d/00": "cdc_ncm",
    "02/0c/07": "cdc_eem",
    "02/02/ff": "rndis_host",
    "e0/01/03": "rndis_host",
    "ef/04/01": "rndis_host",
}
"""Kinds of USB interfaces with a network behind (drivers/net/usb) and their drivers."""

ERRORS = {
    "-71": "what arrives is damaged (EPROTO): mostly the cable, the hub or a weak supply",
    "-110": "the device does not answer (ETIMEDOUT): it hangs, or gets too little power",
}
_ERROR = re.compile(r"\S+ (?P<port>\d[\d.-]*)(:\S+)?:? .*error (?P<code>-71|-110)\b")
_WORKS = re.compile(r"usb (?P<port>\d[\d.-]*): (New USB device found|USB disconnect)")

UNDER_VOLTAGE_NOW = 1 << 0
UNDER_VOLTAGE_ONCE = 1 << 16
"""Bits of get_throttled (Raspberry Pi documentation, vcgencmd)."""

AS_ROOT = "sudo otgctl doctor"

MARK = f"{FORWARD_MARK:#x}"


def check_config(facts: Facts) -> Iterator[Finding]:
    """Hold that the config is accepted."""
    for problem in facts.problems:
        yield fail(
            str(problem),
            why="otgd takes a config whole or not at all",
            remedy=f"sudoedit {problem.file} && otgctl check",
        )
    if facts.problems:
        return
    if facts.config_fault:
        yield fail(
            f"otgd has refused the config: {facts.config_fault}",
            why="it goes on with the one before, so nothing that was changed since holds",
            remedy="sudo systemctl reload otgd; systemctl status otgd",
        )
    else:
        gadgets = _count(len(facts.desired.gadgets), "gadget")
        yield fine(f"{facts.config_file} is fine, {gadgets}")


def _count(number: int, what: str) -> str:
    return f"{number or 'no'} {what}{'' if number == 1 else 's'}"


def check_daemon(facts: Facts) -> Iterator[Finding]:
    """Hold that the daemon runs, is not stopped by a signal, and has finished a pass."""
    if not facts.runs:
        yield fail(
            "otgd does not run",
            why="nobody gives a gadget that is plugged in now its network",
            remedy="sudo systemctl start otgd; systemctl status otgd",
        )
    elif facts.told_fault:
        yield fail(
            facts.told_fault,
            why="otgctl status, wait and others cannot tell what otgd knows",
            remedy="sudo systemctl restart otgd",
        )
    elif facts.halted:
        yield fail(
            f"otgd is stopped by a signal (pid {facts.halted})",
            why="it sees no gadget come or go, and what it tells is no longer true",
            remedy=f"sudo kill -CONT {facts.halted}",
        )
    elif facts.told is None:
        yield warn(
            "otgd runs, but has told no state",
            why="it has not finished its first pass",
            remedy="journalctl -u otgd -e",
        )
    else:
        yield fine("otgd runs")


def check_kernel(facts: Facts) -> Iterator[Finding]:
    """Hold that the kernel can do what otgd builds on."""
    found = re.match(r"(\d+)\.(\d+)", facts.release)
    if found and tuple(map(int, found.groups())) >= OLDEST_KERNEL:
        yield fine(f"kernel {facts.release}")
    else:
        yield fail(
            f"kernel {facts.release} is older than 5.18",
            why="it cannot mark addresses, so otgd cannot tell its own from others'",
            remedy="sudo apt full-upgrade && sudo reboot",
        )


# --- USB -----------------------------------------------------------------------------------------


def check_usb(facts: Facts) -> Iterator[Finding]:
    """Hold that each USB device that is a network became a link."""
    findings = [finding for device in facts.usb for finding in _examine_device(device)]
    networks = sum(bool(_network_driver(device)) for device in facts.usb)
    yield from findings or [fine(f"{_count(networks, 'USB network device')}, none without a link")]


def _examine_device(device: UsbDevice) -> Iterator[Finding]:
    driver = _network_driver(device)
    if device.ids in BOOT_ROMS:
        yield fail(
            f"the Pi on USB port {device.port} waits in its boot ROM",
            why="it found no card that it can boot from",
            remedy="otgctl prepare --help, then put the card in and plug it again",
        )
    elif driver and not any(interface.links for interface in device.interfaces):
        yield _without_link(device, driver)


def _network_driver(device: UsbDevice) -> str:
    """Name the driver that the device wants; empty if it is no network."""
    kinds = (NETWORK_DRIVERS.get(interface.kind, "") for interface in device.interfaces)
    fallback = "cdc_ether" if device.ids in ETHERNET_GADGETS else ""
    return next(filter(None, kinds), fallback)


def _without_link(device: UsbDevice, driver: str) -> Finding:
    bound = sorted({i.driver for i in device.interfaces if i.driver})
    what = f"{device.product or device.ids} on USB port {device.port} has no network link"
    if bound:
        return fail(
            what,
            why=f"driver {', '.join(bound)} is bound to it, but made none",
            remedy=f"plug it again, then sudo dmesg | grep {device.port}",
        )
    return fail(what, why="no driver is bound to it", remedy=f"sudo modprobe {driver}")


def check_drivers(facts: Facts) -> Iterator[Finding]:
    """Hold that no driver hides a gadget's MAC."""
    made_up = {link.ifindex for link in facts.observed.links if link.random_mac}
    for unknown in facts.plan.unknown:
        where = unknown.ifname + (f" (USB port {unknown.port})" if unknown.port else "")
        random = unknown.ifindex in made_up
        if unknown.driver == "cdc_subset" and random:
            yield fail(
                f"{where} has driver cdc_subset and a random MAC",
                why="cdc_subset was loaded before cdc_ether and took the gadget from it",
                remedy="sudo modprobe -r cdc_subset && sudo modprobe cdc_ether; to keep it so: "
                "echo 'softdep cdc_subset pre: cdc_ether' | sudo tee /etc/modprobe.d/otgd.conf",
            )
        elif random:
            yield fail(
                f"{where} has a random MAC, made up by {unknown.driver}",
                why="no entry of the config can match a MAC that is another one at each plug",
                remedy="on the guest: use g_ether with host_addr and dev_addr (otgctl prepare); or "
                f"know it by another sign: sudo otgctl adopt {unknown.ifname} --by port",
            )
        elif unknown.driver == "rndis_host":
            yield warn(
                f"{where} speaks RNDIS, and {unknown.reason} ({unknown.mac})",
                why="a gadget that offers RNDIS beside CDC may have another MAC on each",
                remedy=f"echo 1 | sudo tee /sys/bus/usb/devices/{unknown.port}/bConfigurationValue",
            )
        else:
            yield skip(f"{where} is left alone: {unknown.reason}", remedy="otgctl gadgets")
    if not facts.plan.unknown:
        yield fine("no driver hides a gadget")


def check_kernel_log(facts: Facts) -> Iterator[Finding]:
    """Hold that no USB port has failed since something last worked on it."""
    if facts.kernel_log is None:
        yield skip("the kernel's log cannot be read", remedy="" if facts.as_root else AS_ROOT)
        return
    errors: Counter[tuple[str, str]] = Counter()
    for message in facts.kernel_log:
        if works := _WORKS.match(message):
            errors = Counter({k: n for k, n in errors.items() if k[0] != works["port"]})
        elif error := _ERROR.match(message):
            errors[error["port"], error["code"]] += 1
    for (port, code), count in sorted(errors.items()):
        times = _count(count, "time")
        yield fail(
            f"USB port {port} failed with error {code}, {times} since it last worked",
            why=ERRORS[code],
            remedy=f"try another cable, port or supply, then sudo dmesg | grep 'usb {port}'",
        )
    if not errors:
        yield fine("the kernel's log has no USB error")


def check_power(facts: Facts) -> Iterator[Finding]:
    """Hold that the Pi's supply is strong enough."""
    remedy = "take a stronger supply or a powered hub, then vcgencmd get_throttled"
    if facts.throttled is None:
        yield skip("the supply cannot be checked: there is no vcgencmd")
    elif facts.throttled & UNDER_VOLTAGE_NOW:
        yield fail("the supply is too weak now", why="USB devices fail at random", remedy=remedy)
    elif facts.throttled & UNDER_VOLTAGE_ONCE:
        why = "gadgets that were plugged in then may have failed or rebooted"
        yield warn("the supply was too weak since boot", why=why, remedy=remedy)
    else:
        yield fine("the supply is strong enough")


# --- out to the Internet -------------------------------------------------------------------------


def check_forwarding(facts: Facts) -> Iterator[Finding]:
    """Hold that the host forwards."""
    if facts.observed.forwarding:
        yield fine("the host forwards IPv4")
    elif any(spec.is_forwarded for spec, _ in facts.present):
        yield fail(
            "the host does not forward IPv4",
            why="somebody has set net.ipv4.ip_forward to 0 after otgd set it to 1",
            remedy="sudo sysctl -w net.ipv4.ip_forward=1; grep -r ip_forward /etc/sysctl.*",
        )
    else:
        yield skip("the host does not forward yet: no gadget that needs it is plugged in")


def check_firewall(facts: Facts) -> Iterator[Finding]:
    """Hold that the packet filters can be read, and that none of them drops what gadgets send."""
    if facts.hidden:
        yield skip(facts.hidden, remedy="sudo otgctl doctor")
        return
    findings = [*_faults(facts), *_passage(facts), *_legacy(facts), *_chains(facts)]
    yield from findings or [fine("nothing drops what gadgets send")]


def _faults(facts: Facts) -> Iterator[Finding]:
    if facts.observed.firewall_fault:
        yield fail(
            f"the firewall cannot be used: {facts.observed.firewall_fault}",
            why="no masquerade and no guard of a gadget can be in force",
            remedy="sudo otgctl plan; journalctl -u otgd -e",
        )
    if facts.observed.passage_fault:
        yield fail(
            f"the FORWARD chain cannot be read: {facts.observed.passage_fault}",
            why="otgd cannot tell whether it drops what gadgets send",
            remedy="sudo iptables -S FORWARD",
        )
    if facts.chains is None:
        yield skip("nftables' chains cannot be seen", remedy="sudo apt install nftables")


def _passage(facts: Facts) -> Iterator[Finding]:
    wanted = any(spec.is_forwarded for spec in facts.desired.gadgets)
    if wanted and facts.observed.passage is Passage.CLOSED:
        yield fail(
            "FORWARD may drop what gadgets send, and no rule of otgd's lets it through",
            why="another program (Docker, ufw) has set rules or the policy DROP there",
            remedy=f"sudo systemctl restart otgd, or: sudo iptables -I FORWARD {_match_mark()}",
        )


def _match_mark() -> str:
    return f"-m mark --mark {MARK}/{MARK} -m comment --comment otgd -j ACCEPT"


def _legacy(facts: Facts) -> Iterator[Finding]:
    """Look at the legacy chain where the host's own ``iptables`` shows the other one."""
    lines = [x for x in facts.legacy_filter.splitlines() if re.match(r":FORWARD|-A FORWARD ", x)]
    drops = any(re.match(r":FORWARD DROP|-A .*-j (DROP|REJECT)\b", line) for line in lines)
    through = any(f"--mark {MARK}/{MARK}" in x and x.endswith("-j ACCEPT") for x in lines)
    if drops and not through and facts.flavour != "legacy":
        yield fail(
            "the legacy FORWARD chain drops packets beside nftables",
            why="both are asked for every packet, and iptables shows only nftables' part",
            remedy=f"sudo iptables-legacy -I FORWARD {_match_mark()}",
        )


def _chains(facts: Facts) -> Iterator[Finding]:
    for chain in facts.chains or ():
        read_as_passage = facts.flavour == "nf_tables" and (
            (chain.family, chain.table, chain.name) == ("ip", "filter", "FORWARD")
        )
        if chain.table == "firewalld":
            yield from _firewalld(chain, facts)
        elif chain.drops and not read_as_passage and not _lets_through(chain):
            where = f"{chain.family} {chain.table} {chain.name}"
            yield fail(
                f"nftables' chain {where} drops what it does not know",
                why="a drop is final, whatever other tables accept",
                remedy=f"sudo nft insert rule {where} meta mark and {MARK} == {MARK} accept",
            )


def _lets_through(chain: ForwardChain) -> bool:
    return any(
        f"mark & {FORWARD_MARK:#010x}" in line and line.endswith("accept")
        for line in chain.text.splitlines()
    )


def _firewalld(chain: ForwardChain, facts: Facts) -> Iterator[Finding]:
    """Look whether firewalld has heard of the gadgets' links; their zone is its own business."""
    strangers = [s.name for s, _ in facts.present if f'"{s.name}"' not in chain.text]
    if strangers:
        links = " ".join(f"--add-interface={name}" for name in strangers)
        command = "sudo firewall-cmd --permanent"
        yield warn(
            f"firewalld is active and has no zone for {', '.join(strangers)}",
            why="it rejects what is forwarded from links that it does not know",
            remedy=f"{command} --zone=trusted {links} && {command} --new-policy=gadgets && "
            f"{command} --policy=gadgets --set-target=ACCEPT && "
            f"{command} --policy=gadgets --add-ingress-zone=trusted && "
            f"{command} --policy=gadgets --add-egress-zone=ANY && sudo firewall-cmd --reload",
        )


def check_hub(facts: Facts) -> Iterator[Finding]:
    """Hold that the host speaks to the swarm's members from its hub address, if it has one."""
    hub = facts.desired.hub
    missing = [
        describe(step)
        for step in facts.plan.steps
        if isinstance(step, AddRoute) or (isinstance(step, AddAddress) and step.ifindex == LOOPBACK)
    ]
    if hub is None:
        return
    if facts.plan.hub_fault:
        yield fail(
            facts.plan.hub_fault,
            why="on lo it would take that network's packets; without it no node reaches this one",
            remedy=f"choose another hub_address: sudoedit {facts.config_file}",
        )
    elif missing:
        yield fail(
            f"the hub is not whole: {'; '.join(missing)} is still to be done",
            why="otgd has not done it, or somebody has taken it away",
            remedy="sudo systemctl restart otgd",
        )
    else:
        yield fine(f"the host speaks to the swarm's members from {hub}")


def check_uplink(facts: Facts) -> Iterator[Finding]:
    """Hold that there is a way out, and that it is not a gadget's."""
    plan, observed = facts.plan, facts.observed
    gadgets = {link.ifindex: link.ifname for _, link in facts.present}
    defaults = [route.ifindex for route in observed.routes if route.is_default]
    through_gadgets = sorted({gadgets[i] for i in defaults if i in gadgets})
    for name in through_gadgets:
        yield fail(
            f"the default route leads to gadget {name}",
            why="its guest, or a DHCP client on its link, has set it; the host's packets go there",
            remedy=f"sudo ip route del default dev {name}",
        )
    link = next((link for link in observed.links if link.ifname == plan.uplink), None)
    if not plan.uplink:
        yield fail(
            f"there is no uplink: {plan.uplink_fault}",
            why="gadgets reach the host, but not the Internet",
            remedy=f"ip route show default; then [uplink] in {facts.config_file}",
        )
    elif link and not link.carrier:
        yield fail(
            f"uplink {plan.uplink} has no carrier",
            why="its cable is out, or it has not joined a WLAN",
            remedy=f"ip link show {plan.uplink}",
        )
    elif link and link.ifindex not in defaults:
        yield fail(
            f"uplink {plan.uplink} has no default route",
            why="gadgets are masqueraded there, but the host knows no way on",
            remedy=f'ip route show default; or [uplink] interface = "auto" in {facts.config_file}',
        )
    elif not through_gadgets:
        yield fine(f"the uplink is {plan.uplink}")
