"""``otgctl monitor``: what happens, as it happens.

Changes of state are told from state.json, which everybody may read; what leaves no trace there (a
repair, a refused config) is taken from the journal, so that nothing is told twice.
"""

from __future__ import annotations

import json
import select
from contextlib import ExitStack
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import click

from otgd.cli.following import LOOK_S
from otgd.cli.inotify import DirectoryWatch
from otgd.cli.otgd_journal import new_entries, open_journal
from otgd.cli.printing import print_line
from otgd.events import Kind

if TYPE_CHECKING:
    from collections.abc import Iterator

    from otgd.cli.installation import Installation

ONLY_IN_THE_JOURNAL = frozenset(
    {
        Kind.REPAIRED,
        Kind.CONFIG_REJECTED,
        Kind.CONFIG_RELOADED,
        Kind.EVENTS_LOST,
        Kind.PASS_CRASHED,
        Kind.STATE_NOT_WRITTEN,
    }
)

State = dict[str, Any]
Change = dict[str, Any]
"""Has at least ``event`` (service, gadget, unknown, uplink, journal) and ``text``."""


@click.command()
@click.option("--json", "as_json", is_flag=True, help="One JSON object per line.")
@click.pass_obj
def monitor(installation: Installation, *, as_json: bool) -> int:
    r"""Print every change as it happens, until Ctrl-C.

    Waits for otgd where it does not run. Each JSON line has time, event (service, gadget,
    unknown, uplink, journal) and text; what else it has depends on the event.

    \b
    Examples:
      otgctl monitor
      otgctl monitor --json | jq -r 'select(.event == "gadget") | .name + " " + .state'
    """
    for time, change in _watch(installation):
        if as_json:
            print(
                json.dumps({"time": time.isoformat(timespec="milliseconds"), **change}), flush=True
            )
        else:
            print_line(f"{time.astimezone():%H:%M:%S} {change['text']}")
    return 0


def _watch(installation: Installation) -> Iterator[tuple[datetime, Change]]:
    with ExitStack() as stack:
        watch = stack.enter_context(DirectoryWatch(installation.runtime_dir))
        descriptors: list[Any] = [watch]
        journal = open_journal(ONLY_IN_THE_JOURNAL)
        if journal is not None:
            stack.enter_context(journal)
            journal.seek_tail()
            journal.get_previous()
            descriptors.append(journal)
        known, silent = _look(installation)
        yield datetime.now(tz=UTC), _service(known, silent=silent)
        while True:
            select.select(descriptors, [], [], LOOK_S)
            watch.drain()
            state, is_silent = _look(installation)
            for change in changes(known, state, was_silent=silent, is_silent=is_silent):
                yield datetime.now(tz=UTC), change
            known, silent = state, is_silent
            for entry in new_entries(journal) if journal is not None else ():
                change = {"event": "journal", "gadget": entry.gadget or None, "text": entry.message}
                yield entry.time, change


def _look(installation: Installation) -> tuple[State | None, bool]:
    """Return what the daemon tells, and whether it runs but tells nothing."""
    state = installation.told_state()
    return state, state is None and installation.runs


def changes(
    old: State | None, new: State | None, *, was_silent: bool = False, is_silent: bool = False
) -> Iterator[Change]:
    """Yield what is other in *new* than in *old*.

    None is a daemon that does not run, or one that runs and is silent.
    """
    before = old or {"gadgets": [], "unknown": [], "uplink": None, "pid": None}
    if ((new or {}).get("pid"), is_silent) != (before["pid"], was_silent):
        yield _service(new, silent=is_silent)
    if new is None:
        return
    if new["uplink"] != before["uplink"]:
        text = f"uplink is {new['uplink']}" if new["uplink"] else f"uplink {before['uplink']} lost"
        yield {"event": "uplink", "uplink": new["uplink"], "was": before["uplink"], "text": text}
    yield from _gadget_changes(before, new)
    yield from _unknown_changes(before, new)


def _service(state: State | None, *, silent: bool) -> Change:
    if state is None:
        text = "otgd runs, but has told no state yet" if silent else "otgd does not run"
        return {"event": "service", "running": silent, "pid": None, "text": text}
    text = f"otgd {state['otgd_version']} runs (pid {state['pid']})"
    return {"event": "service", "running": True, "pid": state["pid"], "text": text}


def _gadget_changes(old: State, new: State) -> Iterator[Change]:
    known = {gadget["name"]: gadget for gadget in old["gadgets"]}
    for gadget in new["gadgets"]:
        was = known.pop(gadget["name"], None)
        if _identity(was) != _identity(gadget):
            yield {
                "event": "gadget",
                "was": was["state"] if was else None,
                **gadget,
                "text": _sentence(was, gadget),
            }
    for name, gadget in known.items():
        text = f"{name}: no longer in the config"
        gone = {"name": name, "state": None, "was": gadget["state"], "reason": text}
        yield {"event": "gadget", **gone, "text": text}


def _identity(gadget: State | None) -> tuple[object, ...]:
    """What must differ to be told; a gadget never seen before is no news while it is absent."""
    if gadget is None or (gadget["state"] == "absent" and gadget["ifindex"] is None):
        return ("absent", None)
    return gadget["state"], gadget["ifindex"], gadget["reason"]


def _sentence(was: State | None, gadget: State) -> str:
    way = f"{was['state']} → {gadget['state']}" if was else gadget["state"]
    details = [" ".join(gadget["addresses"])] if gadget["state"] != "absent" else []
    details += [f"port {gadget['port']}"] if gadget["port"] else []
    details += [gadget["reason"]]
    told = ", ".join(detail for detail in details if detail)
    return f"{gadget['name']}: {way}" + (f": {told}" if told else "")


def _unknown_changes(old: State, new: State) -> Iterator[Change]:
    before = {link["ifindex"]: link for link in old["unknown"]}
    after = {link["ifindex"]: link for link in new["unknown"]}
    for ifindex, link in after.items():
        if link != before.get(ifindex):
            text = f"{link['ifname']}: left alone: {link['reason']} (MAC {link['mac']})"
            yield {"event": "unknown", "present": True, **link, "text": text}
    for ifindex, link in before.items():
        if ifindex not in after:
            text = f"{link['ifname']}: unknown link is gone"
            yield {"event": "unknown", "present": False, **link, "text": text}
