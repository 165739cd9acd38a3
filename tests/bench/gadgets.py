"""The bench's gadgets, numbered from 1: MACs, names and addresses, also known to netlink.h.

The lab's (tests/lab/topology.py) end at 16, where the guide's host MACs run into its guest MACs.
"""

from __future__ import annotations

from ipaddress import IPv4Address

MOST = 250


def mac(n: int) -> str:
    """Return the host end's MAC."""
    return f"00:22:82:ff:ff:{n:02x}"


def guest_mac(n: int) -> str:
    """Return the guest end's MAC."""
    return f"00:22:82:ff:fe:{n:02x}"


def name(n: int) -> str:
    """Return the link's name on the host."""
    return f"ethusb{n}"


def subnet(n: int) -> str:
    """Return the link's network."""
    return f"{IPv4Address('10.0.10.0') + 256 * n}/24"


def guest_address(n: int) -> str:
    """Return the guest's address with its prefix length."""
    return f"{IPv4Address('10.0.10.2') + 256 * n}/24"


def host_address(n: int) -> str:
    """Return the host's address with its prefix length."""
    return f"{IPv4Address('10.0.10.1') + 256 * n}/24"
