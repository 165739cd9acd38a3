"""The files that do by hand what otgd does: how to live without it, written from the same config.

Pure. Names come from udev or systemd, addresses from dhcpcd or systemd-networkd, the rules from
iptables or nftables: one of each makes the network. ``FORMATS`` has a function for each format.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from otgd.identity import Sign, signs_of, udev_signs

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from otgd.model import GadgetSpec

MADE_BY = "made by otgctl export"
COMMENT = "otgd static"
"""Marks our rules in iptables, so that import knows what they are."""

NFT_TABLE = "otgd_static"
"""Not otgd's own table, which otgd would take away."""

_UDEV_KEYS = {Sign.PORT: "KERNELS", Sign.SERIAL: "ATTRS{serial}", Sign.MAC: "ATTR{address}"}
"""In the order of the rules: of two names that match, the later one holds."""

_LINK_KEYS = {
    Sign.MAC: (10, "MACAddress={}"),
    Sign.SERIAL: (11, "Property=ID_SERIAL_SHORT={}"),
    Sign.PORT: (12, "Property=DEVPATH=*/{}:*"),
}
"""Of two .link files that match, the first one by name holds."""

PEERS, SHUT = "GADGET-PEERS", "GADGET-SHUT"


@dataclass(frozen=True, slots=True, kw_only=True)
class StaticFile:
    """A file to install; *path* is from the root directory, without its slash."""

    path: str
    text: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Network:
    """What is to be had without otgd; only rules need *uplinks*."""

    gadgets: Sequence[GadgetSpec]
    uplinks: Sequence[str]


def udev(network: Network) -> Iterator[StaticFile]:
    """Write udev rules that give the links their names."""
    lines = [f"# {MADE_BY}: names of gadgets' links."]
    lines += [
        f'SUBSYSTEM=="net", ACTION=="add", {key}=="{signs[sign]}", NAME="{spec.name}"'
        for sign, key in _UDEV_KEYS.items()
        for spec in network.gadgets
        if sign in (signs := udev_signs(spec))
    ]
    yield StaticFile(path="etc/udev/rules.d/90-gadgets.rules", text=_joined(lines))


def dhcpcd(network: Network) -> Iterator[StaticFile]:
    """Write stanzas that give the links their addresses."""
    lines = [f"# {MADE_BY}: append this to /etc/dhcpcd.conf."]
    for spec in network.gadgets:
        lines += ["", f"interface {spec.name}", f"static ip_address={spec.host}", "noarp"]
    yield StaticFile(path="etc/dhcpcd.conf", text=_joined(lines))


def networkd(network: Network) -> Iterator[StaticFile]:
    """Write a .link and a .network file for each gadget.

    The masquerade is left to nftables or iptables: IPMasquerade= would also rewrite what goes from
    one gadget to another.
    """
    for spec in network.gadgets:
        for sign, value in udev_signs(spec).items():
            number, key = _LINK_KEYS[sign]
            match = ["[Match]", key.format(value)]
            link = [f"# {MADE_BY}", *match, "", "[Link]", f"Name={spec.name}"]
            path = f"etc/systemd/network/{number}-{spec.name}.link"
            yield StaticFile(path=path, text=_joined(link))
        by_mac = [f"MACAddress={spec.mac}"] if list(signs_of(spec)) == [Sign.MAC] else []
        lines = [
            *(f"# {MADE_BY}", "[Match]", *by_mac, f"Name={spec.name}", ""),
            *("[Link]", "RequiredForOnline=no", ""),
            *("[Network]", f"Address={spec.host}", "ConfigureWithoutCarrier=yes"),
        ]
        yield StaticFile(path=f"etc/systemd/network/10-{spec.name}.network", text=_joined(lines))


def iptables_restore(network: Network) -> Iterator[StaticFile]:
    """Write the rules for iptables-restore."""
    lines = [
        f"# {MADE_BY}. Where other rules must stay: iptables-restore --noflush, once.",
        *("*raw", *_marked(_iptables_guards(network)), "COMMIT"),
        *("*filter", f":{PEERS} - [0:0]", f":{SHUT} - [0:0]"),
        *(*_marked(_iptables_forward(network)), "COMMIT"),
        *("*nat", *_marked(_iptables_masquerades(network)), "COMMIT"),
    ]
    yield StaticFile(path="etc/iptables/rules.v4", text=_joined(lines))
    yield from _forwarding(network)


