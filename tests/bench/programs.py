"""The two C programs: the watcher that plugs and times, and the lower bound."""

from __future__ import annotations

from pathlib import Path

from tests.lab.namespaces import run

SOURCES = Path(__file__).resolve().parent
FLAGS = ("-O2", "-static", "-pthread", "-Wall", "-Wextra", "-Wno-sign-compare", "-Werror")
"""Static, because the lower bound runs in another Debian than it is compiled in."""


def build(name: str, directory: Path) -> Path:
    """Compile *name*.c into *directory* and return the program."""
    program = directory / name
    run("gcc", *FLAGS, "-o", str(program), str(SOURCES / f"{name}.c"))
    return program
