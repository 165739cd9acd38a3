"""Write otgd.toml from what was found."""

from __future__ import annotations

from itertools import islice
from typing import TYPE_CHECKING

from otgd.config.values import quote
from otgd.identity import Sign

if TYPE_CHECKING:
    from collections.abc import Iterator

    from otgd.cli.importing.network import Gadget, Network


def write(network: Network) -> str:
    """Return the config, with a comment for each thing that it does not take over."""
    lines = ["# Written by otgctl import.", ""]
    if network.left:
        lines += ["# Not taken over:", *(f"#   {left}" for left in network.left), ""]
    lines += _uplink(network.uplinks)
    for gadget in network.gadgets:
        lines += ["", *_gadget(gadget)]
    return "\n".join(lines) + "\n"


def _uplink(uplinks: tuple[str, ...]) -> Iterator[str]:
    yield "[uplink]"
    match uplinks:
        case ():
            yield 'interface = "auto"'
        case (name,):
            yield f'interface = "auto" # the default route\'s link; the rules named {quote(name)}'
        case _:
            yield f"interface = [{', '.join(map(quote, uplinks))}]"


def _gadget(gadget: Gadget) -> Iterator[str]:
    first, second = islice(gadget.host.network.hosts(), 2)
    guest = gadget.guest
    yield f"[gadget.{gadget.name if _is_bare(gadget.name) else quote(gadget.name)}]"
    yield _signs(gadget)
    if guest and guest.guest_mac:
        yield f"guest_mac = {quote(guest.guest_mac)}"
    yield f"subnet = {quote(str(gadget.host.network))}"
    if gadget.host.ip != first:
        yield f"host_address = {quote(str(gadget.host.ip))}"
    address = guest.address if guest and guest.address else None
    if address is None and gadget.host.ip == second:
        address = first  # else both ends would have the second
    if address not in (None, second):
        yield f"guest_address = {quote(str(address))}"
    if guest and guest.hostname:
        yield f"hostname = {quote(guest.hostname)}"
    if not gadget.masquerade:
        yield "masquerade = false"


def _signs(gadget: Gadget) -> str:
    given = [f"{sign} = {quote(value)}" for sign, value in gadget.signs.items()]
    return given[0] if list(gadget.signs) == [Sign.MAC] else f"match = {{ {', '.join(given)} }}"


def _is_bare(name: str) -> bool:
    return name.isascii() and name.replace("-", "").replace("_", "").isalnum()
