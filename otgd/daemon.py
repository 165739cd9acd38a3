"""The service: one thread, one selector; events, signals and timers set one flag, *look again*.

Knows the reconciler, the ports and the status; adapters come from outside (``connect``). Nothing
here waits but ``select``. A pass runs at once when idle; what arrives meanwhile is one more pass.
"""

from __future__ import annotations

import gc
import math
import os
import selectors
import signal
import time
import traceback
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from otgd.errors import ConfigError, OtgdError, TransientError
from otgd.events import Event, Kind
from otgd.guest_watch import GuestWatch
from otgd.model import AddRule, DesiredState, OnStop, RemoveRule
from otgd.reachability import Reachability
from otgd.reconciler import Reconciler
from otgd.reporter import Reporter

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from otgd.model import Config, Report
    from otgd.ports import (
        EventLogPort,
        FirewallPort,
        ForwardingPort,
        LinkPort,
        MetricsPort,
        NamesPort,
        NeighbourPort,
        PassagePort,
        ServicePort,
        StatePort,
        TriggerPort,
    )

RETRY_FIRST_S = 0.02
RETRY_LAST_S = 30.0
TIDY_AFTER_S = 3.0
"""How long a firewall table without rules may wait for the next gadget: one that the bus resets, or
with a loose plug, is back by then. To fill a table costs a third of what it costs to make one."""

RELEASE_PATIENCE_S = 5.0
"""How long a release at stop goes on trying; systemd's TimeoutStopSec is 90 s."""

SIGNALS = (signal.SIGHUP, signal.SIGTERM, signal.SIGINT)


class World(Protocol):
    """What the service works on; a reload may bring another one."""

    @property
    def links(self) -> LinkPort:
        """Links, addresses, routes."""
        ...

    @property
    def neighbours(self) -> NeighbourPort:
        """Who answers on the links."""
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
    tidy: float = math.inf

    def next(self) -> float:
        return min(self.resync, self.retry, self.watchdog, self.tidy)


