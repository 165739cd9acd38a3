"""What must hold before a machine can be a node, and what to type where it does not.

Pure: judges what ``QUESTIONS`` answered on the host and on each guest, and what the engines say.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from otgd.diagnosis.findings import Finding, fail, fine, skip, warn
from otgd.model import Passage
from otgd.swarm.members import LAST_ARMV6, hub_fault, major, version_fault

if TYPE_CHECKING:
    from collections.abc import Iterator
    from ipaddress import IPv4Address

    from otgd.swarm.members import EngineFacts

CLOCK_LIMIT_S = 60
"""A node's certificate is good from a little before it was made; a clock behind that refuses it
("x509: certificate has expired or is not yet valid"). A Zero has no clock that runs without power.
"""

SPARE_MEMORY_KIB = 100 * 1024
"""About what dockerd and containerd take together on an idle Zero."""

QUESTIONS = r"""
PATH=$PATH:/usr/sbin:/sbin
say() { key=$1; shift; if "$@" 2>/dev/null; then echo "$key=1"; else echo "$key=0"; fi; }
v2=/sys/fs/cgroup/cgroup.controllers
has_memory_cgroup() {
    if [ -e "$v2" ]; then grep -qw memory "$v2"; else grep -q "^memory.*1$" /proc/cgroups; fi
}
has_ip_vs() { [ -e /proc/net/ip_vs ] || modprobe -n -q ip_vs; }
echo "machine=$(uname -m)"
echo "clock_s=$(date +%s)"
sed -n "s/^MemAvailable: *\([0-9]*\) kB/memory_kib=\1/p" /proc/meminfo
say memory_cgroup has_memory_cgroup
say ip_vs has_ip_vs
say forwarding grep -q 1 /proc/sys/net/ipv4/ip_forward
say docker test -n "$(command -v dockerd)"
"""
"""For sh, on the host and on guests; answers in lines of ``key=value``."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Answers:
    """What a machine said; None where it said nothing of that.

    Attributes:
        machine: as ``uname -m`` has it.
        clock_s: seconds since 1970.
    """

    machine: str = ""
    clock_s: int | None = None
    memory_kib: int | None = None
    memory_cgroup: bool | None = None
    ip_vs: bool | None = None
    forwarding: bool | None = None
    docker: bool | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Host:
    """What is known of the host.

    Attributes:
        engine: None where it cannot be asked; *engine_fault* then says why.
        hub: ``[swarm] hub_address``.
        has_hub: whether the host holds it now.
        passage: what FORWARD does with gadgets' packets; None where it cannot be seen.
    """

    answers: Answers
    engine: EngineFacts | None
    engine_fault: str
    hub: IPv4Address
    has_hub: bool
    passage: Passage | None


@dataclass(frozen=True, slots=True, kw_only=True)
class GuestReport:
    """What is known of one guest.

    Attributes:
        fault: why nothing is; else empty.
        behind_s: how far its clock is behind the host's; negative if it is ahead.
        engine: None where it cannot be asked; *engine_fault* then says why.
    """

    gadget: str
    target: str
    fault: str = ""
    answers: Answers = Answers()
    behind_s: float | None = None
    engine: EngineFacts | None = None
    engine_fault: str = ""


def read_answers(text: str) -> Answers:
    """Read what ``QUESTIONS`` printed; lines that are not of it are passed over."""
    found = dict(line.split("=", 1) for line in text.splitlines() if "=" in line)

    def number(key: str) -> int | None:
        return int(found[key]) if found.get(key, "").isdecimal() else None

    def truth(key: str) -> bool | None:
        return {"1": True, "0": False}.get(found.get(key, ""))

    return Answers(
        machine=found.get("machine", ""),
        clock_s=number("clock_s"),
        memory_kib=number("memory_kib"),
        memory_cgroup=truth("memory_cgroup"),
        ip_vs=truth("ip_vs"),
        forwarding=truth("forwarding"),
        docker=truth("docker"),
    )


def judge_host(host: Host) -> Iterator[Finding]:
    """Say what stands between the host and being the swarm's manager."""
    yield _named("engine", _host_engine(host))
    if host.has_hub:
        yield _named("hub", fine(f"the host has its hub address {host.hub}"))
    else:
        finding = fail(
            f"the host does not have its hub address {host.hub}",
            why="the swarm is to be reached there, whatever cable is out; otgd puts it on lo",
            remedy="sudo systemctl reload otgd, then otgctl status",
        )
        yield _named("hub", finding)
    yield _named("forwarding", _forwarding(host))
    yield _named("forward-chain", _passage(host.passage))
    yield _named("ip_vs", _ip_vs(host.answers))
    yield _named("memory", _memory(host.answers, ""))


def judge_guest(guest: GuestReport) -> Iterator[Finding]:
    """Say what stands between a guest and being a node."""
    if guest.fault:
        finding = _split(guest.fault, why="nobody can be told to join there")
        yield _named("ssh", finding, guest.gadget)
        return
    yield _named("ssh", fine(f"{guest.target} answers"), guest.gadget)
    for check, finding in (
        ("engine", _guest_engine(guest)),
        ("clock", _clock(guest)),
        ("memory", _memory(guest.answers, guest.target)),
        ("memory-cgroup", _memory_cgroup(guest)),
        ("ip_vs", _ip_vs(guest.answers)),
    ):
        yield _named(check, finding, guest.gadget)


