"""The service: one thread, one selector; events, signals and timers set one flag, *look again*.

Knows the reconciler, the ports and the status; adapters come from outside (``connect``). Nothing
here waits but ``select``. A pass runs at once when idle; what arrives meanwhile is one more pass.
"""

from __future__ import annotations

import math
import os
import selectors
import signal
import time
import traceback
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from otgd import __version__
from otgd.errors import ConfigError, OtgdError
from otgd.events import Event, Kind
from otgd.model import DesiredState, OnStop
from otgd.reconciler import Reconciler
from otgd.status import Status, events_between, make_status, to_json

if TYPE_CHECKING:
    from collections.abc import Callable

    from otgd.model import Config, Report
    from otgd.ports import (
        EventLogPort,
        FirewallPort,
        ForwardingPort,
        LinkPort,
        PassagePort,
        ServicePort,
        StatePort,
        TriggerPort,
    )

RETRY_FIRST_S = 0.02
RETRY_LAST_S = 30.0
SIGNALS = (signal.SIGHUP, signal.SIGTERM, signal.SIGINT)


class World(Protocol):
    """What the service works on; a reload may bring another one."""

    @property
    def links(self) -> LinkPort:
        """Links, addresses, routes."""
        ...

    @property
    def firewall(self) -> FirewallPort:
        """The packet filter."""
        ...

    @property
    def forwarding(self) -> ForwardingPort:
        """The host's forwarding."""
        ...

    @property
    def passage(self) -> PassagePort:
        """The way through other programs' FORWARD chain."""
        ...

    @property
    def backend_reason(self) -> str:
        """Why this packet filter was chosen."""
        ...

    def leftovers(self) -> tuple[FirewallPort, ...]:
        """Return packet filters not in use that still hold rules of ours."""
        ...

    @property
    def triggers(self) -> tuple[TriggerPort, ...]:
        """What tells that it is time to look again."""
        ...

    def close(self) -> None:
        """Give every descriptor back."""
        ...


@dataclass(slots=True)
class Backoff:
    """Growing waits between tries of what may work in a moment, in seconds."""

    delay_s: float = 0.0

    def next(self) -> float:
        """Return the next wait, twice the last one."""
        self.delay_s = min(RETRY_LAST_S, self.delay_s * 2 or RETRY_FIRST_S)
        return self.delay_s

    def reset(self) -> None:
        """Begin again with short waits."""
        self.delay_s = 0.0


@dataclass(slots=True)
class _Timers:
    """When to do what next, in monotonic seconds; infinity is never."""

    resync: float = math.inf
    retry: float = math.inf
    watchdog: float = math.inf

    def next(self) -> float:
        return min(self.resync, self.retry, self.watchdog)


@dataclass(slots=True)
class _Told:
    """What the outside was told last; only a change is told again."""

    status: Status | None = None
    summary: str = ""
    config_fault: str = ""
    pass_fault: str = ""
    state_fault: str = ""
    since: dict[str, str] = field(default_factory=dict)


