"""What the outside is told: each gadget's state and reason, and what changed since the last time.

Pure. The daemon writes ``to_json(status)`` to state.json and the events to the journal;
``otgctl`` makes the same from the kernel when no daemon runs, so both tell one story.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from enum import StrEnum
from typing import TYPE_CHECKING, Any

from otgd.describe import describe, slug
from otgd.events import Event, Kind
from otgd.identity import Sign, describe_signs, signs_of
from otgd.model import (
    LOOPBACK,
    AddAddress,
    Aspect,
    EnableForwarding,
    Masquerade,
    OpenPassage,
    SetLinkDown,
    gadget_of,
)
from otgd.reachability import Guest

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from otgd.model import (
        Action,
        DesiredState,
        Failure,
        GadgetSpec,
        ObservedLink,
        Plan,
        Report,
        UnknownLink,
    )
    from otgd.reachability import Verdict

VERSION = 1
"""Version of state.json's layout; grows only when a reader would have to change."""


class State(StrEnum):
    """A gadget's state."""

    ABSENT = "absent"
    BLOCKED = "blocked"
    CONFIGURED = "configured"
    REACHABLE = "reachable"
    FAILED = "failed"


@dataclass(frozen=True, slots=True, kw_only=True)
class GadgetStatus:
    """One gadget as it is.

    Attributes:
        reason: one sentence, never empty unless all that the config wants is there.
        mac: of its link; while it is absent the one in the config, None where there is none.
        known_by: the sign by which its link is known; None while it is absent.
        last_mac: of the last link that it had.
        mac_was: the MAC by which it was known before it had this link; empty if none is.
        ifindex: None while the gadget is absent.
        addresses: IPv4 addresses with prefix length.
        masquerade: whether a masquerade for it is in force.
        guest: whether its guest answers; None where that is not watched.
        bare: this without *guest*, as the pass left it; None in the bare one itself.
    """

    name: str
    state: State
    reason: str
    mac: str | None
    ifindex: int | None = None
    ifname: str = ""
    driver: str = ""
    port: str = ""
    serial: str = ""
    known_by: Sign | None = None
    last_mac: str = ""
    mac_was: str = ""
    addresses: tuple[str, ...] = ()
    masquerade: bool = False
    guest: Verdict | None = None
    bare: GadgetStatus | None = field(default=None, compare=False, repr=False)

    @property
    def identity(self) -> tuple[object, ...]:
        """What makes it another state for the one who reads the journal."""
        return self.state, self.reason, self.ifindex


@dataclass(frozen=True, slots=True, kw_only=True)
class Status:
    """Everything as it is, after a pass.

    Attributes:
        hub: the hub address that the config wants; empty when it wants none.
        hub_fault: why it cannot be had; empty when it can.
        fights: what somebody keeps undoing, beside what a gadget's reason tells.
        faults: why steps failed, beside what a gadget's reason tells.
    """

    gadgets: tuple[GadgetStatus, ...] = ()
    unknown: tuple[UnknownLink, ...] = ()
    uplink: str = ""
    uplink_fault: str = ""
    hub: str = ""
    hub_fault: str = ""
    forwarding: bool = False
    backend: str = ""
    backend_reason: str = ""
    fights: tuple[str, ...] = ()
    faults: tuple[str, ...] = ()

    @property
    def by_name(self) -> dict[str, GadgetStatus]:
        """The gadgets by their names, made anew at each call."""
        return {gadget.name: gadget for gadget in self.gadgets}

    @property
    def summary(self) -> str:
        """One line for ``systemctl status``."""
        counts = {
            state: sum(gadget.state is state for gadget in self.gadgets)
            for state in (State.CONFIGURED, State.REACHABLE, State.BLOCKED, State.FAILED)
        }
        up = counts.pop(State.CONFIGURED) + counts.pop(State.REACHABLE)
        parts = [f"{up} of {len(self.gadgets)} gadgets up"]
        parts += [f"{count} {state}" for state, count in counts.items() if count]
        if self.unknown:
            parts.append(f"{len(self.unknown)} unknown")
        parts.append(f"uplink {self.uplink}" if self.uplink else "no uplink")
        trouble = next((g for g in self.gadgets if g.state in (State.BLOCKED, State.FAILED)), None)
        if trouble:
            parts.append(f"{trouble.name}: {trouble.reason}")
        if self.hub_fault:
            parts.append(self.hub_fault)
        parts += self.faults[:1]
        return ", ".join(parts)


