"""The running daemon's state, now and whenever it changes."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

from otgd.cli.inotify import DirectoryWatch

if TYPE_CHECKING:
    from collections.abc import Iterator

    from otgd.cli.installation import Installation

LOOK_S = 4.0
"""How often to look without a reason: that a daemon was killed, nothing in the directory tells."""


def follow(
    installation: Installation, *, timeout_s: float | None = None
) -> Iterator[dict[str, Any] | None]:
    """Yield the told state and then each that differs from the last, None while none is told.

    Ends after *timeout_s*; the first state is yielded in any case.
    """
    end = None if timeout_s is None else time.monotonic() + timeout_s
    with DirectoryWatch(installation.runtime_dir) as watch:
        known = installation.told_state()
        yield known
        while (left_s := LOOK_S if end is None else end - time.monotonic()) > 0:
            watch.wait(min(left_s, LOOK_S))
            state = installation.told_state()
            if state != known:
                known = state
                yield state
