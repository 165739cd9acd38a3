"""Single values of the config: what each must look like, and what to write where it does not.

Every ``parse_`` function takes what tomllib made of the value and returns it in the model's terms
or raises ``RefusedError``. What a remedy tells the user to write is itself accepted (a property
test holds it to that). Knows no other value than the one it looks at.
"""

from __future__ import annotations

import json
import re
from difflib import get_close_matches
from ipaddress import IPv4Address, IPv4Interface, IPv4Network
from pathlib import PurePosixPath
from typing import TYPE_CHECKING, TypeVar

from otgd.model import DEFAULT_DRIVERS

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

Choice = TypeVar("Choice", bound=str)

MAX_COUNT = 256
"""Gadgets in one fleet: what a MAC's last octet can count."""

UNUSABLE = tuple(IPv4Network(text) for text in ("0.0.0.0/8", "127.0.0.0/8", "224.0.0.0/3"))
"""Blocks that hosts cannot have: this network, loopback, multicast and reserved (RFC 6890)."""

POOL_PREFIXLEN = 23
"""The longest prefix of a swarm's address pool: room for ingress and one network more.

Docker takes a /24 of the pool for each network (``docker swarm init --default-addr-pool``).
"""

NULL_MAC = "00:00:00:00:00:00"

FIELD = "{n}"
"""What stands for the gadget's number in the fleet's templates."""

IFNAME_BYTES = 15
"""IFNAMSIZ - 1, include/uapi/linux/if.h."""

LABEL_CHARS = 63
"""What a name between two dots may have, RFC 1123."""

_HOSTNAME_CHARS = 64  # __NEW_UTS_LEN, include/uapi/linux/utsname.h
_TEMPLATE_STEM = 12  # leaves three digits for {n} in an interface name
_RESYNC_S = (0.1, 86_400)
_SHOWN_CHARS = 60

_EXAMPLE_MAC = "00:22:82:ff:ff:01"
_EXAMPLE_SERIAL = "00000000d4c3b2a1"
_EXAMPLE_PORT = "1-1.2"
_EXAMPLE_METRICS_FILE = "/run/otgd/otgd.prom"
_EXAMPLE_SUBNET = "10.0.11.0/24"
_EXAMPLE_ADDRESS = "10.0.11.1"
_EXAMPLE_HUB = "10.0.10.1"
_EXAMPLE_POOL = "10.20.0.0/16"
_EXAMPLE_IFNAME = "ethusb1"
_EXAMPLE_HOSTNAME = "worker1"
_EXAMPLE_USER = "pi"
_LO_LIKE = frozenset({"lo", "all", "default"})  # the last two: net.ipv4.conf.{all,default}

_MAC = re.compile(r"[0-9a-f]{2}(:[0-9a-f]{2}){5}")
_MAC_PART = re.compile(r"[0-9a-f]{1,2}")
_BAD_IFNAME_CHAR = re.compile(r"[^A-Za-z0-9_.-]")
_SERIAL_CHARS = 126
"""What a USB string descriptor can have (USB 2.0, 9.6.7: 255 bytes, UTF-16)."""

_PORT = re.compile(r"[1-9][0-9]{0,2}-[1-9][0-9]?(\.[1-9][0-9]?){0,5}")
"""Bus, port of the root hub, and at most five hubs in a row (Documentation/ABI, sysfs-bus-usb)."""

_PORT_IN_TEXT = re.compile(r"(?<![0-9.-])[0-9]+-[0-9]+(\.[0-9]+)*(?![0-9-])")
_DRIVER = re.compile(r"[A-Za-z0-9_-]+")
_USER = re.compile(r"[A-Za-z_][A-Za-z0-9_.-]{0,31}")  # NAME_REGEX of adduser.conf(5), and dots
_LABEL = re.compile(r"[A-Za-z0-9]([A-Za-z0-9-]{0,61}[A-Za-z0-9])?")

_KINDS = {
    bool: "true or false",
    int: "a whole number",
    float: "a decimal number",
    str: "a string",
    list: "a list",
    dict: "a table",
}


