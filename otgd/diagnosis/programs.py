"""Ask the host's own programs: the Pi's firmware and both packet filters' commands.

A program that is missing, fails or hangs has told nothing.
"""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from typing import TYPE_CHECKING

from otgd.diagnosis.facts import ForwardChain

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

SYSTEM_PATH = "/usr/local/sbin:/usr/sbin:/sbin:/usr/local/bin:/usr/bin:/bin"
PATIENCE_S = 5.0
OURS = "otgd"
FIREWALLD = "firewalld"


def _ask(*command: str, path: str) -> str | None:
    program = shutil.which(command[0], path=path)
    if program is None:
        return None
    try:
        done = subprocess.run(  # noqa: S603 - constant words, and what nft itself listed
            (program, *command[1:]),
            check=False,
            capture_output=True,
            text=True,
            timeout=PATIENCE_S,
            env={"PATH": path, "LC_ALL": "C"},
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout if done.returncode == 0 else None


def read_throttled(*, path: str = SYSTEM_PATH) -> int | None:
    """Return the bits of ``vcgencmd get_throttled``; None on anything but a Pi."""
    said = _ask("vcgencmd", "get_throttled", path=path)
    bits = re.fullmatch(r"throttled=(0x[0-9a-fA-F]+)\s*", said or "")
    return int(bits[1], 16) if bits else None


def read_flavour(*, path: str = SYSTEM_PATH) -> str:
    """Return ``nf_tables`` or ``legacy``: what ``iptables`` writes; empty if it is not there."""
    said = _ask("iptables", "-V", path=path)
    if said is None:
        return ""
    return "nf_tables" if "(nf_tables)" in said else "legacy"


def read_legacy_filter(tables: Path, *, path: str = SYSTEM_PATH) -> str:
    """Return the legacy filter table as iptables-save prints it; empty where it is not in use.

    Args:
        tables: the kernel's list of tables in use; asking for another one would load it.
        path: where programs are looked for.
    """
    try:
        if "filter" not in tables.read_text().split():
            return ""
    except OSError:
        return ""
    return _ask("iptables-legacy-save", "-t", "filter", path=path) or ""


def read_forward_chains(*, path: str = SYSTEM_PATH) -> tuple[ForwardChain, ...] | None:
    """Return foreign IPv4 base chains at nftables' forward hook; None if they cannot be seen."""
    listing = _ask("nft", "-j", "list", "chains", path=path)
    if listing is None:
        return None
    return tuple(_forward_chains(listing, path))


def _forward_chains(listing: str, path: str) -> Iterator[ForwardChain]:
    chains = (each.get("chain", {}) for each in json.loads(listing)["nftables"])
    for chain in chains:
        family, table, name = (chain.get(key, "") for key in ("family", "table", "name"))
        if chain.get("hook") != "forward" or family not in ("ip", "inet") or table == OURS:
            continue
        what = ("table", family, table) if table == FIREWALLD else ("chain", family, table, name)
        yield ForwardChain(
            family=family,
            table=table,
            name=name,
            drops=chain.get("policy") == "drop",
            text=_ask("nft", "list", *what, path=path) or "",
        )
