"""What people and programs are told: states and reasons, the journal's events, state.json."""

from __future__ import annotations

import json
from dataclasses import replace
from ipaddress import IPv4Address, IPv4Interface
from typing import TYPE_CHECKING

import pytest

from otgd.events import Event, Kind
from otgd.model import (
    LOOPBACK,
    Action,
    AddAddress,
    AddRoute,
    AddRule,
    Aspect,
    Blocked,
    DesiredState,
    EnableForwarding,
    Failure,
    GadgetSpec,
    Held,
    Masquerade,
    ObservedAddress,
    ObservedLink,
    ObservedState,
    OpenPassage,
    Plan,
    RemoveAddress,
    RemoveRule,
    Report,
    SetLinkDown,
    UnknownLink,
)
from otgd.status import State, Status, events_between, make_status, to_json

if TYPE_CHECKING:
    from otgd.status import GadgetStatus

ADDRESS = IPv4Interface("10.0.11.1/24")
MAC = "00:22:82:ff:ff:01"
ZERO = GadgetSpec(name="ethusb1", mac=MAC, host=ADDRESS, guest=IPv4Address("10.0.11.2"))
ISOLATED = replace(ZERO, masquerade=False, isolate=True)
LINK = ObservedLink(
    ifindex=4,
    ifname="ethusb1",
    mac=MAC,
    driver="cdc_ether",
    port="1-1.2",
    up=True,
    addresses=(ObservedAddress(interface=ADDRESS, owned=True),),
)
MASQUERADE = Masquerade(gadget="ethusb1", subnet=ZERO.subnet, uplink="eth0")
ADD_ADDRESS = AddAddress(gadget="ethusb1", ifindex=4, interface=ADDRESS)
DROP_ADDRESS = RemoveAddress(gadget="", ifindex=4, interface=ADDRESS)
STRANGER = UnknownLink(
    ifindex=9,
    ifname="usb0",
    mac="00:22:82:ff:ff:09",
    driver="cdc_ether",
    port="1-1.3",
    reason="no entry of the config has its MAC",
)

ABSENT = Report(remaining=Plan(uplink="eth0"))
UP = Report(
    remaining=Plan(bindings=(("ethusb1", 4),), uplink="eth0"),
    observed=ObservedState(links=(LINK,), rules=frozenset({MASQUERADE}), forwarding=True),
)
BLOCKED = Report(
    remaining=replace(UP.remaining, blocked=(Blocked(gadget="ethusb1", reason="an overlap"),)),
    observed=UP.observed,
)
FAILING = replace(
    UP, failures=(Failure(step=ADD_ADDRESS, reason="add it: not permitted", transient=False),)
)


def blocked(reason: str, aspect: Aspect, *, bound: bool = True) -> Report:
    entry = Blocked(gadget="ethusb1", reason=reason, aspect=aspect)
    bindings = UP.remaining.bindings if bound else ()
    return replace(UP, remaining=replace(UP.remaining, blocked=(entry,), bindings=bindings))


def status(report: Report, *specs: GadgetSpec) -> Status:
    return make_status(
        DesiredState(gadgets=specs or (ZERO,)),
        report,
        backend="nftables",
        backend_reason="of old habit",
    )


def the_gadget(report: Report, spec: GadgetSpec = ZERO) -> GadgetStatus:
    (gadget,) = status(report, spec).gadgets
    return gadget


def held(step: Action, undone: int = 9) -> Held:
    return Held(step=step, undone=undone, wait_s=0.4)


