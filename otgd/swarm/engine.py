"""Docker engines through the Docker SDK for Python: the host's own, and a guest's through ssh.

An adapter: the only one that imports the SDK. It translates the SDK's exceptions once, and gives
the token of a swarm to nobody but an engine.
"""

from __future__ import annotations

import os
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from otgd.errors import OtgdError, PermanentError, TransientError
from otgd.swarm.members import SWARM_PORT, Node, read_engine, read_node

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping
    from ipaddress import IPv4Address, IPv4Network

    from otgd.swarm.members import EngineFacts
    from otgd.swarm.ssh import Guest

LOCAL = "unix:///var/run/docker.sock"
ANSWER_S = 90
"""How long an engine may take; a Zero takes its time, and a join itself up to 20 s."""

POOL_PREFIX = 24
"""Size of each overlay network that is taken out of the address pool."""

_INSTALL_SDK = (
    "otgctl swarm needs the Docker SDK for Python; type: sudo apt-get install python3-docker "
    "(or, in a virtual environment: pip install 'otgd[swarm]')"
)


def open_local(environ: Mapping[str, str] = os.environ) -> Engine:
    """Return the host's own engine, or that of ``DOCKER_HOST``.

    Raises:
        PermanentError: it does not answer, or not to this user; the message says what to type.
    """
    url = environ.get("DOCKER_HOST") or LOCAL

    def explain(cause: str) -> OtgdError:
        return PermanentError(f"this host's Docker: {_local_remedy(url, cause)}")

    return Engine(url, explain)


def open_guest(guest: Guest) -> Engine:
    """Return a guest's engine.

    Raises:
        PermanentError: ssh cannot get there, or no engine answers; the message says what to type.
    """
    tunnel = guest.docker_socket()

    def explain(cause: str) -> OtgdError:
        complaint = tunnel.complaint()
        if complaint.strip():
            return guest.fault(complaint)
        return TransientError(f"{guest.spec.name}: its Docker does not answer: {cause}")

    return Engine(f"unix://{tunnel.path}", explain)


def _local_remedy(url: str, cause: str) -> str:
    if "PermissionError" in cause or "Permission denied" in cause:
        return (
            f"permission denied on {url}; type: sudo usermod -aG docker $USER, and log in again "
            "(or use sudo)"
        )
    if "FileNotFoundError" in cause or "No such file" in cause:
        return (
            f"there is no {url}; type: sudo systemctl start docker (to install it: "
            "sudo apt-get install docker.io)"
        )
    if "ConnectionRefusedError" in cause or "refused" in cause:
        return f"nobody answers on {url}; type: sudo systemctl start docker"
    return cause


class Engine:
    """One Docker engine.

    Args:
        url: a UNIX socket's.
        explain: makes an error of what the connection says went wrong.
    """

    def __init__(self, url: str, explain: Callable[[str], OtgdError]) -> None:
        try:
            import docker
        except ImportError as err:
            raise PermanentError(_INSTALL_SDK) from err
        self._errors = docker.errors
        self._explain = explain
        with self._translated("ask for its version"):
            # The SDK asks for the engine's API version here.
            self.api: Any = docker.APIClient(base_url=url, version="auto", timeout=ANSWER_S)

    @contextmanager
    def _translated(self, operation: str) -> Iterator[None]:
        import requests

        try:
            yield
        except self._errors.APIError as err:
            text = f"{operation}: {err.explanation or err}"
            raise (TransientError if err.is_server_error() else PermanentError)(text) from err
        except (self._errors.DockerException, requests.RequestException, OSError) as err:
            raise self._explain(str(err)) from err

    def close(self) -> None:
        """Hang up."""
        self.api.close()

    def facts(self) -> EngineFacts:
        """Say what it is and whether it is in a swarm."""
        with self._translated("docker info"):
            return read_engine(self.api.info())

    # The swarm

    def init(self, hub: IPv4Address, pool: IPv4Network) -> None:
        """Make a swarm whose first manager is this engine."""
        with self._translated("docker swarm init"):
            self.api.init_swarm(
                advertise_addr=str(hub),
                listen_addr=f"{hub}:{SWARM_PORT}",
                default_addr_pool=[str(pool)],
                subnet_size=max(POOL_PREFIX, pool.prefixlen),
            )

    def admit(self, other: Engine, *, hub: IPv4Address, address: IPv4Address) -> None:
        """Have *other* join this manager's swarm as a worker at *address*.

        The token goes from one engine's answer into the other's request body: through a socket and
        ssh's stdin, never through an argument, a file or a log.
        """
        with self._translated("docker swarm join-token"):
            token = self.api.inspect_swarm()["JoinTokens"]["Worker"]
        with other._translated("docker swarm join"):
            other.api.join_swarm(
                remote_addrs=[f"{hub}:{SWARM_PORT}"],
                join_token=token,
                advertise_addr=str(address),
            )

    def leave(self, *, force: bool = False) -> None:
        """Leave the swarm."""
        with self._translated("docker swarm leave"):
            self.api.leave_swarm(force=force)

    def nodes(self) -> tuple[Node, ...]:
        """Return the swarm's nodes; only a manager knows them."""
        with self._translated("docker node ls"):
            return tuple(read_node(raw) for raw in self.api.nodes())

    def remove(self, node: Node, *, force: bool = False) -> None:
        """Forget a node."""
        with self._translated(f"docker node rm {node.hostname}"):
            self.api.remove_node(node.id, force=force)

    def node_events(self) -> Iterable[Mapping[str, Any]]:
        """Yield what the manager tells of nodes, until the engine goes away."""
        with self._translated("docker events"):
            yield from self.api.events(filters={"type": "node"}, decode=True)
