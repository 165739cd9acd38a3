"""``otgctl schema``: JSON Schemas of what programs may read."""

from __future__ import annotations

from typing import Any

import click

from otgd.cli.printing import print_json
from otgd.diagnosis.findings import Mark
from otgd.identity import Sign
from otgd.metrics import TRAFFIC
from otgd.status import VERSION, State

DRAFT = "https://json-schema.org/draft/2020-12/schema"


def _table(meaning: str, /, optional: tuple[str, ...] = (), **properties: Any) -> dict[str, Any]:  # noqa: ANN401
    """Return the schema of an object; readers must expect further keys in a later release."""
    return {
        "description": meaning,
        "type": "object",
        "properties": properties,
        "required": [key for key in properties if key not in optional],
    }


def _is(kind: str | list[str], meaning: str, **more: Any) -> dict[str, Any]:  # noqa: ANN401
    return {"description": meaning, "type": kind, **more}


def _list_of(items: dict[str, Any], meaning: str) -> dict[str, Any]:
    return {"description": meaning, "type": "array", "items": items}


MAC = {"pattern": "^[0-9a-f]{2}(:[0-9a-f]{2}){5}$"}

GADGET = _table(
    "A gadget of the config.",
    name=_is("string", "Its name and its link's."),
    state=_is("string", "Its state.", enum=[str(state) for state in State]),
    reason=_is("string", "Why it is not as the config wants it; empty if it is."),
    mac=_is(
        ["string", "null"],
        "Its link's MAC; while it is absent, the one in the config, null if that has none.",
        **MAC,
    ),
    ifindex=_is(["integer", "null"], "Its link; null while it is absent."),
    driver=_is(["string", "null"], "Its link's driver."),
    port=_is(["string", "null"], "Its USB port's path, such as 1-1.2."),
    serial=_is(["string", "null"], "Its USB device's serial number; null where it has none."),
    known_by=_is(
        ["string", "null"],
        "The best sign by which its link is known; null while it is absent.",
        enum=[*(str(sign) for sign in Sign), None],
    ),
    addresses=_list_of(_is("string", "An IPv4 address with prefix length."), "Of its link."),
    masquerade=_is(
        ["boolean", "null"],
        "Whether a masquerade for it is in force; null where otgctl status may not see.",
    ),
    since=_is(["string", "null"], "Since when it is in its state.", format="date-time"),
)

UNKNOWN = _table(
    "A link of a gadget driver that no entry of the config names.",
    ifindex=_is("integer", "Its index."),
    ifname=_is("string", "Its name."),
    mac=_is("string", "Its MAC."),
    driver=_is("string", "Its driver."),
    port=_is(["string", "null"], "Its USB port's path."),
    serial=_is(["string", "null"], "Its USB device's serial number."),
    reason=_is("string", "Why it is nobody's."),
)

LAST_PASS = _table(
    "The last pass that changed something or failed.",
    duration_s=_is("number", "Its duration in seconds.", minimum=0),
    steps=_is("integer", "How many steps it took.", minimum=0),
    failures=_list_of(_is("string", "A reason."), "Its steps that failed."),
)

STATE = {
    "$schema": DRAFT,
    "title": "/run/otgd/state.json, and otgctl status --json",
    **_table(
        "What otgd keeps and what it sees. A new version means that readers must change.",
        optional=("running", "hub"),
        version={"const": VERSION},
        otgd_version=_is("string", "The version of the program."),
        pid=_is(["integer", "null"], "The daemon's process; null where it does not run."),
        running=_is("boolean", "Whether otgd runs; only told by otgctl status."),
        config_fault=_is(
            ["string", "null"], "Why the config was refused at the last reload; null if it was not."
        ),
        uplink=_is(["string", "null"], "The link that leads to the Internet."),
        uplink_fault=_is(["string", "null"], "Why there is none."),
        firewall=_table(
            "The packet filter.",
            backend=_is("string", "iptables or nftables."),
            reason=_is("string", "Why this one."),
        ),
        forwarding=_is("boolean", "net.ipv4.ip_forward."),
        hub={
            "anyOf": [
                _table(
                    "The host's own address in a swarm, on lo.",
                    address=_is("string", "An IPv4 address."),
                    reason=_is("string", "Why it cannot be had; empty if it can."),
                ),
                {"type": "null"},
            ]
        },
        gadgets=_list_of(GADGET, "Every gadget of the config, in its order."),
        unknown=_list_of(UNKNOWN, "Links left alone."),
        last_pass={"anyOf": [LAST_PASS, {"type": "null"}]},
    ),
}

PLAN = {
    "$schema": DRAFT,
    "title": "otgctl plan --json",
    **_table(
        "What otgd would do now.",
        converged=_is("boolean", "Whether there is nothing to do."),
        steps=_list_of(
            _table(
                "A step.",
                action=_is("string", "Its kind, such as add-address."),
                gadget=_is(["string", "null"], "Whom it serves."),
                text=_is("string", "What it does, in words."),
            ),
            "In their order.",
        ),
        blocked=_list_of(
            _table(
                "What cannot be had now.",
                gadget=_is("string", "Whose."),
                aspect=_is("string", "Which part of its network."),
                reason=_is("string", "Why."),
            ),
            "By gadget.",
        ),
        unknown=_list_of(
            _table(
                "A link left alone.",
                ifname=_is("string", "Its name."),
                mac=_is("string", "Its MAC."),
                driver=_is("string", "Its driver."),
                reason=_is("string", "Why."),
            ),
            "Links left alone.",
        ),
        uplink=_is(["string", "null"], "The link that leads to the Internet."),
        uplink_fault=_is(["string", "null"], "Why there is none."),
        hub_fault=_is(["string", "null"], "Why the hub address of [swarm] cannot be had."),
        left_out=_is(["string", "null"], "What this user may not see."),
    ),
}