class Daemon:
    """otgd itself.

    Args:
        config: the config to start with.
        metrics: where metrics are left, if the config wants them; None where nobody could.
        names: where udev's helper reads the gadgets' names; None where there is no udev to tell.
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
        metrics: MetricsPort | None = None,
        names: NamesPort | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._config = config
        self._load = load
        self._connect = connect
        self._log = log
        self._service = service
        self._reporter = Reporter(log=log, service=service, state=state, metrics=metrics)
        self._reporter.metrics_file = config.settings.metrics_file
        self._names = names
        self._clock = clock
        self._timers = _Timers()
        self._backoff = Backoff()
        self._selector = selectors.DefaultSelector()
        self._watched: dict[int, TriggerPort] = {}
        self._touched: frozenset[int] | None = frozenset()
        self._reachability = Reachability()
        self._overflows = 0
        self._former: dict[str, FirewallPort] = {}
        self._former_backoff = Backoff()  # its own: good passes reset the other one
        self._rules_hold = False
        self._stopping = False
        self._reload_asked = False

    def run(self) -> int:
        """Serve until SIGTERM or SIGINT; return the exit code.

        Raises:
            OtgdError: the kernel's events cannot be subscribed to at start.
        """
        with _SignalPipe() as signals, self._selector:
            self._selector.register(signals, selectors.EVENT_READ)
            self._open(self._connect(self._config))
            self._pass()
            self._tell_names()
            # systemd may stop waiting for us only once the first pass is done.
            world = self._world
            self._reporter.tell_ready(f"{world.firewall.name}, since {world.backend_reason}")
            gc.freeze()  # what lives by now stays; no later collection has to look at it
            gc.enable()
            with self._surviving():
                self._former = {each.name: each for each in self._world.leftovers()}
                self._release_former()
            while not self._stopping:
                self._turn(signals)
            return self._stop()

    # --- the loop --------------------------------------------------------------------------------

    def _turn(self, signals: _SignalPipe) -> None:
        """Wait for anything, then do what is due."""
        timeout_s = min(self._timers.next(), self._guests.next_at) - self._clock()
        ready = self._selector.select(None if math.isinf(timeout_s) else max(0.0, timeout_s))
        for number in signals.read() if _is_among(signals, ready) else ():
            self._stopping |= number != signal.SIGHUP
            self._reload_asked |= number == signal.SIGHUP
        if self._stopping:
            return
        if self._reload_asked:
            self._reload_asked = False
            self._reload()
            return
        passed = self._pass_if_due(ready)
        with self._surviving():
            self._attend_guests(ready, ask=not passed)
        if self._clock() >= self._timers.watchdog:
            self._keep_alive()
        if self._clock() >= self._timers.tidy:
            self._tidy()
        self._log.flush()

    def _pass_if_due(self, ready: list[tuple[selectors.SelectorKey, int]]) -> bool:
        """Make a pass if it is time for one; tell whether it was."""
        woken = self._woken(ready)
        now = self._clock()
        if now >= self._timers.resync:
            self._guests.recheck(now)
        if now >= min(self._timers.resync, self._timers.retry):
            self._pass()
        elif woken:
            # A pass that failed forgot what its events had named.
            self._pass(everything=bool(self._reporter.pass_fault or self._reporter.state_fault))
        else:
            return False
        return True

    def _attend_guests(self, ready: list[tuple[selectors.SelectorKey, int]], *, ask: bool) -> None:
        """Hear which guests answer, and *ask* those whose time has come.

        Links come first: nobody is asked before all of them are configured.
        """
        now = self._clock()
        if _is_among(self._guests, ready):
            self._guests.hear(now)
        if ask:
            self._guests.ask(now)
        self._reporter.tell_guests(self._guests.verdicts)

    def _woken(self, ready: list[tuple[selectors.SelectorKey, int]]) -> bool:
        """Tell whether one of the triggers that are *ready* has news for us."""
        woken = False
        for trigger in self._triggers_among(ready):
            with self._surviving():
                count, named = trigger.drain(), trigger.touched()
                if trigger.newcomers_only and named and self._reconciler.has_settled(named):
                    continue
                self._touched = _both(self._touched, named)
                woken |= count > 0
        self._heed_overflows()
        return woken

    def _pass(self, *, everything: bool = True) -> None:
        """Look and act once: at everything, or at what the events named if that is enough."""
        with self._surviving():
            report = self._reconciler.run_pass(self._config.desired, everything=everything)
            if not report.idle:
                self._take_in(report)
        if everything:
            self._timers.resync = self._clock() + self._config.settings.resync_s
        self._heed_overflows()

    def _take_in(self, report: Report) -> None:
        """Tell what a pass did, and set the time for what it could not do."""
        reporter = self._reporter
        recovered, reporter.pass_fault = bool(reporter.pass_fault), ""
        self._rules_hold = _rules_hold(report)
        self._schedule(report)
        if any(isinstance(step, RemoveRule) for step in report.applied):
            self._timers.tidy = self._clock() + TIDY_AFTER_S
        status = reporter.judge(
            self._config.desired,
            report,
            backend=self._world.firewall.name,
            backend_reason=self._world.backend_reason,
        )
        self._guests.follow(self._config.desired, status, report.observed.links, self._clock())
        reporter.tell_pass(status, report, self._guests.verdicts)
        self._release_former()
        if recovered and self._service.watchdog_s:
            self._keep_alive()  # the last one may have been left out

    @contextmanager
    def _surviving(self) -> Iterator[None]:
        """Tell a failure once and try again later; whatever happens inside, the service goes on."""
        try:
            yield
        except OtgdError as err:
            self._fail(f"cannot look at the network: {err}")
        except Exception as err:  # noqa: BLE001 - the pass boundary: log, back off, stay
            trace = {"OTGD_TRACEBACK": "".join(traceback.format_exception(err))}
            self._fail(f"a defect of otgd, please report it: {_place(err)}", trace)

    def _fail(self, fault: str, fields: dict[str, str] | None = None) -> None:
        self._timers.retry = self._clock() + self._backoff.next()
        self._reporter.tell_crash(fault, fields)

    def _schedule(self, report: Report) -> None:
        """Set the timer for what this pass could not do."""
        waits = [held.wait_s for held in (*report.held, *report.contested)]
        if report.fresh:
            waits.append(0.0)  # links came faster than one pass could serve them
        elif report.needs_retry or report.undone:
            waits.append(self._backoff.next())
        else:
            self._backoff.reset()
        self._timers.retry = self._clock() + min(waits, default=math.inf)

    def _keep_alive(self) -> None:
        """Tell the watchdog that passes still come to their end."""
        if not self._reporter.pass_fault:
            self._service.notify("WATCHDOG=1")
        self._timers.watchdog = self._clock() + (self._service.watchdog_s or math.inf) / 2

    def _tidy(self) -> None:
        """Take tables away that hold no rule; if it fails, they wait for the next removal."""
        self._timers.tidy = math.inf
        with self._surviving(), suppress(OtgdError):
            self._world.firewall.tidy()

    # --- opening, reloading, stopping ------------------------------------------------------------

    def _open(self, world: World) -> None:
        """Work on *world* from now on; its events are subscribed to before it is looked at."""
        self._world = world
        self._reconciler = Reconciler(
            links=world.links,
            firewall=world.firewall,
            forwarding=world.forwarding,
            passage=world.passage,
            before_look=self._drain,
            clock=self._clock,
        )
        self._guests = GuestWatch(
            port=world.neighbours, reachability=self._reachability, now=self._clock()
        )
        self._selector.register(self._guests, selectors.EVENT_READ)
        self._watch()
        self._timers.tidy = self._clock()  # after the first pass: of one that was killed
        if self._service.watchdog_s and math.isinf(self._timers.watchdog):
            self._timers.watchdog = self._clock() + self._service.watchdog_s / 2

    def _reload(self) -> None:
        """Take a new config into force; a bad one changes nothing but the status."""
        self._service.notify("RELOADING=1", f"MONOTONIC_USEC={time.monotonic_ns() // 1000}")
        try:
            config = self._load()
            self._adopt(config)
        except ConfigError as err:
            self._reporter.tell_refusal([str(problem) for problem in err.problems])
        except OtgdError as err:
            self._reporter.tell_refusal([str(err)])
        except Exception as err:  # noqa: BLE001 - a file must not end the service
            self._reporter.tell_refusal([f"a defect of otgd, please report it: {_place(err)}"])
        else:
            self._reporter.tell_config(len(config.desired.gadgets))

    def _adopt(self, config: Config) -> None:
        """Bring *config* into force.

        Raises:
            OtgdError: the adapters that it asks for cannot be had; the old ones stay in use.
        """
        old = self._world
        new = old if config.settings == self._config.settings else self._connect(config)
        self._config = config
        self._log.level = config.settings.log_level
        self._reporter.metrics_file = config.settings.metrics_file
        if new is not old:
            # Only when the new backend's rules are in force, so that there is no gap.
            self._former[old.firewall.name] = old.firewall
            self._former.pop(new.firewall.name, None)
            self._selector.unregister(self._guests)
            self._open(new)
        self._pass()
        self._tell_names()
        if new is not old:
            old.close()

    def _tell_names(self) -> None:
        """Let udev know what the gadgets are called, so that it wants what we want."""
        if self._names is None:
            return
        try:
            self._names.write(self._config.desired)
        except OtgdError as err:
            text = f"{err}; udev may give gadgets other names until otgd corrects them"
            self._log.write(Event(kind=Kind.STATE_NOT_WRITTEN, message=text))

    def _release_former(self) -> None:
        """Take our rules out of packet filters that are no longer in use, now or later."""
        if not self._rules_hold:
            return
        for name, firewall in list(self._former.items()):
            try:
                firewall.apply(remove=firewall.observe(), add=())
                firewall.tidy()
            except OtgdError as err:
                retry = self._clock() + self._former_backoff.next()
                self._timers.retry = min(self._timers.retry, retry)
                fault = f"remove the rules of the {name} backend: {err}"
                self._reporter.tell_backend_fault(fault)
            else:
                del self._former[name]
                self._former_backoff.reset()
                self._reporter.tell_backend_fault("")

    def _stop(self) -> int:
        """Leave: by default the network stays as it is, so that a restart drops no connection."""
        self._service.notify("STOPPING=1", "STATUS=stopping")
        if self._config.settings.on_stop is OnStop.RELEASE:
            self._release()
        self._tidy()
        self._reporter.tell_stopped()
        self._world.close()
        return 0

    def _release(self) -> None:
        """Take back all that is ours; a lock that somebody holds is waited for, but not long."""
        nothing = DesiredState(drivers=self._config.desired.drivers)
        patience = self._clock() + RELEASE_PATIENCE_S
        self._backoff.reset()
        while True:
            try:
                report = self._reconciler.run_pass(nothing)
                faults = [failure.reason for failure in report.failures]
                again = report.needs_retry
            except OtgdError as err:
                faults, again = [str(err)], isinstance(err, TransientError)
            except Exception as err:  # noqa: BLE001 - as in a pass
                faults, again = [_place(err)], False
            if not again or self._clock() > patience:
                break
            time.sleep(self._backoff.next())  # nothing else is left to wait for
        self._rules_hold = True
        self._release_former()
        for fault in faults:
            text = f"the network is not released: {fault}"
            self._log.write(Event(kind=Kind.PASS_CRASHED, message=text))

    # --- triggers --------------------------------------------------------------------------------

    def _drain(self) -> frozenset[int] | None:
        """Forget queued events: the look that follows answers them all.

        Return the ifindexes that they named, or None if they were about anything. Mostly nothing
        is queued, which the kernel tells of all triggers at once (of lost events too: EPOLLERR).
        """
        for trigger in self._triggers_among(self._selector.select(0)):
            trigger.drain()
        touched, self._touched = self._touched, frozenset()
        for trigger in self._world.triggers:
            touched = _both(touched, trigger.touched())
        return touched

    def _triggers_among(self, ready: list[tuple[selectors.SelectorKey, int]]) -> list[TriggerPort]:
        return [self._watched[key.fd] for key, _ in ready if key.fd in self._watched]

    def _watch(self) -> None:
        """Wait on the triggers' descriptors."""
        for descriptor in self._watched:
            self._selector.unregister(descriptor)
        self._watched = {trigger.fileno(): trigger for trigger in self._world.triggers}
        for descriptor in self._watched:
            self._selector.register(descriptor, selectors.EVENT_READ)
        self._overflows = self._count_overflows()

    def _heed_overflows(self) -> None:
        """Tell of lost events; those who lost them may have another descriptor now."""
        if self._count_overflows() > self._overflows:
            # A new descriptor may have the number of the one before, which epoll forgot as it
            # closed.
            self._watch()
            text = "more events than the kernel could queue; everything was looked at instead"
            self._log.write(Event(kind=Kind.EVENTS_LOST, message=text))

    def _count_overflows(self) -> int:
        return sum(trigger.overflows for trigger in self._world.triggers)


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


def _is_among(file: object, ready: list[tuple[selectors.SelectorKey, int]]) -> bool:
    return any(key.fileobj is file for key, _ in ready)


def _both(some: frozenset[int] | None, more: frozenset[int] | None) -> frozenset[int] | None:
    """Unite what events named; None is anything."""
    return None if some is None or more is None else some | more


def _rules_hold(report: Report) -> bool:
    """Tell whether every rule that is wanted is in force."""
    missing = any(isinstance(step, AddRule) for step in report.remaining.steps)
    return not missing and not report.observed.firewall_fault


def _place(err: Exception) -> str:
    """Say what went wrong and where in one line."""
    frame = traceback.extract_tb(err.__traceback__)[-1]
    return f"{type(err).__name__}: {err} ({Path(frame.filename).name}:{frame.lineno})"
