"""A Docker Swarm over the cables: real engines as separate machines, real sshd, the real daemon."""

from __future__ import annotations

import os
import shutil
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from otgd.swarm import guid, load, platforms
from otgd.swarm.trial import containers
from tests.conftest import need
from tests.lab.daemon import Daemon
from tests.lab.deadline import until
from tests.lab.namespaces import run
from tests.lab.otgctl import Otgctl, Said
from tests.lab.topology import Lab, config_text, guest_address
from tests.system.container import make_root
from tests.system.engines import PACKAGES, DockerMachine

if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Any

pytestmark = pytest.mark.timeout(1200)  # the first one builds what is not in the cache

HUB = "10.0.10.1"
SWARM = f"""
[swarm]
hub_address = "{HUB}"
ssh_user = "root"
members = ["ethusb1", "ethusb2"]
"""
IP_VS = Path("/proc/net/ip_vs").exists()
NOTICE_S = 60
"""Docker takes some 15 s to see that a node is down, and 5 s that it is back."""


class Cluster:
    """A host with the daemon, two guests, and Docker on all three."""

    def __init__(self, lab: Lab, root: Path, directory: Path, stack: ExitStack) -> None:
        self.lab = lab
        self.directory = directory
        self.known_hosts = directory / "home/.ssh/known_hosts"
        self._log_in_with_a_key_of_its_own()
        self.daemon = Daemon(lab.host, directory, config_text(backend="nftables", more=SWARM))
        stack.callback(self.daemon.close)
        self.daemon.start_and_wait()
        lab.plug_all(1, 2)
        self.host = stack.enter_context(
            DockerMachine(lab.host, root, "otghost", directory, shares_run=True)
        )
        self.guests = [
            stack.enter_context(DockerMachine(lab.guest(n), root, f"worker{n}", directory))
            for n in (1, 2)
        ]
        for machine in (self.host, *self.guests):
            machine.start_docker()
        for guest in self.guests:
            guest.start_ssh(directory / "home/.ssh/id_ed25519.pub")
        for machine in (self.host, *self.guests):
            machine.await_docker()
        for n in (1, 2):
            self.daemon.wait_for(f"ethusb{n}", "reachable")
        self.otgctl = Otgctl(lab.host, directory)

    def _log_in_with_a_key_of_its_own(self) -> None:
        """Give root on the host another home, since ssh looks for it in passwd only."""
        home = self.directory / "home"
        (home / ".ssh").mkdir(parents=True, mode=0o700)
        run("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(home / ".ssh/id_ed25519"))
        passwd = self.directory / "passwd"
        passwd.write_text(Path("/etc/passwd").read_text().replace(":/root:", f":{home}:"))
        self.lab.host.run_inside("mount", "--bind", str(passwd), "/etc/passwd")

    def swarm(self, *arguments: str) -> Said:
        """Run ``otgctl swarm`` on the host."""
        return self.otgctl("swarm", *arguments)

    def ready(self, *arguments: str) -> Said:
        """Run ``otgctl swarm``, which shall succeed."""
        said = self.swarm(*arguments)
        assert said.code == 0, said
        return said

    def node(self, name: str) -> dict[str, Any]:
        """Return what ``otgctl swarm ls`` says of a gadget, or of ``host``."""
        rows: list[dict[str, Any]] = self.ready("ls", "--json").document["nodes"]
        return next(row for row in rows if row["name"] == name)

    def await_status(self, name: str, status: str) -> None:
        """Wait until a node has this status."""
        until(lambda: self.node(name)["status"] == status, NOTICE_S, what=lambda: self.node(name))

    def load(self, archive: bytes, *machines: DockerMachine) -> None:
        """Give an image to engines."""
        for machine in machines:
            (machine.root / "image.tar").write_bytes(archive)
            machine.docker("load", "-i", "/image.tar")

    @contextmanager
    def serving(self) -> Iterator[None]:
        """Run the GUID service everywhere, made by hand."""
        machines = (self.host, *self.guests)
        self.load(guid_image(self.host), *machines)
        self.host.docker("network", "create", "--driver", "overlay", "armnet")
        self.host.docker(
            *("service", "create", "--detach", "--mode", "global", "--name", guid.SERVICE),
            *("--network", "armnet", "--endpoint-mode", "dnsrr"),
            *("--publish", f"mode=host,target={guid.PORT},published={guid.PORT}", guid.TAG),
        )
        try:
            yield
        finally:
            self.host.docker("service", "rm", guid.SERVICE)
            until(lambda: self.host.attempt("docker", "network", "rm", "armnet").code == 0, 30)

    def heard_by(self, n: int) -> set[str]:
        """Return the containers that guest *n*'s replica reaches through the overlay network."""
        with self.lab.host.entered(), suppress(OSError):
            return containers(load.get(guest_address(n), guid.PORT, guid.PEERS_PATH))
        return set()


def guid_image(machine: DockerMachine, platform: platforms.Platform | None = None) -> bytes:
    """Make the GUID service's image of a machine's busybox; *platform* is what it says it is."""
    busybox = bytearray((machine.root / "usr/bin/busybox").read_bytes())
    if platform:
        number = next(k for k, v in platforms.ELF_MACHINES.items() if v == platform.architecture)
        busybox[18:20] = number.to_bytes(2, "little")
    return guid.make_image(bytes(busybox), platform or platforms.of_machine(os.uname().machine))


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    need(os.geteuid() == 0, "root, for machines in namespaces")
    need(shutil.which("mmdebstrap"), "mmdebstrap (packaging/lib/system-needs.txt)")
    root = make_root("trixie", *PACKAGES)
    with ExitStack() as stack:
        lab = stack.enter_context(Lab())
        yield Cluster(lab, root, tmp_path_factory.mktemp("swarm"), stack)


@pytest.fixture
def joined(cluster: Cluster) -> Cluster:
    """The cluster with everybody in the swarm."""
    said = cluster.swarm("ls", "--json")
    if said.code or [row["status"] for row in said.document["nodes"]] != ["ready"] * 3:
        cluster.ready("up", "--accept-new-host-keys")
        for name in ("ethusb1", "ethusb2"):
            cluster.await_status(name, "ready")
    return cluster


# --- before there is a swarm: what goes wrong, and what it is called -----------------------------


def test_unknown_host_key_is_not_taken_unasked(cluster: Cluster) -> None:
    said = cluster.swarm("up", "ethusb1")
    assert said.code == 1
    assert "the host key of 10.0.11.2 is not known yet" in said.err
    assert "--accept-new-host-keys" in said.err
    assert not cluster.known_hosts.exists()


def test_other_host_key_is_refused_even_where_new_ones_are_taken(cluster: Cluster) -> None:
    other = (cluster.directory / "home/.ssh/id_ed25519.pub").read_text().split()[:2]
    cluster.known_hosts.write_text(f"10.0.11.2 {' '.join(other)}\n")
    said = cluster.swarm("up", "ethusb1", "--accept-new-host-keys")
    cluster.known_hosts.unlink()
    assert said.code == 1
    assert "ssh-keygen -R 10.0.11.2" in said.err


def test_key_that_the_guest_does_not_take(cluster: Cluster) -> None:
    authorized = cluster.guests[0].root / "root/.ssh/authorized_keys"
    key = authorized.read_text()
    authorized.write_text("")
    said = cluster.swarm("up", "ethusb1", "--accept-new-host-keys")
    authorized.write_text(key)
    assert said.code == 1
    assert "ssh-copy-id root@10.0.11.2" in said.err


def guest_trouble(cluster: Cluster) -> Said:
    """Return what is told of the first guest."""
    return cluster.swarm("preflight", "ethusb1", "--accept-new-host-keys")


APT_GET = """\
#!/bin/sh
# The guest's apt, which has no network here: "install" puts back what the test hid.
case "$*" in
    *" update") ;;
    *" docker.io docker-cli")
        echo "dlstatus:1:50.0:Retrieving file 1 of 2"
        echo "pmstatus:docker.io:80.0:Installing docker.io"
        mv /hidden/dockerd /usr/sbin/dockerd
        mv /hidden/docker /usr/bin/docker
        ;;
    *) exit 1 ;;
esac
"""
APT_CACHE = """\
#!/bin/sh
echo "  Candidate: $(cat /candidate)"
"""


def test_guest_without_docker_and_how_it_gets_it(cluster: Cluster) -> None:
    guest = cluster.guests[0]
    guest.run("mkdir", "/hidden")
    for program in ("dockerd", "docker"):
        guest.run("sh", "-c", f"mv $(command -v {program}) /hidden/{program}")
    guest.write("/usr/local/bin/apt-get", APT_GET)
    guest.write("/usr/local/bin/apt-cache", APT_CACHE)
    guest.run("chmod", "+x", "/usr/local/bin/apt-get", "/usr/local/bin/apt-cache")
    guest.write("/candidate", "17.12.1")
    preflight = guest_trouble(cluster)
    up = cluster.swarm("up", "ethusb1", "--accept-new-host-keys")
    for said in (preflight.out, up.err):
        assert "there is no Docker on 10.0.11.2" in said
        assert "otgctl swarm install ethusb1" in said
    old = cluster.swarm("install", "ethusb1")
    assert (old.code, "Docker 17.12.1 is too old" in old.err) == (1, True), old
    guest.write("/candidate", "26.1.5")
    assert "ethusb1: Docker 26.1.5" in cluster.ready("install", "ethusb1").out
    assert "has Docker 26.1.5" in cluster.ready("install", "ethusb1").out
    guest.run("sh", "-c", "rm -r /usr/local/bin/apt-* /hidden /candidate")


def test_guest_whose_engine_is_down(cluster: Cluster) -> None:
    guest = cluster.guests[0]
    guest.stop("dockerd")
    said = guest_trouble(cluster)
    guest.start_docker()
    guest.await_docker()
    assert "Docker does not run on 10.0.11.2" in said.out
    assert "systemctl start docker" in said.out


def test_user_who_may_not_use_the_guests_docker(cluster: Cluster) -> None:
    guest = cluster.guests[0]
    guest.run("useradd", "--create-home", "pi")
    guest.run("sh", "-c", "cp -r /root/.ssh /home/pi/.ssh && chown -R pi /home/pi/.ssh")
    config = cluster.daemon.config_file
    text = config.read_text()
    config.write_text(text.replace('ssh_user = "root"', 'ssh_user = "pi"'))
    said = guest_trouble(cluster)
    config.write_text(text)
    assert "pi@10.0.11.2 may not use the guest's Docker" in said.out
    assert "sudo usermod -aG docker pi" in said.out


@pytest.mark.parametrize(
    ("program", "answer", "told"),
    [
        ("date", "echo 1700000000", "days behind the host's"),
        ("date", "echo 2700000000", "days ahead of the host's"),
    ],
    ids=["behind", "ahead"],
)
def test_guest_whose_clock_is_off(cluster: Cluster, program: str, answer: str, told: str) -> None:
    place = f"/usr/local/bin/{program}"
    cluster.guests[0].write(place, f"#!/bin/sh\n{answer}\n")
    cluster.guests[0].run("chmod", "+x", place)
    said = guest_trouble(cluster)
    cluster.guests[0].run("rm", place)
    assert told in said.out
    assert "sudo date -s" in said.out


def test_host_without_its_engine(cluster: Cluster) -> None:
    cluster.host.stop("dockerd")
    said = cluster.swarm("up")
    cluster.host.start_docker()
    cluster.host.await_docker()
    assert said.code == 1
    assert "sudo systemctl start docker" in said.err


def test_user_who_may_not_use_the_hosts_docker(cluster: Cluster) -> None:
    for path in (cluster.directory, *cluster.directory.parents[:2]):
        path.chmod(0o755)
    said = cluster.otgctl("swarm", "ls", user=65534)
    assert said.code == 1
    assert "permission denied on unix:///var/run/docker.sock" in said.err
    assert "sudo usermod -aG docker $USER" in said.err


# --- the swarm -----------------------------------------------------------------------------------


def test_up_joins_everybody_and_then_finds_nothing_to_do(joined: Cluster) -> None:
    host = joined.node("host")
    assert (host["address"], host["leader"]) == (HUB, True)
    first, second = joined.node("ethusb1"), joined.node("ethusb2")
    assert (first["hostname"], second["hostname"]) == ("worker1", "worker2")
    assert (first["gadget_state"], first["reason"]) == ("reachable", "")
    again = joined.ready("up")
    assert "ethusb1: is node worker1 already" in again.out
    assert "host: is the manager" in again.out
    assert joined.node("ethusb1")["node"] == first["node"]


def test_token_is_nowhere_to_be_read(joined: Cluster) -> None:
    token = joined.host.docker("swarm", "join-token", "-q", "worker").strip()
    joined.ready("leave", "ethusb1")
    said = joined.ready("up")
    assert token not in said.out + said.err
    for file in joined.directory.rglob("*"):
        if file.is_file():
            assert token.encode() not in file.read_bytes(), file


def test_live_node_is_not_forgotten(joined: Cluster) -> None:
    said = joined.swarm("rm", "worker1")
    assert said.code == 1
    assert "only dead nodes are forgotten" in said.err
    assert joined.node("ethusb1")["status"] == "ready"


def test_every_node_serves_and_nothing_is_left(joined: Cluster) -> None:
    said = joined.swarm("test", "--seconds", "1", "--json")
    assert said.code == 0, said
    assert said.document["publish"] == ("ingress" if IP_VS else "host")
    nodes = {node["name"]: node for node in said.document["nodes"]}
    assert list(nodes) == ["host", "ethusb1", "ethusb2"]
    for node in nodes.values():
        assert node["faults"] == []
        assert [(x["at_once"], x["failed"]) for x in node["runs"]] == [(1, 0), (5, 0), (5, 0)]
        assert [x["requests"] for x in node["runs"][:2]] == [100, 100]
    assert joined.host.docker("service", "ls", "-q") == ""
    assert guid.NETWORK not in joined.host.docker("network", "ls")
    for machine in (joined.host, *joined.guests):
        assert machine.docker("images", "-a", "-q") == ""


def test_test_tells_a_port_that_nobody_serves(joined: Cluster) -> None:
    """Without ip_vs the routing mesh converges and answers nobody."""
    if IP_VS:
        pytest.skip("this kernel has ip_vs")
    said = joined.swarm("test", "--publish", "ingress", "--seconds", "0")
    assert said.code == 1
    assert "3 of 3 replicas run" in said.out
    assert "no answer from" in said.out


def test_push_sends_only_what_is_missing(joined: Cluster) -> None:
    joined.load(guid_image(joined.host), joined.host)
    joined.host.docker("tag", guid.TAG, "base:1")
    joined.host.docker("run", "--name", "more", "base:1", "/bin/busybox", "touch", "/more")
    joined.host.docker("commit", "more", "more:1")
    first = joined.ready("push", "base:1", "ethusb1")
    assert "1 of 1 layers" in first.out
    both = joined.ready("push", "more:1")
    assert "ethusb1: got more:1: 1 of 2 layers, 0.0 MB" in both.out
    assert "ethusb2: got more:1: 2 of 2 layers" in both.out
    assert "has more:1 already" in joined.ready("push", "more:1", "ethusb1").out
    listed = joined.guests[0].docker("run", "--rm", "more:1", "/bin/busybox", "ls", "/")
    assert "more" in listed.split()


def test_push_refuses_another_architecture(joined: Cluster) -> None:
    arm = platforms.Platform(architecture="arm", variant="v6")
    joined.load(guid_image(joined.host, arm), joined.host)
    said = joined.swarm("push", guid.TAG, "ethusb1")
    joined.host.docker("image", "rm", "-f", guid.TAG)
    assert said.code == 1
    assert "is for arm/v6, the guest is amd64" in said.err


def test_unplugged_node_goes_down_and_comes_back_by_itself(joined: Cluster) -> None:
    before = joined.node("ethusb1")["node"]
    with joined.serving():
        until(lambda: len(joined.heard_by(2)) == 3, NOTICE_S, what=lambda: joined.heard_by(2))
        own = {machine.docker("ps", "-q").strip() for machine in (joined.host, joined.guests[1])}
        joined.lab.unplug(1)
        until(lambda: joined.node("ethusb1")["gadget_state"] == "absent")

        def down() -> bool:
            # The other gadget's way to the host, through the overlay, holds all the while.
            assert joined.heard_by(2) >= own
            return bool(joined.node("ethusb1")["status"] == "down")

        until(down, NOTICE_S, what=lambda: joined.node("ethusb1"))
        assert "no link with MAC" in joined.node("ethusb1")["reason"]
        assert joined.node("ethusb2")["status"] == "ready"
        joined.lab.plug(1)
        joined.await_status("ethusb1", "ready")
        assert joined.node("ethusb1")["node"] == before
        assert joined.node("ethusb1")["reason"] == ""
        until(lambda: len(joined.heard_by(2)) == 3, NOTICE_S, what=lambda: joined.heard_by(2))
        until(lambda: len(joined.heard_by(1)) == 3, NOTICE_S, what=lambda: joined.heard_by(1))


def test_engines_that_restart_are_ready_again(joined: Cluster) -> None:
    for machine in (joined.guests[0], joined.host):
        machine.stop("dockerd")
        machine.start_docker()
    for machine in (joined.guests[0], joined.host):
        machine.await_docker()
    until(lambda: joined.swarm("ls").code == 0, NOTICE_S)
    for name in ("host", "ethusb1", "ethusb2"):
        joined.await_status(name, "ready")


def test_latecomer_joins_by_itself_and_the_journal_tells(joined: Cluster) -> None:
    config = joined.daemon.config_file
    text = config.read_text()
    joined.ready("leave", "ethusb1")
    config.write_text(text.replace("members =", "auto_join = true\nmembers ="))
    log = joined.directory / "follow.log"
    command = joined.otgctl.command("swarm", "follow")
    with log.open("wb") as stderr:
        following = joined.lab.host.start(*command, env=dict(os.environ), stderr=stderr)
    try:
        until(lambda: joined.node("ethusb1")["status"] == "ready", NOTICE_S, what=log.read_text)
        until(lambda: "ethusb1: swarm node worker1 joined" in log.read_text(), what=log.read_text)
        joined.guests[0].stop("dockerd")
        until(lambda: "ethusb1: swarm node worker1 is down" in log.read_text(), NOTICE_S)
        joined.host.stop("dockerd")
        until(lambda: "warning: swarm: this host's Docker" in log.read_text(), NOTICE_S)
        for machine in (joined.host, joined.guests[0]):
            machine.start_docker()
        until(lambda: "ethusb1: swarm node worker1 is ready" in log.read_text(), NOTICE_S)
        assert following.poll() is None
    finally:
        following.terminate()
        following.wait(20)
        config.write_text(text)
    assert len(log.read_text().splitlines()) < 15, log.read_text()