FINDING = _table(
    "One thing that a check found.",
    check=_is("string", "The check."),
    gadget=_is(["string", "null"], "Whom it is about; null for the host."),
    mark=_is("string", "How it is.", enum=[str(mark) for mark in Mark]),
    what=_is("string", "What is so."),
    why=_is(["string", "null"], "What that does, or where it comes from."),
    remedy=_is(["string", "null"], "What to type."),
)

DOCTOR = {
    "$schema": DRAFT,
    "title": "otgctl doctor --json",
    **_table(
        "What every check found, in the order of the way from USB to the Internet.",
        fine=_is("boolean", "Whether nothing is wrong; the exit code says the same."),
        findings=_list_of(FINDING, "The host's, then each gadget's."),
    ),
}

COUNTERS: dict[str, Any] = _table("Counters.") | {
    "properties": {name: _is("integer", f"{text}.") for name, (_, text) in TRAFFIC.items()},
    "required": list(TRAFFIC),
}

SHOW = {
    "$schema": DRAFT,
    "title": "otgctl show NAME --json",
    **_table(
        "All that is known about one gadget.",
        running=_is("boolean", "Whether otgd runs."),
        gadget=GADGET,
        ifname=_is(["string", "null"], "Its link's name now; null while it is absent."),
        config={
            "description": "What the config says; null where it is refused or has it no more.",
            "anyOf": [
                _table(
                    "Its entry.",
                    mac=_is(["string", "null"], "The host end's MAC.", **MAC),
                    serial=_is(["string", "null"], "Its USB serial number."),
                    port=_is(["string", "null"], "Its USB port."),
                    guest_mac=_is(["string", "null"], "The guest's own end.", **MAC),
                    subnet=_is("string", "The link's subnet."),
                    host_address=_is("string", "The host's address."),
                    guest_address=_is("string", "The guest's."),
                    hostname=_is(["string", "null"], "The guest's hostname."),
                    masquerade=_is("boolean", "Whether it may reach the uplink."),
                    isolate=_is("boolean", "Whether it is kept from other gadgets."),
                ),
                {"type": "null"},
            ],
        },
        counters={
            "description": "Since its link came up, seen from the host; null while it is absent.",
            "anyOf": [
                COUNTERS,
                {"type": "null"},
            ],
        },
        events=_list_of(
            _table(
                "An event.",
                time=_is("string", "When.", format="date-time"),
                message=_is("string", "What, in words."),
            ),
            "The last ones in the journal, oldest first; none for who may not read it.",
        ),
    ),
}

GADGETS = {
    "$schema": DRAFT,
    "title": "otgctl gadgets --json",
    **_list_of(
        _table(
            "A USB network device.",
            ifname=_is("string", "Its link."),
            mac=_is("string", "Its MAC."),
            driver=_is("string", "Its driver."),
            port=_is("string", "Its USB port's path; empty where unknown."),
            serial=_is("string", "Its serial number; empty where it has none."),
            gadget=_is(["string", "null"], "The gadget that the config takes it for."),
            config=_is("string", "Which line says so, or why none does."),
            proposal=_list_of(_is("string", "A line."), "What would make the config know it."),
        ),
        "Every one that is present.",
    ),
}

VERIFY = {
    "$schema": DRAFT,
    "title": "otgctl verify --json",
    **_list_of(
        _table(
            "A guest's answers beside the config.",
            gadget=_is("string", "The gadget."),
            good=_is("boolean", "Whether it answered, and as the config wants it."),
            fault=_is("string", "Why it could not be asked; empty if it was."),
            findings=_list_of(
                _table(
                    "One fact.",
                    subject=_is("string", "Which."),
                    wanted=_is("string", "As the config has it."),
                    found=_is("string", "As the guest has it; empty where it has none."),
                    remedy=_is("string", "What to type; empty where they agree."),
                    agrees=_is("boolean", "Whether they agree."),
                ),
                "What was compared.",
            ),
        ),
        "Every guest that was asked.",
    ),
}

SCHEMAS = {
    "state": STATE,
    "plan": PLAN,
    "doctor": DOCTOR,
    "show": SHOW,
    "gadgets": GADGETS,
    "verify": VERIFY,
}


@click.command()
@click.argument("document", type=click.Choice(list(SCHEMAS)), default="state")
def schema(*, document: str) -> int:
    r"""Print the JSON Schema of a document that otgd or otgctl writes (default: state).

    \b
    Examples:
      otgctl schema > state.schema.json
      otgctl status --json | check-jsonschema --schemafile state.schema.json -
    """
    print_json(SCHEMAS[document])
    return 0