def make_status(
    desired: DesiredState,
    report: Report,
    *,
    backend: str,
    backend_reason: str = "",
    before: Status | None = None,
) -> Status:
    """Say what *report* means for each gadget of *desired*.

    Gadgets that the pass was not about are as they were *before*.
    """
    plan, observed = report.remaining, report.observed
    were = before.by_name if before else {}
    same = {} if report.gadgets is None else were.copy()
    for name in report.gadgets or ():
        same.pop(name, None)
    blocked: dict[str, dict[Aspect, str]] = {}
    for each in plan.blocked:
        blocked.setdefault(each.gadget, {})[each.aspect] = each.reason
    links = {link.ifindex: link for link in observed.links}
    bindings = dict(plan.bindings)
    present = [spec for spec in desired.gadgets if spec.name in bindings]
    masqueraded = {rule.gadget for rule in observed.rules if isinstance(rule, Masquerade)}
    return Status(
        gadgets=tuple(
            same.get(spec.name)
            or _gadget(
                spec,
                links.get(bindings.get(spec.name, -1)),
                report,
                blocked=blocked.get(spec.name, {}),
                masqueraded=spec.name in masqueraded,
                was=were.get(spec.name),
            )
            for spec in desired.gadgets
        ),
        unknown=plan.unknown,
        uplink=plan.uplink,
        uplink_fault=plan.uplink_fault,
        hub=str(desired.hub or ""),
        hub_fault=plan.hub_fault,
        forwarding=observed.forwarding,
        backend=backend,
        backend_reason=backend_reason,
        fights=tuple(sorted(_fights(present, report))),
        faults=tuple(sorted(_faults(present, report))),
    )


def with_guests(status: Status, verdicts: Mapping[str, Verdict], before: Status | None) -> Status:
    """Return *status*, which a pass left, with what is known of the guests.

    Gadgets of which nothing is new since *before* are the same values as there.
    """
    same = before.by_name if before else {}
    return replace(
        status,
        gadgets=tuple(
            _with_guest(gadget, verdicts.get(gadget.name), same.get(gadget.name))
            for gadget in status.gadgets
        ),
    )


def _with_guest(
    bare: GadgetStatus, verdict: Verdict | None, before: GadgetStatus | None
) -> GadgetStatus:
    if verdict is None or bare.state is not State.CONFIGURED:
        return bare
    if before is not None and before.bare is bare and before.guest is verdict:
        return before
    answers = verdict.guest is Guest.ANSWERS
    return replace(
        bare,
        state=State.REACHABLE if answers else State.CONFIGURED,
        reason=verdict.reason or bare.reason,
        guest=verdict,
        bare=bare,
    )


def _faults(present: list[GadgetSpec], report: Report) -> Iterator[str]:
    for failure in report.failures:
        if not any(_concerns(failure.step, spec) for spec in present):
            yield _cause(failure)


def _fights(present: list[GadgetSpec], report: Report) -> Iterator[str]:
    names = {link.ifindex: link.ifname for link in report.observed.links}
    for step in {contested.step for contested in report.contested}:
        if any(_concerns(step, spec) for spec in present):
            continue
        match step:
            case SetLinkDown(ifindex=ifindex):
                yield f"set {names.get(ifindex, f'ifindex {ifindex}')} down"
            case _:
                yield describe(step)


