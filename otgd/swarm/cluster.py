"""The verbs: what is done with the host's engine and with the guests', many guests at once.

Builds on ``engine`` and ``ssh``; decides nothing itself: that is what ``members`` is for.
"""

from __future__ import annotations

import os
import socket
import subprocess
import time
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import closing, contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeVar

from otgd.errors import OtgdError, PermanentError
from otgd.swarm import preflight
from otgd.swarm.engine import open_guest, open_local
from otgd.swarm.members import Join, Joined, Refused, hub_fault, judge, version_fault
from otgd.swarm.ssh import Guest

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from ipaddress import IPv4Address

    from otgd.model import GadgetSpec, Passage, SwarmSpec
    from otgd.swarm.engine import Engine
    from otgd.swarm.members import Node
    from otgd.swarm.ssh import Policy

AT_ONCE = 8
"""Guests that are talked to at the same time."""

LOCAL_S = 10

Result = TypeVar("Result")


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What came of one guest: *good* or not, in one sentence."""

    gadget: str
    good: bool
    text: str


def each_guest(
    specs: Sequence[GadgetSpec], work: Callable[[GadgetSpec], Result]
) -> Iterator[tuple[GadgetSpec, Result | OtgdError]]:
    """Do *work* for many guests at once; yield each result, or error, as it comes."""
    with ThreadPoolExecutor(max_workers=AT_ONCE) as pool:
        jobs = {pool.submit(work, spec): spec for spec in specs}
        for job in as_completed(jobs):
            err = job.exception()
            if err is None:
                yield jobs[job], job.result()
            elif isinstance(err, OtgdError):
                yield jobs[job], err
            else:
                raise err


def has_address(address: IPv4Address) -> bool:
    """Tell whether this host holds *address* now."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        try:
            # Sends nothing; what is local is reached from itself.
            sock.connect((str(address), 9))
        except OSError:
            return False
        return bool(sock.getsockname()[0] == str(address))


@contextmanager
def guest_engine(spec: GadgetSpec, policy: Policy) -> Iterator[Engine]:
    """Yield the engine of a guest.

    Raises:
        OtgdError: it cannot be reached; the message says what to type.
    """
    with Guest(spec, policy) as guest, closing(open_guest(guest)) as engine:
        yield engine


# --- up ------------------------------------------------------------------------------------------


def found(hub: Engine, spec: SwarmSpec) -> bool:
    """Make the host's engine the swarm's manager; tell whether it was not before.

    Raises:
        PermanentError: it cannot be; the message says what to type.
    """
    facts = hub.facts()
    fault = version_fault(facts.version, facts.machine) or hub_fault(facts, spec.hub_address)
    if fault:
        raise PermanentError(fault)
    if not has_address(spec.hub_address):
        raise PermanentError(
            f"this host does not have hub_address {spec.hub_address}, which otgd puts on lo; type: "
            "sudo systemctl restart otgd, otgctl status"
        )
    if facts.state == "active":
        return False
    hub.init(spec.hub_address, spec.address_pool)
    return True


def join(
    hub: Engine, swarm: SwarmSpec, spec: GadgetSpec, policy: Policy, nodes: Sequence[Node]
) -> Outcome:
    """Make one guest a node, unless it is one.

    Args:
        hub: the manager.
        swarm: the config's.
        spec: whose guest.
        policy: how to log in there.
        nodes: that the manager knows.
    """
    with guest_engine(spec, policy) as engine:
        verdict = judge(engine.facts(), nodes, swarm.hub_address, spec.name)
        match verdict:
            case Joined(node=node):
                text = f"is node {node.hostname} already" + ("" if node.is_ready else " (down)")
                return Outcome(gadget=spec.name, good=True, text=text)
            case Refused(reason=reason):
                return Outcome(gadget=spec.name, good=False, text=reason)
            case Join(leave_first=leave_first):
                if leave_first:
                    engine.leave(force=True)
                hub.admit(engine, hub=swarm.hub_address, address=spec.guest)
                return Outcome(gadget=spec.name, good=True, text=f"joined as {spec.guest}")


# --- leave ---------------------------------------------------------------------------------------


def leave(hub: Engine, spec: GadgetSpec, policy: Policy, nodes: Sequence[Node]) -> Outcome:
    """Have one guest leave, and the manager forget it."""
    with guest_engine(spec, policy) as engine:
        state = engine.facts().state
        if state != "inactive":
            engine.leave(force=True)
    for node in nodes:
        if node.address == str(spec.guest):
            hub.remove(node, force=True)
    text = "was in no swarm" if state == "inactive" else "has left the swarm"
    return Outcome(gadget=spec.name, good=True, text=text)


# --- preflight -----------------------------------------------------------------------------------


def look_at_host(spec: SwarmSpec) -> preflight.Host:
    """Ask the host."""
    engine, fault = None, ""
    try:
        with closing(open_local()) as hub:
            engine = hub.facts()
    except OtgdError as err:
        fault = str(err)
    done = subprocess.run(  # noqa: S603 - constant words
        ["/bin/sh", "-c", preflight.QUESTIONS],
        check=False,
        capture_output=True,
        text=True,
        timeout=LOCAL_S,
    )
    return preflight.Host(
        answers=preflight.read_answers(done.stdout),
        engine=engine,
        engine_fault=fault,
        hub=spec.hub_address,
        has_hub=has_address(spec.hub_address),
        passage=_passage(),
    )


def _passage() -> Passage | None:
    from otgd.adapters.docker_user import IptablesPassage

    if os.geteuid() != 0:
        return None
    try:
        return IptablesPassage(changes=None).look()
    except OtgdError:
        return None


def look_at_guest(spec: GadgetSpec, policy: Policy) -> preflight.GuestReport:
    """Ask a guest."""
    target = f"{policy.user}@{spec.guest}" if policy.user else str(spec.guest)
    try:
        with Guest(spec, policy) as guest:
            return _ask(guest, target)
    except OtgdError as err:
        return preflight.GuestReport(gadget=spec.name, target=target, fault=_bare(err, spec))


def _ask(guest: Guest, target: str) -> preflight.GuestReport:
    guest.run("true")  # so that the handshake's time is not in the clock's
    before_s = time.time()
    said = guest.run(preflight.QUESTIONS)
    now_s = (before_s + time.time()) / 2
    answers = preflight.read_answers(said.out.decode(errors="replace"))
    spec = guest.spec
    engine, fault = None, ""
    if answers.docker is False:
        fault = f"there is no Docker on {spec.guest}; type: otgctl swarm install {spec.name}"
    else:
        try:
            with closing(open_guest(guest)) as opened:
                engine = opened.facts()
        except OtgdError as err:
            fault = _bare(err, spec)
    return preflight.GuestReport(
        gadget=spec.name,
        target=target,
        answers=answers,
        behind_s=None if answers.clock_s is None else now_s - answers.clock_s,
        engine=engine,
        engine_fault=fault,
    )


def _bare(err: OtgdError, spec: GadgetSpec) -> str:
    """Return the message without the gadget's name, which is told beside it."""
    return str(err).removeprefix(f"{spec.name}: ")
