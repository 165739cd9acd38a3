"""Which gadget a link is: known by its MAC, else by its USB serial, else by its port.

Pure. A MAC is the best sign, unless the driver made it up or no entry of the config has it: g_ether
without parameters takes a new one at each boot, and cdc_subset never shows the real one. A USB
serial is a Zero's own, but often empty. A port says where a Zero is plugged in, not which it is.
"""

from __future__ import annotations

import re
from enum import StrEnum
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

    from otgd.model import GadgetSpec, ObservedLink


class Sign(StrEnum):
    """By what a link is known, the best sign first."""

    MAC = "mac"
    SERIAL = "serial"
    PORT = "port"

    @property
    def words(self) -> str:
        """The sign in a sentence."""
        return _WORDS[self]


_PLAIN = re.compile(r"[A-Za-z0-9._:-]+")
"""Serials that udev shows as they are (usb_id replaces others), and that are no pattern."""

_WORDS = {Sign.MAC: "MAC", Sign.SERIAL: "USB serial", Sign.PORT: "USB port"}


class Directory:
    """The gadgets by their signs; each lookup is one of a dictionary, however many there are."""

    def __init__(self, gadgets: Iterable[GadgetSpec]) -> None:
        self._macs: dict[str, tuple[GadgetSpec, Sign]] = {}
        self._serials: dict[str, tuple[GadgetSpec, Sign]] = {}
        self._ports: dict[str, tuple[GadgetSpec, Sign]] = {}
        for spec in gadgets:
            if spec.mac:
                self._macs[spec.mac] = spec, Sign.MAC
            if spec.serial:
                self._serials[spec.serial] = spec, Sign.SERIAL
            if spec.port:
                self._ports[spec.port] = spec, Sign.PORT

    def claim(self, link: ObservedLink) -> tuple[GadgetSpec, Sign] | None:
        """Return the gadget that the link says it is, and by which sign; None if it is none.

        The driver is not looked at, nor whether another link says the same.
        """
        if not link.random_mac and (claim := self._macs.get(link.mac)):
            return claim
        return self._serials.get(link.serial) or self._ports.get(link.port)


def signs_of(spec: GadgetSpec) -> dict[Sign, str]:
    """Return the signs that the config gives for the gadget, the best first."""
    signs = {Sign.MAC: spec.mac, Sign.SERIAL: spec.serial, Sign.PORT: spec.port}
    return {sign: value for sign, value in signs.items() if value}


def udev_signs(spec: GadgetSpec) -> dict[Sign, str]:
    """Return the signs that udev can look for: a serial that its patterns take as it is."""
    signs = signs_of(spec)
    return {sign: v for sign, v in signs.items() if sign is not Sign.SERIAL or _PLAIN.fullmatch(v)}


def describe_signs(spec: GadgetSpec) -> str:
    """Say what a link must have to be the gadget's: ``MAC 00:22:82:ff:ff:01 or USB port 1-1.2``."""
    return " or ".join(f"{sign.words} {value}" for sign, value in signs_of(spec).items())
