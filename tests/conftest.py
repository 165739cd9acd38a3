"""Fixtures that every test may use; what a test needs and cannot get is told as a skip."""

from __future__ import annotations

import os
import shutil
from typing import TYPE_CHECKING

import pytest
from hypothesis import HealthCheck, settings

from tests.lab.namespaces import private_network

if TYPE_CHECKING:
    from collections.abc import Iterator

IN_CI = bool(os.environ.get("CI"))

# How long an example takes says more of what else the machine does than of the program.
settings.register_profile("otgd", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("otgd")


def need(condition: object, what: str) -> None:
    """Skip for a person, fail in CI, unless *condition* holds."""
    if condition:
        return
    if IN_CI:
        pytest.fail(f"needs {what}; CI must have it")
    pytest.skip(f"needs {what}")


@pytest.fixture
def netns() -> Iterator[None]:
    """Run the test in a network namespace of its own (root only)."""
    need(os.geteuid() == 0, "root, for a network namespace of its own")
    need(shutil.which("ip"), "the ip command (package iproute2)")
    with private_network():
        yield