class RefusedError(ValueError):
    """A value cannot stay: why, and what to write instead."""

    def __init__(self, cause: str, remedy: str) -> None:
        self.cause = cause
        self.remedy = remedy
        super().__init__(f"{cause}; {remedy}")


def quote(text: object) -> str:
    """Write *text* as a TOML string."""
    return json.dumps(str(text), ensure_ascii=False)


def show(text: str) -> str:
    """Write *text* as a TOML string, cut where it is too long to read."""
    return quote(text if len(text) <= _SHOWN_CHARS else f"{text[: _SHOWN_CHARS - 1]}…")


def kind_of(value: object) -> str:
    """Say in the user's words what type a TOML value has."""
    return _KINDS.get(type(value), "a date or time")


def wrong_type(value: object, *, wanted: str, example: str) -> RefusedError:
    """Refuse *value* for its type."""
    return RefusedError(f"is {kind_of(value)}, not {wanted}", f"write {example}")


def parse_text(value: object, *, example: str) -> str:
    """Return a string."""
    if not isinstance(value, str):
        raise wrong_type(value, wanted="a string", example=quote(example))
    return value


# --- MAC -----------------------------------------------------------------------------------------


def parse_mac(value: object) -> str:
    """Return a unicast MAC, lower case."""
    text = parse_text(value, example=_EXAMPLE_MAC)
    mac = text.lower()
    remedy = f"write {quote(_propose_mac(mac))}"
    if "*" in text:
        raise RefusedError(f"{show(text)} has the asterisks of the guide's bold type", remedy)
    if _MAC.fullmatch(mac) is None:
        raise RefusedError(f"{show(text)} is not six pairs of hex digits with colons", remedy)
    if mac == NULL_MAC:
        raise RefusedError("is all zero, which no link can have", remedy)
    if int(mac[:2], 16) & 1:
        raise RefusedError(f"{show(text)} is a multicast MAC, which no link can have", remedy)
    return mac


def _propose_mac(text: str) -> str:
    """Return the MAC that *text*, in lower case, most likely means."""
    parts = re.split(r"[:-]", re.sub(r"[\s*]", "", text))
    if len(parts) != 6:
        parts = re.findall(r"..", "".join(parts).replace(".", ""))
    if len(parts) != 6 or not all(_MAC_PART.fullmatch(part) for part in parts):
        return _EXAMPLE_MAC
    first, *rest = (int(part, 16) for part in parts)
    mac = ":".join(f"{octet:02x}" for octet in (first & 0xFE, *rest))
    return _EXAMPLE_MAC if mac == NULL_MAC else mac


# --- other signs of a gadget ----------------------------------------------------------------------


def parse_serial(value: object) -> str:
    """Return a USB serial number as sysfs shows it."""
    text = parse_text(value, example=_EXAMPLE_SERIAL)
    fault = ""
    if not text:
        fault = "is empty, as it is for many gadgets"
    elif text != text.strip():
        fault = f"{show(text)} has blanks around it"
    elif not text.isprintable():
        fault = f"{show(text)} has a character that cannot be printed"
    elif len(text) > _SERIAL_CHARS:
        fault = f"is {len(text)} characters long, USB takes {_SERIAL_CHARS}"
    if fault:
        proposal = "".join(filter(str.isprintable, text)).strip()[:_SERIAL_CHARS].strip()
        raise RefusedError(fault, f"write {quote(proposal or _EXAMPLE_SERIAL)}")
    return text


def parse_port(value: object) -> str:
    """Return a USB port path: ``1-1.2`` is port 2 of the hub on port 1 of bus 1."""
    text = parse_text(value, example=_EXAMPLE_PORT)
    if _PORT.fullmatch(text) is None:
        found = _PORT_IN_TEXT.search(text)
        proposal = found.group() if found else ""
        raise RefusedError(
            f"{show(text)} is not a USB port path",
            f"write one such as {quote(proposal if _PORT.fullmatch(proposal) else _EXAMPLE_PORT)}",
        )
    return text


# --- addresses -----------------------------------------------------------------------------------


