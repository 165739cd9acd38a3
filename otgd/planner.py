"""What to do so that the kernel holds what the config wants: pure, and readable in one sitting.

``make_plan`` looks at nothing but its two arguments. It is used twice in every pass: before, to
know what to do, and after, to verify: converged means an empty plan. In order:

1. *identify*: which link is which gadget (by MAC, serial or port), which links are nobody's;
2. *choose the uplink* and the *hub*, the host's own address in a cluster over the cables;
3. *block*: gadgets that cannot have their network now, each with one reason;
4. *compare* what the rest should have with what is there, in the order that is safe.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, field
from ipaddress import IPv4Interface, IPv4Network
from typing import TYPE_CHECKING

from otgd.identity import Directory, Sign, signs_of
from otgd.model import (
    LOOPBACK,
    Action,
    AddAddress,
    AddressAction,
    AddRoute,
    AddRule,
    Aspect,
    Blocked,
    ClosePassage,
    DesiredState,
    EnableForwarding,
    Forward,
    GadgetSpec,
    Masquerade,
    ObservedLink,
    ObservedRoute,
    ObservedState,
    OpenPassage,
    Passage,
    Plan,
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
    UnknownLink,
    UnknownPolicy,
)

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from ipaddress import IPv4Address

STRAYS = ("stray", "")
"""The subject of every stray; they are cleared away before anything is built beside them."""

HALF_OF_EVERYTHING = 1
"""Prefix length of the routes that VPNs add in pairs instead of a default route (0/1, 128/1)."""


def make_plan(desired: DesiredState, observed: ObservedState) -> Plan:
    """Return the steps from *observed* to *desired*, and what is blocked with its reason."""
    identified = _identify(desired, observed)
    uplink, uplink_fault = choose_uplink(desired, observed, identified.excluded_from_uplink)
    hub, hub_fault = _choose_hub(desired, observed)
    unknown = tuple(
        link
        for link in identified.unknown
        if link.ifname != uplink and not _is_named_uplink(link, desired)
    )

    present = {
        link.ifindex: spec
        for spec, link in identified.bound
        if not identified.block(spec, _overlap(spec, link, observed))
        and not identified.block(spec, _unenforceable(spec, observed))
    }
    renames = _rename(present, observed, identified)
    outcasts = frozenset(identified.evicted.get(link.ifindex, link.ifname) for link in unknown)
    rules = frozenset(_rules(present.values(), uplink, outcasts, desired))

    for spec in present.values():
        if observed.firewall_fault:
            identified.block(spec, observed.firewall_fault, Aspect.FIREWALL)
        elif spec.masquerade and not uplink:
            identified.block(spec, f"no way out: {uplink_fault}", Aspect.UPLINK)
        elif spec.masquerade and observed.passage_fault:
            fault = f"FORWARD may drop its packets: {observed.passage_fault}"
            identified.block(spec, fault, Aspect.UPLINK)
        if spec.via_hub:
            identified.block(spec, hub_fault, Aspect.HUB)

    links = {link.ifindex: link for link in observed.links}
    wanted = {spec.host for spec in present.values()}
    removals = list(_deconfigure(present, observed, hub))
    steps: list[Action] = [
        *_add_rules(rules, observed),
        *_forward(present.values(), observed),
        *_passage(desired, observed),
        *renames,
        # An address that moves to another link is never on both.
        *(step for step in removals if step.interface in wanted),
        *_set_hub(hub, links),
        *_configure(present, links, observed.routes, hub),
        *_withdraw(present, observed.routes, hub),
        *(step for step in removals if step.interface not in wanted),
        *_quarantine(unknown, links, desired),
        *_remove_rules(rules, observed),
    ]
    return Plan(
        steps=tuple(steps),
        blocked=tuple(identified.blocked),
        bindings=tuple((spec.name, link.ifindex) for spec, link in identified.bound),
        unknown=unknown,
        uplink=uplink,
        uplink_fault=uplink_fault,
        hub_fault=hub_fault,
    )


# --- identify ------------------------------------------------------------------------------------


@dataclass(slots=True)
class _Identified:
    """Which link is which; *blocked* grows as reasons are found.

    *evicted* are new names, by ifindex, of links that hold the name of a gadget they are not.
    """

    bound: list[tuple[GadgetSpec, ObservedLink]] = field(default_factory=list)
    unknown: list[UnknownLink] = field(default_factory=list)
    blocked: list[Blocked] = field(default_factory=list)
    excluded_from_uplink: set[int] = field(default_factory=set)
    evicted: dict[int, str] = field(default_factory=dict)

    def block(self, spec: GadgetSpec, reason: str, aspect: Aspect = Aspect.LINK) -> bool:
        """Note why *spec* is blocked; an empty reason blocks nothing. Tell whether it is."""
        if reason:
            self.blocked.append(Blocked(gadget=spec.name, reason=reason, aspect=aspect))
        return bool(reason)


def _identify(desired: DesiredState, observed: ObservedState) -> _Identified:
    """Bind each gadget to the link that is known to be it; of two, neither is silently."""
    identified = _Identified()
    directory = Directory(desired.gadgets)
    claimants: dict[str, dict[Sign, list[ObservedLink]]] = defaultdict(lambda: defaultdict(list))
    for link in observed.links:
        if link.driver not in desired.drivers:
            continue
        if claim := directory.claim(link):
            spec, sign = claim
            claimants[spec.name][sign].append(link)
            identified.excluded_from_uplink.add(link.ifindex)
        else:
            identified.unknown.append(_unknown(link, _nobodys(link)))

    for spec in desired.gadgets:
        if spec.name in claimants:
            _bind(spec, claimants[spec.name], identified)
    if desired.unknown is UnknownPolicy.BLOCK:
        identified.excluded_from_uplink |= {
            link.ifindex for link in identified.unknown if not _is_named_uplink(link, desired)
        }
    return identified


def _nobodys(link: ObservedLink) -> str:
    """Say why no gadget has the link; what the config holds must not change a word of it."""
    has = [Sign.MAC, *([Sign.SERIAL] if link.serial else []), *([Sign.PORT] if link.port else [])]
    made_up = f"; {link.driver} made the MAC up" if link.random_mac else ""
    return f"no entry of the config has its {' or '.join(sign.words for sign in has)}{made_up}"


_CURES = {
    Sign.MAC: "unplug one or give it a MAC of its own",
    Sign.SERIAL: "unplug one or give it a serial of its own",
    Sign.PORT: "match one of them by its MAC",
}


def _bind(
    spec: GadgetSpec, claimants: dict[Sign, list[ObservedLink]], identified: _Identified
) -> None:
    """Bind the one claimant with the best sign; where there are more, the one that we served."""
    best = next(sign for sign in Sign if sign in claimants)
    incumbents = [link for link in claimants[best] if _holds(link, spec)]
    candidates = incumbents if len(incumbents) == 1 else claimants[best]
    match candidates:
        case [link] if link.initialized or incumbents:
            identified.bound.append((spec, link))
        case [link]:
            reason = f"its link {link.ifname} is there, but udev has not finished with it"
            identified.block(spec, reason, Aspect.PENDING)
        case _:
            both = " and ".join(f"{link.ifname} (ifindex {link.ifindex})" for link in candidates)
            reason = f"{best.words} {signs_of(spec)[best]} is on {both}; {_CURES[best]}"
            identified.block(spec, reason)
    for sign, links in claimants.items():
        if sign is best:
            reason = f"its {sign.words} is also that of another link, and belongs to {spec.name}"
        else:
            reason = f"its {sign.words} belongs to {spec.name}, but another link has the "
            reason += f"{best.words} of {spec.name}, which counts for more"
        identified.unknown += [
            _unknown(link, reason, rival_of=spec.name) for link in links if [link] != candidates
        ]


def _holds(link: ObservedLink, spec: GadgetSpec) -> bool:
    """Tell whether otgd has given *link* the gadget's address: the memory of earlier passes."""
    return any(address.owned and address.interface == spec.host for address in link.addresses)


