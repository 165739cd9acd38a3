"""Hold back a step that somebody keeps undoing, so that a fight never becomes a busy loop.

Pure but for its memory: time is an argument. A step is *undone* when it has to be applied again
although it had worked. A few times in a row are healed at once (a rule set that was flushed, an
address that an administrator deleted). Then the waits grow up to ``PATIENT_S``, which still heals
well within a second; somebody who keeps at it for minutes is met only every ``WEARY_S``.

A step that is in force again stays *contested* until it has stood longer than the fight ever let
it stand: only then is the fight over, and one fight is told once.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from otgd.model import (
    Action,
    AddAddress,
    AddRoute,
    AddRule,
    Held,
    RemoveAddress,
    RemoveRoute,
    RemoveRule,
    SetLinkDown,
    SetLinkUp,
    Stray,
    gadget_of,
)

if TYPE_CHECKING:
    from collections.abc import Iterable

FREE = 8
"""How often a step may be undone before it is held back at all."""
FIRST_S = 0.05
PATIENT_S = 0.4
WEARY_AFTER = 200
WEARY_S = 30.0
FORGET_S = 60.0
"""A step that stayed in force for so long starts afresh."""
SETTLE_S = 2.0
"""How long a contested step has to stand at least, to be trusted."""
SETTLE_FACTOR = 4
"""... and how many times as long as it stood at most while it was fought about."""


@dataclass(slots=True)
class _History:
    applied_at: float
    undone: int = 0
    stands: bool = True
    stood_s: float = 0.0

    @property
    def settled_at(self) -> float:
        settle_s = max(SETTLE_S, min(FORGET_S, SETTLE_FACTOR * self.stood_s))
        return self.applied_at + settle_s


class Damper:
    """Remembers when each step was last applied, and how often it was undone since."""

    def __init__(self) -> None:
        self._history: dict[Action, _History] = {}
        self._steps_of: dict[str, set[Action]] = {}
        self._contested: set[Action] = set()
        self._pruned_at = 0.0

    def hold(self, steps: Iterable[Action], now: float) -> dict[Action, Held]:
        """Return those of *steps* that have to wait at time *now* (seconds, monotonic)."""
        held = {}
        for step in steps:
            history = self._history.get(step)
            if history is None or history.undone < FREE:
                continue
            wait_s = history.applied_at + _pause(history.undone) - now
            if wait_s > 0:
                held[step] = Held(step=step, undone=history.undone, wait_s=wait_s)
        return held

    def applied(self, steps: Iterable[Action], now: float) -> None:
        """Note that *steps* worked at time *now*; what we undo ourselves is no fight."""
        for step in steps:
            if contrary := _contrary(step):
                self._drop(contrary)
            history = self._history.get(step)
            if history is None or now - history.applied_at > FORGET_S:
                self._drop(step)
                self._history[step] = _History(applied_at=now)
                self._steps_of.setdefault(gadget_of(step), set()).add(step)
            else:
                history.undone += 1
                history.applied_at = now
                history.stands = True

    def missed(self, steps: Iterable[Action], now: float, *, at_once: bool = False) -> None:
        """Note that *steps* are wanted (again) at time *now*: those that worked were undone.

        If *at_once*, then before anybody could look twice; that is no accident.
        """
        for step in steps:
            history = self._history.get(step)
            if history is None:
                continue
            if history.stands:
                history.stands = False
                history.stood_s = max(history.stood_s, now - history.applied_at)
            if at_once or history.undone >= FREE:
                self._contested.add(step)

    def contested(self, now: float) -> dict[Action, Held]:
        """Return the steps that are fought about, in force just now or not.

        Strays are left out where rules are undone too: they are what is left of those.
        """
        self.forget((), now)
        found = {}
        for step in self._contested.copy():
            history = self._history[step]
            wait_s = history.settled_at - now if history.stands else FORGET_S
            if wait_s > 0:
                found[step] = Held(step=step, undone=history.undone, wait_s=wait_s)
            else:
                self._contested.discard(step)
        strays = {step for step in found if _is_of_stray(step)}
        if strays and self._rules_are_undone():
            return {step: held for step, held in found.items() if step not in strays}
        return found

    def _rules_are_undone(self) -> bool:
        return any(isinstance(step, AddRule) and h.undone for step, h in self._history.items())

    def forget(self, gadgets: Iterable[str], now: float) -> None:
        """Start afresh for *gadgets* (plugged or unplugged), and drop what is long past."""
        for name in gadgets:
            for step in self._steps_of.pop(name, set()):
                self._drop(step)
        if now - self._pruned_at > FORGET_S:
            self._pruned_at = now
            for step, history in list(self._history.items()):
                if now - history.applied_at > FORGET_S:
                    self._drop(step)

    def _drop(self, step: Action) -> None:
        self._history.pop(step, None)
        self._contested.discard(step)
        self._steps_of.get(gadget_of(step), set()).discard(step)


def _is_of_stray(step: Action) -> bool:
    return isinstance(step, RemoveRule) and isinstance(step.rule, Stray)


def _contrary(step: Action) -> Action | None:
    """Return the step that undoes *step*, where there is one."""
    match step:
        case AddRule(rule=rule):
            return RemoveRule(rule=rule)
        case RemoveRule(rule=rule):
            return AddRule(rule=rule)
        case AddAddress(gadget=gadget, ifindex=ifindex, interface=interface):
            return RemoveAddress(gadget=gadget, ifindex=ifindex, interface=interface)
        case RemoveAddress(gadget=gadget, ifindex=ifindex, interface=interface):
            return AddAddress(gadget=gadget, ifindex=ifindex, interface=interface)
        case AddRoute(gadget=gadget, ifindex=ifindex, subnet=subnet, source=source):
            return RemoveRoute(gadget=gadget, ifindex=ifindex, subnet=subnet, source=source)
        case RemoveRoute(gadget=gadget, ifindex=ifindex, subnet=subnet, source=source):
            return AddRoute(gadget=gadget, ifindex=ifindex, subnet=subnet, source=source)
        case SetLinkUp(gadget=gadget, ifindex=ifindex):
            return SetLinkDown(gadget=gadget, ifindex=ifindex)
        case SetLinkDown(gadget=gadget, ifindex=ifindex):
            return SetLinkUp(gadget=gadget, ifindex=ifindex)
        case _:
            return None


def _pause(undone: int) -> float:
    if undone >= WEARY_AFTER:
        return WEARY_S
    doublings = min(undone - FREE, 16)
    return min(PATIENT_S, FIRST_S * float(2**doublings))
