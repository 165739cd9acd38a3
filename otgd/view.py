"""What was seen of the kernel, and which part of it has to be seen again.

A gadget's network depends on little else: its own link, its own rules, and the *background*, the
links that are no gadget's. So when events name nothing but gadgets' links, looking at those and
planning for their gadgets gives what looking at everything would, at a cost that does not grow
with the number of gadgets. Whatever is not that plain is answered by a look at everything: at
start, at a resync, after an overflow, when the background or the config changed.

Pure but for its memory; the ports do the looking. Foreign routes over a gadget's link are noticed
only by a look at everything; the route of its own subnet is looked at where a route of ours belongs
there (``GadgetSpec.via_hub``).
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from otgd.errors import OtgdError, TransientError
from otgd.identity import Directory
from otgd.model import DesiredState, ObservedState, Passage, Quarantine, Stray, UnknownPolicy

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from ipaddress import IPv4Network

    from otgd.model import GadgetSpec, ObservedLink, ObservedRoute, Rule
    from otgd.ports import FirewallPort, ForwardingPort, LinkPort, PassagePort


@dataclass(frozen=True, slots=True, kw_only=True)
class Seen:
    """What to plan with.

    Attributes:
        gadgets: names of the gadgets that it is about; None for all.
    """

    desired: DesiredState
    observed: ObservedState
    gadgets: frozenset[str] | None = None

    @property
    def is_unchanged(self) -> bool:
        """Whether it is about no gadget, so that all is as it was seen before."""
        return self.gadgets == frozenset()


class NothingInTheWay:
    """A host on which no other program filters; implements ``PassagePort``."""

    def look(self) -> Passage:
        """Tell that the way is open."""
        return Passage.OPEN

    def open(self) -> None:
        """Do nothing: it is."""

    def shut(self) -> None:
        """Do nothing: no rule of ours was needed."""


class View:
    """Looks through the ports, at everything or at what events named."""

    def __init__(
        self,
        *,
        links: LinkPort,
        firewall: FirewallPort,
        forwarding: ForwardingPort,
        passage: PassagePort,
    ) -> None:
        self._ports = links, firewall, forwarding, passage
        self._desired = DesiredState()
        self._specs: dict[str, GadgetSpec] = {}
        self._directory = Directory(())
        self._links: dict[int, ObservedLink] = {}
        self._claims: dict[int, str] = {}
        self._background: tuple[ObservedLink, ...] = ()
        self._routes: tuple[ObservedRoute, ...] = ()
        self._own_routes: dict[int, tuple[ObservedRoute, ...]] = {}
        self._rules: frozenset[Rule] = frozenset()
        self._host = False, Passage.OPEN
        self._rules_of: dict[str, set[Rule]] = {}

    # --- everything ------------------------------------------------------------------------------

    def look(self, desired: DesiredState) -> Seen:
        """Look at everything.

        Raises:
            OtgdError: the links cannot be seen; without them there is nothing to plan.
        """
        links = self._ports[0]
        observed = replace(
            self._look_at_the_host(),
            links=links.observe_links(),
            routes=links.observe_routes(),
        )
        self._remember(desired, observed)
        return Seen(desired=desired, observed=observed)

    def _look_at_the_host(self) -> ObservedState:
        """Look at what is cheap to see, and has no part to look at alone."""
        _, firewall, forwarding, passage = self._ports
        rules: frozenset[Rule] = frozenset()
        fault = passage_fault = ""
        unsure = False
        way = Passage.OPEN
        try:
            rules = firewall.observe()
        except OtgdError as err:
            fault = str(err)
            unsure = isinstance(err, TransientError)
        try:
            way = passage.look()
        except OtgdError as err:
            passage_fault = str(err)
            unsure |= isinstance(err, TransientError)
        return ObservedState(
            rules=rules,
            forwarding=forwarding.enabled(),
            firewall_fault=fault,
            passage=way,
            passage_fault=passage_fault,
            unsure=unsure,
        )

    def _remember(self, desired: DesiredState, observed: ObservedState) -> None:
        if desired is not self._desired:
            self._desired = desired
            self._specs = {spec.name: spec for spec in desired.gadgets}
            self._directory = Directory(desired.gadgets)
        self._links = {link.ifindex: link for link in observed.links}
        self._claims = {link.ifindex: self._gadget_on(link) for link in observed.links}
        self._background = tuple(x for x in observed.links if not self._claims[x.ifindex])
        ours = {
            (link.ifindex, address.interface.network)
            for link in observed.links
            for address in link.addresses
            if address.owned
        }
        subnets = {i: s for i, x in self._links.items() if (s := self._routed_subnet(x))}
        self._own_routes = dict.fromkeys(subnets, ())
        rest = []
        for route in observed.routes:
            if subnets.get(route.ifindex) == route.destination:
                self._own_routes[route.ifindex] += (route,)
            elif not route.owned and (route.ifindex, route.destination) not in ours:
                rest.append(route)
        self._routes = tuple(rest)
        self._rules = observed.rules
        self._host = observed.forwarding, observed.passage
        self._rules_of = {}
        for rule in observed.rules:
            self._rules_of.setdefault(_gadget_in(rule), set()).add(rule)

    def _gadget_on(self, link: ObservedLink | None) -> str:
        """Name the gadget whose link this may be; empty for a link of the background."""
        if link is None or link.driver not in self._desired.drivers:
            return ""
        claim = self._directory.claim(link)
        return claim[0].name if claim else ""

    def _routed_subnet(self, link: ObservedLink) -> IPv4Network | None:
        """Return the subnet of the gadget on *link* if a route of ours belongs there."""
        if self._desired.hub is None:
            return None
        spec = self._specs.get(self._gadget_on(link))
        return spec.subnet if spec and spec.via_hub else None

    # --- a part ----------------------------------------------------------------------------------

    def glance(
        self, desired: DesiredState, touched: Iterable[int], also: Iterable[str] = ()
    ) -> Seen | None:
        """Look at the links of *touched* ifindexes and plan for their gadgets, and *also* these.

        Return None when that is not enough, and everything has to be looked at.

        Raises:
            OtgdError: the links cannot be seen.
        """
        if desired is not self._desired:
            return None
        gadgets = self._look_at_links(frozenset(touched))
        if gadgets is None:
            return None
        host = self._look_at_the_host()
        changed = self._look_at_rules(host)
        if changed is None or (host.forwarding, host.passage) != self._host:
            return None
        gadgets |= changed | set(also)
        if not gadgets:
            return Seen(desired=desired, observed=ObservedState(), gadgets=frozenset())
        specs = tuple(self._specs[name] for name in sorted(gadgets & self._specs.keys()))
        own = tuple(x for i, x in self._links.items() if self._claims.get(i) in gadgets)
        rules = frozenset(rule for name in gadgets for rule in self._rules_of.get(name, ()))
        return Seen(
            desired=replace(desired, gadgets=specs),
            observed=replace(
                host,
                links=(*self._background, *own),
                routes=(*self._routes_of(own), *self._routes),
                rules=rules,
                # Which gadgets the passage is for, a part of them cannot tell; it is as it was.
                passage=Passage.OPEN,
            ),
            gadgets=frozenset(gadgets),
        )

    def _routes_of(self, links: Iterable[ObservedLink]) -> Iterator[ObservedRoute]:
        for link in links:
            yield from self._own_routes.get(link.ifindex, ())

    def _look_at_links(self, touched: frozenset[int]) -> set[str] | None:
        """Return the gadgets whose links changed; None when another link may have."""
        now = {link.ifindex: link for link in self._ports[0].observe_links(touched)}
        gadgets = set()
        for ifindex in touched:
            before, after = self._links.get(ifindex), now.get(ifindex)
            if before is None and after is None:
                continue  # came and went
            names = {self._gadget_on(link) for link in (before, after) if link is not None}
            if "" in names:
                return None
            rerouted = self._look_at_route(ifindex, after)
            if rerouted or before != after:
                gadgets |= names
        for ifindex in touched:
            self._links.pop(ifindex, None)
            self._claims.pop(ifindex, None)
        self._links |= now
        self._claims |= {ifindex: self._gadget_on(link) for ifindex, link in now.items()}
        return gadgets

    def _look_at_route(self, ifindex: int, link: ObservedLink | None) -> bool:
        """Look at the routes of the gadget's subnet, if one is ours; tell whether they changed."""
        before = self._own_routes.pop(ifindex, ())
        subnet = self._routed_subnet(link) if link else None
        if subnet is None:
            return False
        routes = self._ports[0].observe_routes(ifindex)
        self._own_routes[ifindex] = tuple(r for r in routes if r.destination == subnet)
        return self._own_routes[ifindex] != before

    def _look_at_rules(self, host: ObservedState) -> set[str] | None:
        """Return the gadgets whose rules changed; None when that is not all that did."""
        if host.firewall_fault or host.passage_fault:
            return None
        if host.rules is self._rules:
            return set()
        gadgets = set()
        for rule in host.rules ^ self._rules:
            name = _gadget_in(rule)
            if not name:
                return None
            gadgets.add(name)
            mine = self._rules_of.setdefault(name, set())
            if rule in host.rules:
                mine.add(rule)
            else:
                mine.discard(rule)
        self._rules = host.rules
        return gadgets

    def has_settled(self, ifindexes: Iterable[int]) -> bool:
        """Tell whether these links were there, initialized and up, when they were looked at last.

        Of a link that is down rtnetlink does not tell a new altname (netdev_state_change).
        """
        links = (self._links.get(ifindex) for ifindex in ifindexes)
        return all(link is not None and link.initialized and link.up for link in links)

    @property
    def is_plain(self) -> bool:
        """Whether glances may be enough at all: a quarantine ties unlisted links together."""
        return self._desired.unknown is UnknownPolicy.REPORT


def _gadget_in(rule: Rule) -> str:
    return "" if isinstance(rule, Stray | Quarantine) else rule.gadget
