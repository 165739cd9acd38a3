"""Which adapters a config asks for; shared by the daemon and by otgctl.

Imports an adapter only when it is chosen: python-iptables alone costs 8 MiB.
"""

from __future__ import annotations

import importlib.util
import shutil
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING, assert_never

from otgd.errors import OtgdError, PermanentError
from otgd.model import Backend

if TYPE_CHECKING:
    from otgd.model import Config, Settings
    from otgd.ports import (
        FirewallPort,
        ForwardingPort,
        LinkPort,
        NeighbourPort,
        PassagePort,
        TriggerPort,
    )

LEGACY_TABLES = Path("/proc/thread-self/net/ip_tables_names")
"""The legacy tables that were ever used in this network namespace, one a line."""

LEGACY_NAMES = ("filter", "nat", "mangle", "raw", "security")
KERNEL_MODULES = Path("/sys/module")
"""One directory per loaded module; what is built in is not there, unless it has parameters."""

LEGACY_SAVE = "iptables-legacy-save"
OUR_CHAINS = "OTGD-"
OUR_COMMENT = "--comment otgd "
OUR_TABLE = "otgd"
SAVE_PATIENCE_S = 5.0


def import_adapters() -> None:
    """Import the adapters that every config asks for: all that takes long, and touches nothing."""
    import otgd.adapters.docker_user
    import otgd.adapters.hotplug
    import otgd.adapters.links
    import otgd.adapters.neighbours
    import otgd.adapters.nf_tables
    import otgd.adapters.sysctl  # noqa: F401


class Kernel:
    """This network namespace as the config wants it looked at; the daemon's ``World``.

    Args:
        listen: subscribe to hotplug events too; otgctl, which looks once, does not.
    """

    def __init__(self, config: Config, *, listen: bool = True) -> None:
        from otgd.adapters.hotplug import choose_source
        from otgd.adapters.links import NetlinkLinks
        from otgd.adapters.neighbours import KernelNeighbours
        from otgd.adapters.sysctl import ProcForwarding

        settings = config.settings
        self.backend, self.backend_reason = choose_backend(settings)
        source = choose_source(settings.source)
        # Subscribe first: what changes while we look triggers another look.
        self.triggers: tuple[TriggerPort, ...] = _hotplug_triggers(source) if listen else ()
        self.passage: PassagePort = self._open_passage(settings)
        self.links: LinkPort = NetlinkLinks(udev=source == "udev")
        self.neighbours: NeighbourPort = KernelNeighbours()
        self.forwarding: ForwardingPort = ProcForwarding()
        self.firewall: FirewallPort = open_firewall(self.backend)

    def _open_passage(self, settings: Settings) -> PassagePort:
        from otgd.adapters.docker_user import IptablesPassage
        from otgd.adapters.nf_tables import NftTrigger

        try:
            changes = NftTrigger(("ip", "filter"))
            ours = NftTrigger(("inet", OUR_TABLE), ("netdev", OUR_TABLE))
        except OtgdError:
            # No nf_tables: legacy tables tell nothing, they are read again at each resync.
            return IptablesPassage(changes=None, max_age_s=settings.resync_s)
        passage = IptablesPassage(changes=changes, max_age_s=settings.resync_s)
        self.triggers += (passage,)
        if self.backend is Backend.NFTABLES:
            self.triggers += (ours,)
        else:
            ours.close()
        return passage

    def leftovers(self) -> tuple[FirewallPort, ...]:
        """Return the backend that is not in use, if rules of ours are left in it."""
        match self.backend:
            case Backend.NFTABLES:
                return (open_firewall(Backend.IPTABLES),) if _legacy_has_ours() else ()
            case _:
                return (open_firewall(Backend.NFTABLES),) if _nft_has_ours() else ()

    def close(self) -> None:
        """Give every descriptor back."""
        for trigger in self.triggers:
            trigger.close()
        self.links.close()
        self.neighbours.close()


