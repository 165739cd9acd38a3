"""Links, addresses and routes over rtnetlink (pyroute2).

One of the adapters; knows pyroute2, the model and the errors. Runs with pyroute2 0.7 and 0.9. Not
for use inside a running asyncio loop: 0.9 runs one of its own beneath each call.
"""

from __future__ import annotations

import errno
import os
from collections import defaultdict
from contextlib import contextmanager
from ipaddress import IPv4Interface, IPv4Network
from pathlib import Path
from socket import AF_INET
from typing import TYPE_CHECKING, Any

from pyroute2.iproute import IPRoute
from pyroute2.netlink.exceptions import NetlinkError
from pyroute2.netlink.rtnl.ifaddrmsg import ifaddrmsg

from otgd.errors import OtgdError, PermanentError, TransientError
from otgd.model import MAIN_TABLE, ObservedAddress, ObservedLink, ObservedRoute

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

OWNER = 0x6F
"""Our value of ``IFA_PROTO`` (kernel 5.18, include/uapi/linux/if_addr.h): who made an address.

0 to 3 are the kernel's; nobody registers the rest. It survives a rename, which a label does not.
"""

IFF_UP = 0x1
IFF_LOWER_UP = 0x10000
RTN_UNICAST = 1
NET_ADDR_RANDOM = "1"
DUMP_TRIES = 5

if all(name != "IFA_PROTO" for name, _ in ifaddrmsg.nla_map):
    # pyroute2 0.7 does not know the attributes that came after IFA_FLAGS; the place is the number.
    ifaddrmsg.nla_map += (
        ("IFA_RT_PRIORITY", "uint32"),
        ("IFA_TARGET_NETNSID", "hex"),
        ("IFA_PROTO", "uint8"),
    )[len(ifaddrmsg.nla_map) - 9 :]

_CAUSES: dict[int, tuple[type[OtgdError], str]] = {
    errno.EPERM: (PermanentError, "not permitted; otgd needs CAP_NET_ADMIN"),
    errno.EEXIST: (PermanentError, "the name is taken"),
    errno.ENODEV: (PermanentError, "the link is gone"),
    errno.EBUSY: (TransientError, "the link is busy"),
    errno.ENOBUFS: (TransientError, "the kernel has no buffer for it"),
    errno.ENOMEM: (TransientError, "the kernel has no memory for it"),
    errno.EINTR: (TransientError, "interrupted"),
    errno.EAGAIN: (TransientError, "the kernel is busy"),
}


