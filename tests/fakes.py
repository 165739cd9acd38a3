"""Stand-ins for the outside world that keep the ports' contracts (tests/contract runs on them)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from otgd.firewall.ruleset import changed

if TYPE_CHECKING:
    from collections.abc import Collection

    from otgd.errors import OtgdError
    from otgd.model import Rule


class FakeFirewall:
    """A packet filter that holds rules and lets no packet through.

    Attributes:
        held: what ``observe`` returns; put a ``Stray`` in to play a foreign hand.
        fail_next: errors that the next verbs raise, one each, changing nothing.
        transactions: how many ``apply`` there were that changed something.
    """

    def __init__(self, held: Collection[Rule] = (), *, name: str = "fake") -> None:
        self.name = name
        self.held: set[Rule] = set(held)
        self.fail_next: list[OtgdError] = []
        self.transactions = 0

    def observe(self) -> frozenset[Rule]:
        self._fail()
        return frozenset(self.held)

    def apply(self, *, remove: Collection[Rule], add: Collection[Rule]) -> None:
        self._fail()
        after = set(changed(self.held, remove=remove, add=add))
        self.transactions += after != self.held
        self.held = after

    def tidy(self) -> None:
        self._fail()

    def _fail(self) -> None:
        if self.fail_next:
            raise self.fail_next.pop(0)
