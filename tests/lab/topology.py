"""The lab: a host with USB ports, an uplink to an "Internet", and guests on veth "cables".

::

    guest n  usb0 10.0.(10+n).2 ══ veth ══ usb%d  HOST  eth0 198.51.100.2 ── 198.51.100.1 INTERNET
             default via 10.0.(10+n).1            otgd                        203.0.113.9

The Internet has no route to 10.0.0.0/8, so only masqueraded packets are ever answered. The host's
eth0 is a macvlan, not a veth: with ``drivers = ["veth"]`` it is no gadget's link.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from contextlib import ExitStack
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from tests.lab.namespaces import Namespace
from tests.lab.traffic import ping

if TYPE_CHECKING:
    from types import TracebackType
    from typing import Self

FAR_SIDE = "203.0.113.9"
HOST_UPLINK = "198.51.100.2"
INTERNET_UPLINK = "198.51.100.1"


def mac(n: int) -> str:
    """Return the host end's MAC of gadget *n* (1 to 16), as in the guide."""
    return f"00:22:82:ff:ff:{n:02x}"


def guest_mac(n: int) -> str:
    """Return the guest end's MAC of gadget *n*."""
    return f"00:22:82:ff:ff:{n + 16:02x}"


def host_address(n: int) -> str:
    """Return the host's address on the link of gadget *n*."""
    return f"10.0.{10 + n}.1"


def guest_address(n: int) -> str:
    """Return gadget *n*'s own address."""
    return f"10.0.{10 + n}.2"


def config_text(
    *,
    backend: str = "iptables",
    count: int = 4,
    service: str = "resync_s = 60",
    hotplug: str = "",
    more: str = "",
) -> str:
    """Write a config for *count* of the lab's gadgets."""
    return f"""\
[uplink]
interface = "auto"

[firewall]
backend = "{backend}"

[hotplug]
drivers = ["veth"]
source = "kernel"
{hotplug}

[service]
{service}

[fleet]
count = {count}
interface = "ethusb{{n}}"
mac = "{mac(1)}"
guest_mac = "{guest_mac(1)}"
subnet = "10.0.11.0/24"
hostname = "worker{{n}}"

{more}
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Cable:
    """What gets plugged in.

    Attributes:
        n: the guest's number.
        ifname: the kernel's name for the host end; ``%d`` is expanded by the kernel.
        host_mac: the host end's MAC; gadget *n*'s own if empty.
    """

    n: int
    ifname: str = "usb%d"
    host_mac: str = ""

    def plug_commands(self, host: str) -> str:
        """Write the ``ip -batch`` lines to run in the guest; *host* is the host's namespace.

        The guest repeats its ARP requests 20 times faster than usual, so that its first flow
        starts as soon as the host can answer.
        """
        return f"""\
link add name usb0 address {guest_mac(self.n)} type veth peer name {self.ifname} \
address {self.host_mac or mac(self.n)} netns {host}
addr add {guest_address(self.n)}/24 dev usb0
ntable change name arp_cache dev usb0 retrans 50
link set usb0 up
route add default via {host_address(self.n)}
"""


def _is_used(table: str) -> bool:
    """Tell whether a table of iptables-save has a rule, a chain of its own or a policy."""
    lines = [line for line in table.splitlines() if line and not line.startswith("*")]
    return any(not (line.startswith(":") and line.endswith(" ACCEPT")) for line in lines)


class Lab:
    """One host, one Internet and as many guests as get plugged in."""

    def __init__(self) -> None:
        with ExitStack() as stack:
            self.host = self._machine(stack)
            self.internet = self._machine(stack)
            self._guests: dict[int, Namespace] = {}
            self._connect_uplink()
            self._stack = stack.pop_all()

    @staticmethod
    def _machine(stack: ExitStack) -> Namespace:
        machine = Namespace()
        stack.callback(machine.close)
        return machine

    def _connect_uplink(self) -> None:
        self.internet.run(
            *("ip", "-batch", "-"),
            stdin=f"""\