# --- states --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("report", "state", "reason"),
    [
        (ABSENT, State.ABSENT, "no link with MAC 00:22:82:ff:ff:01 is there"),
        (blocked("udev is at it", Aspect.PENDING, bound=False), State.ABSENT, "udev is at it"),
        (UP, State.CONFIGURED, ""),
        (BLOCKED, State.BLOCKED, "an overlap"),
        (blocked("no way out", Aspect.UPLINK), State.CONFIGURED, "no way out"),
        (blocked("no packet filter", Aspect.FIREWALL), State.FAILED, "no packet filter"),
        (FAILING, State.FAILED, "add it: not permitted"),
        (
            replace(UP, failures=(Failure(step=ADD_ADDRESS, reason="it: busy", transient=True),)),
            State.FAILED,
            "it: busy, retrying",
        ),
        (
            replace(UP, failures=(Failure(step=DROP_ADDRESS, reason="busy", transient=True),)),
            State.CONFIGURED,
            "",
        ),
        (
            replace(UP, held=(held(ADD_ADDRESS),)),
            State.FAILED,
            "add address 10.0.11.1/24 to ethusb1: somebody keeps undoing it",
        ),
        (
            replace(UP, undone=(ADD_ADDRESS,)),
            State.FAILED,
            "add address 10.0.11.1/24 to ethusb1: somebody keeps undoing it",
        ),
        (replace(UP, fresh=(ADD_ADDRESS,)), State.ABSENT, "its link ethusb1 came a moment ago"),
        (replace(UP, fresh=(DROP_ADDRESS,)), State.CONFIGURED, ""),
    ],
    ids=[
        *("absent", "pending", "configured", "blocked", "no uplink", "no firewall", "refused"),
        *("busy", "another's failure", "fought over", "undone", "came late", "another came late"),
    ],
)
def test_state_and_reason(report: Report, state: State, reason: str) -> None:
    gadget = the_gadget(report)
    assert (gadget.state, gadget.reason) == (state, reason)


@pytest.mark.parametrize("step", [EnableForwarding(), OpenPassage()], ids=["forward", "passage"])
def test_what_serves_all_concerns_who_is_forwarded(step: Action) -> None:
    report = replace(UP, failures=(Failure(step=step, reason="not permitted", transient=False),))
    assert the_gadget(report).state is State.FAILED
    assert the_gadget(report, ISOLATED).state is State.CONFIGURED


def test_a_fight_reads_the_same_however_often_it_was_lost() -> None:
    """Else each round of it would be news, in the journal and in state.json."""
    rounds = [the_gadget(replace(UP, held=(held(ADD_ADDRESS, n),))) for n in (8, 9, 200)]
    assert len({gadget.identity for gadget in rounds}) == 1


def test_a_gadget_shows_what_the_kernel_has() -> None:
    gadget = the_gadget(UP)
    assert (gadget.ifindex, gadget.ifname, gadget.driver, gadget.port) == (
        *(4, "ethusb1"),
        *("cdc_ether", "1-1.2"),
    )
    assert gadget.addresses == ("10.0.11.1/24",)
    assert gadget.masquerade
    assert not the_gadget(replace(UP, observed=replace(UP.observed, rules=frozenset()))).masquerade


@pytest.mark.parametrize(
    ("report", "summary"),
    [
        (UP, "1 of 1 gadgets up, uplink eth0"),
        (ABSENT, "0 of 1 gadgets up, uplink eth0"),
        (BLOCKED, "0 of 1 gadgets up, 1 blocked, uplink eth0, ethusb1: an overlap"),
        (FAILING, "0 of 1 gadgets up, 1 failed, uplink eth0, ethusb1: add it: not permitted"),
        (
            Report(remaining=Plan(unknown=(STRANGER,), uplink_fault="none")),
            "0 of 1 gadgets up, 1 unknown, no uplink",
        ),
    ],
    ids=["up", "absent", "blocked", "failed", "unknown"],
)
def test_summary(report: Report, summary: str) -> None:
    assert status(report).summary == summary


# --- events --------------------------------------------------------------------------------------


def told(old: Report | None, new: Report) -> list[Event]:
    before = None if old is None else status(old)
    return list(events_between(before, status(new), new))


def lines(old: Report | None, new: Report) -> list[tuple[Kind, str]]:
    return [(event.kind, event.message) for event in told(old, new)]


CONFIGURED_LINE = "ethusb1: configured (USB port 1-1.2): 10.0.11.1/24, masquerade through eth0"


