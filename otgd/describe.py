"""Say what a step does, for people and for journal fields; pure."""

from __future__ import annotations

from typing import assert_never

from otgd.model import (
    LOOPBACK,
    Action,
    AddAddress,
    AddressAction,
    AddRoute,
    AddRule,
    ClosePassage,
    EnableForwarding,
    Forward,
    HostAction,
    LinkAction,
    Masquerade,
    OpenPassage,
    Quarantine,
    RemoveAddress,
    RemoveAltname,
    RemoveRoute,
    RemoveRule,
    RenameLink,
    Rule,
    SetLinkDown,
    SetLinkUp,
    SourceGuard,
    Stray,
)


def describe(action: Action) -> str:
    """Return an imperative sentence without a full stop, for example ``set ethusb1 up``."""
    match action:
        case AddRule(rule=rule):
            return f"add {describe_rule(rule)}"
        case RemoveRule(rule=rule):
            return f"remove {describe_rule(rule)}"
        case EnableForwarding() | OpenPassage() | ClosePassage():
            return _HOST[type(action)]
        case _:
            return _describe_link_action(action)


_HOST: dict[type[HostAction], str] = {
    EnableForwarding: "set net.ipv4.ip_forward to 1",
    OpenPassage: "let gadgets through other programs' FORWARD chain",
    ClosePassage: "take otgd's rule out of other programs' FORWARD chain",
}


def _describe_link_action(action: LinkAction) -> str:
    match action:
        case RenameLink(old=old, new=new):
            return f"rename {old} to {new}"
        case RemoveAltname(ifindex=ifindex, altname=altname):
            return f"take the alternative name {altname} off ifindex {ifindex}"
        case AddAddress(interface=interface):
            return f"add address {interface} to {_where(action)}"
        case RemoveAddress(interface=interface):
            return f"remove address {interface} from {_where(action)}"
        case AddRoute(subnet=subnet, source=source):
            return f"route {subnet} to {_where(action)} from {source}"
        case RemoveRoute(subnet=subnet, source=source):
            return f"remove the route of {subnet} to {_where(action)} from {source}"
        case SetLinkUp():
            return f"set {_where(action)} up"
        case SetLinkDown():
            return f"set {_where(action)} down"
        case _:
            assert_never(action)


def describe_rule(rule: Rule) -> str:
    """Return a noun phrase for a firewall rule."""
    match rule:
        case Masquerade(subnet=subnet, uplink=uplink):
            return f"masquerade of {subnet} through {uplink}"
        case SourceGuard(ifname=ifname, subnet=subnet):
            return f"source guard {subnet} on {ifname}"
        case Forward(ifname=ifname, uplink=uplink, to_uplink=to_uplink, to_peers=to_peers):
            out = f"{'to' if to_uplink else 'not to'} uplink {uplink}" if uplink else "to no uplink"
            peers = "to other gadgets" if to_peers else "not to other gadgets"
            return f"forwarding of {ifname} ({out}, {peers})"
        case Quarantine(ifname=ifname):
            return f"quarantine of {ifname}"
        case Stray(text=text):
            return f"stray {text}"
        case _:
            assert_never(rule)


def slug(action: Action) -> str:
    """Return the action's name in journal fields, for example ``add-masquerade``."""
    match action:
        case AddRule(rule=rule):
            return f"add-{_kebab(type(rule).__name__)}"
        case RemoveRule(rule=rule):
            return f"remove-{_kebab(type(rule).__name__)}"
        case _:
            return _kebab(type(action).__name__)


def _where(action: AddressAction | SetLinkUp | SetLinkDown) -> str:
    lo = "lo" if action.ifindex == LOOPBACK else ""
    return action.gadget or lo or f"ifindex {action.ifindex}"


def _kebab(name: str) -> str:
    return "".join(f"-{c.lower()}" if c.isupper() else c for c in name).lstrip("-")