class Daemon:
    """otgd itself.

    Args:
        config: the config to start with.
        load: reads the config again (``systemctl reload``); may raise ``ConfigError``.
        connect: opens the adapters that a config asks for.
        clock: monotonic seconds.
    """

    def __init__(
        self,
        *,
        config: Config,
        load: Callable[[], Config],
        connect: Callable[[Config], World],
        log: EventLogPort,
        service: ServicePort,
        state: StatePort,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._config = config
        self._load = load
        self._connect = connect
        self._log = log
        self._service = service
        self._state = state
        self._clock = clock
        self._timers = _Timers()
        self._backoff = Backoff()
        self._told = _Told()
        self._selector = selectors.DefaultSelector()
        self._watched: dict[int, TriggerPort] = {}
        self._overflows = 0
        self._stopping = False
        self._reload_asked = False

    def run(self) -> int:
        """Serve until SIGTERM or SIGINT; return the exit code.

        Raises:
            OtgdError: the kernel's events cannot be subscribed to at start.
        """
        with _SignalPipe() as signals:
            self._selector.register(signals, selectors.EVENT_READ)
            self._open(self._config)
            self._pass()
            # systemd may stop waiting for us only once the first pass is done.
            self._service.notify("READY=1", f"STATUS={self._summary()}")
            firewall = f"{self._world.firewall.name}, since {self._world.backend_reason}"
            text = f"ready: {self._summary()}; firewall {firewall}"
            self._log.write(Event(kind=Kind.SERVICE_READY, message=text))
            for firewall_before in self._world.leftovers():
                self._release_rules(firewall_before)
            while not self._stopping:
                self._turn(signals)
            return self._stop()

    # --- the loop --------------------------------------------------------------------------------

    def _turn(self, signals: _SignalPipe) -> None:
        """Wait for anything, then do what is due."""
        timeout_s = self._timers.next() - self._clock()
        ready = self._selector.select(None if math.isinf(timeout_s) else max(0.0, timeout_s))
        for number in signals.read():
            self._stopping |= number != signal.SIGHUP
            self._reload_asked |= number == signal.SIGHUP
        if self._stopping:
            return
        if self._reload_asked:
            self._reload_asked = False
            self._reload()
            return
        now = self._clock()
        woken = [self._watched[key.fd].drain() for key, _ in ready if key.fd in self._watched]
        self._watch()
        if any(woken) or now >= min(self._timers.resync, self._timers.retry):
            self._pass()
        if now >= self._timers.watchdog:
            self._keep_alive()

    def _pass(self) -> None:
        """Look and act once; whatever happens in there, the service goes on."""
        try:
            report = self._reconciler.run_pass(self._config.desired)
        except OtgdError as err:
            self._pass_failed(f"cannot look at the network: {err}")
        except Exception as err:  # noqa: BLE001 - the pass boundary: log, back off, stay
            self._pass_failed(f"a defect of otgd, please report it: {_place(err)}")
        else:
            self._told.pass_fault = ""
            self._schedule(report)
            self._tell(report)
        self._timers.resync = self._clock() + self._config.settings.resync_s
        self._watch()

    def _pass_failed(self, fault: str) -> None:
        if fault != self._told.pass_fault:
            self._told.pass_fault = fault
            self._log.write(Event(kind=Kind.PASS_CRASHED, message=fault))
            self._service.notify(f"STATUS={fault}")
        self._timers.retry = self._clock() + self._backoff.next()

    def _schedule(self, report: Report) -> None:
        """Set the timer for what this pass could not do."""
        waits = [held.wait_s for held in report.held]
        if report.fresh:
            waits.append(0.0)  # links came faster than one pass could serve them
        elif report.needs_retry or report.undone:
            waits.append(self._backoff.next())
        else:
            self._backoff.reset()
        self._timers.retry = self._clock() + min(waits, default=math.inf)

    def _keep_alive(self) -> None:
        """Tell the watchdog that passes still come to their end."""
        self._log.flush()
        if not self._told.pass_fault:
            self._service.notify("WATCHDOG=1")
        self._timers.watchdog = self._clock() + (self._service.watchdog_s or math.inf) / 2

    # --- opening, reloading, stopping ------------------------------------------------------------

    def _open(self, config: Config) -> None:
        """Connect to the kernel: first subscribe to its events, then look."""
        self._world = self._connect(config)
        self._reconciler = Reconciler(
            links=self._world.links,
            firewall=self._world.firewall,
            forwarding=self._world.forwarding,
            passage=self._world.passage,
            before_look=self._drain,
            clock=self._clock,
        )
        self._watch()
        if self._service.watchdog_s:
            self._timers.watchdog = self._clock() + self._service.watchdog_s / 2

    def _reload(self) -> None:
        """Take a new config into force; a bad one changes nothing but the status."""
        self._service.notify("RELOADING=1", f"MONOTONIC_USEC={time.monotonic_ns() // 1000}")
        try:
            config = self._load()
        except ConfigError as err:
            self._told.config_fault = str(err.problems[0])
            for problem in err.problems:
                text = f"config refused, the old one stays in force: {problem}"
                fields = {"OTGD_REASON": str(problem)}
                self._log.write(Event(kind=Kind.CONFIG_REJECTED, message=text, fields=fields))
        else:
            self._told.config_fault = ""
            self._adopt(config)
            count = len(config.desired.gadgets)
            text = f"config reloaded, {count} gadget{'' if count == 1 else 's'}"
            self._log.write(Event(kind=Kind.CONFIG_RELOADED, message=text))
        self._told.summary = self._summary()
        self._service.notify("READY=1", f"STATUS={self._told.summary}")

    def _adopt(self, config: Config) -> None:
        old_world, old_settings = self._world, self._config.settings
        self._config = config
        self._log.level = config.settings.log_level
        if config.settings == old_settings:
            self._pass()
            return
        for trigger in old_world.triggers:
            self._unwatch(trigger)
        self._open(config)
        self._pass()
        if self._world.firewall.name != old_world.firewall.name:
            # Only now, when the new backend's rules are in force, so that there is no gap.
            self._release_rules(old_world.firewall)
        old_world.close()

    def _release_rules(self, firewall: FirewallPort) -> None:
        try:
            firewall.apply(remove=firewall.observe(), add=())
        except OtgdError as err:
            text = f"rules of the {firewall.name} backend stay: {err}"
            self._log.write(Event(kind=Kind.PASS_CRASHED, message=text))

    def _stop(self) -> int:
        """Leave: by default the network stays as it is, so that a restart drops no connection."""
        self._service.notify("STOPPING=1", "STATUS=stopping")
        if self._config.settings.on_stop is OnStop.RELEASE:
            try:
                self._reconciler.run_pass(DesiredState(drivers=self._config.desired.drivers))
            except OtgdError as err:
                text = f"the network could not be released: {err}"
                self._log.write(Event(kind=Kind.PASS_CRASHED, message=text))
        self._state.remove()
        self._log.write(Event(kind=Kind.SERVICE_STOPPING, message="stopped"))
        self._world.close()
        return 0

    # --- triggers --------------------------------------------------------------------------------

    def _drain(self) -> None:
        """Forget queued events: the look that follows answers them all."""
        for trigger in self._world.triggers:
            trigger.drain()

    def _watch(self) -> None:
        """Wait on the triggers' descriptors, which an overflow may have changed."""
        current = {trigger.fileno(): trigger for trigger in self._world.triggers}
        if current != self._watched:
            for descriptor in self._watched:
                self._selector.unregister(descriptor)
            for descriptor in current:
                self._selector.register(descriptor, selectors.EVENT_READ)
            self._watched = current
        overflows = sum(trigger.overflows for trigger in self._world.triggers)
        if overflows > self._overflows:
            text = "more events than the kernel could queue; everything was looked at instead"
            self._log.write(Event(kind=Kind.EVENTS_LOST, message=text))
        self._overflows = overflows

    def _unwatch(self, trigger: TriggerPort) -> None:
        descriptor = next((d for d, t in self._watched.items() if t is trigger), None)
        if descriptor is not None:
            self._selector.unregister(descriptor)
            del self._watched[descriptor]

    # --- telling ---------------------------------------------------------------------------------

    def _tell(self, report: Report) -> None:
        """Tell journal, state file and service manager what is new; nothing when nothing is."""
        told = self._told
        status = make_status(self._config.desired, report, backend=self._world.firewall.name)
        events = list(events_between(told.status, status, report))
        self._note_times(status)
        if status != told.status or report.applied or report.failures or told.state_fault:
            told.status = status
            self._write_state(status, report)
        for event in events:
            self._log.write(event)
        summary = self._summary()
        if summary != told.summary:
            told.summary = summary
            self._service.notify(f"STATUS={summary}")

    def _note_times(self, status: Status) -> None:
        """Remember since when each gadget is in its state."""
        old = self._told.status
        now = datetime.now(tz=UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
        for gadget in status.gadgets:
            was = old.gadget(gadget.name) if old else None
            if was is None or was.state is not gadget.state or was.ifindex != gadget.ifindex:
                self._told.since[gadget.name] = now

    def _write_state(self, status: Status, report: Report) -> None:
        facts = {"otgd_version": __version__, "pid": os.getpid()}
        try:
            self._state.write({**facts, **to_json(status, report, since=self._told.since)})
        except OtgdError as err:
            if str(err) != self._told.state_fault:
                self._told.state_fault = str(err)
                text = f"{err}; otgctl status shows an old state until this is cured"
                self._log.write(Event(kind=Kind.STATE_NOT_WRITTEN, message=text))
        else:
            self._told.state_fault = ""

    def _summary(self) -> str:
        told = self._told
        summary = told.status.summary if told.status else told.pass_fault
        if told.config_fault:
            return f"config refused, the old one is in force ({told.config_fault}); {summary}"
        return summary


class _SignalPipe:
    """Signals as a readable descriptor (signal.set_wakeup_fd), so the selector sees them."""

    def __enter__(self) -> _SignalPipe:
        self._reader, self._writer = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        self._old_fd = signal.set_wakeup_fd(self._writer, warn_on_full_buffer=False)
        self._old = {number: signal.signal(number, lambda *_: None) for number in SIGNALS}
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._old.items():
            signal.signal(number, handler)
        signal.set_wakeup_fd(self._old_fd)
        os.close(self._reader)
        os.close(self._writer)

    def fileno(self) -> int:
        return self._reader

    def read(self) -> bytes:
        """Return the numbers of the signals that came since the last time."""
        try:
            return os.read(self._reader, 64)
        except BlockingIOError:
            return b""


def _place(err: Exception) -> str:
    """Say what went wrong and where in one line."""
    frame = traceback.extract_tb(err.__traceback__)[-1]
    return f"{type(err).__name__}: {err} ({Path(frame.filename).name}:{frame.lineno})"
