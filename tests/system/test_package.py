"""The .deb through its life: installed by one command, upgraded, removed, purged."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import pytest

from tests.lab.namespaces import run
from tests.lab.topology import FAR_SIDE, HOST_UPLINK
from tests.lab.traffic import Conversation, PingStream
from tests.system.conftest import apt_install, boot_host
from tests.system.deadline import until
from tests.system.host import CONFIG

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.system.conftest import Boot, System
    from tests.system.container import Container
    from tests.system.host import Host

pytestmark = pytest.mark.timeout(1200)  # the first one builds what is not in the cache


@pytest.fixture
def host(boot: Boot, trixie_installed: System) -> Iterator[Host]:
    """A running host with the .deb."""
    with boot_host(boot, trixie_installed) as each:
        yield each


@pytest.fixture(scope="session")
def newer_deb(deb: Path) -> Path:
    """The same package with a higher version, as an upgrade is to dpkg."""
    tree = deb.parent / "newer"
    run("dpkg-deb", "--raw-extract", str(deb), str(tree))
    control = tree / "DEBIAN" / "control"
    control.write_text(control.read_text().replace("\nVersion: ", "\nVersion: 99.", 1))
    newer = deb.with_name("otgd_newer_all.deb")
    run("dpkg-deb", "--root-owner-group", "--build", str(tree), str(newer))
    return newer


def everything_named_otgd(container: Container) -> set[str]:
    """Return every path that says otgd, except where others keep records and the test its files."""
    out = container.run("find", "/", "/run", "-xdev", "-name", "*otgd*")
    others = ("/root/", "/var/log/", "/var/cache/")
    return {path for path in out.splitlines() if not path.startswith(others)}


def test_one_command_installs_and_starts_it(boot: Boot, trixie: System, deb: Path) -> None:
    with boot(trixie) as container:
        apt_install(container, deb)
        assert container.unit("otgd.service", "ActiveState") == "active"
        assert container.unit("otgd.service", "UnitFileState") == "enabled"
        assert container.unit("otgd.service", "StatusText").startswith("0 of 4 gadgets")
        assert container.run("systemctl", "--failed", "--plain", "--no-legend") == ""
        assert container.run("sysctl", "--values", "net.ipv4.ip_forward").strip() == "1"


def test_installed_files_are_as_the_package_says(boot: Boot, trixie_installed: System) -> None:
    with boot(trixie_installed) as container:
        changed = container.attempt("dpkg", "--verify", "otgd").out.splitlines()
        # The test's roots are made without documentation.
        assert [line for line in changed if "/usr/share/doc/" not in line] == []
        completion = "/usr/share/bash-completion/completions/otgctl"
        out = container.run(
            "bash",
            "-c",
            f"source {completion}; COMP_WORDS=(otgctl st); COMP_CWORD=1; COMP_LINE='otgctl st';"
            ' _otgctl; echo "${COMPREPLY[@]}"',
        )
        assert out.split() == ["status"]


def test_upgrade_keeps_traffic_and_config(host: Host, newer_deb: Path) -> None:
    host.plug(1)
    host.await_online(1)
    config = (host.system.root / CONFIG.lstrip("/")).read_text()
    before = host.pid
    with (
        Conversation(host.guest(1), host.internet, FAR_SIDE) as conversation,
        PingStream(host.guest(1), FAR_SIDE) as stream,
    ):
        assert conversation.seen_as == HOST_UPLINK  # masqueraded
        until(lambda: stream.answers > 10)
        start = time.monotonic()
        apt_install(host.system, newer_deb)
        host.await_active()
        until(lambda: time.monotonic() > start + 2)
        assert stream.lost_since(start) == []
        assert conversation.goes_on()
    assert host.pid != before
    assert (host.system.root / CONFIG.lstrip("/")).read_text() == config
    assert host.system.run("dpkg-query", "--show", "--showformat=${Version}", "otgd")[:3] == "99."


def test_removal_releases_the_network(host: Host) -> None:
    host.plug(1)
    host.await_online(1)
    host.system.run("apt-get", "remove", "--yes", "otgd")
    assert host.addresses("ethusb1") == []
    assert "10.0.11" not in host.firewall()
    assert (host.system.root / CONFIG.lstrip("/")).exists()


def test_purge_leaves_nothing(host: Host) -> None:
    host.plug(1)
    host.await_online(1)
    assert everything_named_otgd(host.system)
    host.system.run("apt-get", "purge", "--yes", "otgd")
    assert everything_named_otgd(host.system) == set()
    assert host.system.attempt("getent", "passwd", "otgd").code != 0
    assert host.system.attempt("getent", "group", "otgd").code != 0
    assert "otgd" not in host.firewall()
    lock = host.system.run("stat", "--format=%U:%G:%a", "/run/xtables.lock")
    assert lock.strip() == "root:root:600"


def test_bookworm_is_told_that_the_package_is_not_for_it(
    boot: Boot, bookworm: System, deb: Path
) -> None:
    with boot(bookworm) as container, pytest.raises(AssertionError, match="python3-pydantic"):
        apt_install(container, deb)
