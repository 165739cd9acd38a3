"""A way through other programs' DROP: one ACCEPT in DOCKER-USER or FORWARD.

Docker (and ufw) set the FORWARD policy to DROP, which no rule in a table of ours can overrule; a
native nf_tables rule in their table makes ``iptables-nft`` refuse it for everyone. So the one rule
is written by the host's own ``iptables`` command, which is of the flavour that they use. It lets
through what carries ``FORWARD_MARK``, which our own table sets on what gadgets may do: so it is
the same rule whatever is plugged, and no process is started when a gadget comes or goes.

One of the adapters; knows the command and the errors.
"""

from __future__ import annotations

import shutil
import subprocess
import time
from typing import TYPE_CHECKING

from otgd.errors import OtgdError, PermanentError, TransientError
from otgd.model import FORWARD_MARK, Passage

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from otgd.ports import TriggerPort

SYSTEM_PATH = "/usr/local/sbin:/usr/sbin:/sbin:/usr/local/bin:/usr/bin:/bin"
PATIENCE_S = 5.0
"""How long a command may take before it counts as failed."""

EXIT_RESOURCE = 4
"""iptables' exit status when the lock is held or the kernel was busy (xshared.h, xtables.h)."""

DOCKER_USER = "DOCKER-USER"
FORWARD = "FORWARD"
MARK = f"{FORWARD_MARK:#x}/{FORWARD_MARK:#x}"
RULE = ("-m", "mark", "--mark", MARK, "-m", "comment", "--comment", "otgd", "-j", "ACCEPT")


class IptablesPassage:
    """FORWARD as the host's ``iptables`` shows it; implements ``PassagePort`` and ``TriggerPort``.

    The chains are read again only when ``drain`` heard of a change (nf_tables flavour) or when
    the last reading is *max_age_s* old (legacy tables tell nothing).

    Args:
        changes: tells of changes to the table ``ip filter``; None where nf_tables are not there.
    """

    newcomers_only = False

    def __init__(
        self,
        *,
        changes: TriggerPort | None,
        max_age_s: float = 60.0,
        path: str = SYSTEM_PATH,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._changes = changes
        self._max_age_s = max_age_s
        self._path = path
        self._clock = clock
        self._seen: Passage | None = None
        self._seen_at = 0.0

    def look(self) -> Passage:
        """Tell whether something may be in the way, and whether our rule is there.

        Raises:
            TransientError: the table is locked.
            PermanentError: ``iptables`` cannot read it, for example because of native rules.
        """
        now = self._clock()
        if self._seen is None or now - self._seen_at >= self._max_age_s:
            self._seen = self._read()
            self._seen_at = now
        return self._seen

    def open(self) -> None:
        """Put our rule first in DOCKER-USER, or in FORWARD where Docker is not."""
        self._seen = None
        chains = _parse(self._iptables("-S"))
        # It may be back since it was missed: dockerd takes its jump away for a moment as it starts.
        if not _holds_ours(chains):
            self._iptables("-I", _passed(chains)[0], "1", *RULE)

    def shut(self) -> None:
        """Take our rule away, wherever it is."""
        self._seen = None
        for chain, rules in _parse(self._iptables("-S")).items():
            for rule in rules:
                if _is_ours(rule):
                    self._iptables("-D", chain, *RULE)

    # A change of the table asks for another look, and that look has to read it.

    @property
    def overflows(self) -> int:
        """How often events were lost."""
        return self._changes.overflows if self._changes else 0

    def fileno(self) -> int:
        """Return the descriptor to wait on; -1 where there is none."""
        return self._changes.fileno() if self._changes else -1

    def drain(self) -> int:
        """Forget the events, but not that there were some."""
        count = self._changes.drain() if self._changes else 0
        if count:
            self._seen = None
        return count

    def touched(self) -> frozenset[int]:
        """Name no link: the passage is looked at in every pass."""
        return frozenset()

    def close(self) -> None:
        """Give the descriptor back."""
        if self._changes:
            self._changes.close()

    def _read(self) -> Passage:
        if shutil.which("iptables", path=self._path) is None:
            return Passage.OPEN
        chains = _parse(self._iptables("-S"))
        ours = _holds_ours(chains)
        forward = chains.get("FORWARD", [])
        # A policy is the chain's first line; any rule may drop, and is not ours to understand.
        quiet = all(_is_ours(rule) or rule == "-P FORWARD ACCEPT" for rule in forward)
        if quiet:
            return Passage.SPARE if ours else Passage.OPEN
        return Passage.GRANTED if ours else Passage.CLOSED

    def _iptables(self, *arguments: str) -> str:
        command = ("iptables", "-w", "1", *arguments)
        try:
            done = _run(command, self._path)
        except FileNotFoundError as err:
            raise PermanentError("iptables is gone; install package iptables") from err
        except subprocess.TimeoutExpired as err:
            raise TransientError(f"{' '.join(command)}: no answer in {PATIENCE_S:g} s") from err
        if done.returncode == 0:
            return done.stdout
        kind: type[OtgdError] = (
            TransientError if done.returncode == EXIT_RESOURCE else PermanentError
        )
        cause = (done.stderr.strip().splitlines() or [f"exit status {done.returncode}"])[0]
        raise kind(f"{' '.join(command)}: {cause}")


def _run(command: Sequence[str], path: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(  # noqa: S603 - constant words, and names that we checked
        command,
        check=False,
        capture_output=True,
        text=True,
        timeout=PATIENCE_S,
        env={"PATH": path, "LC_ALL": "C"},
    )


def _parse(listing: str) -> dict[str, list[str]]:
    """Sort ``iptables -S`` by chain: the policy or nothing first, then the rules."""
    chains: dict[str, list[str]] = {}
    for line in listing.splitlines():
        option, _, rest = line.partition(" ")
        chain = rest.split(" ", 1)[0]
        chains.setdefault(chain, [])
        if option in ("-P", "-A"):
            chains[chain].append(line)
    return chains


def _passed(chains: dict[str, list[str]]) -> tuple[str, ...]:
    """Return the chains that all forwarded packets pass, best first.

    A DOCKER-USER that is left over, or cut off by ``iptables -F FORWARD``, is none of them.
    """
    is_passed = f"-A {FORWARD} -j {DOCKER_USER}" in chains.get(FORWARD, [])
    return (DOCKER_USER, FORWARD) if is_passed else (FORWARD,)


def _holds_ours(chains: dict[str, list[str]]) -> bool:
    return any(_is_ours(rule) for name in _passed(chains) for rule in chains.get(name, []))


def _is_ours(rule: str) -> bool:
    return f"--mark {MARK} " in rule and "--comment otgd " in rule and rule.endswith("-j ACCEPT")
