"""Which adapters a config asks for; shared by the daemon and by otgctl.

Imports an adapter only when it is chosen: python-iptables alone costs 8 MiB.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, assert_never

from otgd.model import Backend

if TYPE_CHECKING:
    from otgd.adapters.links import NetlinkLinks
    from otgd.adapters.sysctl import ProcForwarding
    from otgd.model import Config, Settings
    from otgd.ports import FirewallPort, TriggerPort


class Kernel:
    """This network namespace as the config wants it looked at; the daemon's ``World``."""

    def __init__(self, config: Config, *, listen: bool = True) -> None:
        from otgd.adapters.hotplug import RouteTrigger, UdevTrigger, choose_source
        from otgd.adapters.links import NetlinkLinks
        from otgd.adapters.sysctl import ProcForwarding

        source = choose_source(config.settings.source)
        # Subscribe first: what changes while we look triggers another look.
        self.triggers: tuple[TriggerPort, ...] = (
            (UdevTrigger(source), RouteTrigger()) if listen else ()
        )
        self.links: NetlinkLinks = NetlinkLinks(udev=source == "udev")
        self.forwarding: ProcForwarding = ProcForwarding()
        self.firewall: FirewallPort = open_firewall(config.settings)

    def close(self) -> None:
        """Give every descriptor back."""
        for trigger in self.triggers:
            trigger.close()
        self.links.close()


def open_firewall(settings: Settings) -> FirewallPort:
    """Choose the packet filter."""
    match settings.backend:
        case Backend.IPTABLES | Backend.AUTO:
            from otgd.adapters.iptables import IptablesFirewall

            return IptablesFirewall()
        case Backend.NFTABLES:
            from otgd.adapters.nftables import NftablesFirewall

            return NftablesFirewall()
        case _:
            assert_never(settings.backend)
