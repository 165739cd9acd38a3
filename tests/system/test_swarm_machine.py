"""The guide's ``-p 9000:9000``: the routing mesh, on a kernel with ip_vs, in a virtual machine.

Takes seven minutes in software emulation, so it runs when OTGD_LONG is set.
"""

from __future__ import annotations

import json
import os
import shutil
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from otgd.events import Kind
from tests.lab.deadline import until
from tests.lab.topology import config_text, guest_mac, mac
from tests.system.conftest import DEPENDS, REPOSITORY, SYSTEM, bootable
from tests.system.container import make_root
from tests.system.engines import PACKAGES
from tests.system.machine import running

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.system.machine import Machine

pytestmark = [
    pytest.mark.timeout(3600),
    pytest.mark.skipif(not os.environ.get("OTGD_LONG"), reason="takes long; set OTGD_LONG"),
]

PATIENCE_S = 400
SCRIPT = "/usr/local/lib/docker-machine.sh"
KEY = "/root/.ssh/id_ed25519"
SWARM = """
[swarm]
hub_address = "10.0.10.1"
ssh_user = "root"
members = ["ethusb1", "ethusb2"]
"""
CONFIG = config_text(
    backend="nftables",
    more=SWARM,
).replace('source = "kernel"', 'source = "auto"')

CABLE = """
set -e
ip -n z{n} link add name usb0 address {guest_mac} type veth peer name usb{n} address {mac} netns 1
ip -n z{n} address add 10.0.1{n}.2/24 dev usb0
ip -n z{n} link set usb0 up
ip -n z{n} route add default via 10.0.1{n}.1
"""
WORKER = """
set -e
ip netns add z{n}
ip -n z{n} link set lo up
systemd-run --quiet --unit=worker{n} ip netns exec z{n} {script} w{n} worker{n} / own
"""
ENGINE = """
set -e
pid=$(pgrep -P "$(pgrep -f 'unshare.*w{n} worker{n}' | head -n 1)" | head -n 1)
run() {{ systemd-run --quiet --unit="$1" nsenter --target "$pid" --all --root --wd -- "${{@:2}}"; }}
nsenter --target "$pid" --all --root --wd -- sh -c 'mkdir -p /run/sshd /run/lock'
run worker{n}-sshd /usr/sbin/sshd -D
run worker{n}-docker /usr/sbin/dockerd
"""


@pytest.fixture(scope="module")
def machine(workspace: Path) -> Iterator[Machine]:
    root = make_root("trixie", *SYSTEM, "python3-docker", *DEPENDS, *PACKAGES)
    extra = workspace / "swarm"
    shutil.copytree(REPOSITORY / "otgd", extra / "usr/lib/python3/dist-packages/otgd")
    (extra / "etc/otgd").mkdir(parents=True)
    (extra / "etc/otgd/otgd.toml").write_text(CONFIG)
    (extra / "usr/local/lib").mkdir(parents=True)
    shutil.copy(Path(__file__).with_name("docker-machine.sh"), extra / SCRIPT.lstrip("/"))
    image = bootable(workspace / "swarm-image", (extra, root))
    with running(image, workspace / "swarm-machine", memory_mib=4096, cpus=2) as booted:
        yield booted


def plug(machine: Machine, n: int) -> None:
    machine.run("bash", "-c", CABLE.format(n=n, mac=mac(n), guest_mac=guest_mac(n)))


def otgctl(machine: Machine, *arguments: str) -> str:
    return machine.run("python3", "-m", "otgd.cli", *arguments)


@pytest.fixture(scope="module")
def cluster(machine: Machine) -> Machine:
    """The machine as the host of two guests, all three in one swarm."""
    machine.run("sh", "-c", "echo otghost > /etc/hostname; hostname otghost")
    machine.run("sh", "-c", "mkdir -p -m 700 /root/.ssh; ssh-keygen -qt ed25519 -N '' -f $0", KEY)
    machine.run("cp", f"{KEY}.pub", "/root/.ssh/authorized_keys")
    machine.run(
        *("systemd-run", "--quiet", "--unit=otgd", "--property=RuntimeDirectory=otgd"),
        *("python3", "-m", "otgd", "--config", "/etc/otgd/otgd.toml"),
    )
    for n in (1, 2):
        machine.run("bash", "-c", WORKER.format(n=n, script=SCRIPT))
        plug(machine, n)
    up = "ls /proc/[0-9]*/root/run/machine-ready | wc -l"
    until(lambda: int(machine.run("sh", "-c", up)) >= 2, PATIENCE_S)
    for n in (1, 2):
        machine.run("bash", "-c", ENGINE.format(n=n))
    otgctl(machine, "wait", "ethusb1", "ethusb2", "--state", "reachable", "--timeout", "300")
    join = ("python3", "-m", "otgd.cli", "swarm", "up", "--accept-new-host-keys")
    until(lambda: machine.attempt(*join).code == 0, PATIENCE_S, what=lambda: machine.attempt(*join))
    return machine


def test_every_node_answers_for_all_through_the_routing_mesh(cluster: Machine) -> None:
    done = cluster.attempt(
        *("python3", "-m", "otgd.cli", "swarm", "test"),
        *("--publish", "auto", "--seconds", "10", "--json"),
    )
    document = json.loads(done.out)
    assert document["publish"] == "ingress"
    assert document["good"], done
    assert len(document["nodes"]) == 3
    for node in document["nodes"]:
        assert [run["failed"] for run in node["runs"]] == [0, 0, 0]
    assert cluster.attempt("test", "-e", "/proc/net/ip_vs").code == 0
    sys.stdout.write(done.out)  # the figures, with pytest -s


def test_installed_service_tells_of_a_pulled_cable_and_of_its_return(cluster: Machine) -> None:
    """In the sandbox of its unit."""
    unit = "otgd-swarm.service"
    cluster.write(f"/etc/systemd/system/{unit}", (REPOSITORY / "systemd" / unit).read_text())
    cluster.write("/usr/bin/otgctl", '#!/bin/sh\nexec python3 -m otgd.cli "$@"\n')
    cluster.run("chmod", "755", "/usr/bin/otgctl")
    cluster.run("systemctl", "daemon-reload")
    cluster.run("systemctl", "start", unit)
    # A second thread hears the engine: from now on it has what to compare with.
    until(lambda: int(cluster.unit(unit, "TasksCurrent")) >= 2, PATIENCE_S)

    def told(kind: Kind) -> list[str]:
        entries = cluster.journal(
            f"_SYSTEMD_UNIT={unit}", f"MESSAGE_ID={kind.message_id}", "OTGD_GADGET=ethusb2"
        )
        return [entry["MESSAGE"] for entry in entries]

    cluster.run("ip", "link", "delete", "ethusb2")
    until(lambda: told(Kind.SWARM_NODE_LOST), PATIENCE_S)
    plug(cluster, 2)
    until(lambda: told(Kind.SWARM_NODE_READY), PATIENCE_S)
    assert cluster.unit(unit, "ActiveState") == "active"
    assert cluster.unit(unit, "NRestarts") == "0"