@pytest.mark.parametrize(
    ("old", "new", "expected"),
    [
        (None, ABSENT, []),
        (None, UP, [(Kind.GADGET_CONFIGURED, CONFIGURED_LINE)]),
        (ABSENT, UP, [(Kind.GADGET_CONFIGURED, CONFIGURED_LINE)]),
        (UP, UP, []),
        (UP, ABSENT, [(Kind.GADGET_UNPLUGGED, "ethusb1: unplugged")]),
        (ABSENT, BLOCKED, [(Kind.GADGET_BLOCKED, "ethusb1: blocked: an overlap")]),
        (BLOCKED, BLOCKED, []),
        (UP, FAILING, [(Kind.GADGET_FAILED, "ethusb1: failed: add it: not permitted")]),
        (FAILING, UP, [(Kind.GADGET_CONFIGURED, CONFIGURED_LINE)]),
        (
            UP,
            blocked("no way out: none", Aspect.UPLINK),
            [(Kind.GADGET_CONFIGURED, f"{CONFIGURED_LINE}; no way out: none")],
        ),
    ],
    ids=[
        *("absent at start", "there at start", "plug", "quiet", "unplug", "block", "still blocked"),
        *("fail", "recover", "lose the way out"),
    ],
)
def test_a_change_is_told_once(
    old: Report | None, new: Report, expected: list[tuple[Kind, str]]
) -> None:
    assert lines(old, new) == expected


def test_a_replug_between_two_looks_is_told() -> None:
    again = replace(
        UP,
        remaining=replace(UP.remaining, bindings=(("ethusb1", 5),)),
        observed=replace(UP.observed, links=(replace(LINK, ifindex=5),)),
    )
    assert lines(UP, again) == [(Kind.GADGET_CONFIGURED, CONFIGURED_LINE)]


def test_what_is_put_back_is_told_as_repair_and_step() -> None:
    repair, step = told(UP, replace(UP, applied=(ADD_ADDRESS, EnableForwarding())))[:2]
    assert repair.kind is Kind.REPAIRED
    assert repair.message == "ethusb1: repaired: add address 10.0.11.1/24 to ethusb1"
    assert repair.fields["OTGD_ACTION"] == "add-address"
    assert (step.kind, step.message) == (
        Kind.STEP_APPLIED,
        "done: add address 10.0.11.1/24 to ethusb1",
    )


def test_a_blocked_gadget_is_not_repaired() -> None:
    assert Kind.REPAIRED not in {
        k for k, _ in lines(BLOCKED, replace(BLOCKED, applied=(ADD_ADDRESS,)))
    }


def test_a_plug_is_no_repair() -> None:
    steps = (AddRule(rule=MASQUERADE), ADD_ADDRESS)
    kinds = [kind for kind, _ in lines(ABSENT, replace(UP, applied=steps))]
    assert kinds == [Kind.GADGET_CONFIGURED, Kind.STEP_APPLIED, Kind.STEP_APPLIED]


def test_every_event_of_a_gadget_carries_its_fields() -> None:
    (event,) = told(ABSENT, UP)
    assert event.fields == {
        "INTERFACE": "ethusb1",
        "OTGD_GADGET": "ethusb1",
        "OTGD_MAC": "00:22:82:ff:ff:01",
        "OTGD_PORT": "1-1.2",
        "OTGD_STATE": "configured",
        "OTGD_REASON": "",
    }


def test_an_unplug_names_the_port_that_the_gadget_left() -> None:
    (event,) = told(BLOCKED, ABSENT)
    assert event.fields["OTGD_PORT"] == "1-1.2"
    assert event.fields["OTGD_STATE"] == "absent"
    assert event.fields["OTGD_REASON"] == ""


def test_a_gadget_that_left_the_config_is_told_unless_it_was_absent() -> None:
    (event,) = events_between(status(UP), Status(uplink="eth0"), Report())
    assert event.message == "ethusb1: no longer in the config"
    assert event.fields["OTGD_STATE"] == "absent"
    assert not list(events_between(status(ABSENT), Status(uplink="eth0"), Report()))


