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


def _legacy_tables() -> list[str]:
    try:
        return LEGACY_TABLES.read_text().split()
    except OSError:
        return []  # the kernel has none, or shows them to root only


def _foreign_legacy_tables() -> list[str]:
    """Return the legacy tables that hold anything but our rules.

    A table that somebody has only looked into is there too, empty.
    """
    saved = _save_legacy()
    if saved is None:
        return _legacy_tables()
    found = []
    for part in saved.split("\nCOMMIT")[:-1]:
        name, *lines = part[part.index("*") + 1 :].splitlines()
        if any(_is_foreign(line) for line in lines):
            found.append(name)
    return found


def _is_foreign(line: str) -> bool:
    """Tell whether a line of iptables-save is a rule, chain or policy that is not ours."""
    untouched = line.startswith(":") and " ACCEPT " in line
    return not (untouched or OUR_CHAINS in line or OUR_COMMENT in line)


def _legacy_has_ours() -> bool:
    return f"-A {OUR_CHAINS}" in (_save_legacy() or "")


def _save_legacy() -> str | None:
    """Return what iptables-save prints for the legacy tables, or None where it cannot."""
    if not _legacy_tables():
        return ""
    save = shutil.which(LEGACY_SAVE, path="/usr/sbin:/sbin:/usr/bin:/bin")
    if save is None:
        return None
    try:
        done = subprocess.run(  # noqa: S603 - a constant name
            (save,), check=False, capture_output=True, text=True, timeout=SAVE_PATIENCE_S
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