def _unknown(link: ObservedLink, reason: str, *, rival_of: str = "") -> UnknownLink:
    return UnknownLink(
        ifindex=link.ifindex,
        ifname=link.ifname,
        mac=link.mac,
        driver=link.driver,
        port=link.port,
        reason=reason,
        serial=link.serial,
        rival_of=rival_of,
    )


# --- choose the uplink ---------------------------------------------------------------------------


def choose_uplink(
    desired: DesiredState, observed: ObservedState, excluded: Iterable[int] = ()
) -> tuple[str, str]:
    """Return the uplink's name, or an empty one and why there is none.

    *excluded* are ifindexes that never count: links of gadgets, which may offer a default route.
    """
    usable = {link.ifindex: link for link in observed.links if link.ifindex not in set(excluded)}
    routed = [
        usable[route.ifindex]
        for route in sorted(observed.routes, key=lambda route: route.metric)
        if route.is_default and route.ifindex in usable
    ]
    wanted = desired.uplink_policy.interfaces
    match wanted:
        case () if routed:
            return routed[0].ifname, ""
        case ():
            return "", "no interface but gadgets holds a default route"
        case (name,):
            there = any(link.ifname == name for link in usable.values())
            return (name, "") if there else ("", f"uplink {name} is not there")
        case _:
            ready = {link.ifname for link in routed if link.carrier}
            name = next((name for name in wanted if name in ready), "")
            fault = f"none of {', '.join(wanted)} has carrier and a default route"
            return (name, "") if name else ("", fault)