def _gadget(
    spec: GadgetSpec,
    link: ObservedLink | None,
    report: Report,
    *,
    blocked: dict[Aspect, str],
    masqueraded: bool,
    was: GadgetStatus | None,
) -> GadgetStatus:
    state, reason = _judge(spec, link, report, blocked)
    last_mac = was.last_mac if was else ""
    if link is None:
        return GadgetStatus(
            name=spec.name, state=state, reason=reason, mac=spec.mac, last_mac=last_mac
        )
    same_link = was is not None and (was.ifindex, was.mac) == (link.ifindex, link.mac)
    return GadgetStatus(
        name=spec.name,
        state=state,
        reason=reason,
        mac=link.mac,
        ifindex=link.ifindex,
        ifname=link.ifname,
        driver=link.driver,
        port=link.port,
        serial=link.serial,
        known_by=_sign(spec, link),
        last_mac=link.mac,
        mac_was=was.mac_was if was and same_link else last_mac or spec.mac or "",
        addresses=tuple(str(address.interface) for address in link.addresses),
        masquerade=masqueraded,
    )


def _sign(spec: GadgetSpec, link: ObservedLink) -> Sign:
    """Return the sign by which the link is known to be the gadget's."""
    shown = {Sign.MAC: "" if link.random_mac else link.mac, Sign.SERIAL: link.serial}
    return next((s for s, value in signs_of(spec).items() if shown.get(s) == value), Sign.PORT)


def _judge(
    spec: GadgetSpec, link: ObservedLink | None, report: Report, blocked: dict[Aspect, str]
) -> tuple[State, str]:
    if Aspect.LINK in blocked:
        return State.BLOCKED, blocked[Aspect.LINK]
    if link is None:
        return State.ABSENT, blocked.get(
            Aspect.PENDING, f"no link with {describe_signs(spec)} is there"
        )
    if trouble := _trouble(spec, report):
        return State.FAILED, trouble
    if Aspect.FIREWALL in blocked:
        return State.FAILED, blocked[Aspect.FIREWALL]
    if any(gadget_of(step) == spec.name for step in report.fresh):
        return State.ABSENT, f"its link {link.ifname} came a moment ago"
    return State.CONFIGURED, blocked.get(Aspect.UPLINK) or blocked.get(Aspect.HUB, "")


def _trouble(spec: GadgetSpec, report: Report) -> str:
    """Say what keeps the gadget from being as planned; empty if nothing does."""
    fought = {held.step for held in (*report.held, *report.contested)} | set(report.undone)
    # The same object whichever of them is in force just now, and not how often: one fight is told
    # once, also where the other one is met holding a lock.
    steps = sorted(describe(step) for step in fought if _concerns(step, spec))
    if steps:
        return f"{steps[0]}: somebody keeps undoing it"
    return next((_cause(f) for f in report.failures if _concerns(f.step, spec)), "")


def _cause(failure: Failure) -> str:
    return f"{failure.reason}, retrying" if failure.transient else failure.reason


def _concerns(step: Action, spec: GadgetSpec) -> bool:
    if isinstance(step, EnableForwarding | OpenPassage):
        return spec.is_forwarded
    return gadget_of(step) == spec.name


# --- events --------------------------------------------------------------------------------------


def events_between(old: Status | None, new: Status, report: Report) -> Iterator[Event]:
    """Yield what a reader of the journal has to know about the way from *old* to *new*.

    *old* is None at start; what is simply absent then is not worth a line. A quiet pass yields
    nothing.
    """
    before = old or Status(uplink=new.uplink)
    if new.uplink != before.uplink:
        yield _uplink_event(before, new)
    were, are = before.by_name, new.by_name
    for gadget in new.gadgets:
        was = were.get(gadget.name)
        if was is gadget:
            continue  # the pass was not about it
        yield from _recognized(was, gadget)
        if was is None or was.identity != gadget.identity:
            yield from _gadget_event(was, gadget, report.remaining)
        elif _surroundings(new) == _surroundings(before):  # else the steps follow those
            yield from _repairs(gadget, report)
    for dropped in before.gadgets:
        if dropped.name not in are and dropped.state is not State.ABSENT:
            text = f"{dropped.name}: no longer in the config"
            yield _event(Kind.GADGET_UNPLUGGED, dropped, text, State.ABSENT)
    yield from _host_events(before, new)
    yield from _hub_events(before, new, report)
    yield from (_step_event(step) for step in report.applied)


