"""What the core asks of the outside world: few verbs each, kept by an adapter and by a fake.

One contract suite (tests/contract) runs against every implementation, the fakes included.
Knows the model and the errors; no library. Every verb may raise ``TransientError`` (back off and
retry) or ``PermanentError`` (report; retry when something changes), and nothing else on purpose.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Collection
    from ipaddress import IPv4Address, IPv4Interface, IPv4Network
    from typing import Any

    from otgd.events import Event
    from otgd.model import (
        DesiredState,
        Neighbour,
        ObservedLink,
        ObservedRoute,
        Passage,
        Rule,
        Traffic,
    )


class LinkPort(Protocol):
    """Links, addresses and routes of this network namespace.

    Adding what exists and removing what is gone are successes.
    """

    def observe_links(self, ifindexes: Collection[int] | None = None) -> tuple[ObservedLink, ...]:
        """Return links with their IPv4 addresses, by ifindex: all, or those that are named."""
        ...

    def observe_routes(self, ifindex: int = 0) -> tuple[ObservedRoute, ...]:
        """Return the unicast IPv4 routes of the main table: all, or those by one link."""
        ...

    def rename(self, ifindex: int, new: str) -> None:
        """Name the link *new*, up or down."""
        ...

    def remove_altname(self, ifindex: int, altname: str) -> None:
        """Take an alternative name off the link."""
        ...

    def add_address(self, ifindex: int, interface: IPv4Interface) -> None:
        """Put an address on the link and mark it as ours."""
        ...

    def remove_address(self, ifindex: int, interface: IPv4Interface) -> None:
        """Take an address off the link."""
        ...

    def add_route(self, ifindex: int, subnet: IPv4Network, source: IPv4Address) -> None:
        """Put a route before all to *subnet* by the link, mark it as ours; it sets the source."""
        ...

    def remove_route(self, ifindex: int, subnet: IPv4Network, source: IPv4Address) -> None:
        """Take such a route of ours away."""
        ...

    def set_up(self, ifindex: int, *, up: bool = True) -> None:
        """Set IFF_UP, or clear it."""
        ...

    def close(self) -> None:
        """Give descriptors back."""
        ...


class FirewallPort(Protocol):
    """Our rules in one packet filter; foreign ones are never touched."""

    @property
    def name(self) -> str:
        """The backend's name as in ``[firewall] backend``."""
        ...

    def observe(self) -> frozenset[Rule]:
        """Return our rules that are in force, and strays under our name."""
        ...

    def apply(self, *, remove: Collection[Rule], add: Collection[Rule]) -> None:
        """Make one transaction of it: all of it is in force afterwards, or nothing changed.

        When no rule is left, an empty table may stay for those to come, until ``tidy``.
        """
        ...

    def tidy(self) -> None:
        """Take tables away that hold no rule of ours; rules and strays stay."""
        ...


class ForwardingPort(Protocol):
    """The host's ``net.ipv4.ip_forward``."""

    def enabled(self) -> bool:
        """Tell whether the host forwards."""
        ...

    def enable(self) -> None:
        """Make the host forward."""
        ...


class PassagePort(Protocol):
    """The way through other programs' FORWARD chain."""

    def look(self) -> Passage:
        """Tell whether something may be in the way, and whether our rule is there."""
        ...

    def open(self) -> None:
        """Put our rule in."""
        ...

    def shut(self) -> None:
        """Take our rule out."""
        ...


class TriggerPort(Protocol):
    """A file descriptor that becomes readable when it is time to look again.

    What it says does not matter; ``drain`` before looking if it is readable, so that a change after
    the look triggers another one. ``overflows`` counts how often events were lost.
    """

    @property
    def overflows(self) -> int:
        """How often events were lost."""
        ...

    @property
    def newcomers_only(self) -> bool:
        """Whether it has news only of links that are new, not initialized yet, or down.

        Of all others another trigger tells everything.
        """
        ...

    def fileno(self) -> int:
        """Return the descriptor to wait on; it may be another one after an overflow."""
        ...

    def touched(self) -> frozenset[int] | None:
        """Return and forget the ifindexes that the drained events named; None is anything."""
        ...

    def drain(self) -> int:
        """Forget everything queued and return how much it was; mends an overflow by itself."""
        ...

    def close(self) -> None:
        """Give the descriptor back."""
        ...


class NeighbourPort(Protocol):
    """Who answers on the links: the kernel's IPv4 neighbour table."""

    def fileno(self) -> int:
        """Return the descriptor that is readable when ``changes`` has something to return."""
        ...

    def changes(self) -> list[tuple[int, IPv4Address, Neighbour]] | None:
        """Return what was told since the last call, oldest first; None when some of it is lost."""
        ...

    def probe(self, ifindex: int, address: IPv4Address) -> Neighbour:
        """Have the kernel ask *address* a few times, unless it knows; return what is known now."""
        ...

    def traffic(self, ifindex: int) -> Traffic | None:
        """Return what the link has carried, or None where there is no such link (any more)."""
        ...

    def close(self) -> None:
        """Give descriptors back."""
        ...


class EventLogPort(Protocol):
    """Where events are told: the journal, or stderr; *level* is the least grave one to tell."""

    level: str

    def write(self, event: Event) -> None:
        """Tell one event; never raises, never waits."""
        ...

    def flush(self) -> None:
        """Hand over what had to wait."""
        ...


class ServicePort(Protocol):
    """The service manager's notification socket (sd_notify)."""

    @property
    def watchdog_s(self) -> float | None:
        """Seconds within which a keep-alive is expected, or None."""
        ...

    def notify(self, *assignments: str) -> None:
        """Send ``KEY=value`` lines in one message; silently nothing where nobody listens."""
        ...


class NamesPort(Protocol):
    """Where udev learns what the gadgets are called."""

    def write(self, desired: DesiredState) -> None:
        """Put the gadgets' names there."""
        ...


class MetricsPort(Protocol):
    """The state as metrics, in a file at *path*; nowhere while that is empty."""

    path: str

    def write(self, state: dict[str, Any]) -> None:
        """Replace the metrics in one step."""
        ...

    def finish(self) -> None:
        """Tell that otgd does not run any more; never raises."""
        ...


class StatePort(Protocol):
    """Where the state is left for everybody to read."""

    def write(self, state: dict[str, Any]) -> None:
        """Replace the state in one step."""
        ...

    def remove(self) -> None:
        """Take the state away."""
        ...
