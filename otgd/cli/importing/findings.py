"""What a source can tell; each finding knows where it stands."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ipaddress import IPv4Address, IPv4Interface, IPv4Network

    from otgd.identity import Sign


@dataclass(frozen=True, slots=True, kw_only=True)
class Origin:
    """A line of a file."""

    file: str
    line: int

    def __str__(self) -> str:
        return f"{self.file}:{self.line}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Named:
    """The link with this sign shall have this name."""

    origin: Origin
    sign: Sign
    value: str
    name: str

    @property
    def known_by(self) -> str:
        """The sign in a sentence: ``USB port 1-1.2``."""
        return f"{self.sign.words} {self.value}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Addressed:
    """The link with this name, or else with this MAC, has this address."""

    origin: Origin
    interface: IPv4Interface
    name: str = ""
    mac: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Masqueraded:
    """What comes from *source* (None: from anywhere) and leaves by *uplink* is masqueraded.

    An empty *uplink* is any link.
    """

    origin: Origin
    source: IPv4Network | None
    uplink: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Guest:
    """What a card says of the Zero at the far end of the link with this MAC."""

    origin: Origin
    mac: str
    guest_mac: str | None = None
    hostname: str | None = None
    address: IPv4Address | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Left:
    """Something that is not taken over, and why.

    Attributes:
        link: the link that it is about; it is told only if a gadget has that link, unless empty.
    """

    origin: Origin
    text: str
    why: str
    link: str = ""

    def __str__(self) -> str:
        return f"{self.origin}: {self.text}: {self.why}"


Finding = Named | Addressed | Masqueraded | Guest | Left
