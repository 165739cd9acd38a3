"""Who tells the outside how things are: journal, state.json, metrics, the service manager.

Remembers what was told last, so that only what is new is told. Pure but for the ports that it
tells; what a state means is ``otgd.status``.
"""

from __future__ import annotations

import os
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from otgd import __version__
from otgd.errors import OtgdError
from otgd.events import Event, Kind
from otgd.status import (
    Status,
    events_between,
    gadget_facts,
    guest_events,
    make_status,
    to_json,
    with_guests,
)

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from otgd.model import DesiredState, Report
    from otgd.ports import EventLogPort, MetricsPort, ServicePort, StatePort
    from otgd.reachability import Verdict


class Reporter:
    """Tells what is new, each thing once.

    Args:
        metrics: where metrics are left, if the config wants them; None where nobody could.

    Attributes:
        pass_fault: why the last pass did not come to its end; empty when it did.
        state_fault: why the state could not be written; empty when it could.
        metrics_file: where the config wants metrics; empty for nowhere.
    """

    def __init__(
        self,
        *,
        log: EventLogPort,
        service: ServicePort,
        state: StatePort,
        metrics: MetricsPort | None = None,
    ) -> None:
        self._log = log
        self._service = service
        self._state = state
        self._metrics = metrics
        self.metrics_file = ""
        self.pass_fault = ""
        self.state_fault = ""
        self._metrics_fault = ""  # why metrics could not be written
        self._config_fault = ""
        self._crash = ""  # told last, until a pass comes to its end
        self._backend_fault = ""
        self._summary = ""
        self._bare: Status | None = None  # what the last pass left
        self._shown: Status | None = None  # the same with what is known of the guests
        self._facts: dict[str, Any] = {}  # what state.json holds
        self._failures: list[str] = []  # what it holds as those of the last pass
        self._since: dict[str, str] = {}

    # --- passes ----------------------------------------------------------------------------------

    def judge(
        self, desired: DesiredState, report: Report, *, backend: str, backend_reason: str
    ) -> Status:
        """Say what a pass means for each gadget of *desired*."""
        return make_status(
            desired, report, backend=backend, backend_reason=backend_reason, before=self._bare
        )

    def tell_pass(self, status: Status, report: Report, verdicts: Mapping[str, Verdict]) -> None:
        """Tell what a pass did and left; nothing when nothing is new."""
        events = list(events_between(self._bare, status, report))
        failures = [failure.reason for failure in report.failures]
        shown = with_guests(status, verdicts, self._shown)
        self._note_times(shown)
        news = shown != self._shown or bool(report.applied) or failures != self._failures
        if news or self.state_fault or self._metrics_fault:
            own = {"otgd_version": __version__, "pid": os.getpid()}
            own["config_fault"] = self._config_fault or None
            self._write({**own, **to_json(shown, report, since=self._since)})
            self._failures = failures
        self._bare, self._shown = status, shown
        for event in events:
            self._log.write(event)
        self.notify()
        self._crash = ""

    def tell_guests(self, verdicts: Mapping[str, Verdict]) -> None:
        """Tell what is new of the guests since the last pass."""
        if self._bare is None or self._shown is None:
            return
        shown = with_guests(self._bare, verdicts, self._shown)
        if shown == self._shown:
            return
        for event in guest_events(self._shown, shown):
            self._log.write(event)
        self._note_times(shown)
        self._shown = shown
        if not self.state_fault:  # else the next pass writes all of it
            self._write({**self._facts, "gadgets": gadget_facts(shown, self._since)})

    def tell_crash(self, fault: str, fields: dict[str, str] | None = None) -> None:
        """Tell why a pass did not come to its end: once, until one does."""
        self.pass_fault = fault
        if fault == self._crash:
            return
        self._crash = fault
        self._log.write(Event(kind=Kind.PASS_CRASHED, message=fault, fields=fields or {}))
        self.notify()
        if self._facts:
            self._failures = [fault]
            last_pass = {**self._facts["last_pass"], "failures": self._failures}
            self._write({**self._facts, "last_pass": last_pass})

    def tell_backend_fault(self, fault: str) -> None:
        """Tell why rules cannot be taken out of another packet filter; empty when they were."""
        if fault and fault != self._backend_fault:
            self._log.write(Event(kind=Kind.PASS_CRASHED, message=fault))
        self._backend_fault = fault

    # --- the service -----------------------------------------------------------------------------

    def tell_ready(self, firewall: str) -> None:
        """Tell that the first pass is done."""
        self.notify("READY=1")
        text = f"ready: {self.summary}; firewall {firewall}"
        self._log.write(Event(kind=Kind.SERVICE_READY, message=text))

    def tell_config(self, count: int) -> None:
        """Tell that a new config with *count* gadgets is in force."""
        self._config_fault = ""
        text = f"config reloaded, {count} gadget{'' if count == 1 else 's'}"
        self._log.write(Event(kind=Kind.CONFIG_RELOADED, message=text))
        self._end_reload()

    def tell_refusal(self, problems: Sequence[str]) -> None:
        """Tell why a new config is not in force."""
        self._config_fault = problems[0]
        for problem in problems:
            text = f"config refused, the old one stays in force: {problem}"
            event = Event(kind=Kind.CONFIG_REJECTED, message=text, fields={"OTGD_REASON": problem})
            self._log.write(event)
        self._end_reload()

    def _end_reload(self) -> None:
        if self._facts:
            self._write({**self._facts, "config_fault": self._config_fault or None})
        self.notify("READY=1")

    def tell_stopped(self) -> None:
        """Leave nothing that tells of a network that nobody keeps."""
        self._state.remove()
        if self._metrics is not None:
            self._metrics.finish()
        self._log.write(Event(kind=Kind.SERVICE_STOPPING, message="stopped"))

    def notify(self, *assignments: str) -> None:
        """Tell the service manager *assignments*, and how things are if that has changed."""
        summary = self.summary
        if assignments or summary != self._summary:
            self._summary = summary
            self._service.notify(*assignments, f"STATUS={summary}")

    @property
    def summary(self) -> str:
        """How things are, in one line."""
        summary = self.pass_fault or (self._bare.summary if self._bare else "")
        if self._config_fault:
            return f"config refused, the old one is in force ({self._config_fault}); {summary}"
        return summary

    # --- memory ----------------------------------------------------------------------------------

    def _note_times(self, status: Status) -> None:
        """Remember since when each gadget is in its state."""
        before = self._shown.by_name if self._shown else {}
        now = datetime.now(tz=UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
        since = {}
        for gadget in status.gadgets:
            was = before.get(gadget.name)
            same = was and was.state is gadget.state and was.ifindex == gadget.ifindex
            since[gadget.name] = self._since[gadget.name] if same else now
        self._since = since

    def _write(self, facts: dict[str, Any]) -> None:
        try:
            self._state.write(facts)
        except OtgdError as err:
            self.state_fault = self._told_unwritten(err, self.state_fault)
        else:
            self._facts = facts
            self.state_fault = ""
        if self._metrics is None:
            return
        try:
            self._metrics.path = self.metrics_file
            self._metrics.write(facts)
        except OtgdError as err:
            self._metrics_fault = self._told_unwritten(err, self._metrics_fault)
        else:
            self._metrics_fault = ""

    def _told_unwritten(self, err: OtgdError, before: str) -> str:
        """Tell that a file could not be written, unless that was the fault *before*."""
        fault = str(err)
        if fault != before:
            text = f"{fault}; what it tells is old until this is cured"
            self._log.write(Event(kind=Kind.STATE_NOT_WRITTEN, message=text))
        return fault
