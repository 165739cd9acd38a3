"""A terminal that a person looks at."""

from __future__ import annotations

import os
import pty
import select
import time

TERMINAL = {"TERM": "xterm-256color", "COLUMNS": "150", "LINES": "20"}
"""The environment of a program that draws on it."""


class Screen:
    """What is drawn on a pseudo-terminal, as one string."""

    def __init__(self) -> None:
        self.master, self.slave = pty.openpty()
        self.seen = ""

    def wait_for(self, text: str) -> None:
        """Return once *text* was drawn."""
        end = time.monotonic() + 30
        while text not in self.seen:
            assert time.monotonic() < end, self.seen
            if select.select([self.master], [], [], 0.1)[0]:
                self.seen += os.read(self.master, 65536).decode()

    def close(self) -> None:
        """Give the descriptors back."""
        os.close(self.master)
        os.close(self.slave)