def _is_named_uplink(link: UnknownLink, desired: DesiredState) -> bool:
    """Tell whether the config names an unlisted link as uplink, say a USB modem."""
    return link.ifname in desired.uplink_policy.interfaces


# --- choose the hub ------------------------------------------------------------------------------


def _choose_hub(desired: DesiredState, observed: ObservedState) -> tuple[IPv4Address | None, str]:
    """Return the hub address if it can be had, and why it cannot.

    An address that another network has, say the router's, would cut this host off from it.
    """
    if desired.hub is None:
        return None, ""
    collision = _collision(IPv4Network(desired.hub), LOOPBACK, observed)
    return (
        (None, f"hub address {desired.hub} is in {collision}") if collision else (desired.hub, "")
    )


# --- block ---------------------------------------------------------------------------------------


def _overlap(spec: GadgetSpec, link: ObservedLink, observed: ObservedState) -> str:
    """Say what other network the gadget's subnet would take packets from; empty if none."""
    collision = _collision(spec.subnet, link.ifindex, observed)
    return f"subnet {spec.subnet} overlaps {collision}" if collision else ""


def _collision(subnet: IPv4Network, own: int, observed: ObservedState) -> str:
    """Name the first foreign network by another link than *own* that overlaps; empty if none."""
    names = {link.ifindex: link.ifname for link in observed.links}
    for ifindex, network, what in _foreign_networks(observed):
        if ifindex != own and network.overlaps(subnet):
            return f"the {what} {network} of {names.get(ifindex, f'ifindex {ifindex}')}"
    return ""


def _foreign_networks(observed: ObservedState) -> Iterator[tuple[int, IPv4Network, str]]:
    """Yield (ifindex, network, kind) of every address and route that is not our doing."""
    ours = set()
    for link in observed.links:
        for address in link.addresses:
            if address.owned:
                ours.add((link.ifindex, address.interface.network))
            else:
                yield link.ifindex, address.interface.network, "address"
    for route in observed.routes:
        everything = route.destination.prefixlen <= HALF_OF_EVERYTHING
        if not everything and not route.owned and (route.ifindex, route.destination) not in ours:
            yield route.ifindex, route.destination, "route"


def _unenforceable(spec: GadgetSpec, observed: ObservedState) -> str:
    """Say why an isolated gadget must stay off: without a packet filter it is not isolated."""
    if spec.isolate and observed.firewall_fault:
        return f"it cannot be isolated: {observed.firewall_fault}"
    return ""


def _rename(
    present: dict[int, GadgetSpec], observed: ObservedState, identified: _Identified
) -> list[Action]:
    """Plan the renames; gadgets whose name is taken for good are blocked and leave *present*."""
    links = {link.ifindex: link for link in observed.links}
    holders = {name: link for link in observed.links for name in (link.ifname, *link.altnames)}
    movers = {i: spec for i, spec in present.items() if links[i].ifname != spec.name}
    evictions = _evict(movers, holders, identified)
    while stuck := [i for i, spec in movers.items() if _taken(spec.name, i, holders, movers)]:
        for ifindex in stuck:
            spec = movers.pop(ifindex)
            del present[ifindex]
            holder = holders[spec.name]
            alias = (
                "" if holder.ifname == spec.name else f", an alternative name of {holder.ifname}"
            )
            reason = f"the name {spec.name} is taken by ifindex {holder.ifindex}{alias}"
            identified.block(spec, reason)
    return [*evictions, *_order_renames(movers, links, holders)]


