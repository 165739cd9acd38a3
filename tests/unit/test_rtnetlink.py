"""What of the kernel's messages reaches pyroute2's codec, and how it comes out."""

from __future__ import annotations

import struct
from socket import AF_INET
from typing import TYPE_CHECKING, Any

import pytest

from otgd.netlink.rtnetlink import (
    HEADER,
    RTM_GETADDR,
    RTM_GETLINK,
    RTM_NEWLINK,
    Request,
    Rtnetlink,
)
from tests.lab.namespaces import run

if TYPE_CHECKING:
    from collections.abc import Iterator

NLA_F_NESTED = 0x8000
NLA_F_NET_BYTEORDER = 0x4000

SKIP_STATS = ("IFLA_EXT_MASK", 8)
IFINDEX = 7
LINK = struct.pack("=BxHiII", 0, 1, IFINDEX, 0x1, 0)


def attribute(kind: int, value: bytes) -> bytes:
    """One attribute with its padding, as netlink(7) has it."""
    padded = value + bytes(-len(value) % 4)
    return struct.pack("=HH", 4 + len(value), kind) + padded


ALTNAMES = attribute(53, b"enx1\0") + attribute(53, b"usb-left\0")


class Kernel(Rtnetlink):
    """An rtnetlink socket that is answered with what the test says."""

    def __init__(self, body: bytes) -> None:
        super().__init__()
        self._body = body

    def _messages(self) -> Iterator[tuple[int, int, bytes]]:
        length = HEADER.size + len(self._body)
        yield RTM_NEWLINK, 0, HEADER.pack(length, RTM_NEWLINK, 0, 1, 0) + self._body


def told(*attributes: bytes) -> Any:  # noqa: ANN401 - pyroute2 is untyped
    """Return the link that such a message tells of."""
    kernel = Kernel(LINK + b"".join(attributes))
    try:
        return kernel.ask(Request(kind=RTM_GETLINK, fields={"index": IFINDEX}))
    finally:
        kernel.close()


def names(message: Any) -> list[str]:  # noqa: ANN401 - pyroute2 is untyped
    return [name for name, _ in message["attrs"]]


@pytest.mark.parametrize("flags", [0, NLA_F_NESTED, NLA_F_NET_BYTEORDER])
def test_attributes_that_nobody_reads_never_reach_the_codec(flags: int) -> None:
    link = told(
        attribute(13 | flags, b"1"),  # IFLA_TXQLEN, odd in length
        attribute(3, b"usb0\0"),
        attribute(26 | flags, bytes(200)),  # IFLA_AF_SPEC
        attribute(1, bytes.fromhex("002282ffff01")),
        attribute(62 | flags, b""),
    )

    assert names(link) == ["IFLA_IFNAME", "IFLA_ADDRESS"]
    assert link["index"] == IFINDEX
    assert link["flags"] == 0x1
    assert link.get_attr("IFLA_IFNAME") == "usb0"
    assert link.get_attr("IFLA_ADDRESS") == "00:22:82:ff:ff:01"


@pytest.mark.parametrize("flags", [0, NLA_F_NESTED])
def test_a_nest_is_read_with_and_without_its_flag(flags: int) -> None:
    link = told(attribute(52 | flags, ALTNAMES), attribute(99, b"new"))

    assert link.get_attr("IFLA_PROP_LIST").get_attrs("IFLA_ALT_IFNAME") == ["enx1", "usb-left"]


@pytest.mark.parametrize(
    "broken", [struct.pack("=HH", 0, 99), struct.pack("=HH", 3, 99), b"\x08"], ids=["0", "3", "cut"]
)
def test_a_broken_attribute_ends_the_message(broken: bytes) -> None:
    assert names(told(attribute(3, b"usb0\0"), broken)) == ["IFLA_IFNAME"]


@pytest.mark.usefixtures("netns")
def test_what_is_read_of_real_links_is_what_the_codec_reads_of_the_whole_message(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    run("ip", "link", "add", "usb0", "type", "veth", "peer", "name", "peer0")
    run("ip", "link", "property", "add", "dev", "usb0", "altname", "usb-left")
    run("ip", "link", "add", "br0", "type", "bridge")
    run("ip", "address", "add", "10.0.11.1/24", "broadcast", "+", "dev", "usb0")

    def seen() -> list[tuple[int, str, str]]:
        kernel = Rtnetlink()
        messages = [
            *kernel.dump(Request(kind=RTM_GETLINK, attributes=[SKIP_STATS])),
            *kernel.dump(Request(kind=RTM_GETADDR, fields={"family": AF_INET})),
        ]
        kernel.close()
        return [
            (each["index"], name, repr(value))
            for each in messages
            for name, value in each["attrs"]
            if name != "UNKNOWN"
        ]

    less = seen()
    monkeypatch.setattr("otgd.netlink.rtnetlink._declared_only", lambda _, data: data)

    assert less == seen()
    assert len({ifindex for ifindex, *_ in less}) == 4
    assert {"IFLA_PROP_LIST", "IFLA_LINKINFO", "IFA_BROADCAST"} <= {name for _, name, _ in less}
