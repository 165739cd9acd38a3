"""Hold back a step that somebody keeps undoing, so that a fight never becomes a busy loop.

Pure but for its memory: time is an argument. A step is *undone* when it has to be applied again
although it had worked. A few times in a row are healed at once (a rule set that was flushed, an
address that an administrator deleted). Then the waits grow up to ``PATIENT_S``, which still heals
within a second; somebody who keeps at it for minutes is met only every ``WEARY_S``.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from otgd.model import Held, gadget_of

if TYPE_CHECKING:
    from collections.abc import Iterable

    from otgd.model import Action

FREE = 8
"""How often a step may be undone before it is held back at all."""
FIRST_S = 0.05
PATIENT_S = 0.8
WEARY_AFTER = 200
WEARY_S = 30.0
FORGET_S = 60.0
"""A step that stayed in force for so long starts afresh."""


@dataclass(slots=True)
class _History:
    undone: int
    applied_at: float


class Damper:
    """Remembers when each step was last applied, and how often it was undone since."""

    def __init__(self) -> None:
        self._history: dict[Action, _History] = {}

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
        """Note that *steps* worked at time *now*."""
        for step in steps:
            history = self._history.get(step)
            if history is None or now - history.applied_at > FORGET_S:
                self._history[step] = _History(undone=0, applied_at=now)
            else:
                history.undone += 1
                history.applied_at = now

    def forget(self, gadgets: Iterable[str], now: float) -> None:
        """Start afresh for *gadgets* (plugged or unplugged), and drop what is long past."""
        gone = set(gadgets)
        self._history = {
            step: history
            for step, history in self._history.items()
            if gadget_of(step) not in gone and now - history.applied_at <= FORGET_S
        }


def _pause(undone: int) -> float:
    if undone >= WEARY_AFTER:
        return WEARY_S
    doublings = min(undone - FREE, 16)
    return min(PATIENT_S, FIRST_S * float(2**doublings))
