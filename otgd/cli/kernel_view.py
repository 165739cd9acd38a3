"""What the kernel holds and what a pass would make of it, looked at without any daemon.

Changes nothing and needs no root, except that only root can read the firewall.
"""

from __future__ import annotations

import os
from contextlib import closing
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from otgd import __version__
from otgd.describe import describe
from otgd.model import AddRule, ClosePassage, OpenPassage, RemoveRule, Report, gadget_of
from otgd.planner import make_plan
from otgd.reconciler import Reconciler
from otgd.status import State, make_status, to_json
from otgd.wiring import Kernel

if TYPE_CHECKING:
    from otgd.cli.installation import Installation
    from otgd.model import Config, DesiredState, ObservedState, Plan
    from otgd.status import GadgetStatus

FIREWALL_STEPS = AddRule | RemoveRule | OpenPassage | ClosePassage


@dataclass(frozen=True, slots=True, kw_only=True)
class KernelView:
    """One look.

    Attributes:
        hidden: why the firewall could not be looked at by this user; then nothing is said about
            rules. Empty when it could, or when otgd could not read it either.
    """

    desired: DesiredState
    observed: ObservedState
    plan: Plan
    backend: str
    hidden: str = ""


def look(installation: Installation, config: Config) -> KernelView:
    """Look at the kernel as the daemon does, or would if it ran with *config*.

    Raises:
        OtgdError: the kernel cannot be looked at.
    """
    with closing(Kernel(installation.settled(config), listen=False)) as kernel:
        reconciler = Reconciler(
            links=kernel.links,
            firewall=kernel.firewall,
            forwarding=kernel.forwarding,
            passage=kernel.passage,
        )
        observed = reconciler.observe()
        backend = kernel.firewall.name
    hidden = ""
    if os.geteuid() != 0 and (observed.firewall_fault or observed.passage_fault):
        hidden = "only root can read the firewall"
        observed = replace(observed, firewall_fault="", passage_fault="")
    plan = make_plan(config.desired, observed)
    if hidden:
        steps = tuple(s for s in plan.steps if not isinstance(s, FIREWALL_STEPS))
        plan = replace(plan, steps=steps)
    return KernelView(
        desired=config.desired, observed=observed, plan=plan, backend=backend, hidden=hidden
    )


def state_of(view: KernelView) -> dict[str, Any]:
    """Return the view in state.json's layout; what only a daemon knows is None."""
    report = Report(remaining=view.plan, observed=view.observed)
    status = make_status(view.desired, report, backend=view.backend)
    gadgets = tuple(_unserved(gadget, view.plan) for gadget in status.gadgets)
    state = to_json(replace(status, gadgets=gadgets), report, since={})
    if view.hidden:
        for gadget in state["gadgets"]:
            gadget["masquerade"] = None
    own = {"otgd_version": __version__, "pid": None, "config_fault": None}
    return {**own, **state, "last_pass": None}


def _unserved(gadget: GadgetStatus, plan: Plan) -> GadgetStatus:
    """Say what is missing, where only a daemon would see to it."""
    missing = [step for step in plan.steps if gadget_of(step) == gadget.name]
    if gadget.state is not State.CONFIGURED or not missing:
        return gadget
    more = f" and {len(missing) - 1} more" if len(missing) > 1 else ""
    reason = f"not done: {describe(missing[0])}{more}, see otgctl plan"
    return replace(gadget, state=State.FAILED, reason=reason)