def parse_subnet(value: object) -> IPv4Network:
    """Return a block with room for two hosts."""
    text = parse_text(value, example=_EXAMPLE_SUBNET)
    try:
        given = IPv4Interface(text)
    except ValueError:
        raise RefusedError(
            f"{show(text)} is not an IPv4 network", f"write one such as {quote(_EXAMPLE_SUBNET)}"
        ) from None
    network = given.network
    if any(network.overlaps(block) for block in UNUSABLE):
        raise RefusedError(
            f"{show(text)} is not for hosts (0, 127 and 224 up are reserved)",
            f"write a private block such as {quote(_EXAMPLE_SUBNET)}",
        )
    if "/" not in text:
        default = IPv4Interface(f"{given.ip}/24").network
        raise RefusedError(f"{show(text)} has no prefix length", f"write {quote(default)}")
    if network.prefixlen > 31:
        raise RefusedError(
            f"{show(text)} has no room for two addresses",
            f"write {quote(network.supernet(new_prefix=31))}",
        )
    if given.ip != network.network_address:
        raise RefusedError(f"{show(text)} has host bits set", f"write {quote(network)}")
    if text != str(network):
        raise RefusedError(f"{show(text)} has no plain prefix length", f"write {quote(network)}")
    return network


def parse_pool(value: object) -> IPv4Network:
    """Return a block with room for a swarm's networks."""
    text = parse_text(value, example=_EXAMPLE_POOL)
    try:
        network = parse_subnet(text)
    except RefusedError as refused:
        remedy = f"write one such as {quote(_EXAMPLE_POOL)}"
        raise RefusedError(refused.cause, remedy) from None
    if network.prefixlen > POOL_PREFIXLEN:
        raise RefusedError(
            f"{show(text)} has no room for two networks of 256 addresses",
            f"write {quote(network.supernet(new_prefix=16))}",
        )
    return network


def parse_address(value: object) -> IPv4Address:
    """Return an IPv4 address."""
    return _parse_interface(value, example=_EXAMPLE_ADDRESS).ip


def parse_hub(value: object) -> IPv4Address:
    """Return an address that a host can have."""
    return _parse_interface(value, example=_EXAMPLE_HUB, but_not=UNUSABLE).ip


def _parse_interface(
    value: object, *, example: str, but_not: Sequence[IPv4Network] = ()
) -> IPv4Interface:
    """Return an address without prefix length, in none of the blocks *but_not*."""
    text = parse_text(value, example=example)
    try:
        interface = IPv4Interface(text)
    except ValueError:
        raise RefusedError(
            f"{show(text)} is not an IPv4 address", f"write one such as {quote(example)}"
        ) from None
    if any(interface.ip in block for block in but_not):
        raise RefusedError(
            f"{show(text)} is not for hosts (0, 127 and 224 up are reserved)",
            f"write a private one such as {quote(example)}",
        )
    if "/" in text:
        raise RefusedError(f"{show(text)} has a prefix length", f"write {quote(interface.ip)}")
    return interface


# --- names ---------------------------------------------------------------------------------------


def ifname_fault(name: str) -> str | None:
    """Say why no link of ours can be called *name*, or None.

    Stricter than dev_valid_name() in net/core/dev.c: ``%`` expands, ``+`` and ``*`` are wildcards
    in firewall rules, digits pass for an ifindex.
    """
    length = len(name.encode())
    if not name:
        return "is empty"
    if length > IFNAME_BYTES:
        return f"is {length} bytes long, the kernel takes {IFNAME_BYTES}"
    if bad := _BAD_IFNAME_CHAR.search(name):
        return f"has {quote(bad.group())} in it"
    if name[0] in ".-":
        return f"begins with {quote(name[0])}"
    if name.isdecimal():
        return "is only digits, which pass for an index"
    return "is a name of the kernel's own" if name in _LO_LIKE else None


def propose_ifname(name: str) -> str:
    """Return a name without fault that is much like *name*."""
    return _mend_ifname(name) or _EXAMPLE_IFNAME


