"""Guests over the system's ssh: the user's keys, agent and ~/.ssh/config; host keys are checked.

One connection per guest, kept open as a master (ssh_config(5), ControlMaster); each further word
goes through it in milliseconds, where a handshake costs a Zero a second. An adapter: knows ssh and
the errors, and what ssh's and Docker's complaints mean.

Why the Docker SDK's own ``ssh://`` is not used: even with ``use_ssh_client`` it needs paramiko; it
passes no option, so ssh asks for passwords and host keys on the terminal and waits without end for
a guest that is gone; its complaint goes to the terminal, not into a message. The SDK gets a UNIX
socket here whose other end is ``docker system dial-stdio`` there, as the docker command does it.
"""

from __future__ import annotations

import shlex
import shutil
import socket
import subprocess
import tempfile
import threading
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from otgd.errors import PermanentError, TransientError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from types import TracebackType
    from typing import Self

    from otgd.model import GadgetSpec

CONNECT_S = 5
ALIVE_S = 5
"""A guest that says nothing for three times this long is gone."""

LINGER_S = 30
"""How long an unused master stays, should nobody end it."""

WORD_S = 60
"""How long one command may take there."""

EX_SSH = 255
"""ssh's own exit status, of all that the command's could be (ssh(1))."""

DIAL = "docker system dial-stdio"

NOISE = ("Warning: Permanently added", "** ", "Connection to ")
"""ssh says these, too, when all is well."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Policy:
    """Whom to be on guests, and whether a host key that nobody has seen is taken for good."""

    user: str
    accept_new: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """What a command said there."""

    code: int
    out: bytes
    err: str


def explain(complaint: str, spec: GadgetSpec, user: str) -> str:
    """Say what ssh's, or the remote shell's, complaint means, and what to type.

    Args:
        complaint: what was printed to stderr.
        spec: whose guest it is.
        user: whom ssh was to log in as; empty if that is left to ssh.
    """
    address = spec.guest
    target = f"{user}@{address}" if user else str(address)
    for marks, sentence in _MEANINGS:
        if any(mark in complaint for mark in marks):
            return sentence.format(
                address=address, target=target, name=spec.name, user=user or "$USER"
            )
    lines = [x for x in complaint.strip().splitlines() if x and not x.startswith(NOISE)]
    return f"ssh {target} failed: {lines[-1].strip() if lines else 'it said nothing'}"


_MEANINGS = (
    (
        ("REMOTE HOST IDENTIFICATION HAS CHANGED",),
        "the host key of {address} is another one than before: its card was rewritten, or somebody "
        "else answers; if you rewrote it, type: ssh-keygen -R {address}, then this again with "
        "--accept-new-host-keys",
    ),
    (
        ("Host key verification failed",),
        "the host key of {address} is not known yet; to look at it first, type: ssh {target}; to "
        "trust whoever answers on this cable now, say --accept-new-host-keys",
    ),
    (
        (
            "docker daemon socket",
            "Docker daemon socket",
            "docker API at",
            "docker.sock: connect: p",
        ),
        "{target} may not use the guest's Docker; type: "
        "ssh {target} sudo usermod -aG docker {user}",
    ),
    (
        ("Permission denied (",),
        "{target} does not take this user's key; type: ssh-copy-id {target}",
    ),
    (
        ("docker: not found", "docker: command not found", "docker: No such file"),
        "there is no Docker on {address}; type: otgctl swarm install {name}",
    ),
    (
        ("'system dial-stdio'", "is not a docker command", "unknown command: docker system"),
        "the docker command on {address} is too old (it takes 18.09); type: otgctl swarm install "
        "{name}",
    ),
    (
        ("Cannot connect to the Docker daemon", "docker.sock: connect: "),
        "Docker does not run on {address}; type: ssh {target} sudo systemctl start docker",
    ),
    (
        ("Connection refused",),
        "no ssh server answers on {address}; enable ssh on the guest, or write its card with "
        "otgctl prepare {name}",
    ),
    (
        ("timed out", "No route to host", "Network is unreachable", "Timeout, server"),
        "{address} does not answer; type: otgctl doctor {name}",
    ),
)
"""What a complaint has in it (the first that fits), and what to tell; OpenSSH 7 to 10, Docker 18
to 29. The order matters: a socket's "permission denied" comes before Docker's "cannot connect"."""


def _for_sh(script: str) -> str:
    """Return the command line to give to whatever login shell the user has there."""
    return f"sh -c {shlex.quote(script)}"


class Guest:
    """One guest, as long as the block lasts."""

    def __init__(self, spec: GadgetSpec, policy: Policy) -> None:
        self.spec = spec
        self._policy = policy
        program = shutil.which("ssh")
        if program is None:
            raise PermanentError("ssh is not installed; type: sudo apt-get install openssh-client")
        self._program = program
        # Short: a UNIX socket's path has 108 bytes, and ssh needs 17 of them for itself.
        self._directory = tempfile.TemporaryDirectory(prefix="otgctl-", dir="/tmp")
        self._tunnels: list[Tunnel] = []

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        for tunnel in self._tunnels:
            tunnel.close()
        self._ssh(self.command("-O", "exit"), WORD_S)
        self._directory.cleanup()

    def command(self, *options: str) -> list[str]:
        """Return ssh's command line up to the guest's address."""
        told = {
            "BatchMode": "yes",
            "ConnectTimeout": CONNECT_S,
            "ServerAliveInterval": ALIVE_S,
            "ControlMaster": "auto",
            "ControlPath": f"{self._directory.name}/ssh",
            "ControlPersist": LINGER_S,
            "StrictHostKeyChecking": "accept-new" if self._policy.accept_new else "yes",
        }
        words = [word for key, value in told.items() for word in ("-o", f"{key}={value}")]
        if self._policy.user:
            words += ["-l", self._policy.user]
        return [self._program, "-T", *words, *options, "--", str(self.spec.guest)]

    def run(self, script: str, *, timeout_s: float = WORD_S) -> Answer:
        """Run a shell script there, whatever it comes to.

        Raises:
            PermanentError: ssh could not get there; the message says what to do.
            TransientError: it took longer than *timeout_s*.
        """
        answer = self._ssh([*self.command(), _for_sh(script)], timeout_s)
        if answer.code == EX_SSH:
            raise self.fault(answer.err)
        return answer

    def run_telling(self, script: str, tell: Callable[[str], None], *, timeout_s: float) -> Answer:
        """Run a shell script there, and tell each line of its output as it comes.

        Raises:
            PermanentError: ssh could not get there.
            TransientError: it took longer than *timeout_s*.
        """
        with tempfile.TemporaryFile() as complaint:
            process = subprocess.Popen(  # noqa: S603 - as in _ssh
                [*self.command(), _for_sh(script)],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=complaint,
                text=True,
                errors="replace",
            )
            overdue = threading.Timer(timeout_s, process.kill)
            overdue.start()
            with process:
                for line in process.stdout or ():
                    tell(line.rstrip("\n"))
            late = not overdue.is_alive()
            overdue.cancel()
            complaint.seek(0)
            told = complaint.read().decode(errors="replace")
        if late:
            raise TransientError(
                f"{self.spec.name}: {self.spec.guest} did not finish in {timeout_s:.0f} s"
            )
        if process.returncode == EX_SSH:
            raise self.fault(told)
        return Answer(code=process.returncode, out=b"", err=told)

    def docker_socket(self) -> Tunnel:
        """Return a UNIX socket here that leads to the guest's engine."""
        tunnel = Tunnel(
            [*self.command(), DIAL], Path(self._directory.name, f"docker{len(self._tunnels)}")
        )
        self._tunnels.append(tunnel)
        return tunnel

    def fault(self, complaint: str) -> PermanentError:
        """Make an error of a complaint."""
        return PermanentError(
            f"{self.spec.name}: {explain(complaint, self.spec, self._policy.user)}"
        )

    def _ssh(self, command: list[str], timeout_s: float) -> Answer:
        # A file, since the master that stays behind would keep a pipe open.
        with tempfile.TemporaryFile() as complaint:
            try:
                done = subprocess.run(  # noqa: S603 - no shell here; a checked config's address
                    command,
                    check=False,
                    stdin=subprocess.DEVNULL,
                    stdout=subprocess.PIPE,
                    stderr=complaint,
                    timeout=timeout_s,
                )
            except subprocess.TimeoutExpired as err:
                raise TransientError(
                    f"{self.spec.name}: {self.spec.guest} did not finish in {timeout_s:.0f} s"
                ) from err
            complaint.seek(0)
            told = complaint.read().decode(errors="replace")
        return Answer(code=done.returncode, out=done.stdout, err=told)