def test_a_link_without_an_entry_is_told_once_for_each_reason() -> None:
    one = replace(ABSENT, remaining=replace(ABSENT.remaining, unknown=(STRANGER,)))
    (event,) = told(ABSENT, one)
    assert event.kind is Kind.UNKNOWN_LINK
    assert event.message == (
        "usb0: left alone: no entry of the config has its MAC "
        "(MAC 00:22:82:ff:ff:09, driver cdc_ether)"
    )
    assert event.fields["OTGD_PORT"] == "1-1.3"
    assert told(one, one) == []
    renamed = replace(STRANGER, ifname="eth1")
    assert told(one, replace(one, remaining=replace(one.remaining, unknown=(renamed,)))) == []
    other = replace(STRANGER, reason="another reason")
    assert len(told(one, replace(one, remaining=replace(one.remaining, unknown=(other,))))) == 1


@pytest.mark.parametrize(
    ("old", "new", "expected"),
    [
        ("", "eth0", (Kind.UPLINK_CHANGED, "uplink is eth0")),
        ("eth0", "wlan0", (Kind.UPLINK_CHANGED, "uplink is wlan0, was eth0")),
        ("eth0", "", (Kind.UPLINK_LOST, "uplink eth0 lost: no default route")),
    ],
    ids=["found", "moved", "lost"],
)
def test_the_uplink(old: str, new: str, expected: tuple[Kind, str]) -> None:
    before = Report(remaining=Plan(uplink=old))
    after = Report(remaining=Plan(uplink=new, uplink_fault="" if new else "no default route"))
    assert lines(before, after) == [expected]
    assert lines(None, after) == []


def test_a_fight_that_is_no_gadgets_is_told_once() -> None:
    quarantine = SetLinkDown(gadget="", ifindex=4)
    names = replace(UP.observed, links=(replace(LINK, ifname="usb0"),))
    fight = replace(ABSENT, observed=names, contested=(held(quarantine), held(DROP_ADDRESS)))
    assert lines(ABSENT, fight) == [
        (
            Kind.CONTESTED,
            "remove address 10.0.11.1/24 from ifindex 4: somebody keeps undoing it",
        ),
        (Kind.CONTESTED, "set usb0 down: somebody keeps undoing it"),
    ]
    assert lines(fight, fight) == []
    assert status(replace(UP, contested=(held(ADD_ADDRESS),))).fights == ()


def test_a_failure_that_is_no_gadgets_is_told_once() -> None:
    """What is left behind by an unplug must not be so in silence."""
    cause = "remove masquerade of 10.0.11.0/24 through eth0: the lock is held"
    step = RemoveRule(rule=MASQUERADE)
    left = replace(ABSENT, failures=(Failure(step=step, reason=cause, transient=True),))
    assert lines(ABSENT, left) == [(Kind.STEP_FAILED, f"{cause}, retrying")]
    assert lines(left, left) == []
    assert status(left).summary == f"0 of 1 gadgets up, uplink eth0, {cause}, retrying"
    assert status(replace(left, remaining=UP.remaining, observed=UP.observed)).faults == ()


# --- the hub -------------------------------------------------------------------------------------

HUB = IPv4Interface("10.0.10.1/32")
MEMBER = replace(ZERO, via_hub=True)
HUB_FAULT = "hub address 10.0.10.1 is in the address 10.0.10.0/24 of eth0"
ADD_HUB = AddAddress(gadget="", ifindex=LOOPBACK, interface=HUB)
ADD_ROUTE = AddRoute(gadget="ethusb1", ifindex=4, subnet=ZERO.subnet, source=HUB.ip)
NO_HUB = replace(
    UP,
    remaining=replace(
        UP.remaining,
        hub_fault=HUB_FAULT,
        blocked=(Blocked(gadget="ethusb1", reason=HUB_FAULT, aspect=Aspect.HUB),),
    ),
)


def hub_status(report: Report, hub: IPv4Address | None = HUB.ip) -> Status:
    return make_status(DesiredState(gadgets=(MEMBER,), hub=hub), report, backend="nftables")