def _mend_ifname(name: str) -> str:
    """Return *name* without its faults, digits at the end kept; empty where nothing is left."""
    cleaned = _clean_ifname(name)
    digits = cleaned[len(cleaned.rstrip("0123456789")) :][-4:]
    proposal = cleaned.removesuffix(digits)[: IFNAME_BYTES - len(digits)] + digits
    return "" if ifname_fault(proposal) else proposal


def propose_ifname_template(template: str) -> str:
    """Return a template without fault that is much like *template*."""
    stem = _clean_ifname(_without_fields(template))[:_TEMPLATE_STEM].rstrip("0123456789")
    return f"{stem or 'ethusb'}{{n}}"


def _clean_ifname(text: str) -> str:
    return _BAD_IFNAME_CHAR.sub("", text).lstrip(".-")


def hostname_fault(name: str) -> str | None:
    """Say why no guest can be called *name*, or None (RFC 1123, section 2.1)."""
    if len(name) > _HOSTNAME_CHARS:
        return f"is {len(name)} characters long, Linux takes {_HOSTNAME_CHARS}"
    if not all(_LABEL.fullmatch(label) for label in name.split(".")):
        return "is not a hostname (letters, digits and inner hyphens; RFC 1123)"
    return None


def parse_hostname(value: object) -> str:
    """Return a hostname."""
    text = parse_text(value, example=_EXAMPLE_HOSTNAME)
    if fault := hostname_fault(text):
        proposal = _clean_hostname(text) or _EXAMPLE_HOSTNAME
        raise RefusedError(f"{show(text)} {fault}", f"write {quote(proposal)}")
    return text


def propose_hostname_template(template: str) -> str:
    """Return a template without fault that is much like *template*."""
    stem = _clean_hostname(_without_fields(template)).rstrip("0123456789")
    return f"{stem[: _HOSTNAME_CHARS - 4] or 'worker'}{{n}}"


def _clean_hostname(text: str) -> str:
    return re.sub(r"[^A-Za-z0-9]+", "-", text).strip("-")[:LABEL_CHARS].strip("-")


def _without_fields(template: str) -> str:
    return re.sub(r"\{[^}]*\}?", "", template)


def numbered(template: str, number: int) -> str:
    """Return the name that *template* has for gadget *number*."""
    return template.replace(FIELD, str(number))


def parse_ifname_template(value: object) -> str:
    """Return a template with ``{n}`` in it; whether its names are any good is seen later."""
    return _parse_template(value, example="ethusb{n}", propose=propose_ifname_template)


def parse_hostname_template(value: object) -> str:
    """Return a template with ``{n}`` in it; whether its names are any good is seen later."""
    return _parse_template(value, example="worker{n}", propose=propose_hostname_template)


def _parse_template(value: object, *, example: str, propose: Callable[[str], str]) -> str:
    text = parse_text(value, example=example)
    if FIELD not in text:
        raise RefusedError(
            f"{show(text)} has no {{n}} for the gadget's number", f"write {quote(propose(text))}"
        )
    return text


def parse_uplink(value: object) -> tuple[str, ...]:
    """Return names, best first; none for ``"auto"``."""
    if value == "auto":
        return ()
    names = [value] if isinstance(value, str) else value
    if not isinstance(names, list) or not names or not all(isinstance(n, str) for n in names):
        raise RefusedError(
            f"is {_kind_of_list(value)}, not a name or a list of names",
            'write "auto", or names such as ["eth0", "wlan0"]',
        )
    if "auto" in names:
        others = [name for name in names if name != "auto"]
        raise RefusedError(
            'has "auto" among names', f'write "auto", or {_propose_uplinks(others or ["eth0"])}'
        )
    for name in names:
        if fault := ifname_fault(name):
            raise RefusedError(f"{show(name)} {fault}", f"write {_propose_uplinks(names)}")
    if len(set(names)) < len(names):
        raise RefusedError("names an interface twice", f"write {_propose_uplinks(names)}")
    return tuple(names)


def _propose_uplinks(names: Sequence[str]) -> str:
    mended = list(dict.fromkeys(filter(None, map(_mend_ifname, names))))
    if len(mended) > 1:
        return json.dumps(mended)
    return quote(mended[0] if mended else "auto")


