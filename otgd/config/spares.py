"""MACs, subnets and names that are still free, for remedies to propose."""

from __future__ import annotations

from ipaddress import IPv4Network
from itertools import chain, count
from typing import TYPE_CHECKING

from otgd.config.values import FIELD, MAX_COUNT, NULL_MAC, UNUSABLE, numbered

if TYPE_CHECKING:
    from collections.abc import Collection

_PRIVATE = tuple(IPv4Network(text) for text in ("10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16"))
"""RFC 1918."""

_EVERYTHING = IPv4Network("0.0.0.0/0")


def spare_mac(like: str, *, taken: Collection[str], length: int = 1) -> str:
    """Return the first of *length* free MACs in a row, from *like* on if possible."""
    numbers = {_number(mac) for mac in (*taken, NULL_MAC)}
    prefix, octet = divmod(_number(like), 256)
    end = 257 - length
    octets = (*range(octet, end), *range(min(octet, end)))
    # Flipping bits below the first octet keeps the MAC unicast.
    runs = (((prefix ^ flip) << 8) + octet for flip in range(1 << 24) for octet in octets)
    first: int = next(run for run in runs if numbers.isdisjoint(range(run, run + length)))
    return first.to_bytes(6, "big").hex(":")


def _number(mac: str) -> int:
    return int(mac.replace(":", ""), 16)


def spare_subnet(like: IPv4Network, *, taken: Collection[IPv4Network]) -> IPv4Network | None:
    """Return a free block, from *like* on and as large if possible, else a private one.

    None when there is none left.
    """
    obstacles = (*taken, *UNUSABLE)
    around = next((block for block in _PRIVATE if block.supernet_of(like)), _EVERYTHING)
    ranges = [(like[0], around[-1]), *((block[0], block[-1]) for block in _PRIVATE)]
    for prefixlen in range(like.prefixlen, 32):
        for first, last in ranges:
            if block := _first_free(int(first), int(last), prefixlen, obstacles):
                return block
    return None


def _first_free(
    at: int, last: int, prefixlen: int, obstacles: Collection[IPv4Network]
) -> IPv4Network | None:
    size = 1 << (32 - prefixlen)
    while at + size - 1 <= last:
        block = IPv4Network((at, prefixlen))
        obstacle = next((o for o in obstacles if block.overlaps(o)), None)
        if obstacle is None:
            return block
        at = max(int(block[-1]), int(obstacle[-1])) + 1
    return None


def spare_name(like: str, *, taken: Collection[str], longest: int) -> str:
    """Return *like* with the lowest number at its end that makes it a free name."""
    stem = like.rstrip("0123456789")
    names = (f"{stem[: longest - len(str(n))]}{n}" for n in count(1))
    return next(name for name in names if name not in taken)


def spare_template(like: str, *, taken: Collection[str]) -> str:
    """Return *like* if none of its names is taken, else a template of which that holds."""
    templates = chain((like,), (f"usb{n}-{FIELD}" for n in count(1)))
    return next(
        template
        for template in templates
        if not any(numbered(template, n) in taken for n in range(1, MAX_COUNT + 1))
    )
