"""One pass: observe, plan, apply, observe again, plan again.

Knows ports, not adapters. A step that fails takes only its own gadget's later steps with it. The
last plan is the verification: a step of it that was tried before did not hold, and is in the
report; one that is new (a link that came meanwhile) is tried in the same pass.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from itertools import groupby
from typing import TYPE_CHECKING, assert_never

from otgd.damper import Damper
from otgd.describe import describe
from otgd.errors import OtgdError, PermanentError, TransientError
from otgd.model import (
    Action,
    AddAddress,
    AddRule,
    ClosePassage,
    DesiredState,
    EnableForwarding,
    Failure,
    Held,
    HostAction,
    LinkAction,
    ObservedState,
    OpenPassage,
    Passage,
    Plan,
    RemoveAddress,
    RemoveAltname,
    RemoveRule,
    RenameLink,
    Report,
    Rule,
    SetLinkDown,
    SetLinkUp,
    gadget_of,
)
from otgd.planner import make_plan

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from otgd.ports import FirewallPort, ForwardingPort, LinkPort, PassagePort

ROUNDS = 8
"""How often a pass looks again for steps that are new: links that came while it was at work."""


@dataclass(slots=True)
class _Outcome:
    """What has become of the steps so far; later steps of *broken* gadgets are skipped."""

    tried: set[Action] = field(default_factory=set)
    held: dict[Action, Held] = field(default_factory=dict)
    applied: list[Action] = field(default_factory=list)
    failures: list[Failure] = field(default_factory=list)
    skipped: list[Action] = field(default_factory=list)
    broken: set[str] = field(default_factory=set)


class Reconciler:
    """Makes the kernel hold what is desired, one pass at a time.

    Args:
        before_look: called before each look at the kernel; forgets the triggers that the look
            will answer, so that only what happens later asks for another pass.
        clock: monotonic seconds.
    """

    def __init__(
        self,
        *,
        links: LinkPort,
        firewall: FirewallPort,
        forwarding: ForwardingPort,
        passage: PassagePort | None = None,
        before_look: Callable[[], None] = lambda: None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._links = links
        self._firewall = firewall
        self._forwarding = forwarding
        self._passage = passage
        self._before_look = before_look
        self._clock = clock
        self._damper = Damper()
        self._bindings: frozenset[tuple[str, int]] = frozenset()

    def observe(self) -> ObservedState:
        """Look at everything.

        Raises:
            OtgdError: the links cannot be seen; without them there is nothing to plan.
        """
        self._before_look()
        rules: frozenset[Rule] = frozenset()
        fault = ""
        try:
            rules = self._firewall.observe()
        except OtgdError as err:
            fault = str(err)
        passage, passage_fault = self._look_at_passage()
        return ObservedState(
            links=self._links.observe_links(),
            routes=self._links.observe_routes(),
            rules=rules,
            forwarding=self._forwarding.enabled(),
            firewall_fault=fault,
            passage=passage,
            passage_fault=passage_fault,
        )

    def _look_at_passage(self) -> tuple[Passage, str]:
        if self._passage is None:
            return Passage.OPEN, ""
        try:
            return self._passage.look(), ""
        except OtgdError as err:
            return Passage.OPEN, str(err)

    def run_pass(self, desired: DesiredState) -> Report:
        """Bring the kernel to *desired* as far as it goes now.

        Raises:
            OtgdError: the kernel cannot be looked at.
        """
        started = self._clock()
        outcome = _Outcome()
        observed = self.observe()
        plan = make_plan(desired, observed)
        self._forget_replugged(plan, outcome)
        self._damper.missed(plan.steps, self._clock())
        fresh = plan.steps
        for _ in range(ROUNDS):
            if not fresh:
                break
            self._apply(fresh, outcome)
            observed = self.observe()
            plan = make_plan(desired, observed)
            self._forget_replugged(plan, outcome)
            fresh = tuple(step for step in plan.steps if step not in outcome.tried)
        undone = tuple(s for s in plan.steps if s in outcome.tried and s in outcome.applied)
        self._damper.missed(undone, self._clock(), at_once=True)
        return Report(
            applied=tuple(outcome.applied),
            failures=tuple(outcome.failures),
            skipped=tuple(outcome.skipped),
            held=tuple(outcome.held.values()),
            contested=tuple(self._damper.contested(self._clock()).values()),
            undone=undone,
            fresh=fresh,
            remaining=plan,
            observed=observed,
            elapsed_s=self._clock() - started,
        )

    def _forget_replugged(self, plan: Plan, outcome: _Outcome) -> None:
        """A gadget on another link than before starts afresh: that is no fight, however often."""
        current = frozenset(plan.bindings)
        changed = {name for name, _ in current ^ self._bindings}
        if changed:
            self._bindings = current
            self._damper.forget(changed, self._clock())
            outcome.broken -= changed
            outcome.tried = {step for step in outcome.tried if gadget_of(step) not in changed}

    def _apply(self, steps: tuple[Action, ...], outcome: _Outcome) -> None:
        """Try each step once; rules that stand side by side are one transaction."""
        outcome.tried.update(steps)
        outcome.held |= self._damper.hold(steps, self._clock())
        outcome.broken |= {gadget_of(step) for step in outcome.held} - {""}
        known = len(outcome.applied)
        for is_rule, batch in groupby(steps, key=_is_rule):
            ready = [step for step in batch if step not in outcome.held]
            for part in [ready] if is_rule else [[step] for step in ready]:
                sound = [step for step in part if gadget_of(step) not in outcome.broken]
                outcome.skipped += [step for step in part if step not in sound]
                if sound:
                    self._attempt(sound, outcome)
        self._damper.applied(outcome.applied[known:], self._clock())

    def _attempt(self, batch: list[Action], outcome: _Outcome) -> None:
        """Apply *batch* as one; where it fails for good, find out for whom."""
        try:
            self._perform(batch)
        except TransientError as err:
            self._fail(batch, str(err), outcome, transient=True)
        except PermanentError as err:
            parts = list(_by_gadget(batch))
            if len(parts) == 1:
                self._fail(batch, str(err), outcome, transient=False)
            else:
                for part in parts:
                    self._attempt(part, outcome)
        else:
            outcome.applied.extend(batch)

    def _fail(
        self, batch: list[Action], reason: str, outcome: _Outcome, *, transient: bool
    ) -> None:
        for step in batch:
            failure = Failure(step=step, reason=f"{describe(step)}: {reason}", transient=transient)
            outcome.failures.append(failure)
            # A rule that can never be had does not cost the gadget its address; one that may
            # come in a moment is waited for, since older flows would never be masqueraded.
            if transient or not _is_rule(step):
                outcome.broken.add(gadget_of(step))
        outcome.broken.discard("")

    def _perform(self, batch: list[Action]) -> None:
        remove = [step.rule for step in batch if isinstance(step, RemoveRule)]
        add = [step.rule for step in batch if isinstance(step, AddRule)]
        if remove or add:
            self._firewall.apply(remove=remove, add=add)
        for step in batch:
            if isinstance(step, EnableForwarding | OpenPassage | ClosePassage):
                self._change_host(step)
            elif not isinstance(step, AddRule | RemoveRule):
                self._change_link(step)

    def _change_host(self, step: HostAction) -> None:
        match step:
            case EnableForwarding():
                self._forwarding.enable()
            case OpenPassage() if self._passage:
                self._passage.open()
            case ClosePassage() if self._passage:
                self._passage.shut()

    def _change_link(self, step: LinkAction) -> None:
        match step:
            case RenameLink(ifindex=ifindex, new=new):
                self._links.rename(ifindex, new)
            case RemoveAltname(ifindex=ifindex, altname=altname):
                self._links.remove_altname(ifindex, altname)
            case AddAddress(ifindex=ifindex, interface=interface):
                self._links.add_address(ifindex, interface)
            case RemoveAddress(ifindex=ifindex, interface=interface):
                self._links.remove_address(ifindex, interface)
            case SetLinkUp(ifindex=ifindex):
                self._links.set_up(ifindex)
            case SetLinkDown(ifindex=ifindex):
                self._links.set_up(ifindex, up=False)
            case _:
                assert_never(step)


def _is_rule(step: Action) -> bool:
    return isinstance(step, AddRule | RemoveRule)


def _by_gadget(batch: Iterable[Action]) -> Iterator[list[Action]]:
    for _, part in groupby(sorted(batch, key=gadget_of), key=gadget_of):
        yield list(part)
