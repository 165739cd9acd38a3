"""``otgctl swarm test``: the guide's quick test on every node, and its load test.

Converged is not serving: without ip_vs, or with an overlay network whose packets leave by the wrong
address, Docker shows 5/5 and nobody answers. So every published port is asked, and every replica is
asked by every other one through the overlay network.
"""

from __future__ import annotations

import subprocess
import time
from contextlib import ExitStack, closing, contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

from otgd.errors import OtgdError, PermanentError
from otgd.swarm import guid
from otgd.swarm.engine import open_guest
from otgd.swarm.load import container_of, get
from otgd.swarm.platforms import Platform, of_machine
from otgd.swarm.preflight import QUESTIONS, read_answers
from otgd.swarm.ssh import Guest

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from otgd.swarm.engine import Engine
    from otgd.swarm.roster import Row
    from otgd.swarm.ssh import Policy

    Shell = Callable[[str], bytes]
    """Runs a script on a machine and returns what it printed."""

CONVERGE_S = 180
SERVE_S = 30
REMOVE_S = 60
LOOK_S = 0.5
SHELL_S = 300

INSTALLED = "cat /bin/busybox 2>/dev/null || cat /usr/bin/busybox"
DOWNLOAD = r"""
set -e
cd "$(mktemp -d)"
apt-get -qq download busybox-static >&2
dpkg-deb --fsys-tarfile busybox-static_*.deb | tar -xO --wildcards '*bin/busybox'
rm -rf "$PWD"
"""
"""From the machine's own apt, so it is for its own architecture (Raspberry Pi OS: ARMv6)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Stand:
    """A node to test on: its engine and its shell, open for as long as the test lasts."""

    row: Row
    engine: Engine
    shell: Shell
    platform: Platform
    address: str

    @property
    def name(self) -> str:
        """The gadget's name, or ``host``."""
        return self.row.name


@dataclass(frozen=True, slots=True, kw_only=True)
class Replica:
    """A running replica: which node it is on, and what it calls itself."""

    node: str
    container: str


@contextmanager
def opened(hub: Engine, rows: Sequence[Row], policy: Policy) -> Iterator[tuple[Stand, ...]]:
    """Yield every node that takes work.

    Raises:
        OtgdError: one of them cannot be reached; the message says what to type.
    """
    with ExitStack() as stack:
        stands = []
        for row in rows:
            node = row.node
            if node is None or not node.is_ready or node.availability != "active":
                continue
            engine: Engine = hub
            shell: Shell = _local
            if not row.is_hub:
                if row.place is None:
                    continue
                if not row.place.may_answer:
                    raise PermanentError(
                        f"{row.name} is {row.place.state}, and Docker has not noticed yet; type "
                        "this again when otgctl swarm ls shows its node down"
                    )
                guest = stack.enter_context(Guest(row.place.spec, policy))
                engine = stack.enter_context(closing(open_guest(guest)))
                shell = _remote(guest)
            platform = of_machine(engine.facts().machine)
            stands.append(
                Stand(row=row, engine=engine, shell=shell, platform=platform, address=node.address)
            )
        yield tuple(stands)


def _local(script: str) -> bytes:
    done = subprocess.run(  # noqa: S603 - constant words
        ["/bin/sh", "-c", script], check=False, capture_output=True, timeout=SHELL_S
    )
    if done.returncode != 0:
        raise PermanentError(f"host: {_last(done.stderr.decode(errors='replace'))}")
    return done.stdout


def _remote(guest: Guest) -> Shell:
    def run(script: str) -> bytes:
        answer = guest.run(script, timeout_s=SHELL_S)
        if answer.code != 0:
            raise PermanentError(f"{guest.spec.name}: {_last(answer.err)}")
        return answer.out

    return run


def _last(complaint: str) -> str:
    lines = complaint.strip().splitlines()
    return lines[-1] if lines else "it failed and said nothing"


# --- image ---------------------------------------------------------------------------------------


def distribute(stands: Sequence[Stand]) -> None:
    """Make the service's image for each architecture, and give it to each node.

    Raises:
        OtgdError: no busybox can be had, or an engine refuses the image.
    """
    made: dict[Platform, bytes] = {}
    for stand in stands:
        if stand.platform not in made:
            made[stand.platform] = build(stand)
        stand.engine.load(iter([made[stand.platform]]))


def build(stand: Stand) -> bytes:
    """Make the image with the machine's own busybox, or with that of its apt."""
    with suppress(OtgdError, guid.NotStaticError):
        return guid.make_image(stand.shell(INSTALLED), stand.platform)
    try:
        return guid.make_image(stand.shell(DOWNLOAD), stand.platform)
    except (OtgdError, guid.NotStaticError) as err:
        text = str(err).removeprefix(f"{stand.name}: ")
        raise PermanentError(
            f"{stand.name}: no static busybox for {stand.platform}: {text}; type there: "
            "sudo apt-get update, sudo apt-get install busybox-static"
        ) from err