class Tunnel:
    """A UNIX socket; each connection to it is one run of a command on stdin and stdout.

    Args:
        command: what to run.
        path: of the socket; in a directory that only this user may enter.
    """

    def __init__(self, command: Sequence[str], path: Path) -> None:
        self.path = path
        self._command = command
        self._complaints = tempfile.TemporaryFile("a+b")  # noqa: SIM115 - closed by close()
        self._running: list[subprocess.Popen[bytes]] = []
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
        self._socket.bind(str(path))
        self._socket.listen()
        self._thread = threading.Thread(target=self._serve, name=f"tunnel {path}", daemon=True)
        self._thread.start()

    def complaint(self) -> str:
        """Return what the commands have printed to stderr so far."""
        self._complaints.seek(0)
        return self._complaints.read().decode(errors="replace")

    def close(self) -> None:
        """End all of it."""
        # Wakes accept(2), which closing alone does not.
        with suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)
        self._thread.join()
        self._socket.close()
        for process in self._running:
            process.terminate()
            process.wait()
        self._complaints.close()

    def _serve(self) -> None:
        while True:
            try:
                connection, _ = self._socket.accept()
            except OSError:
                return
            with connection:
                self._running = [each for each in self._running if each.poll() is None]
                self._running.append(
                    subprocess.Popen(  # noqa: S603 - as in Guest
                        self._command,
                        stdin=connection.fileno(),
                        stdout=connection.fileno(),
                        stderr=self._complaints,
                        start_new_session=True,  # Ctrl-C is for otgctl, which then ends them
                    )
                )
