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
from otgd.errors import PermanentError, TransientError
from otgd.model import (
    Action,
    AddAddress,
    AddRoute,
    AddRule,
    Aspect,
    ClosePassage,
    DesiredState,
    EnableForwarding,
    Failure,
    Forward,
    Held,
    HostAction,
    LinkAction,
    ObservedState,
    OpenPassage,
    Plan,
    RemoveAddress,
    RemoveAltname,
    RemoveRoute,
    RemoveRule,
    RenameLink,
    Report,
    SetLinkDown,
    SetLinkUp,
    gadget_of,
)
from otgd.planner import make_plan
from otgd.view import NothingInTheWay, Seen, View

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

    def begin_again(self) -> None:
        """Forget all but what worked: more is known now, and every step deserves a try."""
        self.tried = set(self.applied)
        self.held.clear()
        self.failures.clear()
        self.skipped.clear()
        self.broken.clear()


class Reconciler:
    """Makes the kernel hold what is desired, one pass at a time.

    Args:
        before_look: called before each look at the kernel; forgets the triggers that the look
            will answer, so that only what happens later asks for another pass. Returns the
            ifindexes that they named, or None if they were about anything else.
        clock: monotonic seconds.
    """

    def __init__(
        self,
        *,
        links: LinkPort,
        firewall: FirewallPort,
        forwarding: ForwardingPort,
        passage: PassagePort | None = None,
        before_look: Callable[[], frozenset[int] | None] = lambda: None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._passage = passage or NothingInTheWay()
        self._view = View(
            links=links, firewall=firewall, forwarding=forwarding, passage=self._passage
        )
        self._links = links
        self._firewall = firewall
        self._forwarding = forwarding
        self._before_look = before_look
        self._clock = clock
        self._damper = Damper()
        self._bindings: dict[str, int] = {}
        self._was_plain = False

    def observe(self) -> ObservedState:
        """Look at everything, and change nothing.

        Raises:
            OtgdError: the links cannot be seen; without them there is nothing to plan.
        """
        self._before_look()
        return self._view.look(DesiredState()).observed

    def has_settled(self, ifindexes: Iterable[int]) -> bool:
        """Tell whether the last pass saw these links initialized and up, and left nothing to do."""
        return self._was_plain and self._view.has_settled(ifindexes)

    def run_pass(self, desired: DesiredState, *, everything: bool = True) -> Report:
        """Bring the kernel to *desired* as far as it goes now.

        Args:
            desired: what it shall hold.
            everything: look at everything; otherwise only at what events named, if that is
                enough. Trouble of any kind, now or in the last pass, makes it everything.

        Raises:
            OtgdError: the kernel cannot be looked at.
        """
        started = self._clock()
        outcome = _Outcome()
        everything |= not self._was_plain
        self._was_plain = False  # and stays so if this pass does not come to its end
        seen, plan = self._look(desired, outcome, everything=everything)
        if seen.is_unchanged:  # most events tell of what we did ourselves
            self._was_plain = True
            return Report(idle=True, gadgets=seen.gadgets, elapsed_s=self._clock() - started)
        self._damper.missed(plan.steps, self._clock())
        fresh = plan.steps
        for _ in range(ROUNDS):
            if fresh:
                self._apply(fresh, outcome)
            elif seen.gadgets is None or _is_plain(plan, outcome):
                break
            else:
                outcome.begin_again()
            # Steps were taken, and are verified; or a part shows trouble, and the whole is asked.
            seen, plan = self._look(
                desired, outcome, everything=not fresh or seen.gadgets is None, also=seen.gadgets
            )
            fresh = tuple(step for step in plan.steps if step not in outcome.tried)
        undone = tuple(s for s in plan.steps if s in outcome.tried and s in outcome.applied)
        self._damper.missed(undone, self._clock(), at_once=True)
        contested = tuple(self._damper.contested(self._clock()).values())
        self._was_plain = not (fresh or contested) and _is_plain(plan, outcome)
        return Report(
            applied=tuple(outcome.applied),
            failures=tuple(outcome.failures),
            skipped=tuple(outcome.skipped),
            held=tuple(outcome.held.values()),
            contested=contested,
            undone=undone,
            fresh=fresh,
            remaining=plan,
            observed=seen.observed,
            gadgets=seen.gadgets,
            elapsed_s=self._clock() - started,
        )

    def _look(
        self,
        desired: DesiredState,
        outcome: _Outcome,
        *,
        everything: bool,
        also: frozenset[str] | None = None,
    ) -> tuple[Seen, Plan]:
        """Look, and plan for what was seen."""
        touched = self._before_look()
        seen = None
        if not everything and touched is not None and self._view.is_plain:
            seen = self._view.glance(desired, touched, also or ())
        if seen is None:
            seen = self._view.look(desired)
        if seen.is_unchanged:
            return seen, Plan()
        plan = make_plan(seen.desired, seen.observed)
        self._forget_replugged(plan, seen.gadgets, outcome)
        return seen, plan

    def _forget_replugged(
        self, plan: Plan, gadgets: frozenset[str] | None, outcome: _Outcome
    ) -> None:
        """A gadget on another link than before starts afresh: that is no fight, however often."""
        now = dict(plan.bindings)
        before = self._bindings
        names = before.keys() | now.keys() if gadgets is None else gadgets
        changed = {name for name in names if before.get(name) != now.get(name)}
        if changed:
            self._bindings = {n: i for n, i in before.items() if n not in changed}
            self._bindings |= {n: i for n, i in now.items() if n in changed}
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
                outcome.skipped += [step for step in part if gadget_of(step) in outcome.broken]
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
            # come in a moment is waited for, since older flows would never be masqueraded. Without
            # the rule that isolates it, a gadget would not be isolated.
            if transient or not _is_rule(step) or _isolates(step):
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
            case OpenPassage():
                self._passage.open()
            case ClosePassage():
                self._passage.shut()
            case _:
                assert_never(step)

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
            case AddRoute(ifindex=ifindex, subnet=subnet, source=source):
                self._links.add_route(ifindex, subnet, source)
            case RemoveRoute(ifindex=ifindex, subnet=subnet, source=source):
                self._links.remove_route(ifindex, subnet, source)
            case SetLinkUp(ifindex=ifindex):
                self._links.set_up(ifindex)
            case SetLinkDown(ifindex=ifindex):
                self._links.set_up(ifindex, up=False)
            case _:
                assert_never(step)


def _is_plain(plan: Plan, outcome: _Outcome) -> bool:
    """Tell whether there is no trouble in which one gadget may depend on another.

    A missing uplink is none: it is in the background, which is looked at as a whole.
    """
    blocked = any(blocked.aspect is not Aspect.UPLINK for blocked in plan.blocked)
    rivals = any(link.rival_of for link in plan.unknown)
    troubled = blocked or rivals or plan.hub_fault
    return not (troubled or plan.steps or outcome.failures or outcome.held)


def _isolates(step: Action) -> bool:
    return isinstance(step, AddRule) and isinstance(step.rule, Forward) and not step.rule.to_peers


def _is_rule(step: Action) -> bool:
    return isinstance(step, AddRule | RemoveRule)


def _by_gadget(batch: Iterable[Action]) -> Iterator[list[Action]]:
    for _, part in groupby(sorted(batch, key=gadget_of), key=gadget_of):
        yield list(part)
