"""Docker engines through the Docker SDK for Python: the host's own, and a guest's through ssh.

An adapter: the only one that imports the SDK. It translates the SDK's exceptions once, and gives
the token of a swarm to nobody but an engine.
"""

from __future__ import annotations

import errno
import os
import socket
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any

from otgd.errors import OtgdError, PermanentError, TransientError
from otgd.swarm.members import SWARM_PORT, Node, read_engine, read_node

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
    from ipaddress import IPv4Address, IPv4Network
    from typing import IO

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

    if url.startswith("unix://"):
        # Before the SDK tries: it would wrap the cause, and leave its socket open.
        with socket.socket(socket.AF_UNIX) as sock:
            try:
                sock.connect(url.removeprefix("unix://"))
            except OSError as err:
                raise PermanentError(f"this host's Docker: {_local_remedy(url, err)}") from err
    return Engine(url, lambda cause: PermanentError(f"this host's Docker: {cause}"))


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


def _local_remedy(url: str, err: OSError) -> str:
    match err.errno:
        case errno.EACCES:
            return (
                f"permission denied on {url}; type: sudo usermod -aG docker $USER, and log in "
                "again (or use sudo)"
            )
        case errno.ENOENT:
            return (
                f"there is no {url}; type: sudo systemctl start docker (to install it: "
                "sudo apt-get install docker.io)"
            )
        case _:
            return f"nobody answers on {url}; type: sudo systemctl start docker"


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

    # Images

    def image(self, name: str) -> Mapping[str, Any] | None:
        """Return what the engine knows of an image; None if it does not have it."""
        with self._translated(f"docker image inspect {name}"):
            try:
                found: Mapping[str, Any] = self.api.inspect_image(name)
            except self._errors.ImageNotFound:
                return None
        return found

    def layers(self) -> list[Sequence[str]]:
        """Return the layers (diff ids, from the bottom up) of each image that it has."""
        with self._translated("docker image ls"):
            found = [self.api.inspect_image(each["Id"]) for each in self.api.images()]
        return [each.get("RootFS", {}).get("Layers") or () for each in found]

    def save(self, name: str, target: IO[bytes]) -> None:
        """Write an image's archive to *target*."""
        with self._translated(f"docker save {name}"):
            for chunk in self.api.get_image(name):
                target.write(chunk)

    def load(self, content: Iterable[bytes]) -> None:
        """Read an image's archive.

        Raises:
            PermanentError: the engine refuses it.
        """
        with self._translated("docker load"):
            for told in self.api.load_image(content, quiet=True):
                if "error" in told:
                    raise PermanentError(f"docker load: {told['error']}")

    def remove_image(self, name: str) -> None:
        """Delete an image, if it is there.

        Raises:
            PermanentError: a container still uses it.
        """
        found = self.image(name)
        if found is not None:
            # By its id: by its name it would only lose that while a container has it.
            with self._translated(f"docker image rm {name}"):
                self.api.remove_image(found["Id"], force=True)

    # Services

    def make_service(self, *, service: str, network: str, image: str, **wishes: Any) -> None:  # noqa: ANN401 - JSON
        """Create an overlay network and a service on it.

        Args:
            service: its name.
            network: the network's name.
            image: its image's name.
            wishes: ``replicas``, ``port`` (in the container), ``published`` and ``ingress``
                (whether every node answers, or each for itself).
        """
        ingress = wishes["ingress"]
        port = {
            "Protocol": "tcp",
            "TargetPort": wishes["port"],
            "PublishedPort": wishes["published"],
            "PublishMode": "ingress" if ingress else "host",
        }
        with self._translated(f"docker network create {network}"):
            self.api.create_network(network, driver="overlay", check_duplicate=None)
        with self._translated(f"docker service create {service}"):
            self.api.create_service(
                {
                    "ContainerSpec": {"Image": image, "Init": False},
                    "Placement": {"MaxReplicas": 1},
                    "Networks": [{"Target": network}],
                },
                name=service,
                mode={"Replicated": {"Replicas": wishes["replicas"]}},
                endpoint_spec={"Mode": "vip" if ingress else "dnsrr", "Ports": [port]},
            )

    def tasks(self, service: str) -> list[Mapping[str, Any]]:
        """Return the service's tasks that shall run."""
        with self._translated(f"docker service ps {service}"):
            found: list[Mapping[str, Any]] = self.api.tasks(
                filters={"service": service, "desired-state": "running"}
            )
        return found

    def has_service(self, service: str) -> bool:
        """Tell whether there is a service of this name."""
        with self._translated("docker service ls"):
            return any(
                each["Spec"]["Name"] == service
                for each in self.api.services(filters={"name": service})
            )

    def remove_service(self, service: str) -> None:
        """Remove a service, if there is one."""
        with self._translated(f"docker service rm {service}"), suppress(self._errors.NotFound):
            self.api.remove_service(service)

    def remove_network(self, network: str) -> None:
        """Remove a network, if there is one.

        Raises:
            OtgdError: something still uses it.
        """
        with self._translated(f"docker network rm {network}"), suppress(self._errors.NotFound):
            self.api.remove_network(network)

    def has_network(self, network: str) -> bool:
        """Tell whether there is a network of this name."""
        with self._translated("docker network ls"):
            return any(each["Name"] == network for each in self.api.networks(names=[network]))
