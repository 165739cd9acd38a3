"""A kernel in memory: links, addresses, routes and forwarding, with the real one's manners.

The contract suite (tests/contract/test_links.py) runs against it and against the real kernel, so
it cannot drift. Property tests run thousands of histories against it.
"""

from __future__ import annotations

from dataclasses import replace
from ipaddress import IPv4Address, IPv4Interface, IPv4Network
from itertools import count
from typing import TYPE_CHECKING, Any

from otgd.errors import OtgdError, PermanentError
from otgd.model import LOOPBACK, ObservedAddress, ObservedLink, ObservedRoute

if TYPE_CHECKING:
    from collections.abc import Collection

NAME_BYTES = 15


class FakeKernel:
    """Links, addresses, routes and forwarding; implements ``LinkPort`` and ``ForwardingPort``.

    ``fail`` maps a verb's name to the errors that its next calls raise, oldest first.
    """

    def __init__(self) -> None:
        self.links: dict[int, ObservedLink] = {}
        self.static_routes: list[ObservedRoute] = []
        self.own_routes: list[ObservedRoute] = []
        self.forwards = False
        self.fail: dict[str, list[OtgdError]] = {}
        self.calls: list[str] = []
        self.named: set[int] = set()
        self._ifindexes = count(2)

    def take_named(self) -> frozenset[int]:
        """Return and forget which links the kernel's events would have named."""
        named = frozenset(self.named)
        self.named.clear()
        return named

    # --- what the world does ---------------------------------------------------------------------

    def plug(self, ifname: str, mac: str, driver: str = "cdc_ether", **usb: Any) -> int:  # noqa: ANN401
        """A link comes, down and bare; return its ifindex. *usb* are its serial, port and so on."""
        ifindex = next(self._ifindexes)
        assert ifname not in self._names(), ifname
        self.links[ifindex] = ObservedLink(
            ifindex=ifindex, ifname=ifname, mac=mac, driver=driver, carrier=True, **usb
        )
        self.named.add(ifindex)
        return ifindex

    def loopback(self) -> None:
        """Have lo, which every real kernel has."""
        address = ObservedAddress(interface=IPv4Interface("127.0.0.1/8"))
        self.links[LOOPBACK] = ObservedLink(
            ifindex=LOOPBACK, ifname="lo", mac="00:00:00:00:00:00", up=True, addresses=(address,)
        )

    def unplug(self, ifindex: int) -> None:
        """A link goes, and its addresses and routes with it."""
        del self.links[ifindex]
        self.named.add(ifindex)
        self._drop_dead_routes()
        self.static_routes = [r for r in self.static_routes if r.ifindex != ifindex]

    def change(self, ifindex: int, **fields: object) -> None:
        """Somebody else changes a link."""
        self.links[ifindex] = replace(self.links[ifindex], **fields)  # type: ignore[arg-type]
        self.named.add(ifindex)
        self._drop_dead_routes()

    def flush_routes(self, ifindex: int) -> None:
        """Somebody deletes the routes of ours by a link."""
        self.own_routes = [route for route in self.own_routes if route.ifindex != ifindex]
        self.named.add(ifindex)

    def foreign_address(self, ifindex: int, interface: str) -> None:
        """Somebody else adds an address."""
        address = ObservedAddress(interface=IPv4Interface(interface))
        self.change(ifindex, addresses=(*self.links[ifindex].addresses, address))

    def default_route(self, ifindex: int, metric: int = 0) -> None:
        """Somebody adds a default route."""
        destination = IPv4Network("0.0.0.0/0")
        self.named.add(ifindex)
        self.static_routes.append(
            ObservedRoute(destination=destination, ifindex=ifindex, metric=metric)
        )

    # --- ports -----------------------------------------------------------------------------------

    def observe_links(self, ifindexes: Collection[int] | None = None) -> tuple[ObservedLink, ...]:
        self._call("observe_links")
        named = self.links if ifindexes is None else self.links.keys() & set(ifindexes)
        return tuple(self.links[ifindex] for ifindex in sorted(named))

    def observe_routes(self, ifindex: int = 0) -> tuple[ObservedRoute, ...]:
        self._call("observe_routes of a link" if ifindex else "observe_routes")
        connected = [
            ObservedRoute(
                destination=address.interface.network,
                ifindex=link.ifindex,
                source=address.interface.ip,
            )
            for link in self.links.values()
            for address in link.addresses
            if link.up and link.ifindex != LOOPBACK  # whose are in the table "local"
        ]
        usable = [r for r in self.static_routes if self.links[r.ifindex].up]
        routes = (*self.own_routes, *connected, *usable)
        return tuple(route for route in routes if ifindex in (0, route.ifindex))

    def rename(self, ifindex: int, new: str) -> None:
        self._call("rename")
        link = self._link(ifindex)
        if link.ifname == new:
            return
        if not 0 < len(new.encode()) <= NAME_BYTES or "/" in new:
            raise PermanentError("bad name")
        if new in self._names():
            raise PermanentError("the name is taken")
        self.change(ifindex, ifname=new)

    def remove_altname(self, ifindex: int, altname: str) -> None:
        self._call("remove_altname")
        if ifindex in self.links:
            names = tuple(name for name in self.links[ifindex].altnames if name != altname)
            self.change(ifindex, altnames=names)

    def add_address(self, ifindex: int, interface: IPv4Interface) -> None:
        self._call("add_address")
        link = self._link(ifindex)
        if all(address.interface != interface for address in link.addresses):
            address = ObservedAddress(interface=interface, owned=True)
            self.change(ifindex, addresses=(*link.addresses, address))

    def remove_address(self, ifindex: int, interface: IPv4Interface) -> None:
        self._call("remove_address")
        if ifindex in self.links:
            kept = (a for a in self.links[ifindex].addresses if a.interface != interface)
            self.change(ifindex, addresses=tuple(kept))

    def add_route(self, ifindex: int, subnet: IPv4Network, source: IPv4Address) -> None:
        self._call("add_route")
        if not self._link(ifindex).up:
            raise PermanentError("the link is down")
        if source not in self._local():
            raise PermanentError("Invalid argument")
        route = ObservedRoute(destination=subnet, ifindex=ifindex, source=source, owned=True)
        self.own_routes = [route, *(each for each in self.own_routes if each != route)]
        self.named.add(ifindex)

    def remove_route(self, ifindex: int, subnet: IPv4Network, source: IPv4Address) -> None:
        self._call("remove_route")
        gone = ObservedRoute(destination=subnet, ifindex=ifindex, source=source, owned=True)
        if gone in self.own_routes:
            self.own_routes.remove(gone)
            self.named.add(ifindex)

    def set_up(self, ifindex: int, *, up: bool = True) -> None:
        self._call("set_up")
        self._link(ifindex)
        self.change(ifindex, up=up)

    def close(self) -> None:
        self._call("close")

    def enabled(self) -> bool:
        self._call("enabled")
        return self.forwards

    def enable(self) -> None:
        self._call("enable")
        self.forwards = True

    # --- inside ----------------------------------------------------------------------------------

    def _link(self, ifindex: int) -> ObservedLink:
        if ifindex not in self.links:
            raise PermanentError("the link is gone")
        return self.links[ifindex]

    def _local(self) -> set[IPv4Address]:
        return {a.interface.ip for link in self.links.values() for a in link.addresses}

    def _drop_dead_routes(self) -> None:
        """A route goes with its link, with the last address there, and with its source."""
        local = self._local()
        alive = {i for i, link in self.links.items() if link.up and link.addresses}
        dead = [r for r in self.own_routes if r.ifindex not in alive or r.source not in local]
        self.named |= {route.ifindex for route in dead}
        self.own_routes = [route for route in self.own_routes if route not in dead]

    def _names(self) -> set[str]:
        return {name for link in self.links.values() for name in (link.ifname, *link.altnames)}

    def _call(self, verb: str) -> None:
        self.calls.append(verb)
        if self.fail.get(verb):
            raise self.fail[verb].pop(0)
