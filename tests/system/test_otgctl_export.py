"""A trixie without otgd: what ``otgctl export`` wrote, and systemd-networkd, make the network."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from otgd.cli import main
from tests.lab.topology import FAR_SIDE, config_text, guest_address, host_address
from tests.lab.traffic import ping
from tests.system.conftest import rest
from tests.system.deadline import until
from tests.system.host import Host

if TYPE_CHECKING:
    from pathlib import Path

    from tests.system.conftest import Boot, System

pytestmark = pytest.mark.timeout(1200)  # the first one builds what is not in the cache

FORMATS = ("--format", "networkd", "--format", "nftables", "--uplink", "eth0")


def install_exported(root: Path, config: Path) -> None:
    """Put the exported files below *root*, as an administrator who parts with otgd would."""
    rest(root)
    assert main(["-c", str(config), "export", *FORMATS, "--output", str(root)]) == 0
    with (root / "etc/nftables.conf").open("a") as ruleset:
        ruleset.write('\ninclude "/etc/nftables.d/*.nft"\n')
    wanted = root / "etc/systemd/system/multi-user.target.wants"
    for unit in ("systemd-networkd", "nftables"):
        (wanted / f"{unit}.service").symlink_to(f"/usr/lib/systemd/system/{unit}.service")


def test_exported_files_give_the_same_network(boot: Boot, trixie: System, tmp_path: Path) -> None:
    config = tmp_path / "otgd.toml"
    config.write_text(config_text())
    with (
        boot(trixie, lambda root: install_exported(root, config)) as container,
        Host(container) as host,
    ):
        host.plug_all(1, 2, 3, 4)
        for n in (1, 2, 3, 4):
            address = [f"{host_address(n)}/24"]
            until(lambda n=n, address=address: host.addresses(f"ethusb{n}") == address)  # type: ignore[misc]
            host.await_online(n)
        assert ping(host.guest(1), guest_address(3))
        host.unplug(2)
        host.plug(2, "enx0022")
        host.await_online(2)
        assert ping(host.guest(2), FAR_SIDE)
