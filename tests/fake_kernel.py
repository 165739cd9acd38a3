"""A kernel in memory: links, addresses, routes and forwarding, with the real one's manners.

The contract suite (tests/contract/test_links.py) runs against it and against the real kernel, so
it cannot drift. Property tests run thousands of histories against it.
"""

from __future__ import annotations

from dataclasses import replace
from ipaddress import IPv4Interface, IPv4Network
from itertools import count
from typing import TYPE_CHECKING, Any

from otgd.errors import OtgdError, PermanentError
from otgd.model import ObservedAddress, ObservedLink, ObservedRoute

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

    def unplug(self, ifindex: int) -> None:
        """A link goes, and its addresses and routes with it."""
        del self.links[ifindex]
        self.named.add(ifindex)
        self.static_routes = [r for r in self.static_routes if r.ifindex != ifindex]

    def change(self, ifindex: int, **fields: object) -> None:
        """Somebody else changes a link."""
        self.links[ifindex] = replace(self.links[ifindex], **fields)  # type: ignore[arg-type]
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

    def observe_routes(self) -> tuple[ObservedRoute, ...]:
        self._call("observe_routes")
        connected = [
            ObservedRoute(destination=address.interface.network, ifindex=link.ifindex)
            for link in self.links.values()
            for address in link.addresses
            if link.up
        ]
        usable = [r for r in self.static_routes if self.links[r.ifindex].up]
        return (*connected, *usable)

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

    def _names(self) -> set[str]:
        return {name for link in self.links.values() for name in (link.ifname, *link.altnames)}

    def _call(self, verb: str) -> None:
        self.calls.append(verb)
        if self.fail.get(verb):
            raise self.fail[verb].pop(0)
