"""Docker on a guest, from its own apt, over ssh."""

from __future__ import annotations

import re
from contextlib import closing
from typing import TYPE_CHECKING

from otgd.errors import OtgdError, PermanentError
from otgd.swarm.cluster import Outcome
from otgd.swarm.engine import open_guest
from otgd.swarm.members import version_fault
from otgd.swarm.ssh import Guest

if TYPE_CHECKING:
    from collections.abc import Callable

    from otgd.model import GadgetSpec
    from otgd.swarm.members import EngineFacts
    from otgd.swarm.ssh import Policy

    Progress = Callable[[str, int, int], None]

INSTALL_S = 1800
"""A Zero takes its minutes to unpack Docker."""

_AS_ROOT = r"""
export DEBIAN_FRONTEND=noninteractive LC_ALL=C
PATH=$PATH:/usr/sbin:/sbin
as_root() { if [ "$(id -u)" = 0 ]; then "$@"; else sudo -n "$@"; fi; }
"""
LOOK = (
    _AS_ROOT
    + r"""
command -v apt-get > /dev/null || { echo 'it has no apt-get' >&2; exit 1; }
as_root true || exit 1
as_root apt-get -qq update >&2 || exit 1
echo "machine=$(uname -m)"
apt-cache policy docker.io | sed -n 's/^ *Candidate: /candidate=/p'
"""
)
INSTALL = (
    _AS_ROOT
    + r"""
set -e
packages=docker.io
# A package of its own since trixie.
apt-cache show docker-cli > /dev/null 2>&1 && packages="$packages docker-cli"
as_root apt-get --yes --quiet --no-install-recommends -o APT::Status-Fd=1 install $packages
[ "$(id -u)" = 0 ] || as_root usermod -aG docker "$(id -un)"
[ ! -d /run/systemd/system ] || as_root systemctl --quiet enable --now docker.service
"""
)

HALVES = {"dlstatus": 0.0, "pmstatus": 50.0}
"""First everything is fetched, then it is unpacked and set up (apt's README.progress-reporting)."""


def percent(line: str) -> int | None:
    """Return how far apt is by its own report, 0 to 100; None for any other line."""
    report = re.match(r"(dlstatus|pmstatus):.*?:(\d+(?:\.\d+)?):", line)
    return round(HALVES[report[1]] + float(report[2]) / 2) if report else None


def read_candidate(text: str) -> tuple[str, str]:
    """Return machine and the version that apt would install, from what ``LOOK`` printed."""
    found = dict(line.split("=", 1) for line in text.splitlines() if "=" in line)
    candidate = found.get("candidate", "(none)")
    return found.get("machine", ""), "" if candidate == "(none)" else candidate


def install(spec: GadgetSpec, policy: Policy, progress: Progress) -> Outcome:
    """Install Docker on one guest, unless it runs there.

    Raises:
        OtgdError: ssh cannot get there, or apt fails; the message says why.
    """
    with Guest(spec, policy) as guest:
        guest.run("true")
        try:
            facts = _engine(guest)
        except OtgdError:
            _with_apt(guest, progress)
        else:
            if not version_fault(facts.version, facts.machine):
                text = f"has Docker {facts.version} already"
                return Outcome(gadget=spec.name, good=True, text=text)
            _with_apt(guest, progress)
    # A new login, since a user's new group counts from then on.
    with Guest(spec, policy) as guest:
        facts = _engine(guest)
    fault = version_fault(facts.version, facts.machine)
    text = fault or f"Docker {facts.version} runs now"
    return Outcome(gadget=spec.name, good=not fault, text=text)


def _engine(guest: Guest) -> EngineFacts:
    with closing(open_guest(guest)) as engine:
        return engine.facts()


def _with_apt(guest: Guest, progress: Progress) -> None:
    name = guest.spec.name
    looked = guest.run(LOOK, timeout_s=INSTALL_S)
    if looked.code != 0:
        raise PermanentError(f"{name}: {explain(looked.err, name)}")
    machine, candidate = read_candidate(looked.out.decode(errors="replace"))
    if not candidate:
        raise PermanentError(f"{name}: its apt has no docker.io; see there: apt-cache policy")
    fault = version_fault(candidate, machine)
    if fault:
        raise PermanentError(f"{name}: {fault}")

    def tell(line: str) -> None:
        done = percent(line)
        if done is not None:
            progress(name, done, 100)

    answer = guest.run_telling(INSTALL, tell, timeout_s=INSTALL_S)
    if answer.code != 0:
        raise PermanentError(f"{name}: {explain(answer.err, name)}")


def explain(complaint: str, name: str) -> str:
    """Say what sudo's or apt's complaint means, and what to type."""
    if "password is required" in complaint or "no tty present" in complaint:
        return (
            "sudo asks for a password there; let this user use sudo without one, or type there: "
            "sudo apt-get install docker.io"
        )
    if "sudo: not found" in complaint:
        return "there is no sudo, and the user is not root; install it there"
    if "Temporary failure resolving" in complaint or "Could not connect" in complaint:
        return f"its apt cannot reach its server; type: otgctl doctor {name}"
    lines = [line for line in complaint.strip().splitlines() if line.strip()]
    return f"apt failed: {lines[-1].strip()}" if lines else "apt failed and said nothing"
