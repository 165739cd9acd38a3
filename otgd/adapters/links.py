"""Links, addresses and routes over rtnetlink (pyroute2's codec, see ``otgd.netlink.rtnetlink``).

One of the adapters; knows rtnetlink, sysfs, the model and the errors.
"""

from __future__ import annotations

import errno
import re
import struct
from collections import defaultdict
from contextlib import contextmanager
from ipaddress import IPv4Address, IPv4Interface, IPv4Network
from pathlib import Path
from socket import AF_INET, AF_UNSPEC
from typing import TYPE_CHECKING, Any

from otgd.errors import OtgdError, PermanentError, TransientError
from otgd.model import MAIN_TABLE, ObservedAddress, ObservedLink, ObservedRoute
from otgd.netlink.rtnetlink import (
    RTM_DELADDR,
    RTM_DELLINKPROP,
    RTM_DELROUTE,
    RTM_GETADDR,
    RTM_GETLINK,
    RTM_GETROUTE,
    RTM_NEWADDR,
    RTM_NEWLINK,
    RTM_NEWROUTE,
    Request,
    Rtnetlink,
)

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Iterator

OWNER = 0x6F
"""Who made an address or a route: our value of ``IFA_PROTO`` and of ``rtm_protocol``.

Of ``IFA_PROTO`` (kernel 5.18, include/uapi/linux/if_addr.h) 0 to 3 are the kernel's; nobody
registers the rest. It survives a rename, which a label does not. As a route's protocol 111 is in
neither list, include/uapi/linux/rtnetlink.h nor iproute2's rt_protos.
"""

IFF_UP = 0x1
IFF_LOWER_UP = 0x10000
RTN_UNICAST = 1
RT_SCOPE_LINK = 253
RTEXT_FILTER_SKIP_STATS = 8
NET_ADDR_RANDOM = "1"
OUR_LINK_FILES = "70-otgd-*.link"
_MAC = re.compile(r"^MACAddress=(\S+)$", re.MULTILINE)
_NEXT_HOP = struct.Struct("=HBBi")
"""Include/uapi/linux: if.h, rtnetlink.h; struct rtnexthop."""

_CAUSES: dict[int, tuple[type[OtgdError], str]] = {
    errno.EPERM: (PermanentError, "not permitted; otgd needs CAP_NET_ADMIN"),
    errno.EEXIST: (PermanentError, "the name is taken"),
    errno.ENODEV: (PermanentError, "the link is gone"),
    errno.ENETDOWN: (PermanentError, "the link is down"),
    errno.EBUSY: (TransientError, "the link is busy"),
    errno.ENOBUFS: (TransientError, "the kernel has no buffer for it"),
    errno.ENOMEM: (TransientError, "the kernel has no memory for it"),
    errno.EINTR: (TransientError, "interrupted"),
    errno.EAGAIN: (TransientError, "the kernel is busy"),
}


