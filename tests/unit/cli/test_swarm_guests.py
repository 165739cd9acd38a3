"""``otgctl swarm`` with guests: their ssh and engines are played by this test."""

from __future__ import annotations

import io
import sys
import tarfile
from contextlib import ExitStack
from typing import TYPE_CHECKING

import pytest

from otgd.cli.inotify import DirectoryWatch
from otgd.cli.installation import Installation
from otgd.cli.swarm import Site
from otgd.cli.swarm_follow import Following
from otgd.swarm import guid
from otgd.swarm.archive import make_archive, read_archive
from otgd.swarm.platforms import Platform
from tests.fake_service import FakeLog
from tests.lab.daemon import REPOSITORY
from tests.unit.cli.conftest import CONFIG, absent, gadget, state
from tests.unit.cli.fake_engine import FakeEngine, Serving, raw_node

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.unit.cli.conftest import Tool

SWARM = '\n[swarm]\nhub_address = "10.0.10.1"\n'
GUEST = "10.0.11.2"
REACHABLE = state(gadget(state="reachable"), absent())


@pytest.fixture
def guests(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Put the played ssh first in PATH; return the directory of the guests' sockets."""
    directory = tmp_path / "g"
    (directory / "bin").mkdir(parents=True)
    ssh = directory / "bin/ssh"
    run = f'{sys.executable} -m tests.unit.cli.fake_ssh {directory} "$@"'
    ssh.write_text(f"#!/bin/sh\nPYTHONPATH={REPOSITORY} exec {run}\n")
    ssh.chmod(0o755)
    monkeypatch.setenv("PATH", f"{directory}/bin", prepend=":")
    return directory


@pytest.fixture
def engines(
    otgctl: Tool, guests: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[tuple[FakeEngine, FakeEngine]]:
    """A manager here and an engine on the first guest, whose cable is in."""
    otgctl.write_config(CONFIG + SWARM)
    otgctl.run_daemon(REACHABLE)
    hub, guest = FakeEngine(), FakeEngine(machine="armv6l")
    guest.manager = hub
    hub.lead()
    monkeypatch.setenv("DOCKER_HOST", f"unix://{guests}/hub")
    with ExitStack() as stack:
        for engine, name in ((hub, "hub"), (guest, GUEST)):
            stack.callback(Serving(engine, guests / name).close)
        yield hub, guest


@pytest.fixture
def has_hub(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("otgd.swarm.cluster.has_address", lambda _: True)


@pytest.mark.usefixtures("has_hub")
def test_up_hands_the_token_from_engine_to_engine(
    otgctl: Tool, engines: tuple[FakeEngine, FakeEngine]
) -> None:
    _, guest = engines
    said = otgctl("swarm", "up")
    assert said.code == 0, said
    assert "ethusb1: joined as 10.0.11.2" in said.out
    assert guest.joined is not None
    assert guest.joined["JoinToken"] == "SWMTKN-secret"
    assert guest.joined["RemoteAddrs"] == ["10.0.10.1:2377"]
    assert guest.joined["AdvertiseAddr"] == GUEST
    assert "SWMTKN" not in said.out + said.err


@pytest.mark.usefixtures("has_hub")
def test_up_leaves_a_member_of_another_swarm_alone(
    otgctl: Tool, engines: tuple[FakeEngine, FakeEngine]
) -> None:
    _, guest = engines
    guest.swarm = {"LocalNodeState": "active", "NodeID": "else"}
    said = otgctl("swarm", "up")
    assert (said.code, guest.joined) == (1, None)
    assert "otgctl: ethusb1: it is in another swarm" in said.err


@pytest.mark.usefixtures("has_hub")
def test_up_tells_ssh_trouble_and_goes_on(
    otgctl: Tool, guests: Path, engines: tuple[FakeEngine, FakeEngine]
) -> None:
    assert engines
    (guests / f"{GUEST}.complaint").write_text("pi@10.0.11.2: Permission denied (publickey).\n")
    said = otgctl("swarm", "up")
    assert said.code == 1
    assert said.err == (
        "otgctl: ethusb1: pi@10.0.11.2 does not take this user's key; type: "
        "ssh-copy-id pi@10.0.11.2\n"
    )


def test_leave_takes_the_node_from_both_ends(
    otgctl: Tool, engines: tuple[FakeEngine, FakeEngine]
) -> None:
    hub, guest = engines
    hub.nodes.append(raw_node("n1", "worker1", GUEST))
    guest.swarm = {"LocalNodeState": "active", "NodeID": "n1"}
    said = otgctl("swarm", "leave", "worker1")
    assert said.out == "ethusb1: has left the swarm\n"
    assert guest.swarm["LocalNodeState"] == "inactive"
    assert [node["ID"] for node in hub.nodes] == ["hub"]


def test_preflight_asks_the_guest(otgctl: Tool, engines: tuple[FakeEngine, FakeEngine]) -> None:
    assert engines
    findings = otgctl("swarm", "preflight", "ethusb1", "--json").document["findings"]
    marks = {each["check"]: each["mark"] for each in findings if each["gadget"]}
    assert marks["ssh"] == "ok"
    assert marks["clock"] == "ok"


def archive() -> bytes:
    files = {"a": (0o644, b"a" * 5000)}
    return make_archive("a:1", files, Platform(architecture="arm", variant="v6"), {})


def test_push_sends_what_the_guest_lacks(
    otgctl: Tool, engines: tuple[FakeEngine, FakeEngine]
) -> None:
    hub, guest = engines
    hub.archives["a:1"] = archive()
    said = otgctl("swarm", "push", "a:1")
    assert said.code == 0, said
    assert "1 of 1 layers" in said.out
    with tarfile.open(fileobj=io.BytesIO(guest.loaded[0])) as sent:
        assert "layer.tar" in sent.getnames()
    guest.layers = [read_archive(io.BytesIO(archive())).layers[0][0]]
    assert "0 of 1 layers" in otgctl("swarm", "push", "a:1").out
    with tarfile.open(fileobj=io.BytesIO(guest.loaded[1])) as sent:
        assert "layer.tar" not in sent.getnames()


def test_push_refuses_what_would_not_run(
    otgctl: Tool, engines: tuple[FakeEngine, FakeEngine]
) -> None:
    hub, guest = engines
    hub.archives["a:1"] = archive()
    guest.machine = "x86_64"
    said = otgctl("swarm", "push", "a:1")
    assert (said.code, guest.loaded) == (1, [])
    assert "a:1 is for arm/v6, the guest is amd64" in said.err
    assert otgctl("swarm", "push", "--force", "a:1").code == 0


def test_install_leaves_a_working_engine_alone(
    otgctl: Tool, engines: tuple[FakeEngine, FakeEngine]
) -> None:
    assert engines
    said = otgctl("swarm", "install")
    assert said.code == 0, said
    assert "ethusb1: has Docker 28.1.0 already" in said.out


def test_install_without_apt_says_so(
    otgctl: Tool, guests: Path, engines: tuple[FakeEngine, FakeEngine]
) -> None:
    assert engines
    (guests / GUEST).rename(guests / "hidden")
    (guests / "bin/apt-get").write_text("#!/bin/sh\necho 'E: no such server' >&2; exit 100\n")
    (guests / "bin/apt-get").chmod(0o755)
    said = otgctl("swarm", "install")
    assert said.code == 1
    assert said.err.startswith("otgctl: ethusb1: ")
    assert len(said.err.splitlines()) == 1


def test_test_needs_a_busybox_for_the_guests(
    otgctl: Tool, engines: tuple[FakeEngine, FakeEngine]
) -> None:
    """Neither this machine's nor its apt's is for a Zero."""
    hub, _ = engines
    hub.nodes = [raw_node("n1", "worker1", GUEST)]
    said = otgctl("swarm", "test", "--publish", "host")
    assert said.code == 1
    assert "ethusb1: no static busybox for arm/v6" in said.err
    assert hub.archives.get(guid.TAG) is None


class OverError(Exception):
    """The test has seen enough."""


class OneRound(DirectoryWatch):
    """Ends the following at its first pause."""

    def wait(self, timeout_s: float) -> None:
        raise OverError(timeout_s)


def test_following_joins_who_came_and_tells_who_cannot(
    otgctl: Tool, engines: tuple[FakeEngine, FakeEngine]
) -> None:
    _, guest = engines
    otgctl.write_config(CONFIG + SWARM + "auto_join = true\n")
    place = Installation(config_file=otgctl.config_file, runtime_dir=otgctl.daemon.directory)
    told = []
    for membership in ("locked", "inactive"):
        guest.swarm = {"LocalNodeState": membership}
        log = FakeLog()
        with OneRound(otgctl.daemon.directory) as watch, pytest.raises(OverError):
            Following(lambda: Site(place), watch, log).run()
        told.append([event.message for event in log.events])
    assert told == [
        [
            "ethusb1: cannot join the swarm: it is a locked manager; type there: docker swarm "
            "unlock; trying again"
        ],
        ["ethusb1: swarm node worker1 joined: ready"],
    ]
    assert guest.joined is not None


def test_following_waits_for_the_engine(
    otgctl: Tool, guests: Path, engines: tuple[FakeEngine, FakeEngine]
) -> None:
    assert engines
    (guests / "hub").unlink()
    place = Installation(config_file=otgctl.config_file, runtime_dir=otgctl.daemon.directory)
    log = FakeLog()
    with OneRound(otgctl.daemon.directory) as watch, pytest.raises(OverError):
        Following(lambda: Site(place), watch, log).run()
    assert "systemctl start docker" in log.events[0].message