def guest_events(old: Status, new: Status) -> Iterator[Event]:
    """Yield what a reader of the journal has to know of the guests: lost, stuck, found again."""
    were = old.by_name
    for gadget in new.gadgets:
        was = were.get(gadget.name)
        if was is None or was is gadget or was.guest is None or gadget.guest is None:
            continue
        match was.guest.guest, gadget.guest.guest:
            case ((Guest.UNKNOWN | Guest.SILENT | Guest.ANSWERS), Guest.LOST):
                text = f"{gadget.name}: lost: {gadget.reason}"
                yield _event(Kind.GUEST_LOST, gadget, text)
            case ((Guest.SILENT | Guest.LOST), Guest.STUCK):
                text = f"{gadget.name}: stuck: {gadget.reason}"
                yield _event(Kind.LINK_STUCK, gadget, text)
            case ((Guest.LOST | Guest.STUCK), Guest.ANSWERS):
                text = f"{gadget.name}: found again: its guest {gadget.guest.address} answers"
                yield _event(Kind.GUEST_FOUND, gadget, text)
            case _:
                pass


def _host_events(old: Status, new: Status) -> Iterator[Event]:
    """Tell what no gadget's state tells."""
    known = {(link.ifindex, link.reason) for link in old.unknown}
    for link in new.unknown:
        if (link.ifindex, link.reason) not in known:
            yield _unknown_event(link)
    for fault in new.faults:
        if fault not in old.faults:
            yield Event(kind=Kind.STEP_FAILED, message=fault, fields={"OTGD_REASON": fault})
    for fight in new.fights:
        if fight not in old.fights:
            yield Event(kind=Kind.CONTESTED, message=f"{fight}: somebody keeps undoing it")


def _surroundings(status: Status) -> tuple[str, str, str]:
    """What every gadget's network follows."""
    return status.uplink, status.hub, status.hub_fault


def _hub_events(old: Status, new: Status, report: Report) -> Iterator[Event]:
    """Tell that the hub address cannot be had, or was put back."""
    if new.hub_fault and new.hub_fault != old.hub_fault:
        yield Event(
            kind=Kind.HUB_BLOCKED,
            message=f"{new.hub_fault}; members are spoken to from the ends of their cables",
            fields={"OTGD_REASON": new.hub_fault},
        )
    if _surroundings(new) != _surroundings(old):
        return
    for step in report.applied:
        if isinstance(step, AddAddress) and step.ifindex == LOOPBACK:
            text = f"hub: repaired: {describe(step)}"
            fields = {"INTERFACE": "lo", "OTGD_ACTION": slug(step)}
            yield Event(kind=Kind.REPAIRED, message=text, fields=fields)


def _uplink_event(old: Status, new: Status) -> Event:
    if not new.uplink:
        text = f"uplink {old.uplink} lost: {new.uplink_fault}"
        return Event(kind=Kind.UPLINK_LOST, message=text, fields={"INTERFACE": old.uplink})
    text = f"uplink is {new.uplink}" + (f", was {old.uplink}" if old.uplink else "")
    return Event(kind=Kind.UPLINK_CHANGED, message=text, fields={"INTERFACE": new.uplink})


def _gadget_event(was: GadgetStatus | None, now: GadgetStatus, plan: Plan) -> Iterator[Event]:
    match now.state:
        case State.ABSENT:
            if was is not None and was.state is not State.ABSENT:
                yield _event(Kind.GADGET_UNPLUGGED, was, f"{now.name}: unplugged", State.ABSENT)
        case State.BLOCKED:
            yield _event(Kind.GADGET_BLOCKED, now, f"{now.name}: blocked: {now.reason}")
        case State.FAILED:
            yield _event(Kind.GADGET_FAILED, now, f"{now.name}: failed: {now.reason}")
        case _:
            way_out = f"masquerade through {plan.uplink}" if now.masquerade else "no masquerade"
            where = f" (USB port {now.port})" if now.port else ""
            text = f"{now.name}: configured{where}: {', '.join(now.addresses)}, {way_out}"
            reason = f"; {now.reason}" if now.reason else ""
            yield _event(Kind.GADGET_CONFIGURED, now, text + reason)


