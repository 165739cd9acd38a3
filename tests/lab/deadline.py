"""Wait for a fact instead of for a while."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable

Truth = TypeVar("Truth")


def until(
    condition: Callable[[], Truth | None],
    deadline_s: float = 30.0,
    *,
    what: Callable[[], object] | None = None,
) -> Truth:
    """Return the first truthy value of *condition*, or fail when *deadline_s* have passed.

    Args:
        condition: asked again and again, at once and then every few milliseconds.
        deadline_s: seconds until the test gives up.
        what: tells what was there instead, for the failure's message.
    """
    end = time.monotonic() + deadline_s
    while True:
        late = time.monotonic() > end
        value = condition()
        if value:
            return value
        if late:
            seen = "" if what is None else f": {what()}"
            raise AssertionError(f"not within {deadline_s} s{seen}")
        time.sleep(0.002)