def parse_drivers(value: object) -> frozenset[str]:
    """Return names of kernel drivers."""
    if isinstance(value, str) and _DRIVER.fullmatch(value):
        raise wrong_type(value, wanted="a list", example=f"[{quote(value)}]")
    remedy = f"write a list such as {json.dumps(sorted(DEFAULT_DRIVERS))}"
    if not isinstance(value, list) or not value:
        raise RefusedError(f"is {_kind_of_list(value)}, not a list of drivers", remedy)
    for driver in value:
        if not isinstance(driver, str):
            raise RefusedError(f"has {kind_of(driver)} in it", remedy)
        if _DRIVER.fullmatch(driver) is None:
            raise RefusedError(f"{show(driver)} is not a driver's name", remedy)
    return frozenset(value)


def parse_members(value: object) -> tuple[str, ...] | None:
    """Return names of gadgets; None for ``"fleet"``, every one of the file."""
    if value == "fleet":
        return None
    if not isinstance(value, list) or not value or not all(isinstance(n, str) for n in value):
        raise RefusedError(
            f"is {_kind_of_list(value)}, not a list of gadgets",
            'write "fleet" for all of them, or names such as ["ethusb1", "ethusb2"]',
        )
    if len(set(value)) < len(value):
        raise RefusedError(
            "names a gadget twice", f"write {json.dumps(list(dict.fromkeys(value)))}"
        )
    return tuple(value)


def parse_user(value: object) -> str:
    """Return the name of a user."""
    text = parse_text(value, example=_EXAMPLE_USER)
    if _USER.fullmatch(text) is None:
        raise RefusedError(f"{show(text)} is not a user's name", f"write {quote(_EXAMPLE_USER)}")
    return text


def _kind_of_list(value: object) -> str:
    if not isinstance(value, list):
        return kind_of(value)
    return "a list of other things" if value else "an empty list"


# --- numbers and choices -------------------------------------------------------------------------


def parse_count(value: object) -> int:
    """Return a number of gadgets."""
    if not isinstance(value, int) or isinstance(value, bool):
        raise wrong_type(value, wanted="a whole number", example="4")
    if value < 1:
        raise RefusedError("is less than 1", "write 1, or remove [fleet]")
    if value > MAX_COUNT:
        raise RefusedError(
            "is more than a MAC's last octet can count", f"write {MAX_COUNT - 1} or less"
        )
    return value


def parse_resync(value: object) -> float:
    """Return seconds."""
    if not isinstance(value, int | float) or isinstance(value, bool):
        raise wrong_type(value, wanted="a number of seconds", example="60")
    low, high = _RESYNC_S
    if not low <= value <= high:  # not a number included
        raise RefusedError(f"is not from {low} to {high} seconds", "write 60")
    return float(value)


def parse_metrics_file(value: object) -> str:
    """Return the path of a file as node_exporter's textfile collector reads it; empty for none."""
    text = parse_text(value, example=_EXAMPLE_METRICS_FILE)
    path = PurePosixPath(text)
    if text and not (path.is_absolute() and path.suffix == ".prom" and "\0" not in text):
        raise RefusedError(
            f"{show(text)} is not the whole path of a file *.prom",
            f"write one such as {quote(_EXAMPLE_METRICS_FILE)}",
        )
    return text


def parse_switch(value: object) -> bool:
    """Return true or false."""
    if isinstance(value, bool):
        return value
    meant = value.lower() if isinstance(value, str) else ""
    example = meant if meant in {"true", "false"} else "true or false, without quotes"
    raise wrong_type(value, wanted="true or false", example=example)


def parse_choice(value: object, choices: Sequence[Choice]) -> Choice:
    """Return the one of *choices* that is meant; the first is the example."""
    text = parse_text(value, example=choices[0])
    if text not in choices:
        known = ", ".join(quote(choice) for choice in choices)
        close = get_close_matches(text.lower(), choices, n=1) or choices
        raise RefusedError(f"{show(text)} is none of {known}", f"write {quote(close[0])}")
    return choices[choices.index(text)]