def _hotplug_triggers(source: str) -> tuple[TriggerPort, ...]:
    from otgd.adapters.hotplug import RouteTrigger, UdevTrigger

    return (UdevTrigger("udev" if source == "udev" else "kernel"), RouteTrigger())


def open_firewall(backend: Backend) -> FirewallPort:
    """Open a packet filter's adapter; ``AUTO`` is none, see ``choose_backend``."""
    match backend:
        case Backend.IPTABLES:
            from otgd.adapters.iptables import IptablesFirewall

            return IptablesFirewall()
        case Backend.NFTABLES | Backend.AUTO:
            from otgd.adapters.nftables import NftablesFirewall

            return NftablesFirewall()
        case _:
            assert_never(backend)


def choose_backend(settings: Settings) -> tuple[Backend, str]:
    """Return the backend to use and why: what the host uses now, nf_tables where both would do."""
    if settings.backend is not Backend.AUTO:
        return settings.backend, "the config says so"
    from otgd.adapters.nf_tables import list_tables

    if importlib.util.find_spec("nftables") is None:
        return Backend.IPTABLES, "python3-nftables is not installed"
    try:
        tables = {name for _, name in list_tables()} - {OUR_TABLE}
    except PermanentError as err:
        return Backend.IPTABLES, str(err)
    if tables:
        return Backend.NFTABLES, f"nf_tables are in use ({', '.join(sorted(tables))})"
    if legacy := _foreign_legacy_tables():
        return Backend.IPTABLES, f"legacy tables are in use ({', '.join(legacy)}), nf_tables not"
    return Backend.NFTABLES, "no other firewall is in use"


def _legacy_tables() -> tuple[tuple[str, ...], bool]:
    """Return the legacy tables to look into, and whether they are all here for sure.

    The kernel makes a table for whoever looks into it, so others are left alone. Its list of them
    is root's (0440), which the service is not: that takes those whose module is loaded, in
    whatever namespace they are used, or all of them where they are built in.
    """
    try:
        return tuple(LEGACY_TABLES.read_text().split()), True
    except PermissionError:
        if not (KERNEL_MODULES / "ip_tables").exists():
            return LEGACY_NAMES, False
        loaded = (n for n in LEGACY_NAMES if (KERNEL_MODULES / f"iptable_{n}").exists())
        return tuple(loaded), False
    except OSError:
        return (), True  # the kernel has none


def _foreign_legacy_tables() -> list[str]:
    """Return the legacy tables that hold anything but our rules.

    A table that somebody has only looked into is here too, empty. One that cannot be looked into
    counts if it is here.
    """
    names, are_here = _legacy_tables()
    found = []
    for name in names:
        saved = _save_legacy(name)
        in_use = are_here if saved is None else any(map(_is_foreign, saved.splitlines()))
        if in_use:
            found.append(name)
    return found


def _is_foreign(line: str) -> bool:
    """Tell whether a line of iptables-save is a rule, chain or policy that is not ours."""
    if not line.startswith((":", "-A ")):
        return False
    untouched = line.startswith(":") and " ACCEPT " in line
    return not (untouched or OUR_CHAINS in line or OUR_COMMENT in line)


def _legacy_has_ours() -> bool:
    names, _ = _legacy_tables()
    return any(f"-A {OUR_CHAINS}" in (_save_legacy(name) or "") for name in names)


def _save_legacy(table: str) -> str | None:
    """Return what iptables-save prints for a legacy table, or None where it cannot.

    It is asked for one table at a time: to list them all it reads ``LEGACY_TABLES``, too.
    """
    save = shutil.which(LEGACY_SAVE, path="/usr/sbin:/sbin:/usr/bin:/bin")
    if save is None:
        return None
    try:
        done = subprocess.run(  # noqa: S603 - constant words, and the kernel's names
            (save, "-t", table),
            check=False,
            capture_output=True,
            text=True,
            timeout=SAVE_PATIENCE_S,
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout if done.returncode == 0 else None


def _nft_has_ours() -> bool:
    from otgd.adapters.nf_tables import list_tables

    try:
        return any(name == OUR_TABLE for _, name in list_tables())
    except PermanentError:
        return False