class NetlinkLinks:
    """This network namespace's links, over one rtnetlink socket; implements ``LinkPort``.

    Args:
        udev: whether udevd runs here; then a link counts as initialized only when it says so, or
            when it is known to want the name that we want: then there is nothing to wait for.
        sysfs: where /sys/class/net is.
        udev_data: where udevd notes the devices that it has finished with.
        link_files: where otgd-names.service puts .link files.
    """

    def __init__(
        self,
        *,
        udev: bool = False,
        sysfs: Path = Path("/sys/class/net"),
        udev_data: Path = Path("/run/udev/data"),
        link_files: Path = Path("/run/systemd/network"),
    ) -> None:
        self._udev = udev
        self._link_files = link_files
        self._link_files_at = 0
        self._agreed: frozenset[str] = frozenset()
        self._sysfs = sysfs
        self._udev_data = udev_data
        with _translated():
            self._netlink = Rtnetlink()

    def close(self) -> None:
        """Give the socket back."""
        self._netlink.close()

    # --- look ------------------------------------------------------------------------------------

    def observe_links(self, ifindexes: Collection[int] | None = None) -> tuple[ObservedLink, ...]:
        """Return links with their IPv4 addresses, by ifindex: all, or those that are named.

        A named link that is gone is left out.
        """
        with _translated():
            if ifindexes is not None:
                found = (self._one(ifindex) for ifindex in sorted(ifindexes))
                return tuple(link for link in found if link is not None)
            addresses = self._addresses(0)
            messages = self._netlink.dump(_links_request(0))
            messages.sort(key=lambda message: int(message["index"]))
            return tuple(self._link(m, tuple(addresses[m["index"]])) for m in messages)

    def _one(self, ifindex: int) -> ObservedLink | None:
        message = self._netlink.ask(_links_request(ifindex))
        if message is None:
            return None
        return self._link(message, tuple(self._addresses(ifindex)[ifindex]))

    def _addresses(self, ifindex: int) -> dict[int, list[ObservedAddress]]:
        """Return addresses by ifindex, of one link or (0) of all."""
        addresses = defaultdict(list)
        request = Request(kind=RTM_GETADDR, fields={"family": AF_INET, "index": ifindex})
        for message in self._netlink.dump(request):
            local = message.get_attr("IFA_LOCAL") or message.get_attr("IFA_ADDRESS")
            interface = IPv4Interface((local, message["prefixlen"]))
            owned = message.get_attr("IFA_PROTO") == OWNER
            addresses[message["index"]].append(ObservedAddress(interface=interface, owned=owned))
        return addresses

    def observe_routes(self, ifindex: int = 0) -> tuple[ObservedRoute, ...]:
        """Return the unicast IPv4 routes of the main table, a multipath one once per hop.

        With *ifindex* only those by that link. The order is that in which the kernel takes them.
        """
        request = Request(
            kind=RTM_GETROUTE,
            fields={"family": AF_INET, "table": MAIN_TABLE},
            attributes=[("RTA_OIF", ifindex)] if ifindex else [],
        )
        with _translated():
            messages = self._netlink.dump(request)
        return tuple(
            ObservedRoute(
                destination=IPv4Network((message.get_attr("RTA_DST") or 0, message["dst_len"])),
                ifindex=hop,
                metric=message.get_attr("RTA_PRIORITY") or 0,
                source=IPv4Address(source) if (source := message.get_attr("RTA_PREFSRC")) else None,
                owned=message["proto"] == OWNER,
            )
            for message in messages
            if message["type"] == RTN_UNICAST and message.get_attr("RTA_TABLE") == MAIN_TABLE
            for hop in _hops(message)
            if ifindex in (0, hop)
        )

    def _link(self, message: Any, addresses: tuple[ObservedAddress, ...]) -> ObservedLink:  # noqa: ANN401
        ifindex, ifname = message["index"], message.get_attr("IFLA_IFNAME")
        details = message.get_attr("IFLA_LINKINFO")
        kind = details.get_attr("IFLA_INFO_KIND") if details else None
        driver, port, serial = self._device(ifname)
        properties = message.get_attr("IFLA_PROP_LIST")
        return ObservedLink(
            ifindex=ifindex,
            ifname=ifname,
            mac=message.get_attr("IFLA_ADDRESS") or "",
            driver=driver or kind or "",
            port=port,
            serial=serial,
            up=bool(message["flags"] & IFF_UP),
            carrier=bool(message["flags"] & IFF_LOWER_UP),
            addresses=addresses,
            random_mac=self._read(ifname, "addr_assign_type") == NET_ADDR_RANDOM,
            altnames=tuple(properties.get_attrs("IFLA_ALT_IFNAME")) if properties else (),
            initialized=not self._udev or self._has_initialized(message),
        )

    def _has_initialized(self, message: Any) -> bool:  # noqa: ANN401
        if message.get_attr("IFLA_ADDRESS") in self._agreed_macs():
            return True
        return (self._udev_data / f"n{message['index']}").exists()

    def _agreed_macs(self) -> frozenset[str]:
        """Return the MACs for which a .link file of ours tells udevd our name.

        Read again only when the directory has changed.
        """
        try:
            changed_at = self._link_files.stat().st_mtime_ns
            if changed_at != self._link_files_at:
                texts = [p.read_text() for p in self._link_files.glob(OUR_LINK_FILES)]
                self._agreed = frozenset(mac for text in texts for mac in _MAC.findall(text))
                self._link_files_at = changed_at
        except OSError:
            return frozenset()
        return self._agreed

    def _device(self, ifname: str) -> tuple[str, str, str]:
        """Return the driver, USB port path (``1-1.2``) and USB serial; empty where unknown.

        A virtual link has no device. One that was renamed since the dump is not found here; its
        event is on the way.
        """
        device = self._sysfs / ifname / "device"
        try:
            driver = (device / "driver").readlink().name
        except OSError:
            return "", "", ""
        try:
            if (device / "subsystem").readlink().name != "usb":
                return driver, "", ""
            # .../1-1.2/1-1.2:1.0/net/usb0: a link is an interface's, the serial the device's.
            interface = device.resolve()
            serial = self._read_text(interface.parent / "serial")
        except OSError:
            return driver, "", ""
        return driver, interface.name.partition(":")[0], serial

    def _read(self, ifname: str, attribute: str) -> str:
        return self._read_text(self._sysfs / ifname / attribute)

    @staticmethod
    def _read_text(path: Path) -> str:
        try:
            return path.read_text(errors="replace").strip()
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
                self._set_link(ifindex, name=new)
            except OSError as err:
                if err.errno != errno.EBUSY:
                    raise
                self._set_link(ifindex, up=False)
                try:
                    self._set_link(ifindex, name=new)
                finally:
                    self._set_link(ifindex, up=True)

    def set_up(self, ifindex: int, *, up: bool = True) -> None:
        """Set IFF_UP, or clear it."""
        with _translated():
            self._set_link(ifindex, up=up)

    def _set_link(self, ifindex: int, *, name: str = "", up: bool | None = None) -> None:
        fields = {"family": AF_UNSPEC, "index": ifindex}
        if up is not None:
            fields |= {"flags": IFF_UP if up else 0, "change": IFF_UP}
        attributes = [("IFLA_IFNAME", name)] if name else []
        self._netlink.change(Request(kind=RTM_NEWLINK, fields=fields, attributes=attributes))

    def remove_altname(self, ifindex: int, altname: str) -> None:
        """Take an alternative name off the link."""
        names = (("IFLA_ALT_IFNAME", altname),)
        request = Request(
            kind=RTM_DELLINKPROP,
            fields={"family": AF_UNSPEC, "index": ifindex},
            attributes=[("IFLA_PROP_LIST", names)],
        )
        with _translated(fine=(errno.ENOENT, errno.ENODEV)):
            self._netlink.change(request)

    def add_address(self, ifindex: int, interface: IPv4Interface) -> None:
        """Put an address on the link and mark it as ours."""
        attributes = [*_address(interface), ("IFA_PROTO", OWNER)]
        # Links of /31 have no broadcast address (RFC 3021).
        if interface.network.prefixlen < 31:
            attributes.append(("IFA_BROADCAST", str(interface.network.broadcast_address)))
        request = Request(
            kind=RTM_NEWADDR,
            fields=_address_fields(ifindex, interface),
            attributes=attributes,
            exclusive=True,
        )
        with _translated(fine=(errno.EEXIST,)):
            self._netlink.change(request)

    def remove_address(self, ifindex: int, interface: IPv4Interface) -> None:
        """Take an address off the link."""
        request = Request(
            kind=RTM_DELADDR,
            fields=_address_fields(ifindex, interface),
            attributes=_address(interface),
        )
        with _translated(fine=(errno.EADDRNOTAVAIL, errno.ENODEV)):
            self._netlink.change(request)

    def add_route(self, ifindex: int, subnet: IPv4Network, source: IPv4Address) -> None:
        """Put a route before all to *subnet* by the link, mark it as ours; it sets the source.

        Of routes with one metric the kernel takes the first, and its own stays behind ours: so the
        subnet is never without, and what is there when ours goes is the kernel's again.
        """
        with _translated():
            try:
                self._netlink.change(_route_request(RTM_NEWROUTE, ifindex, subnet, source))
            except OSError as err:
                if err.errno != errno.EEXIST:
                    raise
                # It is there: first, or behind another one, where it does not count.
                self.remove_route(ifindex, subnet, source)
                self._netlink.change(_route_request(RTM_NEWROUTE, ifindex, subnet, source))

    def remove_route(self, ifindex: int, subnet: IPv4Network, source: IPv4Address) -> None:
        """Take such a route of ours away."""
        with _translated(fine=(errno.ESRCH, errno.ENODEV)):
            self._netlink.change(_route_request(RTM_DELROUTE, ifindex, subnet, source))