def _recognized(was: GadgetStatus | None, now: GadgetStatus) -> Iterator[Event]:
    """Tell that a gadget came with another MAC than it had, and by what it is known all the same.

    The same link is told once.
    """
    known_by = now.known_by
    if known_by in (None, Sign.MAC) or now.mac_was in ("", now.mac):
        return
    if was is None or (was.ifindex, was.mac) != (now.ifindex, now.mac):
        where = now.serial if known_by is Sign.SERIAL else now.port
        text = f"{now.name}: known by its {known_by.words} {where}"
        text += f"; its MAC is {now.mac}, was {now.mac_was}"
        yield _event(Kind.GADGET_RECOGNIZED, now, text)


def _repairs(gadget: GadgetStatus, report: Report) -> Iterator[Event]:
    """Tell what was put back for a gadget that was, and is, as it should be."""
    if gadget.state in (State.CONFIGURED, State.REACHABLE):
        for step in report.applied:
            if gadget_of(step) == gadget.name:
                text = f"{gadget.name}: repaired: {describe(step)}"
                event = _event(Kind.REPAIRED, gadget, text)
                event.fields["OTGD_ACTION"] = slug(step)
                yield event


def _event(kind: Kind, gadget: GadgetStatus, message: str, state: State | None = None) -> Event:
    fields = {
        "INTERFACE": gadget.ifname or gadget.name,
        "OTGD_GADGET": gadget.name,
        "OTGD_MAC": gadget.mac or "",
        "OTGD_PORT": gadget.port,
        "OTGD_STATE": str(state or gadget.state),
        "OTGD_REASON": "" if state else gadget.reason,
    }
    return Event(kind=kind, message=message, fields=fields)


def _unknown_event(link: UnknownLink) -> Event:
    text = f"{link.ifname}: left alone: {link.reason} (MAC {link.mac}, driver {link.driver})"
    fields = {
        "INTERFACE": link.ifname,
        "OTGD_MAC": link.mac,
        "OTGD_PORT": link.port,
        "OTGD_REASON": link.reason,
    }
    return Event(kind=Kind.UNKNOWN_LINK, message=text, fields=fields)


def _step_event(step: Action) -> Event:
    fields = {"OTGD_ACTION": slug(step), "OTGD_GADGET": gadget_of(step)}
    return Event(kind=Kind.STEP_APPLIED, message=f"done: {describe(step)}", fields=fields)


# --- state.json ----------------------------------------------------------------------------------


def to_json(status: Status, report: Report, *, since: dict[str, str]) -> dict[str, Any]:
    """Return state.json's content but for the daemon's own facts (version, pid).

    *since* gives each gadget's time of its last change of state (RFC 3339, UTC) by name.
    """
    return {
        "version": VERSION,
        "uplink": status.uplink or None,
        "uplink_fault": status.uplink_fault or None,
        "firewall": {"backend": status.backend, "reason": status.backend_reason},
        "forwarding": status.forwarding,
        "hub": {"address": status.hub, "reason": status.hub_fault} if status.hub else None,
        "gadgets": gadget_facts(status, since),
        "unknown": [
            {
                "ifindex": link.ifindex,
                "ifname": link.ifname,
                "mac": link.mac,
                "driver": link.driver,
                "port": link.port or None,
                "serial": link.serial or None,
                "reason": link.reason,
            }
            for link in status.unknown
        ],
        "last_pass": {
            "duration_s": round(report.elapsed_s, 6),
            "steps": len(report.applied),
            "failures": [failure.reason for failure in report.failures],
        },
    }


def gadget_facts(status: Status, since: dict[str, str]) -> list[dict[str, Any]]:
    """Return state.json's entries for the gadgets."""
    return [
        {
            "name": gadget.name,
            "state": str(gadget.state),
            "reason": gadget.reason,
            "mac": gadget.mac,
            "ifindex": gadget.ifindex,
            "driver": gadget.driver or None,
            "port": gadget.port or None,
            "serial": gadget.serial or None,
            "known_by": gadget.known_by and str(gadget.known_by),
            "addresses": list(gadget.addresses),
            "masquerade": gadget.masquerade,
            "since": since.get(gadget.name),
        }
        for gadget in status.gadgets
    ]