def nftables(network: Network) -> Iterator[StaticFile]:
    """Write the rules for nft."""
    lines = [
        f"# {MADE_BY}. Load it with nft -f, or include it from /etc/nftables.conf.",
        *(f"table ip {NFT_TABLE}", f"delete table ip {NFT_TABLE}"),
        f"table ip {NFT_TABLE} {{",
        *_nft_chain("prerouting", "filter hook prerouting priority raw", _nft_guards(network)),
        *_nft_chain("forward", "filter hook forward priority filter", _nft_forward(network)),
        *_nft_chain(
            "postrouting", "nat hook postrouting priority srcnat", _nft_masquerades(network)
        ),
        "}",
    ]
    yield StaticFile(path="etc/nftables.d/gadgets.nft", text=_joined(lines))
    yield from _forwarding(network)


FORMATS: dict[str, Callable[[Network], Iterator[StaticFile]]] = {
    "udev": udev,
    "dhcpcd": dhcpcd,
    "networkd": networkd,
    "nftables": nftables,
    "iptables-restore": iptables_restore,
}
WITH_UPLINK = frozenset({"nftables", "iptables-restore"})
NAMING = frozenset({"udev", "networkd"})


def _joined(lines: Sequence[str]) -> str:
    return "\n".join(lines) + "\n"


def _forwarding(network: Network) -> Iterator[StaticFile]:
    if any(spec.is_forwarded for spec in network.gadgets):
        lines = [f"# {MADE_BY}", "net.ipv4.ip_forward = 1"]
        yield StaticFile(path="etc/sysctl.d/90-gadgets.conf", text=_joined(lines))


def _marked(rules: Iterator[str]) -> Iterator[str]:
    for rule in rules:
        conditions, jump, target = rule.partition(" -j ")
        yield f'-A {conditions} -m comment --comment "{COMMENT}"{jump}{target}'


def _iptables_guards(network: Network) -> Iterator[str]:
    for spec in network.gadgets:
        yield f"PREROUTING -i {spec.name} ! -s {spec.subnet} -j DROP"


def _iptables_forward(network: Network) -> Iterator[str]:
    for spec in network.gadgets:
        for uplink in network.uplinks:
            there, back = f"-i {spec.name} -o {uplink}", f"-i {uplink} -o {spec.name}"
            if spec.masquerade:
                yield f"FORWARD {there} -j ACCEPT"
                yield f"FORWARD {back} -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT"
            else:
                yield f"FORWARD {there} -m conntrack --ctstate INVALID,NEW -j DROP"
    for spec in network.gadgets:
        yield f"FORWARD -i {spec.name} -j {SHUT if spec.isolate else PEERS}"
        yield f"{PEERS} -o {spec.name} -j {'DROP' if spec.isolate else 'ACCEPT'}"
        yield f"{SHUT} -o {spec.name} -j DROP"


def _iptables_masquerades(network: Network) -> Iterator[str]:
    for spec in network.gadgets:
        for uplink in network.uplinks if spec.masquerade else ():
            subnet = f"-s {spec.subnet} ! -d {spec.subnet}"
            yield f"POSTROUTING {subnet} -o {uplink} -j MASQUERADE"


def _nft_chain(name: str, kind: str, rules: Iterator[str]) -> Iterator[str]:
    yield f"\tchain {name} {{"
    yield f"\t\ttype {kind}; policy accept;"
    yield from (f"\t\t{rule}" for rule in rules)
    yield "\t}"


def _nft_guards(network: Network) -> Iterator[str]:
    for spec in network.gadgets:
        yield f'iifname "{spec.name}" ip saddr != {spec.subnet} drop'


def _nft_forward(network: Network) -> Iterator[str]:
    everyone = _nft_set([spec.name for spec in network.gadgets])
    uplinks = _nft_set(network.uplinks)
    for spec in network.gadgets:
        if network.uplinks and not spec.masquerade:
            yield f'iifname "{spec.name}" oifname {uplinks} ct state invalid,new drop'
        if spec.isolate:
            yield f'iifname "{spec.name}" oifname {everyone} drop'
            yield f'iifname {everyone} oifname "{spec.name}" drop'


def _nft_masquerades(network: Network) -> Iterator[str]:
    uplinks = _nft_set(network.uplinks)
    for spec in network.gadgets:
        if network.uplinks and spec.masquerade:
            ours = f"ip saddr {spec.subnet} ip daddr != {spec.subnet}"
            yield f"{ours} oifname {uplinks} masquerade"


def _nft_set(names: Sequence[str]) -> str:
    return "{ " + ", ".join(f'"{name}"' for name in names) + " }"
