"""The values that everything else talks in; frozen, so a pass can neither change nor lose them.

Knows nothing of kernels, files or libraries. *Desired* comes from the config, *observed* from the
kernel, a *plan* leads from the second to the first, a *report* tells how far it got.
Identity is a sign (MAC, USB serial, port) in desired values and the ifindex in observed values and
actions, never a name.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ipaddress import IPv4Address, IPv4Interface, IPv4Network

DEFAULT_DRIVERS = frozenset({"cdc_ether", "cdc_ncm", "cdc_eem", "cdc_subset", "rndis_host"})
"""Drivers whose links may be gadgets (kernel: drivers/net/usb, the hosts' ends of USB networks)."""

MAIN_TABLE = 254
"""RT_TABLE_MAIN, include/uapi/linux/rtnetlink.h."""

LOOPBACK = 1
"""The ifindex of lo in every network namespace (LOOPBACK_IFINDEX, include/net/flow.h)."""


# --- desired -------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class GadgetSpec:
    """What the config wants for one gadget.

    Attributes:
        name: the link's name on the host, for example ``ethusb1``.
        mac: the host end's MAC (``g_ether.host_addr``), lower case, colons; None if not known.
        serial: the USB device's serial number, if it is known by that.
        port: the USB port path (``1-1.2``), if it is known by that. One of the three is given.
        host: the host's address with its prefix length.
        guest: the guest's address, in the same subnet.
        masquerade: whether the guest may reach the uplink.
        isolate: whether the guest is kept from other gadgets.
        guest_mac: the guest's own end (``g_ether.dev_addr``), if known.
        hostname: the guest's hostname, if known.
        via_hub: whether the host speaks to it from its hub address.
    """

    name: str
    mac: str | None = None
    serial: str | None = None
    port: str | None = None
    host: IPv4Interface
    guest: IPv4Address
    masquerade: bool = True
    isolate: bool = False
    guest_mac: str | None = None
    hostname: str | None = None
    via_hub: bool = False

    @property
    def subnet(self) -> IPv4Network:
        """The link's subnet."""
        return self.host.network

    @property
    def is_forwarded(self) -> bool:
        """Whether the host forwards any of its packets."""
        return self.masquerade or not self.isolate


@dataclass(frozen=True, slots=True, kw_only=True)
class UplinkPolicy:
    """Which interface leads to the Internet.

    Attributes:
        interfaces: names, best first; empty means the holder of the default route.
    """

    interfaces: tuple[str, ...] = ()

    @property
    def is_auto(self) -> bool:
        """Whether the default route decides."""
        return not self.interfaces


class UnknownPolicy(StrEnum):
    """What to do with a link of a gadget driver that no entry names."""

    REPORT = "report"
    BLOCK = "block"


@dataclass(frozen=True, slots=True, kw_only=True)
class DesiredState:
    """Everything that the kernel should hold, as far as otgd is concerned.

    Attributes:
        hub: the host's own address on lo, which outlives every cable; None where none is wanted.
    """

    gadgets: tuple[GadgetSpec, ...] = ()
    uplink_policy: UplinkPolicy = UplinkPolicy()
    drivers: frozenset[str] = DEFAULT_DRIVERS
    unknown: UnknownPolicy = UnknownPolicy.REPORT
    hub: IPv4Address | None = None


class OnStop(StrEnum):
    """What happens to the network when the service stops."""

    KEEP = "keep"
    RELEASE = "release"


class HotplugSource(StrEnum):
    """Whose word counts that a link is there: udevd's or the kernel's."""

    AUTO = "auto"
    UDEV = "udev"
    KERNEL = "kernel"


class Backend(StrEnum):
    """Which packet filter carries the rules."""

    AUTO = "auto"
    IPTABLES = "iptables"
    NFTABLES = "nftables"


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """How the service itself behaves; no kernel object depends on it.

    Attributes:
        resync_s: seconds between looks that no event asked for.
        log_level: ``debug``, ``info``, ``warning`` or ``error``.
        metrics_file: where metrics are left for node_exporter; empty for nowhere.
    """

    source: HotplugSource = HotplugSource.AUTO
    backend: Backend = Backend.AUTO
    on_stop: OnStop = OnStop.KEEP
    resync_s: float = 60.0
    log_level: str = "info"
    metrics_file: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class SwarmSpec:
    """The cluster over the cables.

    Attributes:
        hub_address: the host's own address in the cluster, on lo, so it outlives every cable.
        address_pool: where the swarm's overlay networks take their subnets from.
        ssh_user: who to be on the guests.
        members: names of the gadgets that take part.
        auto_join: whether a member that comes later joins at once.
    """

    hub_address: IPv4Address
    address_pool: IPv4Network
    ssh_user: str
    members: tuple[str, ...]
    auto_join: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Config:
    """One config file, understood; *swarm* is None where no cluster is wanted."""

    desired: DesiredState
    settings: Settings = Settings()
    swarm: SwarmSpec | None = None


# --- observed ------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class ObservedAddress:
    """An IPv4 address on a link; *owned* when it carries our ``IFA_PROTO`` mark."""

    interface: IPv4Interface
    owned: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class ObservedLink:
    """A network link (netdev) as the kernel shows it.

    Attributes:
        mac: lower case, colons; empty where the link has none.
        driver: the sysfs driver, or the rtnetlink kind of a virtual link; empty if neither.
        port: the USB port path (``1-1.2``); empty for anything that is not on USB.
        serial: the USB device's serial number (iSerialNumber); often empty.
        up: the administrative flag, IFF_UP.
        carrier: whether the far end is there (IFF_LOWER_UP).
        random_mac: the driver made the MAC up (``addr_assign_type`` is NET_ADDR_RANDOM).
        altnames: further names that the kernel knows the link by.
        initialized: udevd has finished with it; always true where no udevd runs.
    """

    ifindex: int
    ifname: str
    mac: str
    driver: str = ""
    port: str = ""
    serial: str = ""
    up: bool = False
    carrier: bool = False
    addresses: tuple[ObservedAddress, ...] = ()
    random_mac: bool = False
    altnames: tuple[str, ...] = ()
    initialized: bool = True


@dataclass(frozen=True, slots=True, kw_only=True)
class ObservedRoute:
    """A unicast IPv4 route of the main table; ``0.0.0.0/0`` is a default route.

    Attributes:
        source: the host's address on packets of its own that go this way; None if none is set.
        owned: it carries our ``rtm_protocol`` mark.
    """

    destination: IPv4Network
    ifindex: int
    metric: int = 0
    source: IPv4Address | None = None
    owned: bool = False

    @property
    def is_default(self) -> bool:
        """Whether it leads everywhere."""
        return self.destination.prefixlen == 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Masquerade:
    """Rewrite what leaves *subnet* by the link named *uplink* to that link's address."""

    gadget: str
    subnet: IPv4Network
    uplink: str


@dataclass(frozen=True, slots=True, kw_only=True)
class SourceGuard:
    """Drop what arrives on *ifname* with an IPv4 source outside *subnet*.

    Its presence is also what makes *ifname* a gadget's link for ``Forward`` of other gadgets.
    """

    gadget: str
    ifname: str
    subnet: IPv4Network


@dataclass(frozen=True, slots=True, kw_only=True)
class Forward:
    """Where forwarded IPv4 packets of the gadget may go.

    What is allowed is marked with ``FORWARD_MARK``, so that one rule can let it through another
    program's DROP; what is refused is dropped; anything else is left to the host's other rules.

    Attributes:
        uplink: the uplink's name; empty when there is none.
        to_uplink: allow new flows to the uplink (and replies back); refuse them if false.
        to_peers: allow packets from and to other gadgets' links; refuse them if false.
    """

    gadget: str
    ifname: str
    uplink: str
    to_uplink: bool
    to_peers: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Quarantine:
    """Drop whatever arrives on, or leaves by, a link that no entry names."""

    ifname: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Stray:
    """Something under our name in the firewall that is none of our rules, or is not in force."""

    text: str


class Neighbour(StrEnum):
    """What the kernel's neighbour table tells of an address on a link.

    ``UNKNOWN``: no entry. ``HEARD``: it has a MAC, not confirmed of late. ``ASKING``: the kernel
    is sending ARP requests. ``ANSWERS``: confirmed. ``SILENT``: requests went unanswered.
    ``FIXED``: somebody entered it by hand, so nobody ever asks.
    """

    UNKNOWN = "unknown"
    HEARD = "heard"
    ASKING = "asking"
    ANSWERS = "answers"
    SILENT = "silent"
    FIXED = "fixed"


@dataclass(frozen=True, slots=True, kw_only=True)
class Traffic:
    """Packets that a link has carried, seen from the host."""

    received: int
    sent: int


Rule = Masquerade | SourceGuard | Forward | Quarantine | Stray

FORWARD_MARK = 0x10000000
"""The bit of the packet mark (SO_MARK, nfmark) that says "a gadget's, and allowed".

Set in the forward hook (priority mangle) and cleared in postrouting, so routing never sees it.
"""


class Passage(StrEnum):
    """Whether other programs' FORWARD chain lets gadgets' packets through.

    ``OPEN``: nothing is in the way. ``CLOSED``: something may drop them. ``GRANTED``: something
    may, and our rule lets them through. ``SPARE``: our rule is there, though nothing may.
    """

    OPEN = "open"
    CLOSED = "closed"
    GRANTED = "granted"
    SPARE = "spare"


@dataclass(frozen=True, slots=True, kw_only=True)
class ObservedState:
    """What the kernel holds now.

    Attributes:
        routes: of several to one place by one link the first is the one that counts.
        rules: our rules that are in force, and strays; foreign rules are not looked at.
        forwarding: ``net.ipv4.ip_forward``.
        firewall_fault: why the rules cannot be read; empty when they can.
        passage: whether other programs' FORWARD lets gadgets through.
        passage_fault: why that cannot be told; empty when it can.
        unsure: one of the faults may go away by waiting.
    """

    links: tuple[ObservedLink, ...] = ()
    routes: tuple[ObservedRoute, ...] = ()
    rules: frozenset[Rule] = frozenset()
    forwarding: bool = False
    firewall_fault: str = ""
    passage: Passage = Passage.OPEN
    passage_fault: str = ""
    unsure: bool = False


# --- actions -------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class EnableForwarding:
    """Set ``net.ipv4.ip_forward`` to 1; never taken back, others may rely on it by then."""


@dataclass(frozen=True, slots=True, kw_only=True)
class OpenPassage:
    """Let packets with ``FORWARD_MARK`` through other programs' FORWARD chain."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ClosePassage:
    """Take that rule away again."""


@dataclass(frozen=True, slots=True, kw_only=True)
class AddRule:
    """Bring a firewall rule into force."""

    rule: Rule


@dataclass(frozen=True, slots=True, kw_only=True)
class RemoveRule:
    """Take a firewall rule (or a stray) of ours away."""

    rule: Rule


@dataclass(frozen=True, slots=True, kw_only=True)
class RenameLink:
    """Give the link its name; *gadget* is empty for a step through a temporary name."""

    gadget: str
    ifindex: int
    old: str = field(compare=False)  # the same step, whatever name somebody gave it meanwhile
    new: str


@dataclass(frozen=True, slots=True, kw_only=True)
class RemoveAltname:
    """Take an alternative name off a link, because it is the name that the link shall have."""

    gadget: str
    ifindex: int
    altname: str


@dataclass(frozen=True, slots=True, kw_only=True)
class AddAddress:
    """Put an IPv4 address on the link, marked as ours; *gadget* is empty for the hub's on lo."""

    gadget: str
    ifindex: int
    interface: IPv4Interface


@dataclass(frozen=True, slots=True, kw_only=True)
class RemoveAddress:
    """Take an address of ours off a link; *gadget* is empty when no gadget has the link."""

    gadget: str
    ifindex: int
    interface: IPv4Interface


@dataclass(frozen=True, slots=True, kw_only=True)
class AddRoute:
    """Have the host speak from *source* on the link, by a route of ours before the kernel's."""

    gadget: str
    ifindex: int
    subnet: IPv4Network
    source: IPv4Address


@dataclass(frozen=True, slots=True, kw_only=True)
class RemoveRoute:
    """Take such a route of ours away; *gadget* is empty when no gadget has the link."""

    gadget: str
    ifindex: int
    subnet: IPv4Network
    source: IPv4Address


@dataclass(frozen=True, slots=True, kw_only=True)
class SetLinkUp:
    """Set IFF_UP."""

    gadget: str
    ifindex: int


@dataclass(frozen=True, slots=True, kw_only=True)
class SetLinkDown:
    """Clear IFF_UP on a link in quarantine."""

    gadget: str
    ifindex: int


FirewallAction = AddRule | RemoveRule
AddressAction = AddAddress | RemoveAddress | AddRoute | RemoveRoute
LinkAction = RenameLink | RemoveAltname | AddressAction | SetLinkUp | SetLinkDown
HostAction = EnableForwarding | OpenPassage | ClosePassage
Action = HostAction | FirewallAction | LinkAction


# --- plan and report -----------------------------------------------------------------------------


class Aspect(StrEnum):
    """Which part of a gadget's network cannot be had.

    ``PENDING``: the link is there, but udevd has not finished with it; this passes by itself.
    ``LINK``: the gadget gets nothing. ``UPLINK``: it gets everything but a way out.
    ``HUB``: it gets everything, but the host cannot speak to it from its hub address.
    ``FIREWALL``: no rule of its can be in force, since the packet filter cannot be used.
    """

    PENDING = "pending"
    LINK = "link"
    UPLINK = "uplink"
    HUB = "hub"
    FIREWALL = "firewall"


@dataclass(frozen=True, slots=True, kw_only=True)
class Blocked:
    """A gadget that is there but cannot have (part of) its network now, and the one reason."""

    gadget: str
    reason: str
    aspect: Aspect = Aspect.LINK


@dataclass(frozen=True, slots=True, kw_only=True)
class UnknownLink:
    """A link of a gadget driver that is nobody's, and why.

    Attributes:
        rival_of: the gadget that it says it is, and another link is or may be, too.
    """

    ifindex: int
    ifname: str
    mac: str
    driver: str
    port: str
    reason: str
    serial: str = ""
    rival_of: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """The way from observed to desired.

    Attributes:
        steps: what to do, in order; empty means converged.
        blocked: what cannot be had now.
        bindings: gadget name and ifindex of each gadget whose link was identified.
        unknown: links of a gadget driver that no gadget has.
        uplink: the uplink's name; empty when there is none.
        uplink_fault: why there is no uplink; empty when there is one.
        hub_fault: why the hub address cannot be had; empty when it can, or is not wanted.
    """

    steps: tuple[Action, ...] = ()
    blocked: tuple[Blocked, ...] = ()
    bindings: tuple[tuple[str, int], ...] = ()
    unknown: tuple[UnknownLink, ...] = ()
    uplink: str = ""
    uplink_fault: str = ""
    hub_fault: str = ""

    @property
    def converged(self) -> bool:
        """Whether nothing is left to do."""
        return not self.steps


@dataclass(frozen=True, slots=True, kw_only=True)
class Failure:
    """A step that did not work; *transient* when waiting may help."""

    step: Action
    reason: str
    transient: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Held:
    """A step that somebody keeps undoing.

    Attributes:
        undone: how often it was undone in a row.
        wait_s: seconds until it is tried again, or until it counts as settled.
    """

    step: Action
    undone: int
    wait_s: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """What one pass did.

    Attributes:
        applied: steps that worked, in order.
        failures: steps that did not.
        skipped: steps not tried, because one that they build on failed or is held.
        held: steps held back for a while, because somebody keeps undoing them.
        contested: steps that are fought about: held, or in force again, but not for long enough.
        undone: steps that worked and yet are planned again: somebody took them back at once.
        fresh: steps that came up too late to be tried in this pass.
        remaining: the plan made after it all; empty steps mean converged.
        observed: what the kernel held at the end.
        gadgets: names of the gadgets that the pass was about; None for all of them.
        idle: nothing that events named has changed, so nothing was planned or done; the last
            report still holds.
        elapsed_s: duration of the pass in seconds.
    """

    applied: tuple[Action, ...] = ()
    failures: tuple[Failure, ...] = ()
    skipped: tuple[Action, ...] = ()
    held: tuple[Held, ...] = ()
    contested: tuple[Held, ...] = ()
    undone: tuple[Action, ...] = ()
    fresh: tuple[Action, ...] = ()
    remaining: Plan = field(default_factory=Plan)
    observed: ObservedState = field(default_factory=ObservedState)
    gadgets: frozenset[str] | None = None
    idle: bool = False
    elapsed_s: float = 0.0

    @property
    def needs_retry(self) -> bool:
        """Whether a failure, of a step or to look, may go away by waiting."""
        return self.observed.unsure or any(failure.transient for failure in self.failures)


def gadget_of(action: Action) -> str:
    """Name the gadget that *action* serves; empty when it serves none in particular."""
    match action:
        case EnableForwarding() | OpenPassage() | ClosePassage():
            return ""
        case AddRule(rule=rule) | RemoveRule(rule=rule):
            return "" if isinstance(rule, Stray | Quarantine) else rule.gadget
        case _:
            return action.gadget