def _evict(
    movers: dict[int, GadgetSpec],
    holders: dict[str, ObservedLink],
    identified: _Identified,
) -> list[Action]:
    """Take a gadget's name off a link that lost the gadget to another; it was given in error."""
    steps: list[Action] = []
    wanted = {spec.name for spec in movers.values()}
    for rival in identified.unknown:
        spare = f"otgd{rival.ifindex}"
        if rival.rival_of and rival.ifname in wanted and spare not in holders:
            steps.append(
                RenameLink(gadget=rival.ifname, ifindex=rival.ifindex, old=rival.ifname, new=spare)
            )
            holders[spare] = holders.pop(rival.ifname)
            identified.evicted[rival.ifindex] = spare
    return steps


def _taken(
    name: str, ifindex: int, holders: dict[str, ObservedLink], movers: dict[int, GadgetSpec]
) -> bool:
    """Tell whether *name* is held by a link that will not give it up in this plan."""
    holder = holders.get(name)
    if holder is None or holder.ifindex == ifindex:
        return False
    return holder.ifindex not in movers or holder.ifname != name


def _order_renames(
    movers: dict[int, GadgetSpec], links: dict[int, ObservedLink], holders: dict[str, ObservedLink]
) -> list[Action]:
    """Order renames so that each finds its name free; a ring is opened by a temporary name."""
    steps: list[Action] = []
    names = {ifindex: links[ifindex].ifname for ifindex in movers}

    def rename(ifindex: int, new: str, gadget: str = "") -> None:
        steps.append(RenameLink(gadget=gadget, ifindex=ifindex, old=names[ifindex], new=new))
        names[ifindex] = new

    waiting = dict(movers)
    while waiting:
        held = {names[ifindex] for ifindex in waiting}
        free = next((i for i, spec in waiting.items() if spec.name not in held), None)
        if free is None:
            first = next(iter(waiting))
            rename(first, f"otgd{first}")
            continue
        spec = waiting.pop(free)
        if holders.get(spec.name) is links[free]:
            steps.append(RemoveAltname(gadget=spec.name, ifindex=free, altname=spec.name))
        rename(free, spec.name, spec.name)
    return steps


# --- compare -------------------------------------------------------------------------------------


def _rules(
    present: Iterable[GadgetSpec],
    uplink: str,
    outcasts: Iterable[str],
    desired: DesiredState,
) -> Iterator[Rule]:
    for spec in present:
        yield SourceGuard(gadget=spec.name, ifname=spec.name, subnet=spec.subnet)
        yield Forward(
            gadget=spec.name,
            ifname=spec.name,
            uplink=uplink,
            to_uplink=spec.masquerade and bool(uplink),
            to_peers=not spec.isolate,
        )
        if spec.masquerade and uplink:
            yield Masquerade(gadget=spec.name, subnet=spec.subnet, uplink=uplink)
    if desired.unknown is UnknownPolicy.BLOCK:
        yield from (Quarantine(ifname=ifname) for ifname in outcasts)


def _add_rules(rules: frozenset[Rule], observed: ObservedState) -> Iterator[Action]:
    """Rules come before addresses: a flow that is older than its masquerade is never masqueraded.

    What is replaced goes in the same transaction, so there is no moment without.
    """
    if observed.firewall_fault:
        return
    replaced = {_subject(rule) for rule in rules} | {STRAYS}
    stale = observed.rules - rules
    yield from (RemoveRule(rule=r) for r in _sorted(stale) if _subject(r) in replaced)
    yield from (AddRule(rule=rule) for rule in _sorted(rules - observed.rules))


def _remove_rules(rules: frozenset[Rule], observed: ObservedState) -> Iterator[Action]:
    """Rules of what is gone go last, after the addresses that they protected."""
    kept = {_subject(rule) for rule in rules} | {STRAYS}
    stale = observed.rules - rules
    yield from (RemoveRule(rule=r) for r in _sorted(stale) if _subject(r) not in kept)


def _subject(rule: Rule) -> tuple[str, str]:
    """What a rule is about; two rules with one subject replace each other."""
    match rule:
        case Stray():
            return STRAYS
        case Quarantine(ifname=ifname):
            return "quarantine", ifname
        case _:
            return type(rule).__name__, rule.gadget


def _sorted(rules: Iterable[Rule]) -> list[Rule]:
    """Order rules for people and for golden files; no rule depends on another's place."""
    return sorted(rules, key=repr)