class NetlinkLinks:
    """This network namespace's links, over one rtnetlink socket; implements ``LinkPort``.

    Args:
        udev: whether udevd runs here; then a link counts as initialized only when it says so.
        sysfs: where /sys/class/net is.
        udev_data: where udevd notes the devices that it has finished with.
    """

    def __init__(
        self,
        *,
        udev: bool = False,
        sysfs: Path = Path("/sys/class/net"),
        udev_data: Path = Path("/run/udev/data"),
    ) -> None:
        self._udev = udev
        self._sysfs = sysfs
        self._udev_data = udev_data
        self._netlink = IPRoute()

    def close(self) -> None:
        """Give the socket back."""
        self._netlink.close()

    # --- look ------------------------------------------------------------------------------------

    def observe_links(self) -> tuple[ObservedLink, ...]:
        """Return every link with its IPv4 addresses, by ifindex."""
        addresses = defaultdict(list)
        for message in self._dump("get_addr", family=AF_INET):
            local = message.get_attr("IFA_LOCAL") or message.get_attr("IFA_ADDRESS")
            interface = IPv4Interface((local, message["prefixlen"]))
            owned = message.get_attr("IFA_PROTO") == OWNER
            addresses[message["index"]].append(ObservedAddress(interface=interface, owned=owned))
        return tuple(
            self._link(message, tuple(addresses[message["index"]]))
            for message in sorted(self._dump("get_links"), key=lambda message: message["index"])
        )

    def observe_routes(self) -> tuple[ObservedRoute, ...]:
        """Return the unicast IPv4 routes of the main table, a multipath one once per hop."""
        return tuple(
            ObservedRoute(
                destination=IPv4Network((message.get_attr("RTA_DST") or 0, message["dst_len"])),
                ifindex=ifindex,
                metric=message.get_attr("RTA_PRIORITY") or 0,
            )
            for message in self._dump("get_routes", family=AF_INET, table=MAIN_TABLE)
            if message["type"] == RTN_UNICAST and message.get_attr("RTA_TABLE") == MAIN_TABLE
            for ifindex in _hops(message)
        )

    def _dump(self, verb: str, **arguments: Any) -> list[Any]:  # noqa: ANN401 - pyroute2 is untyped
        """Dump a whole table, again if it changed meanwhile (NLM_F_DUMP_INTR)."""
        with _translated():
            for left in reversed(range(DUMP_TRIES)):
                try:
                    return list(getattr(self._netlink, verb)(**arguments))
                except NetlinkError as err:
                    if err.code != errno.EINTR or not left:
                        raise
        return []

    def _link(self, message: Any, addresses: tuple[ObservedAddress, ...]) -> ObservedLink:  # noqa: ANN401
        ifindex, ifname = message["index"], message.get_attr("IFLA_IFNAME")
        details = message.get_attr("IFLA_LINKINFO")
        kind = details.get_attr("IFLA_INFO_KIND") if details else None
        driver, port = (kind, "") if kind else self._driver_and_port(ifname)
        properties = message.get_attr("IFLA_PROP_LIST")
        return ObservedLink(
            ifindex=ifindex,
            ifname=ifname,
            mac=message.get_attr("IFLA_ADDRESS") or "",
            driver=driver,
            port=port,
            up=bool(message["flags"] & IFF_UP),
            carrier=bool(message["flags"] & IFF_LOWER_UP),
            addresses=addresses,
            random_mac=self._read(ifname, "addr_assign_type") == NET_ADDR_RANDOM,
            altnames=tuple(properties.get_attrs("IFLA_ALT_IFNAME")) if properties else (),
            initialized=not self._udev or (self._udev_data / f"n{ifindex}").exists(),
        )

    def _driver_and_port(self, ifname: str) -> tuple[str, str]:
        """Return a physical link's driver and USB port path (``1-1.2``), empty where unknown.

        A link that was renamed since the dump is not found here; its event is on the way.
        """
        device = self._sysfs / ifname / "device"
        try:
            driver = (device / "driver").readlink().name
        except OSError:
            return "", ""
        try:
            on_usb = (device / "subsystem").readlink().name == "usb"
            return driver, device.resolve().name.partition(":")[0] if on_usb else ""
        except OSError:
            return driver, ""

    def _read(self, ifname: str, attribute: str) -> str:
        try:
            return (self._sysfs / ifname / attribute).read_text().strip()
        except OSError:
            return ""

    # --- change ----------------------------------------------------------------------------------

    def rename(self, ifindex: int, new: str) -> None:
        """Name the link *new*, up or down.

        Kernels before 6.2 refuse to rename a link that is up (commit bd039b5ea2a9): it is taken
        down for the moment, which costs its routes; the next pass restores what is ours.
        """
        with _translated():
            try:
                self._netlink.link("set", index=ifindex, ifname=new)
            except NetlinkError as err:
                if err.code != errno.EBUSY:
                    raise
                self._netlink.link("set", index=ifindex, state="down")
                self._netlink.link("set", index=ifindex, ifname=new, state="up")

    def remove_altname(self, ifindex: int, altname: str) -> None:
        """Take an alternative name off the link."""
        with _translated(fine=(errno.ENOENT, errno.ENODEV)):
            self._netlink.link("property_del", index=ifindex, altname=altname)

    def add_address(self, ifindex: int, interface: IPv4Interface) -> None:
        """Put an address on the link and mark it as ours."""
        with _translated(fine=(errno.EEXIST,)):
            self._netlink.addr(
                "add",
                index=ifindex,
                address=str(interface.ip),
                prefixlen=interface.network.prefixlen,
                broadcast=_broadcast(interface),
                proto=OWNER,
            )

    def remove_address(self, ifindex: int, interface: IPv4Interface) -> None:
        """Take an address off the link."""
        with _translated(fine=(errno.EADDRNOTAVAIL, errno.ENODEV)):
            self._netlink.addr(
                "del",
                index=ifindex,
                address=str(interface.ip),
                prefixlen=interface.network.prefixlen,
            )

    def set_up(self, ifindex: int, *, up: bool = True) -> None:
        """Set IFF_UP, or clear it."""
        with _translated():
            self._netlink.link("set", index=ifindex, state="up" if up else "down")


def _hops(message: Any) -> Iterable[int]:  # noqa: ANN401
    if hops := message.get_attr("RTA_MULTIPATH"):
        return [hop["oif"] for hop in hops]
    ifindex = message.get_attr("RTA_OIF")
    return [ifindex] if ifindex else []


def _broadcast(interface: IPv4Interface) -> str | None:
    """Return the subnet's broadcast address; links of /31 have none (RFC 3021)."""
    network = interface.network
    return str(network.broadcast_address) if network.num_addresses > 2 else None


@contextmanager
def _translated(*, fine: tuple[int, ...] = ()) -> Iterator[None]:
    """Turn pyroute2's errors into ours, once; an errno in *fine* is a success."""
    try:
        yield
    except NetlinkError as err:
        if err.code in fine:
            return
        kind, cause = _CAUSES.get(err.code, (PermanentError, os.strerror(err.code)))
        raise kind(cause) from err
    except OSError as err:
        raise TransientError(f"netlink: {err.strerror}") from err
