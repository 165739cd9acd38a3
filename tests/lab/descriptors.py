"""What a selector is told of a descriptor."""

from __future__ import annotations

import selectors


def is_readable(descriptor: int, timeout_s: float = 0.0) -> bool:
    """Tell whether it wakes the kind of selector that the daemon waits with."""
    with selectors.DefaultSelector() as selector:
        selector.register(descriptor, selectors.EVENT_READ)
        return bool(selector.select(timeout_s))