link add name wan type veth peer name lan
addr add {INTERNET_UPLINK}/24 dev wan
addr add {FAR_SIDE}/32 dev lo
link set wan up
link set lan up
link add name eth0 link lan netns {self.host.path} type macvlan mode private
""",
        )
        # No IPv6 on eth0: its address is tentative at first, and tests compare eth0 byte for byte.
        self.host.run(
            *("ip", "-batch", "-"),
            stdin=f"""\
link set eth0 addrgenmode none
addr add {HOST_UPLINK}/24 dev eth0
link set eth0 up
route add default via {INTERNET_UPLINK} dev eth0
""",
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._stack.close()

    def guest(self, n: int) -> Namespace:
        """Return the machine of gadget *n*, plugged in or not."""
        if n not in self._guests:
            self._guests[n] = self._machine(self._stack)
        return self._guests[n]

    def plug(self, n: int, name: str = "usb%d", *, host_mac: str = "") -> None:
        """Plug gadget *n* in; the kernel calls its link *name*."""
        self.plug_all(Cable(n=n, ifname=name, host_mac=host_mac))

    def plug_all(self, *cables: Cable | int) -> None:
        """Plug several in, one right after the other; a number is a plain cable."""
        for each in cables:
            cable = Cable(n=each) if isinstance(each, int) else each
            commands = cable.plug_commands(self.host.path)
            self.guest(cable.n).run("ip", "-batch", "-", stdin=commands)

    def unplug(self, *numbers: int) -> None:
        """Pull these gadgets out."""
        for n in numbers:
            self.guest(n).run("ip", "link", "del", "usb0")

    # What the host's kernel holds, told by ip and iptables rather than by any code of otgd.

    def links(self) -> dict[str, dict[str, Any]]:
        """Return the host's links by name, as ``ip -json`` shows them."""
        listed = json.loads(self.host.run("ip", "-json", "-details", "address", "show"))
        return {link["ifname"]: link for link in listed}

    def addresses(self, ifname: str) -> list[str]:
        """Return the IPv4 addresses with their prefix lengths on one of the host's links."""
        link = self.links().get(ifname, {})
        return [
            f"{address['local']}/{address['prefixlen']}"
            for address in link.get("addr_info", ())
            if address["family"] == "inet"
        ]

    def firewall(self) -> str:
        """Return every rule of the host, without counters: legacy tables, then nftables.

        Without legacy tables that are as the kernel makes them: they show as soon as somebody
        has looked into them.
        """
        legacy = self.host.run_inside("iptables-legacy-save")
        lines = (x.split(" [")[0] for x in legacy.splitlines() if not x.startswith("#"))
        tables = "\n".join(lines).split("COMMIT")
        used = [table.strip() for table in tables if _is_used(table)]
        return "\n".join([*used, self.host.run_inside("nft", "--stateless", "list", "ruleset")])

    def masquerades(self, n: int) -> int:
        """Count the rules that masquerade gadget *n*."""
        return self.masqueraded()[f"10.0.{10 + n}.0/24"]

    def masqueraded(self) -> Counter[str]:
        """Count the masquerade rules for each subnet: legacy rules and elements of otgd's set."""
        legacy = self.host.run_inside("iptables-legacy-save", "-t", "nat")
        found = Counter(re.findall(r"-s (\S+) .*-j MASQUERADE", legacy))
        elements = self.host.run_inside(
            *("nft", "list", "set", "inet", "otgd", "masqueraded"), check=False
        )
        found.update(re.findall(r'([0-9./]+) \. "', elements))
        return found

    def routes(self) -> str:
        """Return every IPv4 route of the host, local ones included."""
        return self.host.run("ip", "-4", "route", "show", "table", "all")

    def online(self, n: int) -> bool:
        """Tell whether gadget *n* reaches the host and the uplink's far side now."""
        guest = self.guest(n)
        return ping(guest, host_address(n)) and ping(guest, FAR_SIDE)
