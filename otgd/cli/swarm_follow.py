"""``otgctl swarm follow``, which otgd-swarm.service runs: look again whenever something happened.

Waits on two descriptors: state.json's directory (inotify) and the engine's events. A guest that
could not join is tried again with growing pauses; nothing else is asked without a reason.
"""

from __future__ import annotations

import os
import select
import threading
import time
from contextlib import closing, suppress
from typing import TYPE_CHECKING

from otgd.adapters.journal import JournalLog, StderrLog, stderr_is_journal
from otgd.errors import OtgdError
from otgd.events import Event, Kind
from otgd.swarm import cluster, roster
from otgd.swarm.engine import open_local
from otgd.swarm.follow import Follower

if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import NoReturn

    from otgd.cli.inotify import DirectoryWatch
    from otgd.cli.swarm import Site
    from otgd.ports import EventLogPort
    from otgd.swarm.engine import Engine
    from otgd.swarm.roster import Row

FIRST_PAUSE_S = 1.0
LONGEST_PAUSE_S = 30.0
"""Between tries to reach the host's engine while it is down."""


class Listening:
    """The engine's node events as a descriptor; readable when there was one, or when they ended."""

    def __init__(self, hub: Engine) -> None:
        self._hub = hub
        self._reader, self._writer = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        self.ended = False
        self._thread = threading.Thread(target=self._listen, name="node events", daemon=True)
        self._thread.start()

    def _listen(self) -> None:
        with suppress(OtgdError):
            for _ in self._hub.node_events():
                self._wake()
        self.ended = True
        self._wake()

    def _wake(self) -> None:
        with suppress(BlockingIOError):  # full: it is readable anyway
            os.write(self._writer, b"x")

    def fileno(self) -> int:
        """Return the descriptor to wait on."""
        return self._reader

    def drain(self) -> None:
        """Forget what was told; look after this."""
        with suppress(BlockingIOError):
            while os.read(self._reader, 4096):
                pass

    def close(self) -> None:
        """Give the descriptors back if the events have ended; else the program's end does."""
        if self.ended:
            self._thread.join()
            self._hub.close()
            os.close(self._reader)
            os.close(self._writer)


class Following:
    """Follows the swarm of one config, for ever.

    Args:
        read_site: reads the config anew.
        watch: tells when state.json has changed.
        log: where events are told.
    """

    def __init__(
        self, read_site: Callable[[], Site], watch: DirectoryWatch, log: EventLogPort
    ) -> None:
        self._read_site = read_site
        self._site = read_site()
        self._watch = watch
        self._log = log
        self._follower = Follower()
        self._fault = ""

    def run(self) -> NoReturn:
        """Follow; when the engine goes away, wait until it is back."""
        pause_s = FIRST_PAUSE_S
        while True:
            try:
                self._session()
                pause_s = FIRST_PAUSE_S
            except OtgdError as err:
                self._tell_fault(str(err))
            self._watch.wait(pause_s)
            pause_s = min(pause_s * 2, LONGEST_PAUSE_S)

    def _session(self) -> None:
        """Follow until the engine goes away."""
        with closing(open_local()) as hub:
            self._look(hub)
            self._fault = ""
            # An engine of its own, since its one answer never ends.
            with closing(Listening(open_local())) as listening:
                wait_s: float | None = 0.0  # what happened before it listened
                while not listening.ended:
                    self._wait(listening, wait_s)
                    wait_s = self._look_again(hub, listening)

    def _wait(self, listening: Listening, wait_s: float | None) -> None:
        select.select([self._watch.fileno(), listening.fileno()], [], [], wait_s)
        self._watch.drain()
        listening.drain()

    def _look_again(self, hub: Engine, listening: Listening) -> float | None:
        """Look, and return when to look again without a reason."""
        try:
            if not listening.ended:
                self._look(hub)
        except OtgdError as err:
            self._tell_fault(str(err))
            return LONGEST_PAUSE_S
        self._fault = ""
        due_s = self._follower.next_due_s()
        return None if due_s is None else max(0.0, due_s - time.monotonic())

    def _look(self, hub: Engine) -> None:
        with suppress(OtgdError):  # a config that is being edited: the last good one holds
            self._site = self._read_site()
        rows = self._rows(hub)
        for event in self._follower.news(rows):
            self._log.write(event)
        if self._site.spec.auto_join:
            self._join(hub, rows)

    def _rows(self, hub: Engine) -> tuple[Row, ...]:
        site = self._site
        return roster.make_roster(hub.nodes(), site.places(), site.spec.hub_address)

    def _join(self, hub: Engine, rows: tuple[Row, ...]) -> None:
        site = self._site
        nodes = [row.node for row in rows if row.node]
        specs = self._follower.latecomers(rows, time.monotonic())
        for spec, result in cluster.each_guest(
            specs, lambda spec: cluster.join(hub, site.spec, spec, site.policy, nodes)
        ):
            good = isinstance(result, cluster.Outcome) and result.good
            if good:
                continue  # Docker tells of the new node
            text = result.text if isinstance(result, cluster.Outcome) else str(result)
            reason = text.removeprefix(f"{spec.name}: ")
            event = self._follower.refused(spec.name, reason, time.monotonic())
            if event:
                self._log.write(event)

    def _tell_fault(self, reason: str) -> None:
        if reason != self._fault:
            self._fault = reason
            self._log.write(
                Event(
                    kind=Kind.SWARM_LOST,
                    message=f"swarm: {reason}; waiting",
                    fields={"OTGD_REASON": reason},
                )
            )


def follow(site: Callable[[], Site], watch: DirectoryWatch) -> NoReturn:
    """Follow, and tell the journal, or stderr where that does not lead there."""
    log: EventLogPort = JournalLog() if stderr_is_journal() else StderrLog()
    Following(site, watch, log).run()