def _forward(present: Iterable[GadgetSpec], observed: ObservedState) -> Iterator[Action]:
    if not observed.forwarding and any(spec.is_forwarded for spec in present):
        yield EnableForwarding()


def _passage(desired: DesiredState, observed: ObservedState) -> Iterator[Action]:
    """The passage stays open while the config has gadgets to forward, plugged or not.

    It lets only marked packets through, so it is no hole; and a plug need not wait for it.
    """
    wanted = any(spec.is_forwarded for spec in desired.gadgets)
    if wanted and observed.passage is Passage.CLOSED:
        yield OpenPassage()
    if not wanted and observed.passage in (Passage.GRANTED, Passage.SPARE):
        yield ClosePassage()


def _set_hub(
    hub: IPv4Address | None, links: dict[int, ObservedLink]
) -> Iterator[AddAddress | SetLinkUp]:
    """The hub address comes before the routes that name it; it is of no use on a lo that is down.

    Exactly that address of somebody else's will do as well.
    """
    if hub is None:
        return
    lo = links[LOOPBACK]
    interface = IPv4Interface(hub)
    if all(address.interface != interface for address in lo.addresses):
        yield AddAddress(gadget="", ifindex=LOOPBACK, interface=interface)
    if not lo.up:
        yield SetLinkUp(gadget="", ifindex=LOOPBACK)


def _configure(
    present: dict[int, GadgetSpec],
    links: dict[int, ObservedLink],
    routes: Iterable[ObservedRoute],
    hub: IPv4Address | None,
) -> Iterator[AddressAction | SetLinkUp]:
    """Address, then up, then the route from the hub: a link that is down takes no route.

    For the moment in between the host speaks from its end of the cable, which guests answer too.
    """
    counting = _counting(routes) if hub else {}
    for ifindex, spec in present.items():
        link = links[ifindex]
        if all(address.interface != spec.host for address in link.addresses):
            yield AddAddress(gadget=spec.name, ifindex=ifindex, interface=spec.host)
        if not link.up:
            yield SetLinkUp(gadget=spec.name, ifindex=ifindex)
        if hub and spec.via_hub and counting.get((ifindex, spec.subnet)) != hub:
            yield AddRoute(gadget=spec.name, ifindex=ifindex, subnet=spec.subnet, source=hub)


def _counting(
    routes: Iterable[ObservedRoute],
) -> dict[tuple[int, IPv4Network], IPv4Address | None]:
    """Return the source that counts for each link and network: that of the first route."""
    found: dict[tuple[int, IPv4Network], IPv4Address | None] = {}
    for route in routes:
        found.setdefault((route.ifindex, route.destination), route.source)
    return found


def _withdraw(
    present: dict[int, GadgetSpec], routes: Iterable[ObservedRoute], hub: IPv4Address | None
) -> Iterator[RemoveRoute]:
    """Take back our routes from where they are not wanted any more; the kernel's own are left."""
    for route in routes:
        spec = present.get(route.ifindex)
        wanted = spec and spec.via_hub and (route.destination, route.source) == (spec.subnet, hub)
        if route.owned and route.source and not wanted:
            yield RemoveRoute(
                gadget=spec.name if spec else "",
                ifindex=route.ifindex,
                subnet=route.destination,
                source=route.source,
            )


def _deconfigure(
    present: dict[int, GadgetSpec], observed: ObservedState, hub: IPv4Address | None
) -> Iterator[RemoveAddress]:
    """Take back our addresses from where they are not wanted any more."""
    wanted = {ifindex: spec.host for ifindex, spec in present.items()}
    if hub:
        wanted[LOOPBACK] = IPv4Interface(hub)
    for link in observed.links:
        spec = present.get(link.ifindex)
        for address in link.addresses:
            if address.owned and address.interface != wanted.get(link.ifindex):
                yield RemoveAddress(
                    gadget=spec.name if spec else "",
                    ifindex=link.ifindex,
                    interface=address.interface,
                )


def _quarantine(
    unknown: tuple[UnknownLink, ...], links: dict[int, ObservedLink], desired: DesiredState
) -> Iterator[SetLinkDown]:
    if desired.unknown is UnknownPolicy.BLOCK:
        for link in unknown:
            if links[link.ifindex].up:
                yield SetLinkDown(gadget="", ifindex=link.ifindex)