def _named(check: str, finding: Finding, gadget: str = "") -> Finding:
    return Finding(
        mark=finding.mark,
        what=finding.what,
        why=finding.why,
        remedy=finding.remedy,
        check=check,
        gadget=gadget,
    )


def _split(sentence: str, *, why: str) -> Finding:
    """Make a finding of "what; type: remedy"."""
    what, _, remedy = sentence.partition("; type: ")
    return fail(what, why=why, remedy=remedy)


def _host_engine(host: Host) -> Finding:
    if host.engine is None:
        return _split(host.engine_fault, why="without it there is no swarm")
    engine = host.engine
    fault = version_fault(engine.version, engine.machine)
    if fault:
        return _split(fault, why="it cannot lead this swarm")
    fault = hub_fault(engine, host.hub)
    if fault:
        return _split(fault, why="it cannot lead this swarm as it is")
    what = "leads a swarm" if engine.state == "active" else "is in no swarm yet"
    return fine(f"Docker {engine.version} on {engine.machine}, {what}")


def _guest_engine(guest: GuestReport) -> Finding:
    engine = guest.engine
    if engine is None:
        return _split(guest.engine_fault, why="the guest cannot take work")
    fault = version_fault(engine.version, engine.machine)
    if fault:
        return _split(fault, why="the guest cannot take work")
    said = f"Docker {engine.version} on {engine.machine}, swarm {engine.state}"
    if engine.machine.startswith("armv6"):
        newest = major(engine.version)[0] == LAST_ARMV6
        what = f"{said}; " + (
            f"{LAST_ARMV6} is Docker's last for ARMv6" if newest else "images must be for arm/v6"
        )
        return fine(what)
    return fine(said)


def _clock(guest: GuestReport) -> Finding:
    if guest.behind_s is None:
        return skip("the guest did not tell its time")
    off_s = abs(guest.behind_s)
    if off_s <= CLOCK_LIMIT_S:
        return fine(f"its clock and the host's differ by {off_s:.0f} s")
    side = "behind" if guest.behind_s > 0 else "ahead of"
    return fail(
        f"its clock is {_duration(off_s)} {side} the host's",
        why='a join fails with "certificate has expired or is not yet valid"',
        remedy=f"ssh {guest.target} sudo date -s @$(date +%s)",
    )


def _duration(seconds: float) -> str:
    for name, unit in (("days", 86400), ("h", 3600), ("min", 60)):
        if seconds >= 2 * unit:
            return f"{seconds / unit:.0f} {name}"
    return f"{seconds:.0f} s"


def _memory(answers: Answers, target: str) -> Finding:
    if answers.memory_kib is None:
        return skip("it did not tell how much memory is free")
    mib = answers.memory_kib // 1024
    if answers.memory_kib >= SPARE_MEMORY_KIB:
        return fine(f"{mib} MiB of memory are free")
    where = f"ssh {target} " if target else ""
    return warn(
        f"only {mib} MiB of memory are free",
        why="Docker itself takes about 100 MiB, and what it runs comes on top",
        remedy=f"{where}free -m; gpu_mem=16 in its config.txt gives a Zero some back",
    )


def _memory_cgroup(guest: GuestReport) -> Finding:
    limits = guest.engine.limits_memory if guest.engine else guest.answers.memory_cgroup
    if limits is None:
        return skip("it did not tell whether memory can be limited")
    if limits:
        return fine("containers' memory can be limited")
    return warn(
        "containers' memory cannot be limited: the kernel's memory cgroup is off",
        why="one greedy container takes the whole Zero down, and --limit-memory is ignored",
        remedy=(
            "add cgroup_enable=memory cgroup_memory=1 to the line in the guest's "
            "/boot/firmware/cmdline.txt, and reboot it"
        ),
    )


def _ip_vs(answers: Answers) -> Finding:
    if answers.ip_vs is None:
        return skip("it did not tell whether its kernel has ip_vs")
    if answers.ip_vs:
        return fine("its kernel has ip_vs, for published ports on every node (ingress)")
    return warn(
        "its kernel has no ip_vs",
        why="a service published with -p converges and answers nobody",
        remedy="docker service create --endpoint-mode dnsrr --publish mode=host,... instead",
    )


def _forwarding(host: Host) -> Finding:
    if host.answers.forwarding:
        return fine("the host forwards")
    if host.answers.forwarding is None:
        return skip("the host did not tell whether it forwards")
    return fail(
        "the host does not forward (net.ipv4.ip_forward is 0)",
        why="gadgets cannot reach each other, nor their overlay networks",
        remedy="sudo systemctl restart otgd",
    )


def _passage(passage: Passage | None) -> Finding:
    match passage:
        case None:
            return skip("FORWARD was not looked at", remedy="sudo otgctl swarm preflight")
        case Passage.CLOSED:
            return fail(
                "FORWARD drops what goes from gadget to gadget",
                why="nodes become Ready and their overlay networks carry nothing",
                remedy="sudo otgctl doctor",
            )
        case Passage.GRANTED:
            return fine("FORWARD drops, and lets gadgets through")
        case _:
            return fine("FORWARD lets gadgets through")
