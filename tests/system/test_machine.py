"""Real USB gadgets on Debian's kernel, with the package and the config as installed."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.lab.deadline import until
from tests.lab.topology import host_address
from tests.system.machine import running
from tests.system.zeros import ECM, NCM, RNDIS, Function, Zeros

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.system.image import Image

pytestmark = pytest.mark.timeout(1200)  # the first one builds what is not in the cache

PATIENCE_S = 60
"""Software emulation makes Python some fifteen times slower."""


@pytest.fixture(scope="module")
def zeros(image: Image, workspace: Path) -> Iterator[Zeros]:
    with running(image, workspace / "machine") as machine:
        until(lambda: machine.unit("otgd.service", "ActiveState") == "active", PATIENCE_S)
        yield Zeros(machine)


def await_online(zeros: Zeros, n: int) -> None:
    until(
        lambda: zeros.reaches(n),
        PATIENCE_S,
        what=lambda: (
            zeros.machine.run("journalctl", "-u", "otgd.service", "-n", "30")
            + zeros.machine.run("ip", "address")
        ),
    )


@pytest.mark.parametrize("function", [ECM, RNDIS, NCM], ids=lambda function: function.name)
def test_prepared_zero_works_with_the_config_as_installed(zeros: Zeros, function: Function) -> None:
    zeros.plug(1, function)
    try:
        await_online(zeros, 1)
        assert zeros.reaches(1, host_address(1))
        assert zeros.machine.udev("ethusb1")["ID_NET_DRIVER"] == function.driver
    finally:
        zeros.scrap(1)
    until(lambda: "ethusb1" not in zeros.machine.links(), PATIENCE_S)
