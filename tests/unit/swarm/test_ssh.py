"""What ssh and the remote docker complain about, in their own words, and what is told."""

from __future__ import annotations

import socket
from typing import TYPE_CHECKING

import pytest

from otgd.swarm.ssh import Guest, Policy, Tunnel, explain
from tests.unit.swarm.values import spec

if TYPE_CHECKING:
    from pathlib import Path

CHANGED = """\
@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@
@    WARNING: REMOTE HOST IDENTIFICATION HAS CHANGED!     @
@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@
Host key verification failed.
"""
NO_SOCKET = (
    "Cannot connect to the Docker daemon at unix:///var/run/docker.sock. "
    "Is the docker daemon running?"
)
NO_RIGHTS = (
    "permission denied while trying to connect to the Docker daemon socket at "
    "unix:///var/run/docker.sock: dial unix /var/run/docker.sock: connect: permission denied"
)


@pytest.mark.parametrize(
    ("complaint", "told", "typed"),
    [
        (CHANGED, "another one than before", "ssh-keygen -R 10.0.11.2"),
        ("Host key verification failed.", "not known yet", "--accept-new-host-keys"),
        ("pi@10.0.11.2: Permission denied (publickey).", "this user's key", "ssh-copy-id pi@"),
        ("sh: 1: docker: not found", "no Docker", "otgctl swarm install ethusb1"),
        ("bash: line 1: docker: command not found", "no Docker", "otgctl swarm install ethusb1"),
        ("docker: 'system dial-stdio' is not a docker command.", "too old", "swarm install"),
        (NO_SOCKET, "Docker does not run", "sudo systemctl start docker"),
        (NO_RIGHTS, "may not use the guest's Docker", "sudo usermod -aG docker pi"),
        ("ssh: connect to host 10.0.11.2 port 22: Connection refused", "no ssh server", "prepare"),
        ("ssh: connect to host 10.0.11.2 port 22: No route to host", "does not", "otgctl doctor"),
        ("ssh: connect to host x port 22: Connection timed out", "does not", "doctor ethusb1"),
    ],
)
def test_complaint_says_what_to_type(complaint: str, told: str, typed: str) -> None:
    sentence = explain(complaint, spec(), "pi")
    assert told in sentence
    assert typed in sentence
    assert "\n" not in sentence


def test_other_complaints_are_told_as_they_are() -> None:
    noise = "Warning: Permanently added '10.0.11.2' (ED25519) to the list of known hosts.\n"
    assert explain(f"{noise}kex_exchange: broken\n", spec(), "pi") == (
        "ssh pi@10.0.11.2 failed: kex_exchange: broken"
    )
    assert explain(noise, spec(), "") == "ssh 10.0.11.2 failed: it said nothing"


def test_host_keys_are_checked_unless_the_user_says_otherwise() -> None:
    with Guest(spec(), Policy(user="pi")) as guest:
        command = guest.command()
        assert "StrictHostKeyChecking=yes" in command
        assert "BatchMode=yes" in command
        assert command[-2:] == ["--", "10.0.11.2"]
    with Guest(spec(), Policy(user="pi", accept_new=True)) as guest:
        assert "StrictHostKeyChecking=accept-new" in guest.command()


def test_each_connection_to_a_tunnel_is_one_run_of_its_command(tmp_path: Path) -> None:
    tunnel = Tunnel(["sh", "-c", "echo oops >&2; cat"], tmp_path / "socket")
    try:
        for word in (b"one", b"two"):
            with socket.socket(socket.AF_UNIX) as sock:
                sock.settimeout(10)
                sock.connect(str(tunnel.path))
                sock.sendall(word)
                sock.shutdown(socket.SHUT_WR)
                assert b"".join(iter(lambda s=sock: s.recv(99), b"")) == word  # type: ignore[misc] # bound
        assert tunnel.complaint() == "oops\noops\n"
    finally:
        tunnel.close()
