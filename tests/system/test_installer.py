"""install.sh through its life, on bookworm: run again, uninstalled, purged."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import pytest

from tests.lab.topology import FAR_SIDE, HOST_UPLINK
from tests.lab.traffic import Conversation, PingStream
from tests.system.conftest import boot_host, run_installer
from tests.system.deadline import until
from tests.system.host import CONFIG
from tests.system.test_package import everything_named_otgd

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.system.conftest import Boot, System
    from tests.system.host import Host

pytestmark = pytest.mark.timeout(1200)  # the first one builds what is not in the cache


@pytest.fixture
def host(boot: Boot, bookworm_installed: System) -> Iterator[Host]:
    """A running host after install.sh."""
    with boot_host(boot, bookworm_installed) as each:
        yield each


def test_second_run_keeps_traffic_and_config(host: Host) -> None:
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
        run_installer(host.system)
        host.await_active()
        assert stream.lost_since(start) == []
        assert conversation.goes_on()
    assert host.pid != before
    assert (host.system.root / CONFIG.lstrip("/")).read_text() == config


def test_failed_run_leaves_the_old_one_at_work(host: Host) -> None:
    host.plug(1)
    host.await_online(1)
    host.system.run("rm", "-rf", "/root/wheelhouse", "/root/.cache")
    with pytest.raises(AssertionError, match="pip could not install"):
        run_installer(host.system)
    host.system.run("systemctl", "restart", "otgd.service")
    host.await_online(1)


def test_uninstall_releases_the_network_and_keeps_the_config(host: Host) -> None:
    host.plug(1)
    host.await_online(1)
    run_installer(host.system, "--uninstall")
    assert host.addresses("ethusb1") == []
    assert "10.0.11" not in host.firewall()
    left = everything_named_otgd(host.system)
    assert {path for path in left if not path.startswith("/etc/otgd")} == set()
    assert (host.system.root / CONFIG.lstrip("/")).exists()


def test_shells_find_the_completions(host: Host) -> None:
    """Hold that they lie where Debian's zsh and bash-completion look below /usr/local."""
    for place in ("zsh/site-functions/_otgctl", "bash-completion/completions/otgctl"):
        installed = host.system.root / "usr/local/share" / place
        assert "otgctl" in installed.read_text()


def test_purge_leaves_nothing(host: Host) -> None:
    host.plug(1)
    host.await_online(1)
    run_installer(host.system, "--uninstall", "--purge")
    assert everything_named_otgd(host.system) == set()
    assert host.system.attempt("getent", "passwd", "otgd").code != 0
    assert "otgd" not in host.firewall()