def have_ip_vs(stands: Sequence[Stand]) -> bool:
    """Tell whether every node's kernel can balance load (ingress)."""
    answers = (read_answers(stand.shell(QUESTIONS).decode(errors="replace")) for stand in stands)
    return all(answer.ip_vs for answer in answers)


# --- service -------------------------------------------------------------------------------------


@contextmanager
def service(
    hub: Engine, stands: Sequence[Stand], *, ingress: bool, published: int
) -> Iterator[tuple[Replica, ...]]:
    """Run one replica on each node for as long as the block lasts; leave nothing behind.

    Raises:
        OtgdError: it does not come up; the message has Docker's reason.
    """
    if hub.has_service(guid.SERVICE):
        raise PermanentError(
            f"there is a service {guid.SERVICE} already, from a test that was cut short; type: "
            f"docker service rm {guid.SERVICE}"
        )
    try:
        hub.make_service(
            service=guid.SERVICE,
            network=guid.NETWORK,
            image=guid.TAG,
            replicas=len(stands),
            port=guid.PORT,
            published=published,
            ingress=ingress,
        )
        yield _converged(hub, len(stands))
    finally:
        hub.remove_service(guid.SERVICE)
        _remove_network(hub)


def _converged(hub: Engine, replicas: int) -> tuple[Replica, ...]:
    end_s = time.monotonic() + CONVERGE_S
    while True:
        tasks = hub.tasks(guid.SERVICE)
        running = [task for task in tasks if task["Status"]["State"] == "running"]
        if len(running) == replicas:
            return tuple(_replica(task) for task in running)
        if time.monotonic() > end_s:
            raise PermanentError(
                f"only {len(running)} of {replicas} replicas run after {CONVERGE_S} s: "
                f"{_task_trouble(tasks)}; type: docker service ps --no-trunc {guid.SERVICE}"
            )
        time.sleep(LOOK_S)


def _replica(task: Mapping[str, Any]) -> Replica:
    container = task["Status"]["ContainerStatus"]["ContainerID"]
    return Replica(node=task["NodeID"], container=container[:12])


def _task_trouble(tasks: Sequence[Mapping[str, Any]]) -> str:
    reasons = [status.get("Err") or status["State"] for status in (t["Status"] for t in tasks)]
    return ", ".join(sorted(set(reasons))) or "Docker scheduled none"


def _remove_network(hub: Engine) -> None:
    def gone() -> bool:
        hub.remove_network(guid.NETWORK)
        return not hub.has_network(guid.NETWORK)

    _until(gone, f"the network {guid.NETWORK} is still in use")


def remove_images(stands: Sequence[Stand]) -> None:
    """Take the service's image off every node, as soon as no container has it any more."""

    def gone(stand: Stand) -> bool:
        stand.engine.remove_image(guid.TAG)
        return True

    for stand in stands:
        _until(partial(gone, stand), f"{stand.name}: the image {guid.TAG} is still in use")


def _until(done: Callable[[], bool], complaint: str) -> None:
    """Try until it is *done*: a service's containers go on for some seconds after its end."""
    end_s = time.monotonic() + REMOVE_S
    fault = ""
    while time.monotonic() < end_s:
        try:
            if done():
                return
        except OtgdError as err:
            fault = str(err)
        time.sleep(LOOK_S)
    raise PermanentError(f"{complaint} after {REMOVE_S} s: {fault}")


# --- answers -------------------------------------------------------------------------------------


def missing_at(
    stand: Stand, replicas: Sequence[Replica], *, ingress: bool, published: int
) -> tuple[set[str], str]:
    """Ask a node's published port; return the replicas that did not answer, and why.

    With ingress every replica has to answer through every node, else a node's own.
    """
    expected = {
        replica.container
        for replica in replicas
        if ingress or (stand.row.node and replica.node == stand.row.node.id)
    }
    return _ask_until(expected, lambda: containers(get(stand.address, published, guid.PATH)))


def missing_peers(
    stand: Stand, replicas: Sequence[Replica], *, published: int
) -> tuple[set[str], str]:
    """Have a node's replica ask all of them through the overlay; return those that did not answer.

    With ingress some replica, not necessarily the node's own.
    """
    expected = {replica.container for replica in replicas}
    timeout_s = 4.0 * len(replicas) + 5
    return _ask_until(
        expected,
        lambda: containers(get(stand.address, published, guid.PEERS_PATH, timeout_s=timeout_s)),
    )


def containers(body: str) -> set[str]:
    """Return the containers that an answer names, one on each line."""
    return {container_of(line) for line in body.splitlines() if line.strip()}


def _ask_until(expected: set[str], ask: Callable[[], set[str]]) -> tuple[set[str], str]:
    """Ask again and again until all have answered, or the time is over; say who has not, and why.

    Names of new replicas and published ports take some seconds to get around.
    """
    seen: set[str] = set()
    fault = ""
    end_s = time.monotonic() + SERVE_S
    while not expected <= seen and time.monotonic() < end_s:
        try:
            seen |= ask()
            fault = ""
        except OSError as err:
            fault = str(err)
            time.sleep(LOOK_S / 5)
    return expected - seen, fault
