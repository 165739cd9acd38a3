"""Has guests asked whether they answer, when ``otgd.reachability`` says so, and hears the answers.

Knows the neighbour port and the pure part; nothing here waits. A question that the kernel refuses
is put again after its pause, so a refusal needs no treatment of its own.
"""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING

from otgd.errors import OtgdError
from otgd.reachability import Target
from otgd.status import State

if TYPE_CHECKING:
    from otgd.model import DesiredState, ObservedLink
    from otgd.ports import NeighbourPort
    from otgd.reachability import Reachability, Verdict
    from otgd.status import Status


class GuestWatch:
    """The guests of configured gadgets, seen through one port.

    Args:
        reachability: what is known already; whatever the port was not there to hear is asked.
    """

    def __init__(self, *, port: NeighbourPort, reachability: Reachability, now: float) -> None:
        self._port = port
        self._known = reachability
        self._known.doubt(now)

    def fileno(self) -> int:
        """Return the descriptor to wait on."""
        return self._port.fileno()

    @property
    def next_at(self) -> float:
        """When ``ask`` has something to do (monotonic seconds); infinity is never."""
        return self._known.next_at

    @property
    def verdicts(self) -> dict[str, Verdict]:
        """What is known of each guest, by the gadget's name."""
        return self._known.verdicts()

    def follow(
        self, desired: DesiredState, status: Status, links: tuple[ObservedLink, ...], now: float
    ) -> None:
        """Watch the guests of what a pass has configured; *links* are those that it looked at."""
        ifindexes = {
            gadget.name: gadget.ifindex
            for gadget in status.gadgets
            if gadget.state is State.CONFIGURED and gadget.ifindex is not None
        }
        targets = {
            ifindexes[spec.name]: Target(
                gadget=spec.name, ifindex=ifindexes[spec.name], address=spec.guest
            )
            for spec in desired.gadgets
            if spec.name in ifindexes
        }
        self._known.follow(targets.values())
        for link in links:
            if link.ifindex in targets:
                gadget = targets[link.ifindex].gadget
                self._known.note_carrier(gadget, now, carrier=link.carrier)

    def hear(self, now: float) -> None:
        """Take in what the kernel has told.

        Raises:
            OtgdError: it cannot be heard.
        """
        changes = self._port.changes()
        if changes is None:
            self._known.doubt(now)
        for ifindex, address, known in changes or ():
            self._known.learn(ifindex, address, known, now)

    def ask(self, now: float) -> None:
        """Have everybody asked whose time has come."""
        for target in self._known.due(now):
            self._known.asked(target, now)
            with suppress(OtgdError):
                known = self._port.probe(target.ifindex, target.address)
                self._known.learn(target.ifindex, target.address, known, now)
                if self._known.is_missed(target):
                    traffic = self._port.traffic(target.ifindex)
                    if traffic is not None:
                        self._known.note_traffic(target, traffic, now)

    def recheck(self, now: float) -> None:
        """Have those asked again who answered."""
        self._known.recheck(now)
