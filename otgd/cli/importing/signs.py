"""By what a rule knows its link: the conditions of a udev rule or a .link file, as one sign.

otgd takes a link by any sign of its gadget, a rule asks for all of its conditions at once. So a
rule for one sign is taken over, with conditions that hold for every gadget's link beside it.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from otgd.cli.importing.findings import Left, Named
from otgd.config.values import RefusedError, parse_mac, parse_port, parse_serial, quote, show
from otgd.identity import Sign

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from otgd.cli.importing.findings import Origin


@dataclass(frozen=True, slots=True, kw_only=True)
class Condition:
    """What a rule asks of a link.

    Attributes:
        key: as udev(7) writes it, such as ``ATTRS{serial}``.
        pattern: what its value must look like.
        is_negated: whether it must not.
        shown: the key as the user wrote it.
    """

    key: str
    pattern: str
    is_negated: bool = False
    shown: str


def read_name(
    name: str, conditions: Sequence[Condition], *, text: str, origin: Origin
) -> Iterator[Named | Left]:
    """Yield the name of the link that meets *conditions*, or why they are no sign; and the rest.

    *text* is how the user wrote the name.
    """
    asked = [each for each in conditions if each.is_negated or each.pattern not in {"*", "?*"}]
    try:
        sign, value = _sign(asked)
    except RefusedError as err:
        yield Left(origin=origin, text=text, why=str(err))
        return
    yield Named(origin=origin, sign=sign, value=value, name=name)
    if sign is Sign.PORT:
        why = "otgd takes what is on that port and has one of [hotplug] drivers"
        for each in asked:
            if _PRODUCT.fullmatch(each.key):
                yield Left(origin=origin, text=each.shown, why=why, link=name)


def _sign(conditions: Sequence[Condition]) -> tuple[Sign, str]:
    """Return what the link is known by.

    Raises:
        RefusedError: nothing that otgd goes by, or more than that.
    """
    telling = [each for each in conditions if each.key in _READERS and not each.is_negated]
    signs = sorted({_READERS[each.key][0] for each in telling}, key=list(Sign).index)
    if not signs:
        cause = "the match has no MAC, USB serial or USB port, and otgd goes by those"
        raise RefusedError(cause, "write an entry with one (otgctl gadgets shows them)")
    if len(signs) > 1:
        cause = f"the match asks for {' and '.join(sign.words for sign in signs)} at once"
        form = ", ".join(f"{sign} = …" for sign in signs)
        raise RefusedError(cause, f"write match = {{ {form} }} if either is enough")
    sign = signs[0]
    value, *others = dict.fromkeys(map(_read, telling))
    if others:
        cause = f"the match asks for {sign.words} {value} and {others[0]} at once"
        raise RefusedError(cause, f"write match = {{ {sign} = … }} with one")
    strange = [
        each.shown
        for each in conditions
        if each not in telling and (each.key in _READERS or not _HARMLESS.fullmatch(each.key))
    ]
    if strange:
        cause = f"the match also asks for {', '.join(strange)}, and otgd goes by {sign.words} alone"
        raise RefusedError(cause, f"write match = {{ {sign} = {quote(value)} }} if that is enough")
    return sign, value


def _read(condition: Condition) -> str:
    try:
        return _READERS[condition.key][1](condition.pattern)
    except RefusedError as err:
        raise RefusedError(f"{condition.shown} {err.cause}", err.remedy) from err


_WILD = re.compile(r"[*?|\\\[\]]")

_NODE = r"(?P<port>[0-9]+-[0-9]+(?:\.[0-9]+)*)(?::[0-9.*]+)?"
"""A USB device's directory in sysfs, or one of its interfaces: 1-1.2, 1-1.2:1.0, 1-1.2:*."""

_DEVPATH = re.compile(rf"(?:[^|]*/)?{_NODE}(?:/\*)*(?:/net(?:/[^|]*)?)?")
"""The device is the last one: /devices/.../usb1/1-1/1-1.2/1-1.2:1.0/net/usb0."""

_ID_PATH = re.compile(r".*usb(?:v[0-9])?-0:(?P<port>[0-9]+(?:\.[0-9]+)*)(?::.*)?")


def _serial(pattern: str) -> str:
    if _WILD.search(pattern):
        cause = f"{show(pattern)} is a pattern"
        raise RefusedError(cause, "write an entry for each serial (otgctl gadgets shows them)")
    return parse_serial(pattern)


def _long_serial(pattern: str) -> str:
    cause = f"{show(pattern)} has vendor and product in it"
    raise RefusedError(cause, "write match = { serial = … } (otgctl gadgets shows it)")


def _port(pattern: str) -> str:
    return _port_in(re.fullmatch(_NODE, pattern), pattern)


def _port_of_devpath(pattern: str) -> str:
    return _port_in(_DEVPATH.fullmatch(pattern), pattern)


def _port_in(node: re.Match[str] | None, pattern: str) -> str:
    if node is None:
        cause = f"{show(pattern)} is not one USB port's"
        raise RefusedError(cause, "write match = { port = … } (otgctl gadgets shows it)")
    return parse_port(node["port"])


def _port_of_path(pattern: str) -> str:
    """Refuse: udev writes 0 for the bus (builtin path_id), since its number may change."""
    node = _ID_PATH.fullmatch(pattern)
    guess = f'match = {{ port = "1-{node["port"]}" }} if it is bus 1' if node else "the port"
    cause = f"{show(pattern)} has no number of the USB bus"
    raise RefusedError(cause, f"write {guess} (otgctl gadgets shows it)")


_READERS: dict[str, tuple[Sign, Callable[[str], str]]] = {
    "ATTR{address}": (Sign.MAC, parse_mac),
    "ATTRS{address}": (Sign.MAC, parse_mac),
    "ATTRS{serial}": (Sign.SERIAL, _serial),
    "ENV{ID_SERIAL_SHORT}": (Sign.SERIAL, _serial),
    "ENV{ID_USB_SERIAL_SHORT}": (Sign.SERIAL, _serial),
    "ENV{ID_SERIAL}": (Sign.SERIAL, _long_serial),
    "KERNELS": (Sign.PORT, _port),
    "DEVPATH": (Sign.PORT, _port_of_devpath),
    "ENV{DEVPATH}": (Sign.PORT, _port_of_devpath),
    "ENV{ID_PATH}": (Sign.PORT, _port_of_path),
}
"""Keys that tell a link from others."""

_PRODUCT = re.compile(
    r"ATTRS\{(idVendor|idProduct|manufacturer|product)\}|ENV\{ID_(USB_)?(VENDOR|MODEL)(_ID)?\}"
)
"""Of a MAC or a serial it is plain what product has it; a port takes any."""

_HARMLESS = re.compile(
    rf"SUBSYSTEMS?|ACTION|DRIVERS?|KERNEL|ENV\{{.*\}}|ATTR\{{(dev_id|type)\}}|{_PRODUCT.pattern}"
)
"""Conditions that hold for every link that such a rule is about."""