def hub_lines(old: Status, report: Report) -> list[tuple[Kind, str]]:
    events = events_between(old, hub_status(report), report)
    return [(event.kind, event.message) for event in events]


def test_the_hub_is_in_state_json_with_what_is_wrong() -> None:
    hub = {"address": "10.0.10.1", "reason": ""}
    assert to_json(hub_status(UP), UP, since={})["hub"] == hub
    assert to_json(hub_status(NO_HUB), NO_HUB, since={})["hub"] == {**hub, "reason": HUB_FAULT}


def test_a_hub_that_cannot_be_had_is_told_once_and_stays_in_the_summary() -> None:
    gadget, hub = hub_lines(hub_status(UP), NO_HUB)
    assert gadget[0] is Kind.GADGET_CONFIGURED
    assert gadget[1].endswith(f"; {HUB_FAULT}")
    text = f"{HUB_FAULT}; members are spoken to from the ends of their cables"
    assert hub == (Kind.HUB_BLOCKED, text)
    assert hub_lines(hub_status(NO_HUB), NO_HUB) == []
    assert hub_status(NO_HUB).summary == f"1 of 1 gadgets up, uplink eth0, {HUB_FAULT}"
    assert hub_lines(hub_status(NO_HUB), UP)[0][0] is Kind.GADGET_CONFIGURED


def test_what_is_put_back_for_the_hub_is_told_as_repair() -> None:
    report = replace(UP, applied=(ADD_HUB, ADD_ROUTE))
    assert [line for line in hub_lines(hub_status(UP), report) if line[0] is Kind.REPAIRED] == [
        (Kind.REPAIRED, "ethusb1: repaired: route 10.0.11.0/24 to ethusb1 from 10.0.10.1"),
        (Kind.REPAIRED, "hub: repaired: add address 10.0.10.1/32 to lo"),
    ]


def test_a_new_hub_is_no_repair() -> None:
    report = replace(UP, applied=(ADD_HUB, ADD_ROUTE))
    kinds = {kind for kind, _ in hub_lines(hub_status(UP, hub=None), report)}
    assert kinds == {Kind.STEP_APPLIED}


# --- state.json ----------------------------------------------------------------------------------


def test_state_json() -> None:
    report = replace(
        FAILING,
        remaining=replace(UP.remaining, unknown=(STRANGER,)),
        applied=(ADD_ADDRESS,),
        elapsed_s=0.00123456789,
    )
    state = to_json(status(report), report, since={"ethusb1": "2026-01-01T00:00:00.000Z"})
    assert json.loads(json.dumps(state)) == {
        "version": 1,
        "uplink": "eth0",
        "uplink_fault": None,
        "firewall": {"backend": "nftables", "reason": "of old habit"},
        "forwarding": True,
        "hub": None,
        "gadgets": [
            {
                "name": "ethusb1",
                "state": "failed",
                "reason": "add it: not permitted",
                "mac": "00:22:82:ff:ff:01",
                "ifindex": 4,
                "driver": "cdc_ether",
                "port": "1-1.2",
                "serial": None,
                "known_by": "mac",
                "addresses": ["10.0.11.1/24"],
                "masquerade": True,
                "since": "2026-01-01T00:00:00.000Z",
            }
        ],
        "unknown": [
            {
                "ifindex": 9,
                "ifname": "usb0",
                "mac": "00:22:82:ff:ff:09",
                "driver": "cdc_ether",
                "port": "1-1.3",
                "serial": None,
                "reason": "no entry of the config has its MAC",
            }
        ],
        "last_pass": {
            "duration_s": 0.001235,
            "steps": 1,
            "failures": ["add it: not permitted"],
        },
    }


def test_what_is_not_there_is_null_in_state_json() -> None:
    report = Report()
    state = to_json(status(report), report, since={})
    assert state["uplink"] is None
    (gadget,) = state["gadgets"]
    nothing = ("ifindex", "driver", "port", "since")
    assert [gadget[key] for key in nothing] == [None] * 4
