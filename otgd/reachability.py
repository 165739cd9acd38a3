"""Whether each gadget's guest answers on its link, and when to ask it next.

The witness is the kernel's neighbour table (``NeighbourPort``). While a guest answers, the kernel
confirms that by itself wherever there is traffic, and otgd asks only at a resync. A guest that
does not answer is asked again and again with growing pauses, at once when it is heard of.

Pure but for its memory: time is an argument, in seconds (monotonic); knows no ports.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from enum import StrEnum
from typing import TYPE_CHECKING

from otgd.model import Neighbour

if TYPE_CHECKING:
    from collections.abc import Iterable
    from ipaddress import IPv4Address

    from otgd.model import Traffic

TRY_S = 3.0
"""How long the kernel asks before it gives up: three requests, a second apart (arp(7))."""
SETTLE_S = 0.1
"""How long the far end may need from its carrier until it can answer.

A request that comes too early is lost, and the kernel keeps every packet to the guest back until
the next one, a second later. A guest that speaks first is asked by the kernel itself.
"""
FIRST_PAUSE_S = 1.0
LAST_PAUSE_S = 60.0
STUCK_S = 60.0
"""How long a link may send without receiving anything until it counts as stuck."""


class Guest(StrEnum):
    """What is known of a guest.

    ``UNKNOWN``: nothing yet. ``SILENT``: was asked, and has not answered since it was plugged in.
    ``LOST``: answered once, and does not any more. ``STUCK``: nothing at all comes from its link.
    """

    UNKNOWN = "unknown"
    ANSWERS = "answers"
    SILENT = "silent"
    LOST = "lost"
    STUCK = "stuck"


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """What is known of a guest at *address*."""

    guest: Guest
    address: IPv4Address

    @property
    def reason(self) -> str:
        """Say why it does not count as reachable; empty when it does, or nothing is known."""
        match self.guest:
            case Guest.SILENT:
                return f"its guest {self.address} has not answered yet"
            case Guest.LOST:
                return f"its guest {self.address} does not answer"
            case Guest.STUCK:
                return (
                    f"its guest {self.address} does not answer, and its link sends but receives "
                    "nothing: unplug the gadget and plug it in again"
                )
            case _:
                return ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """Whom to ask, and where."""

    gadget: str
    ifindex: int
    address: IPv4Address


@dataclass(slots=True, kw_only=True)
class _Watch:
    """One guest.

    Attributes:
        asked_at: when the kernel began to ask, as far as is known; minus infinity once answered.
        quiet_since: when the link's *traffic* was read first; nothing was received since.
    """

    target: Target
    verdict: Verdict
    carrier: bool = False
    ask_at: float = math.inf
    asked_at: float = -math.inf
    pause_s: float = 0.0
    traffic: Traffic | None = None
    quiet_since: float = 0.0
    was_stuck: bool = False

    @property
    def guest(self) -> Guest:
        return self.verdict.guest

    @guest.setter
    def guest(self, guest: Guest) -> None:
        if guest is not self.verdict.guest:
            self.verdict = Verdict(guest=guest, address=self.target.address)

    def ask_soon(self, now: float) -> None:
        """Ask at once, but never while the kernel may be asking still."""
        self.ask_at = min(self.ask_at, max(now, self.asked_at + TRY_S))


@dataclass(slots=True)
class Reachability:
    """What is known of every guest whose gadget is configured."""

    _watches: dict[str, _Watch] = field(default_factory=dict)
    _by_place: dict[tuple[int, IPv4Address], _Watch] = field(default_factory=dict)

    def follow(self, targets: Iterable[Target]) -> None:
        """Watch these and no others; one that is new is asked soon after it has a carrier."""
        before, self._watches = self._watches, {}
        for target in targets:
            watch = before.get(target.gadget)
            if watch is None or watch.target != target:
                verdict = Verdict(guest=Guest.UNKNOWN, address=target.address)
                watch = _Watch(target=target, verdict=verdict)
            self._watches[target.gadget] = watch
        self._by_place = {(w.target.ifindex, w.target.address): w for w in self._watches.values()}

    def note_carrier(self, gadget: str, now: float, *, carrier: bool) -> None:
        """Note whether the far end of the gadget's link is there: one that comes is asked."""
        watch = self._watches[gadget]
        if carrier and not watch.carrier:
            watch.pause_s = 0.0
            watch.ask_soon(now + SETTLE_S)
        watch.carrier = carrier

    # --- when to ask -----------------------------------------------------------------------------

    @property
    def next_at(self) -> float:
        """When somebody is to be asked next; infinity is never."""
        return min((watch.ask_at for watch in self._watches.values()), default=math.inf)

    def due(self, now: float) -> list[Target]:
        """Return who is to be asked now."""
        return [watch.target for watch in self._watches.values() if watch.ask_at <= now]

    def asked(self, target: Target, now: float) -> None:
        """Note that the kernel was told to ask; unanswered, it is told again after a pause.

        Where there is no carrier, that waits for one.
        """
        watch = self._watches[target.gadget]
        watch.asked_at = now
        if watch.guest is not Guest.ANSWERS:
            watch.pause_s = min(LAST_PAUSE_S, watch.pause_s * 2 or FIRST_PAUSE_S)
        is_over = not watch.carrier and watch.guest is not Guest.ANSWERS
        watch.ask_at = math.inf if is_over else now + TRY_S + (watch.pause_s or FIRST_PAUSE_S)

    def recheck(self, now: float) -> None:
        """Ask again who answered."""
        for watch in self._watches.values():
            if watch.guest is Guest.ANSWERS:
                watch.ask_soon(now)

    def doubt(self, now: float) -> None:
        """Ask everybody, since something may have gone unheard."""
        for watch in self._watches.values():
            watch.ask_soon(now)

    # --- what is known ---------------------------------------------------------------------------

    def learn(self, ifindex: int, address: IPv4Address, known: Neighbour, now: float) -> None:
        """Take in what the neighbour table tells; strangers are ignored."""
        watch = self._by_place.get((ifindex, address))
        if watch is None:
            return
        match known:
            case Neighbour.ANSWERS:
                watch.guest = Guest.ANSWERS
                watch.ask_at, watch.asked_at, watch.pause_s = math.inf, -math.inf, 0.0
                watch.traffic, watch.was_stuck = None, False
            case Neighbour.SILENT:
                self._miss(watch, now)
            case Neighbour.HEARD if watch.guest is Guest.ANSWERS:
                pass  # not confirmed of late, for want of traffic; a resync asks
            case Neighbour.HEARD | Neighbour.UNKNOWN:
                watch.ask_soon(now)
            case Neighbour.FIXED:
                watch.guest, watch.ask_at = Guest.UNKNOWN, math.inf
            case Neighbour.ASKING:
                watch.asked_at = now

    @staticmethod
    def _miss(watch: _Watch, now: float) -> None:
        if watch.guest is Guest.UNKNOWN:
            watch.guest = Guest.SILENT
        elif watch.guest is Guest.ANSWERS and watch.asked_at == -math.inf:
            watch.ask_soon(now)  # nobody has asked: somebody deletes the entry ("ip neigh flush")
        elif watch.guest is Guest.ANSWERS:
            watch.guest = Guest.LOST
            watch.pause_s = FIRST_PAUSE_S
            watch.ask_at = now + FIRST_PAUSE_S

    def is_missed(self, target: Target) -> bool:
        """Tell whether its link's traffic is of interest."""
        return self._watches[target.gadget].guest is not Guest.ANSWERS

    def note_traffic(self, target: Target, traffic: Traffic, now: float) -> None:
        """Find out whether the link of a guest that does not answer is stuck.

        That is told once until it answers, even if a packet comes now and then.
        """
        watch = self._watches[target.gadget]
        if watch.traffic is None or traffic.received != watch.traffic.received:
            watch.traffic, watch.quiet_since = traffic, now
            if watch.guest is Guest.STUCK:
                watch.guest = Guest.LOST
        elif (
            watch.guest in (Guest.SILENT, Guest.LOST)
            and not watch.was_stuck
            and traffic.sent > watch.traffic.sent
            and now - watch.quiet_since >= STUCK_S
        ):
            watch.guest, watch.was_stuck = Guest.STUCK, True

    def verdicts(self) -> dict[str, Verdict]:
        """Return what is known of each guest, by the gadget's name."""
        return {name: watch.verdict for name, watch in self._watches.items()}