def _route_request(kind: int, ifindex: int, subnet: IPv4Network, source: IPv4Address) -> Request:
    """Without NLM_F_APPEND a new route goes before those with the same metric (fib_trie.c)."""
    return Request(
        kind=kind,
        fields={
            "family": AF_INET,
            "dst_len": subnet.prefixlen,
            "table": MAIN_TABLE,
            "proto": OWNER,
            "scope": RT_SCOPE_LINK,
            "type": RTN_UNICAST,
        },
        attributes=[
            ("RTA_DST", str(subnet.network_address)),
            ("RTA_OIF", ifindex),
            ("RTA_PREFSRC", str(source)),
        ],
        create=kind == RTM_NEWROUTE,
    )


def _links_request(ifindex: int) -> Request:
    return Request(
        kind=RTM_GETLINK,
        fields={"family": AF_UNSPEC, "index": ifindex},
        attributes=[("IFLA_EXT_MASK", RTEXT_FILTER_SKIP_STATS)],
    )


def _address_fields(ifindex: int, interface: IPv4Interface) -> dict[str, int]:
    return {"family": AF_INET, "index": ifindex, "prefixlen": interface.network.prefixlen}


def _address(interface: IPv4Interface) -> list[tuple[str, Any]]:
    return [("IFA_LOCAL", str(interface.ip)), ("IFA_ADDRESS", str(interface.ip))]


def _hops(message: Any) -> Iterable[int]:  # noqa: ANN401
    hops = message.get_attr("RTA_MULTIPATH")
    if not hops:
        ifindex = message.get_attr("RTA_OIF")
        return [ifindex] if ifindex else []
    found, offset = [], 0
    while offset + _NEXT_HOP.size <= len(hops):
        length, _, _, ifindex = _NEXT_HOP.unpack_from(hops, offset)
        found.append(ifindex)
        offset += max(_NEXT_HOP.size, (length + 3) & ~3)
    return found


@contextmanager
def _translated(*, fine: tuple[int, ...] = ()) -> Iterator[None]:
    """Turn the kernel's refusals into our errors, once; an errno in *fine* is a success."""
    try:
        yield
    except OSError as err:
        code = err.errno or 0
        if code in fine:
            return
        kind, cause = _CAUSES.get(code, (PermanentError, err.strerror or str(err)))
        raise kind(cause) from err
