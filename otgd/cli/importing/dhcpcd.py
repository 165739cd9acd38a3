"""dhcpcd.conf (dhcpcd.conf(5)): stanzas with static addresses."""

from __future__ import annotations

from ipaddress import IPv4Interface
from typing import TYPE_CHECKING

from otgd.cli.importing.findings import Addressed, Left, Origin

if TYPE_CHECKING:
    from collections.abc import Iterator

    from otgd.cli.importing.findings import Finding

_BLOCKS = ("interface", "ssid", "profile")
_NEEDLESS = {
    "noarp": "",
    "nolink": "",
    "noipv6": "",
    "noipv6rs": "",
    "nohook": "",
    "static domain_name_servers": "the host's end needs no name server",
    "static routers": "no default route leads over a gadget",
}
"""Options that are not taken over, and why; without a reason they are not worth a word."""


def read(text: str, file: str) -> Iterator[Finding]:
    """Yield the static addresses of each interface, and what else its stanza says."""
    link = ""
    for number, line in enumerate(text.splitlines(), start=1):
        words = line.split("#")[0].split(None, 1)
        if not words:
            continue
        if words[0] in _BLOCKS:
            link = words[1].strip() if words[0] == "interface" and len(words) > 1 else ""
        elif link:
            yield from _read_option(" ".join(words), link, Origin(file=file, line=number))


def _read_option(option: str, link: str, origin: Origin) -> Iterator[Finding]:
    key, _, value = (part.strip() for part in option.partition("="))
    if key != "static ip_address":
        why = _NEEDLESS.get(key, _NEEDLESS.get(key.split()[0], "otgd has nothing like it"))
        if why:
            yield Left(origin=origin, text=option, why=why, link=link)
        return
    try:
        yield Addressed(origin=origin, interface=IPv4Interface(value), name=link)
    except ValueError:
        yield Left(origin=origin, text=option, why="is not an IPv4 address", link=link)
