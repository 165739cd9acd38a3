"""Every refusal by its whole message, what is accepted, and the files that are shipped."""

from __future__ import annotations

import errno
import os
from ipaddress import IPv4Address, IPv4Interface, IPv4Network
from pathlib import Path

import pytest

from otgd.config import load_config, parse_config
from otgd.errors import ConfigError
from otgd.model import (
    Backend,
    Config,
    DesiredState,
    GadgetSpec,
    HotplugSource,
    OnStop,
    Settings,
    SwarmSpec,
    UnknownPolicy,
    UplinkPolicy,
)

CONFIG = Path(__file__).parents[2] / "config"
EXAMPLES = sorted((CONFIG / "examples").glob("*.toml"))

MAC = 'mac = "00:22:82:ff:ff:01"\n'
SUBNET = 'subnet = "10.0.11.0/24"\n'
ONE = f"[gadget.ethusb1]\n{MAC}{SUBNET}"
FLEET = """\
[fleet]
count = 4
interface = "ethusb{n}"
mac = "00:22:82:ff:ff:01"
guest_mac = "00:22:82:ff:ff:11"
subnet = "10.0.11.0/24"
hostname = "worker{n}"
"""


def fleet(**changes: object) -> str:
    lines = FLEET.splitlines()
    for key, value in changes.items():
        lines = [f"{key} = {value}" if line.startswith(f"{key} =") else line for line in lines]
    return "\n".join(lines) + "\n"


def messages(text: str) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        parse_config(text, file="otgd.toml")
    return str(caught.value).splitlines()


# --- what a gadget is known by -------------------------------------------------------------------


@pytest.mark.parametrize(
    ("lines", "signs"),
    [
        (MAC, ("00:22:82:ff:ff:01", None, None)),
        ('match = { mac = "00:22:82:FF:ff:01" }', ("00:22:82:ff:ff:01", None, None)),
        ('match = { serial = "d4 c3" }', (None, "d4 c3", None)),
        ('match.port = "2-1.1.4"', (None, None, "2-1.1.4")),
        (f'{MAC}match = {{ serial = "x", port = "1-1" }}', ("00:22:82:ff:ff:01", "x", "1-1")),
    ],
    ids=["mac", "match.mac", "serial", "port", "all"],
)
def test_gadget_is_known_by(lines: str, signs: tuple[str | None, ...]) -> None:
    (spec,) = parse_config(f"[gadget.a]\n{lines}\n{SUBNET}", file="f").desired.gadgets
    assert (spec.mac, spec.serial, spec.port) == signs


def test_entry_adds_a_sign_to_a_gadget_of_the_fleet() -> None:
    text = f'{FLEET}\n[gadget.ethusb2]\nmatch = {{ port = "1-1.3" }}\n'
    gadgets = parse_config(text, file="f").desired.gadgets
    assert [(g.mac, g.port) for g in gadgets[:2]] == [
        ("00:22:82:ff:ff:01", None),
        ("00:22:82:ff:ff:02", "1-1.3"),
    ]


def test_entry_replaces_the_mac_of_a_gadget_of_the_fleet() -> None:
    text = f'{FLEET}\n[gadget.ethusb2]\nmatch = {{ mac = "00:22:82:ff:ff:99" }}\n'
    assert parse_config(text, file="f").desired.gadgets[1].mac == "00:22:82:ff:ff:99"


# --- refusals ------------------------------------------------------------------------------------

MAC_REFUSALS = {
    "asterisks": (
        '"00:22:82:ff:ff:**01**"',
        '"00:22:82:ff:ff:**01**" has the asterisks of the guide\'s bold type; '
        'write "00:22:82:ff:ff:01"',
    ),
    "dashes": (
        '"00-22-82-FF-FF-03"',
        '"00-22-82-FF-FF-03" is not six pairs of hex digits with colons; write "00:22:82:ff:ff:03"',
    ),
    "no colons": (
        '"002282ffff03"',
        '"002282ffff03" is not six pairs of hex digits with colons; write "00:22:82:ff:ff:03"',
    ),
    "dots": (
        '"0022.82ff.ff03"',
        '"0022.82ff.ff03" is not six pairs of hex digits with colons; write "00:22:82:ff:ff:03"',
    ),
    "single digits": (
        '"0:22:82:ff:ff:3"',
        '"0:22:82:ff:ff:3" is not six pairs of hex digits with colons; write "00:22:82:ff:ff:03"',
    ),
    "line break": (
        '"""00:22:82:ff:ff:03\n"""',
        '"00:22:82:ff:ff:03\\n" is not six pairs of hex digits with colons; '
        'write "00:22:82:ff:ff:03"',
    ),
    "hopeless": (
        '"zebra"',
        '"zebra" is not six pairs of hex digits with colons; write "00:22:82:ff:ff:01"',
    ),
    "multicast": (
        '"03:22:82:ff:ff:03"',
        '"03:22:82:ff:ff:03" is a multicast MAC, which no link can have; write "02:22:82:ff:ff:03"',
    ),
    "multicast zero": (
        '"01:00:00:00:00:00"',
        '"01:00:00:00:00:00" is a multicast MAC, which no link can have; write "00:22:82:ff:ff:01"',
    ),
    "all zero": (
        '"00:00:00:00:00:00"',
        'is all zero, which no link can have; write "00:22:82:ff:ff:01"',
    ),
    "number": ("5", 'is a whole number, not a string; write "00:22:82:ff:ff:01"'),
    "boolean": ("true", 'is true or false, not a string; write "00:22:82:ff:ff:01"'),
    "decimal": ("0.5", 'is a decimal number, not a string; write "00:22:82:ff:ff:01"'),
    "date": ("1979-05-27", 'is a date or time, not a string; write "00:22:82:ff:ff:01"'),
    "list": ("[]", 'is a list, not a string; write "00:22:82:ff:ff:01"'),
    "table": ("{}", 'is a table, not a string; write "00:22:82:ff:ff:01"'),
}


@pytest.mark.parametrize("key", ["mac", "guest_mac"])
@pytest.mark.parametrize(("value", "message"), MAC_REFUSALS.values(), ids=MAC_REFUSALS)
def test_mac_is_refused(key: str, value: str, message: str) -> None:
    rest = SUBNET + (MAC if key == "guest_mac" else "")
    text = f"[gadget.ethusb1]\n{key} = {value}\n{rest}"
    assert messages(text) == [f"otgd.toml:2: gadget.ethusb1.{key}: {message}"]


SIGN_REFUSALS = {
    "serial, number": ("serial = 5", 'is a whole number, not a string; write "00000000d4c3b2a1"'),
    "serial, empty": (
        'serial = ""',
        'is empty, as it is for many gadgets; write "00000000d4c3b2a1"',
    ),
    "serial, blanks": ('serial = " ab1 "', '" ab1 " has blanks around it; write "ab1"'),
    "serial, unprintable": (
        r'serial = "ab\u00071"',
        r'"ab\u00071" has a character that cannot be printed; write "ab1"',
    ),
    "serial, long": (
        f'serial = "{"a" * 127}"',
        f'is 127 characters long, USB takes 126; write "{"a" * 126}"',
    ),
    "port, number": ("port = 1.2", 'is a decimal number, not a string; write "1-1.2"'),
    "port, interface": (
        'port = "1-1.4:1.0"',
        '"1-1.4:1.0" is not a USB port path; write one such as "1-1.4"',
    ),
    "port, zero": ('port = "1-0"', '"1-0" is not a USB port path; write one such as "1-1.2"'),
    "port, without bus": ('port = "2"', '"2" is not a USB port path; write one such as "1-1.2"'),
    "unknown": ('vendor = "x"', "unknown key; remove it; known here are mac, serial, port"),
    "typing error": ('serail = "x"', "unknown key; write serial"),
    "elsewhere": (
        'subnet = "10.0.11.0/24"',
        "unknown key here, it belongs to [gadget.NAME]; move it to [gadget.NAME]",
    ),
}


@pytest.mark.parametrize(("value", "message"), SIGN_REFUSALS.values(), ids=SIGN_REFUSALS)
def test_sign_is_refused(value: str, message: str) -> None:
    key = value.partition(" ")[0]
    text = f"[gadget.ethusb1]\nmatch = {{ {value} }}\n{SUBNET}"
    assert messages(text) == [f"otgd.toml:2: gadget.ethusb1.match.{key}: {message}"]


def test_mac_in_match_is_refused_as_it_is_beside_it() -> None:
    text = f'[gadget.ethusb1]\n{SUBNET}\n[gadget.ethusb1.match]\nmac = "00-22-82-ff-ff-01"\n'
    assert messages(text) == [
        'otgd.toml:5: gadget.ethusb1.match.mac: "00-22-82-ff-ff-01" is not six pairs of hex digits '
        'with colons; write "00:22:82:ff:ff:01"'
    ]


@pytest.mark.parametrize(
    ("lines", "expected"),
    [
        (
            ["match = 5"],
            "otgd.toml:2: gadget.ethusb1.match: is a whole number, not a table; "
            'write match = { mac = "…", serial = "…", port = "…" }',
        ),
        (
            ["match = {}"],
            'otgd.toml:1: gadget.ethusb1.mac: is missing; add mac = "00:22:82:ff:ff:01", '
            "the gadget's g_ether.host_addr",
        ),
        (
            [MAC.strip(), 'match.mac = "00:22:82:ff:ff:02"'],
            'otgd.toml:3: gadget.ethusb1.match.mac: is there twice, mac = "00:22:82:ff:ff:01" is '
            "the same key; remove it, or the other one",
        ),
        (
            [MAC.strip(), 'serial = "x"'],
            "otgd.toml:3: gadget.ethusb1.serial: unknown key here, it belongs into match; "
            'write match = { serial = "…" }',
        ),
    ],
    ids=["no table", "empty", "two MACs", "outside"],
)
def test_match_is_refused(lines: list[str], expected: str) -> None:
    assert messages("\n".join(["[gadget.ethusb1]", *lines, SUBNET])) == [expected]


@pytest.mark.parametrize(
    ("key", "remedy"),
    [
        ("serial", "remove it, and tell them apart by mac or port"),
        ("port", "remove it, or write another port (otgctl gadgets lists them)"),
    ],
)
def test_sign_of_two_gadgets_is_refused(key: str, remedy: str) -> None:
    text = FLEET + "".join(f'[gadget.ethusb{n}]\nmatch = {{ {key} = "1-1" }}\n' for n in (2, 3))
    assert messages(text) == [
        f'otgd.toml:11: gadget.ethusb3.match.{key}: "1-1" is also the {key} of ethusb2 (line 9); '
        f"{remedy}"
    ]


SUBNET_REFUSALS = {
    "host bits": ('"10.0.11.1/24"', '"10.0.11.1/24" has host bits set; write "10.0.11.0/24"'),
    "/32": ('"10.0.11.7/32"', '"10.0.11.7/32" has no room for two addresses; write "10.0.11.6/31"'),
    "no prefix": ('"10.0.11.1"', '"10.0.11.1" has no prefix length; write "10.0.11.0/24"'),
    "netmask": (
        '"10.0.11.0/255.255.255.0"',
        '"10.0.11.0/255.255.255.0" has no plain prefix length; write "10.0.11.0/24"',
    ),
    "/33": (
        '"10.0.11.0/33"',
        '"10.0.11.0/33" is not an IPv4 network; write one such as "10.0.11.0/24"',
    ),
    "IPv6": (
        '"fd00::/64"',
        '"fd00::/64" is not an IPv4 network; write one such as "10.0.11.0/24"',
    ),
    "loopback": (
        '"127.0.1.0/24"',
        '"127.0.1.0/24" is not for hosts (0, 127 and 224 up are reserved); '
        'write a private block such as "10.0.11.0/24"',
    ),
    "everything": (
        '"0.0.0.0/0"',
        '"0.0.0.0/0" is not for hosts (0, 127 and 224 up are reserved); '
        'write a private block such as "10.0.11.0/24"',
    ),
    "number": ("10.0", 'is a decimal number, not a string; write "10.0.11.0/24"'),
}


@pytest.mark.parametrize(("value", "message"), SUBNET_REFUSALS.values(), ids=SUBNET_REFUSALS)
def test_subnet_is_refused(value: str, message: str) -> None:
    text = f"[gadget.ethusb1]\n{MAC}\nsubnet = {value}\n"
    assert messages(text) == [f"otgd.toml:4: gadget.ethusb1.subnet: {message}"]


NAME_REFUSALS = {
    "16 bytes": (
        "ethernet-usb-p16",
        'the name "ethernet-usb-p16" is 16 bytes long, the kernel takes 15; '
        "write [gadget.ethernet-usb-16]",
    ),
    "16 bytes, 8 letters": (
        '"éééééééé"',
        'the name "éééééééé" is 16 bytes long, the kernel takes 15; write [gadget.ethusb1]',
    ),
    "slash": ('"eth/1"', 'the name "eth/1" has "/" in it; write [gadget.eth1]'),
    "percent": ('"eth%d"', 'the name "eth%d" has "%" in it; write [gadget.ethd]'),
    "blank": ('"eth 1"', 'the name "eth 1" has " " in it; write [gadget.eth1]'),
    "colon": ('"eth0:1"', 'the name "eth0:1" has ":" in it; write [gadget.eth01]'),
    "wildcard": ('"eth+"', 'the name "eth+" has "+" in it; write [gadget.eth]'),
    "control character": (
        '"eth\\u0001"',
        'the name "eth\\u0001" has "\\u0001" in it; write [gadget.eth]',
    ),
    "dot": ('"."', 'the name "." begins with "."; write [gadget.ethusb1]'),
    "two dots": ('".."', 'the name ".." begins with "."; write [gadget.ethusb1]'),
    "option": ('"-eth.1"', 'the name "-eth.1" begins with "-"; write [gadget."eth.1"]'),
    "empty": ('""', 'the name "" is empty; write [gadget.ethusb1]'),
    "digits": ("7", 'the name "7" is only digits, which pass for an index; write [gadget.ethusb1]'),
    "lo": ("lo", 'the name "lo" is a name of the kernel\'s own; write [gadget.ethusb1]'),
    "all": ("all", 'the name "all" is a name of the kernel\'s own; write [gadget.ethusb1]'),
}


@pytest.mark.parametrize(("key", "message"), NAME_REFUSALS.values(), ids=NAME_REFUSALS)
def test_interface_name_is_refused(key: str, message: str) -> None:
    text = f"\n[gadget.{key}]\n{MAC}{SUBNET}"
    assert messages(text) == [f"otgd.toml:2: gadget.{key}: {message}"]


# Appended to one good gadget, so the first line of the text is line 4.
GADGET_REFUSALS = {
    "host outside": (
        'host_address = "10.0.12.1"',
        'host_address: "10.0.12.1" is outside 10.0.11.0/24; write "10.0.11.1"',
    ),
    "host outside, guest has the first": (
        'host_address = "10.0.12.1"\nguest_address = "10.0.11.1"',
        'host_address: "10.0.12.1" is outside 10.0.11.0/24; write "10.0.11.2"',
    ),
    "guest on network address": (
        'guest_address = "10.0.11.0"',
        'guest_address: "10.0.11.0" is the network address of 10.0.11.0/24; write "10.0.11.2"',
    ),
    "guest on broadcast address": (
        'guest_address = "10.0.11.255"',
        'guest_address: "10.0.11.255" is the broadcast address of 10.0.11.0/24; write "10.0.11.2"',
    ),
    "guest is the host": (
        'guest_address = "10.0.11.1"',
        'guest_address: "10.0.11.1" is also the address of the other end; write "10.0.11.2"',
    ),
    "host is the guest": (
        'host_address = "10.0.11.2"',
        'host_address: "10.0.11.2" is also the address of the other end; write "10.0.11.1"',
    ),
    "address with prefix": (
        'host_address = "10.0.11.1/24"',
        'host_address: "10.0.11.1/24" has a prefix length; write "10.0.11.1"',
    ),
    "no address": (
        'guest_address = "zero"',
        'guest_address: "zero" is not an IPv4 address; write one such as "10.0.11.1"',
    ),
    "guest_mac is the mac": (
        'guest_mac = "00:22:82:FF:FF:01"',
        'guest_mac: "00:22:82:ff:ff:01" is also the mac of ethusb1 (line 2); '
        'write "00:22:82:ff:ff:02", here and as g_ether.dev_addr of the gadget',
    ),
    "hostname with blank": (
        'hostname = "my zero"',
        'hostname: "my zero" is not a hostname (letters, digits and inner hyphens; RFC 1123); '
        'write "my-zero"',
    ),
    "hostname of nothing": (
        'hostname = "-"',
        'hostname: "-" is not a hostname (letters, digits and inner hyphens; RFC 1123); '
        'write "worker1"',
    ),
    "hostname too long": (
        f'hostname = "{"z" * 65}"',
        f'hostname: "{"z" * 59}…" is 65 characters long, Linux takes 64; write "{"z" * 63}"',
    ),
    "masquerade as text": (
        'masquerade = "False"',
        "masquerade: is a string, not true or false; write false",
    ),
    "isolate as other text": (
        'isolate = "no"',
        "isolate: is a string, not true or false; write true or false, without quotes",
    ),
    "isolate as number": (
        "isolate = 1",
        "isolate: is a whole number, not true or false; write true or false, without quotes",
    ),
    "typing error": ("masqerade = true", "masqerade: unknown key; write masquerade"),
    "key of another table": (
        "resync_s = 5",
        "resync_s: unknown key here, it belongs to [service]; move it to [service]",
    ),
    "quoted unknown key": (
        '"a b" = 5',
        '"a b": unknown key; remove it; known here are mac, match, subnet, host_address, '
        "guest_address, guest_mac, hostname, masquerade, isolate",
    ),
}


@pytest.mark.parametrize(("line", "message"), GADGET_REFUSALS.values(), ids=GADGET_REFUSALS)
def test_gadget_is_refused(line: str, message: str) -> None:
    assert messages(ONE + line) == [f"otgd.toml:4: gadget.ethusb1.{message}"]


FLEET_REFUSALS = {
    "host MAC 17 is guest MAC 1": (
        fleet(count=17),
        '5: fleet.guest_mac: gives ethusb1 "00:22:82:ff:ff:11", which is also the mac of '
        'ethusb17 (line 4); write "00:22:82:ff:ff:12", here and as g_ether.dev_addr of gadget 1',
    ),
    "a collision of many is told once": (
        fleet(count=20),
        '5: fleet.guest_mac: gives ethusb1 "00:22:82:ff:ff:11", which is also the mac of '
        'ethusb17 (line 4); write "00:22:82:ff:ff:15", here and as g_ether.dev_addr of gadget 1',
    ),
    "past the last octet": (
        fleet(mac='"00:22:82:ff:ff:fe"'),
        "4: fleet.mac: gadget 3 of 4 would be past 00:22:82:ff:ff:ff; "
        "write count = 2, or start lower",
    ),
    "guest past the last octet": (
        fleet(guest_mac='"00:22:82:ff:ff:ff"'),
        "5: fleet.guest_mac: gadget 2 of 4 would be past 00:22:82:ff:ff:ff; "
        "write count = 1, or start lower",
    ),
    "out of IPv4": (
        fleet(subnet='"223.255.254.0/24"'),
        "6: fleet.subnet: gadget 3 of 4 would be past 223.255.255.255; "
        "write count = 2, or start lower",
    ),
    "into loopback": (
        fleet(subnet='"126.255.255.0/24"'),
        "6: fleet.subnet: gadget 2 of 4 would be past 126.255.255.255; "
        "write count = 1, or start lower",
    ),
    "interface without {n}": (
        fleet(interface='"ethusb1"'),
        '3: fleet.interface: "ethusb1" has no {n} for the gadget\'s number; write "ethusb{n}"',
    ),
    "interface with a format": (
        fleet(interface='"eth{n:02}"'),
        '3: fleet.interface: "eth{n:02}" has no {n} for the gadget\'s number; write "eth{n}"',
    ),
    "interface grows too long": (
        fleet(count=10, interface='"ethernet-usb-p{n}"'),
        '3: fleet.interface: gives gadget 10 the name "ethernet-usb-p10", which is 16 bytes '
        'long, the kernel takes 15; write "ethernet-usb{n}"',
    ),
    "interface of digits": (
        fleet(interface='"{n}"'),
        '3: fleet.interface: gives gadget 1 the name "1", which is only digits, which pass for '
        'an index; write "ethusb{n}"',
    ),
    "interface as number": (
        fleet(interface="4"),
        '3: fleet.interface: is a whole number, not a string; write "ethusb{n}"',
    ),
    "hostname without {n}": (
        fleet(hostname='"worker"'),
        '7: fleet.hostname: "worker" has no {n} for the gadget\'s number; write "worker{n}"',
    ),
    "hostname": (
        fleet(hostname='"_{n}"'),
        '7: fleet.hostname: gives gadget 1 the name "_1", which is not a hostname (letters, '
        'digits and inner hyphens; RFC 1123); write "worker{n}"',
    ),
    "count 0": (fleet(count=0), "2: fleet.count: is less than 1; write 1, or remove [fleet]"),
    "count 257": (
        fleet(count=257),
        "2: fleet.count: is more than a MAC's last octet can count; write 255 or less",
    ),
    "count as text": (
        fleet(count='"4"'),
        "2: fleet.count: is a string, not a whole number; write 4",
    ),
    "count as boolean": (
        fleet(count="true"),
        "2: fleet.count: is true or false, not a whole number; write 4",
    ),
    "no table": (
        "fleet = 4",
        "1: fleet: is a whole number, not a table; write it as a table, [fleet]",
    ),
    "uplink's name": (
        FLEET + '[uplink]\ninterface = "ethusb3"',
        '3: fleet.interface: gives gadget 3 the name "ethusb3", which is an uplink\'s; '
        'write "usb1-{n}"',
    ),
    "entry has a MAC of the fleet": (
        FLEET + '[gadget.ethusb2]\nmac = "00:22:82:ff:ff:03"',
        '9: gadget.ethusb2.mac: "00:22:82:ff:ff:03" is also the mac of ethusb3 (line 4); '
        'write "00:22:82:ff:ff:05", here and as g_ether.host_addr of the gadget',
    ),
    "entry in front has a guest MAC of the fleet": (
        f'[gadget.x]\nmac = "00:22:82:ff:ff:12"\nsubnet = "10.0.1.0/24"\n{FLEET}',
        '2: gadget.x.mac: "00:22:82:ff:ff:12" is also the guest_mac of ethusb2 (line 8); '
        'write "00:22:82:ff:ff:15", here and as g_ether.host_addr of the gadget',
    ),
    "entry overlaps the fleet": (
        FLEET + '[gadget.x]\nmac = "00:22:82:ff:ff:05"\nsubnet = "10.0.0.0/16"',
        '10: gadget.x.subnet: "10.0.0.0/16" overlaps 10.0.11.0/24 of ethusb1 (line 6); '
        'write "10.1.0.0/16"',
    ),
    "entry has a hostname of the fleet": (
        FLEET + '[gadget.ethusb2]\nhostname = "Worker3"',
        '9: gadget.ethusb2.hostname: "worker3" is also the hostname of ethusb3 (line 7); '
        'write "worker2"',
    ),
}


@pytest.mark.parametrize(("text", "message"), FLEET_REFUSALS.values(), ids=FLEET_REFUSALS)
def test_fleet_is_refused(text: str, message: str) -> None:
    assert messages(text) == [f"otgd.toml:{message}"]


SETTING_REFUSALS = {
    "uplink of nothing": (
        "[uplink]\ninterface = []",
        "uplink.interface: is an empty list, not a name or a list of names; "
        'write "auto", or names such as ["eth0", "wlan0"]',
    ),
    "uplink of numbers": (
        "[uplink]\ninterface = [1]",
        "uplink.interface: is a list of other things, not a name or a list of names; "
        'write "auto", or names such as ["eth0", "wlan0"]',
    ),
    "uplink as number": (
        "[uplink]\ninterface = 0",
        "uplink.interface: is a whole number, not a name or a list of names; "
        'write "auto", or names such as ["eth0", "wlan0"]',
    ),
    "uplink auto and a name": (
        '[uplink]\ninterface = ["eth0", "auto"]',
        'uplink.interface: has "auto" among names; write "auto", or "eth0"',
    ),
    "uplink auto in a list": (
        '[uplink]\ninterface = ["auto"]',
        'uplink.interface: has "auto" among names; write "auto", or "eth0"',
    ),
    "uplink twice": (
        '[uplink]\ninterface = ["eth0", "wlan0", "eth0"]',
        'uplink.interface: names an interface twice; write ["eth0", "wlan0"]',
    ),
    "uplink with blank": (
        '[uplink]\ninterface = ["eth 0", "wlan0"]',
        'uplink.interface: "eth 0" has " " in it; write ["eth0", "wlan0"]',
    ),
    "uplink lo": (
        '[uplink]\ninterface = "lo"',
        'uplink.interface: "lo" is a name of the kernel\'s own; write "auto"',
    ),
    "backend": (
        '[firewall]\nbackend = "nft"',
        'firewall.backend: "nft" is none of "auto", "iptables", "nftables"; write "auto"',
    ),
    "backend nearly": (
        '[firewall]\nbackend = "NFTable"',
        'firewall.backend: "NFTable" is none of "auto", "iptables", "nftables"; write "nftables"',
    ),
    "drivers as text": (
        '[hotplug]\ndrivers = "cdc_ether"',
        'hotplug.drivers: is a string, not a list; write ["cdc_ether"]',
    ),
    "drivers as number": (
        "[hotplug]\ndrivers = 1",
        "hotplug.drivers: is a whole number, not a list of drivers; write a list such as "
        '["cdc_eem", "cdc_ether", "cdc_ncm", "cdc_subset", "rndis_host"]',
    ),
    "no drivers": (
        "[hotplug]\ndrivers = []",
        "hotplug.drivers: is an empty list, not a list of drivers; write a list such as "
        '["cdc_eem", "cdc_ether", "cdc_ncm", "cdc_subset", "rndis_host"]',
    ),
    "number among drivers": (
        '[hotplug]\ndrivers = ["veth", 1]',
        "hotplug.drivers: has a whole number in it; write a list such as "
        '["cdc_eem", "cdc_ether", "cdc_ncm", "cdc_subset", "rndis_host"]',
    ),
    "driver with blank": (
        '[hotplug]\ndrivers = ["cdc ether"]',
        'hotplug.drivers: "cdc ether" is not a driver\'s name; write a list such as '
        '["cdc_eem", "cdc_ether", "cdc_ncm", "cdc_subset", "rndis_host"]',
    ),
    "source": (
        '[hotplug]\nsource = "udevd"',
        'hotplug.source: "udevd" is none of "auto", "udev", "kernel"; write "udev"',
    ),
    "unknown": (
        "[hotplug]\nunknown = false",
        'hotplug.unknown: is true or false, not a string; write "report"',
    ),
    "on_stop": (
        '[service]\non_stop = "releas"',
        'service.on_stop: "releas" is none of "keep", "release"; write "release"',
    ),
    "resync 0": (
        "[service]\nresync_s = 0",
        "service.resync_s: is not from 0.1 to 86400 seconds; write 60",
    ),
    "resync absurd": (
        "[service]\nresync_s = 86401",
        "service.resync_s: is not from 0.1 to 86400 seconds; write 60",
    ),
    "resync beyond floats": (
        f"[service]\nresync_s = 0x{'f' * 5000}",
        "service.resync_s: is not from 0.1 to 86400 seconds; write 60",
    ),
    "resync nan": (
        "[service]\nresync_s = nan",
        "service.resync_s: is not from 0.1 to 86400 seconds; write 60",
    ),
    "resync as text": (
        '[service]\nresync_s = "60"',
        "service.resync_s: is a string, not a number of seconds; write 60",
    ),
    "resync as boolean": (
        "[service]\nresync_s = true",
        "service.resync_s: is true or false, not a number of seconds; write 60",
    ),
    "log_level": (
        '[service]\nlog_level = "warn"',
        'service.log_level: "warn" is none of "info", "debug", "warning", "error"; write "warning"',
    ),
    "metrics in a place of no name": (
        '[service]\nmetrics_file = "otgd.prom"',
        'service.metrics_file: "otgd.prom" is not the whole path of a file *.prom; '
        'write one such as "/run/otgd/otgd.prom"',
    ),
    "metrics that the collector does not read": (
        '[service]\nmetrics_file = "/run/otgd/otgd.txt"',
        'service.metrics_file: "/run/otgd/otgd.txt" is not the whole path of a file *.prom; '
        'write one such as "/run/otgd/otgd.prom"',
    ),
    "metrics as boolean": (
        "[service]\nmetrics_file = true",
        'service.metrics_file: is true or false, not a string; write "/run/otgd/otgd.prom"',
    ),
    "unknown setting": (
        "[firewall]\ncolour = 1",
        "firewall.colour: unknown key; remove it; known here are backend",
    ),
}


@pytest.mark.parametrize(("text", "message"), SETTING_REFUSALS.values(), ids=SETTING_REFUSALS)
def test_setting_is_refused(text: str, message: str) -> None:
    assert messages(text) == [f"otgd.toml:2: {message}"]


TABLE_REFUSALS = {
    "unknown table": ("[gadgets.a]", "1: gadgets: unknown key; write gadget"),
    "key outside its table": (
        "mac = 1",
        "1: mac: unknown key here, it belongs to [gadget.NAME]; move it to [gadget.NAME]",
    ),
    "gadget as array": (
        "[[gadget]]",
        "1: gadget: is a list, not a table; write it as a table, [gadget.NAME]",
    ),
    "gadget without name": (
        "\n[gadget]\nmac = 1",
        "3: gadget.mac: is a whole number, not a table; write it as a table, [gadget.NAME]",
    ),
    "gadget's name in the uplink list": (
        f'[uplink]\ninterface = ["wlan0", "eth0"]\n[gadget.eth0]\n{MAC}{SUBNET}',
        '3: gadget.eth0: the name "eth0" is an uplink\'s; write [gadget.eth1]',
    ),
    "two gadgets with one MAC": (
        f'{ONE}[gadget.b]\n{MAC}subnet = "10.0.12.0/24"',
        '5: gadget.b.mac: "00:22:82:ff:ff:01" is also the mac of ethusb1 (line 2); '
        'write "00:22:82:ff:ff:02", here and as g_ether.host_addr of the gadget',
    ),
    "two gadgets with one guest MAC": (
        f'{ONE}guest_mac = "02:00:00:00:00:01"\n[gadget.b]\nmac = "02:00:00:00:00:02"\n'
        'subnet = "10.0.12.0/24"\nguest_mac = "02:00:00:00:00:01"',
        '8: gadget.b.guest_mac: "02:00:00:00:00:01" is also the guest_mac of ethusb1 (line 4); '
        'write "02:00:00:00:00:03", here and as g_ether.dev_addr of the gadget',
    ),
    "one subnet twice": (
        f'{ONE}[gadget.b]\nmac = "02:00:00:00:00:02"\n{SUBNET}',
        '6: gadget.b.subnet: "10.0.11.0/24" overlaps 10.0.11.0/24 of ethusb1 (line 3); '
        'write "10.0.12.0/24"',
    ),
    "subnet within a subnet": (
        f'{ONE}[gadget.b]\nmac = "02:00:00:00:00:02"\nsubnet = "10.0.11.128/25"',
        '6: gadget.b.subnet: "10.0.11.128/25" overlaps 10.0.11.0/24 of ethusb1 (line 3); '
        'write "10.0.12.0/25"',
    ),
    "private blocks are not left": (
        '[gadget.a]\nmac = "02:00:00:00:00:01"\nsubnet = "192.168.255.0/24"\n'
        '[gadget.b]\nmac = "02:00:00:00:00:02"\nsubnet = "192.168.255.0/24"',
        '6: gadget.b.subnet: "192.168.255.0/24" overlaps 192.168.255.0/24 of a (line 3); '
        'write "10.0.0.0/24"',
    ),
    "one hostname twice": (
        f'{ONE}hostname = "zero"\n[gadget.b]\nmac = "02:00:00:00:00:02"\n'
        'subnet = "10.0.12.0/24"\nhostname = "zero"',
        '8: gadget.b.hostname: "zero" is also the hostname of ethusb1 (line 4); write "zero1"',
    ),
    "new gadget without mac": (
        FLEET + '[gadget.ethusb5]\nsubnet = "10.0.15.0/24"',
        "8: gadget.ethusb5.mac: is missing; "
        'add mac = "00:22:82:ff:ff:05", the gadget\'s g_ether.host_addr',
    ),
    "new gadget without subnet": (
        FLEET + '[gadget.ethusb5]\nmac = "00:22:82:ff:ff:05"',
        '8: gadget.ethusb5.subnet: is missing; add subnet = "10.0.15.0/24"',
    ),
    "interface twice": (
        f"{ONE}[gadget.ethusb1]\n{MAC}",
        "4: [gadget.ethusb1] is there twice; remove one of them, or give it another name",
    ),
    "key twice": (
        f"{ONE}{MAC}[uplink]",
        "4: mac is there twice; remove one of them, or give it another name",
    ),
    "inline key twice": (
        "uplink = {interface = 'a', interface = 'b'}",
        "1: interface is there twice; remove one of them, or give it another name",
    ),
    "unquoted text": (
        "[gadget.ethusb1]\nmac = 00:22:82:ff:ff:01 # a",
        '2: text stands without quotes; write mac = "00:22:82:ff:ff:01"',
    ),
    "quotes of a word processor": (
        "[gadget.ethusb1]\nmac = \u201c00:22:82:ff:ff:01\u201d # a",
        '2: has the quotes of a word processor; write mac = "00:22:82:ff:ff:01" # a',
    ),
    "quotes of a word processor that are not all": (
        "[gadget.ethusb1]\nmac = \u201c00:22:82:ff:ff:01",
        '2: text stands without quotes; write mac = "\u201c00:22:82:ff:ff:01"',
    ),
    "truth of another language": (
        "[gadget.ethusb1]\nisolate = True # as in Python",
        "2: true and false have small letters; write isolate = true # as in Python",
    ),
    "quote not closed at the end of the file": (
        '[uplink]\ninterface = "eth0',
        '2: a quote is not closed; write interface = "eth0"',
    ),
    "quote not closed": (
        '[uplink]\ninterface = "eth0 # the LAN\n[firewall]\nbackend = "auto"\n',
        '2: a quote is not closed; write interface = "eth0"',
    ),
    "quote closed by another": (
        "[uplink]\ninterface = \"eth0'\n[firewall]\n",
        '2: a quote is not closed; write interface = "eth0"',
    ),
    "single quote not closed": (
        '[uplink]\ninterface = \'eth0\n\n[firewall]\nbackend = "auto"\n',
        "2: a quote is not closed; write interface = 'eth0'",
    ),
    "single quote not closed before another": (
        "[uplink]\ninterface = 'eth0\n\n[firewall]\nbackend = 'auto'\n",
        "2: a quote is not closed; write interface = 'eth0'",
    ),
    "quote not closed in a list": (
        '[uplink]\ninterface = ["eth0", "eth1]\n',
        "2: a quote is not closed; write text in one line between two quotes",
    ),
    "quote not closed behind a key with an equals sign": (
        '[uplink]\n"a=" = "\n',
        "2: a quote is not closed; write text in one line between two quotes",
    ),
    "three quotes not closed": (
        '[uplink]\ninterface = """eth0\n[firewall]\n',
        "2: a quote is not closed; write text in one line between two quotes",
    ),
    "line without equals sign": (
        "\n\nnonsense\n",
        "3: is not TOML: Expected '=' after a key in a key/value pair; "
        "write key = value (text in double quotes) or [table]",
    ),
    "two statements on a line": (
        "a = 1 b = 2\n",
        "1: is not TOML: Expected newline or end of document after a statement; "
        "write key = value (text in double quotes) or [table]",
    ),
}


@pytest.mark.parametrize(("text", "message"), TABLE_REFUSALS.values(), ids=TABLE_REFUSALS)
def test_file_is_refused(text: str, message: str) -> None:
    assert messages(text) == [f"otgd.toml:{message}"]


def test_several_problems_come_at_once_by_line() -> None:
    text = """\
[service]
resync_s = 0
[gadget.ethusb1]
mac = "00:22:82:ff:ff:**01**"
subnet = "10.0.11.1/24"
masqerade = true
[gadget."eth usb"]
mac = "00:22:82:ff:ff:02"
subnet = "10.0.12.0/24"
[gadget.ethusb3]
mac = "00:22:82:ff:ff:02"
subnet = "10.0.12.0/25"
[gadget.ethusb4]
[uplink]
interface = 1
"""
    assert [(line.split(": ")[0], line.split(": ")[1]) for line in messages(text)] == [
        ("otgd.toml:2", "service.resync_s"),
        ("otgd.toml:4", "gadget.ethusb1.mac"),
        ("otgd.toml:5", "gadget.ethusb1.subnet"),
        ("otgd.toml:6", "gadget.ethusb1.masqerade"),
        ("otgd.toml:7", 'gadget."eth usb"'),
        ("otgd.toml:11", "gadget.ethusb3.mac"),
        ("otgd.toml:12", "gadget.ethusb3.subnet"),
        ("otgd.toml:13", "gadget.ethusb4.mac"),
        ("otgd.toml:13", "gadget.ethusb4.subnet"),
        ("otgd.toml:15", "uplink.interface"),
    ]


def test_two_long_names_get_two_proposals() -> None:
    text = (
        f"[gadget.ethernet-usb-porta]\n{MAC}{SUBNET}"
        '[gadget.ethernet-usb-portb]\nmac = "02:00:00:00:00:02"\nsubnet = "10.0.12.0/24"\n'
    )
    assert [line.rpartition("write ")[2] for line in messages(text)] == [
        "[gadget.ethernet-usb-po]",
        "[gadget.ethernet-usb-p1]",
    ]


def test_empty_fleet_lacks_four_keys() -> None:
    assert messages("[fleet]") == [
        "otgd.toml:1: fleet.count: is missing; add count = 4",
        'otgd.toml:1: fleet.interface: is missing; add interface = "ethusb{n}"',
        'otgd.toml:1: fleet.mac: is missing; add mac = "00:22:82:ff:ff:01"',
        'otgd.toml:1: fleet.subnet: is missing; add subnet = "10.0.11.0/24"',
    ]


def test_bad_fleet_casts_no_doubt_on_its_entries() -> None:
    """What the fleet would have given them is not known."""
    text = fleet(interface="1") + "[gadget.ethusb2]\nisolate = true\n"
    assert [line.split(": ")[1] for line in messages(text)] == ["fleet.interface"]
    text = "fleet = 1\n[gadget.ethusb2]\nisolate = true\n"
    assert [line.split(": ")[1] for line in messages(text)] == ["fleet"]


def test_bad_override_is_not_taken_for_the_fleets_value() -> None:
    """gadget 2's real MAC is unknown, so it is not 1's new one."""
    text = FLEET + '[gadget.ethusb1]\nmac = "00:22:82:ff:ff:02"\n[gadget.ethusb2]\nmac = "x"\n'
    assert [line.split(": ")[1] for line in messages(text)] == ["gadget.ethusb2.mac"]


def test_bad_address_is_not_taken_for_the_default() -> None:
    text = f'{ONE}host_address = "x"\nguest_address = "10.0.11.1"\n'
    assert [line.split(": ")[1] for line in messages(text)] == ["gadget.ethusb1.host_address"]


def test_when_no_private_block_is_left_a_gadget_must_go() -> None:
    text = """\
[gadget.a]
mac = "02:00:00:00:00:01"
subnet = "10.0.0.0/8"
[gadget.b]
mac = "02:00:00:00:00:02"
subnet = "172.16.0.0/12"
[gadget.c]
mac = "02:00:00:00:00:03"
subnet = "192.168.0.0/16"
[gadget.d]
mac = "02:00:00:00:00:04"
subnet = "192.168.1.0/24"
[gadget.e]
mac = "02:00:00:00:00:05"
"""
    assert messages(text) == [
        'otgd.toml:12: gadget.d.subnet: "192.168.1.0/24" overlaps 192.168.0.0/16 of c (line 9); '
        "remove a gadget: no private block is left",
        "otgd.toml:13: gadget.e.subnet: is missing; remove a gadget: no private block is left",
    ]


# Follows the fleet of four, so the first line of the text is line 9 and [swarm] is line 8.
SWARM_REFUSALS = {
    "no hub": ("", '8: swarm.hub_address: is missing; add hub_address = "10.0.10.1"'),
    "hub is a number": (
        "hub_address = 10",
        '9: swarm.hub_address: is a whole number, not a string; write "10.0.10.1"',
    ),
    "hub with prefix": (
        'hub_address = "10.0.10.1/32"',
        '9: swarm.hub_address: "10.0.10.1/32" has a prefix length; write "10.0.10.1"',
    ),
    "hub is no address": (
        'hub_address = "lo"',
        '9: swarm.hub_address: "lo" is not an IPv4 address; write one such as "10.0.10.1"',
    ),
    "hub is loopback": (
        'hub_address = "127.0.0.1"',
        '9: swarm.hub_address: "127.0.0.1" is not for hosts (0, 127 and 224 up are reserved); '
        'write a private one such as "10.0.10.1"',
    ),
    "hub on a cable": (
        'hub_address = "10.0.12.1"',
        '9: swarm.hub_address: "10.0.12.1" is in 10.0.12.0/24 of ethusb2 (line 6), '
        'but must outlive every cable; write "10.0.10.1"',
    ),
    "pool is a word": (
        'hub_address = "10.0.10.1"\naddress_pool = "auto"',
        '10: swarm.address_pool: "auto" is not an IPv4 network; write one such as "10.20.0.0/16"',
    ),
    "pool too small": (
        'hub_address = "10.0.10.1"\naddress_pool = "10.30.1.0/24"',
        '10: swarm.address_pool: "10.30.1.0/24" has no room for two networks of 256 addresses; '
        'write "10.30.0.0/16"',
    ),
    "pool over gadgets": (
        'hub_address = "10.0.10.1"\naddress_pool = "10.0.0.0/16"',
        '10: swarm.address_pool: "10.0.0.0/16" overlaps 10.0.11.0/24 of ethusb1 (line 6); '
        'write "10.1.0.0/16"',
    ),
    "pool over hub": (
        'hub_address = "10.20.0.1"',
        '8: swarm.address_pool: the default "10.20.0.0/16" overlaps hub_address 10.20.0.1; '
        'add address_pool = "10.21.0.0/16"',
    ),
    "ssh_user is an option": (
        'hub_address = "10.0.10.1"\nssh_user = "-oProxyCommand=x"',
        '10: swarm.ssh_user: "-oProxyCommand=x" is not a user\'s name; write "pi"',
    ),
    "members is a word": (
        'hub_address = "10.0.10.1"\nmembers = "all"',
        "10: swarm.members: is a string, not a list of gadgets; "
        'write "fleet" for all of them, or names such as ["ethusb1", "ethusb2"]',
    ),
    "no members": (
        'hub_address = "10.0.10.1"\nmembers = []',
        "10: swarm.members: is an empty list, not a list of gadgets; "
        'write "fleet" for all of them, or names such as ["ethusb1", "ethusb2"]',
    ),
    "members of numbers": (
        'hub_address = "10.0.10.1"\nmembers = [1]',
        "10: swarm.members: is a list of other things, not a list of gadgets; "
        'write "fleet" for all of them, or names such as ["ethusb1", "ethusb2"]',
    ),
    "member twice": (
        'hub_address = "10.0.10.1"\nmembers = ["ethusb1", "ethusb1"]',
        '10: swarm.members: names a gadget twice; write ["ethusb1"]',
    ),
    "unknown member": (
        'hub_address = "10.0.10.1"\nmembers = [\n"ethusb1",\n"Ethusb"]',
        '12: swarm.members.1: "Ethusb" is no gadget of this file; write "ethusb4"',
    ),
    "unknown member, none left": (
        'hub_address = "10.0.10.1"\n'
        'members = ["ethusb1", "ethusb2", "ethusb3", "ethusb4", "ethusb5"]',
        '10: swarm.members.4: "ethusb5" is no gadget of this file; remove it',
    ),
    "unknown member, nothing like it": (
        'hub_address = "10.0.10.1"\nmembers = ["zebra"]',
        '10: swarm.members.0: "zebra" is no gadget of this file; write "ethusb1"',
    ),
    "isolated member": (
        'hub_address = "10.0.10.1"\n[gadget.ethusb2]\nisolate = true',
        "8: swarm.members: ethusb2 is isolated (line 11), so other members cannot reach it; "
        'add members = ["ethusb1", "ethusb3", "ethusb4"]',
    ),
    "isolated members": (
        'hub_address = "10.0.10.1"\nmembers = ["ethusb2", "ethusb3"]\n'
        "[gadget.ethusb2]\nisolate = true\n[gadget.ethusb3]\nisolate = true",
        "10: swarm.members: ethusb2 is isolated (line 12), so other members cannot reach it; "
        'write ["ethusb2"]',
    ),
    "auto_join as text": (
        'hub_address = "10.0.10.1"\nauto_join = "true"',
        "10: swarm.auto_join: is a string, not true or false; write true",
    ),
    "unknown key": (
        'hub_address = "10.0.10.1"\npool = "10.20.0.0/16"',
        "10: swarm.pool: unknown key; remove it; known here are "
        "hub_address, address_pool, ssh_user, members, auto_join",
    ),
}


@pytest.mark.parametrize(("text", "message"), SWARM_REFUSALS.values(), ids=SWARM_REFUSALS)
def test_swarm_is_refused(text: str, message: str) -> None:
    assert messages(f"{FLEET}[swarm]\n{text}\n") == [f"otgd.toml:{message}"]


def test_swarm_that_is_no_table_is_refused() -> None:
    assert messages(f"swarm = true\n{FLEET}") == [
        "otgd.toml:1: swarm: is true or false, not a table; write it as a table, [swarm]"
    ]


def test_where_no_private_block_is_left_for_the_swarm_a_subnet_must_shrink() -> None:
    gadgets = "".join(
        f'[gadget.{name}]\nmac = "02:00:00:00:00:0{n}"\nsubnet = "{subnet}"\n'
        for n, (name, subnet) in enumerate(
            [("a", "10.0.0.0/8"), ("b", "172.16.0.0/12"), ("c", "192.168.0.0/16")]
        )
    )
    remedy = "make a gadget's subnet smaller: no private block is left"
    pool = 'swarm.address_pool: the default "10.20.0.0/16" overlaps 10.0.0.0/8 of a (line 3)'
    assert messages(f"{gadgets}[swarm]") == [
        f"otgd.toml:10: swarm.hub_address: is missing; {remedy}",
        f"otgd.toml:10: {pool}; {remedy}",
    ]
    assert messages(f'{gadgets}[swarm]\nhub_address = "10.0.10.1"') == [
        f"otgd.toml:10: {pool}; {remedy}",
        'otgd.toml:11: swarm.hub_address: "10.0.10.1" is in 10.0.0.0/8 of a (line 3), '
        f"but must outlive every cable; {remedy}",
    ]


def test_bad_values_hide_what_only_their_defaults_would_break() -> None:
    text = (
        f'{FLEET}[swarm]\nhub_address = "x"\naddress_pool = "x"\nmembers = "x"\n'
        "[gadget.ethusb2]\nisolate = true\n"
    )
    assert [line.split(": ")[1] for line in messages(text)] == [
        "swarm.hub_address",
        "swarm.address_pool",
        "swarm.members",
    ]


def test_bad_fleet_casts_no_doubt_on_the_swarms_members() -> None:
    text = fleet(interface="1") + '[swarm]\nhub_address = "10.0.10.1"\nmembers = ["ethusb7"]\n'
    assert [line.split(": ")[1] for line in messages(text)] == ["fleet.interface"]


# --- files ---------------------------------------------------------------------------------------


def refusal(path: Path) -> str:
    with pytest.raises(ConfigError) as caught:
        load_config(path)
    return str(caught.value)


def test_missing_file_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "otgd.toml"
    assert refusal(path) == (
        f"{path}: cannot be read: No such file or directory; "
        "write the file, or name another one with --config"
    )


def test_directory_is_refused(tmp_path: Path) -> None:
    assert refusal(tmp_path) == f"{tmp_path}: cannot be read: Is a directory; name a file"


def test_root_directory_is_refused() -> None:
    assert refusal(Path("/")) == "/: cannot be read: Is a directory; name a file"


def test_file_that_otgd_may_not_read_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(path: Path) -> bytes:
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(path))

    monkeypatch.setattr(Path, "read_bytes", refuse)
    path = tmp_path / "otgd.toml"
    assert refusal(path) == (
        f"{path}: cannot be read: Permission denied; "
        "make it readable for everybody (chmod a+r), since otgd is not root"
    )


def test_path_below_a_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    path = tmp_path / "file" / "otgd.toml"
    assert refusal(path) == (
        f"{path}: cannot be read: Not a directory; "
        "make the file readable, or name another one with --config"
    )


def test_latin1_is_refused_with_its_line(tmp_path: Path) -> None:
    path = tmp_path / "otgd.toml"
    path.write_bytes(b"[uplink]\n# caf\xe9\n")
    assert refusal(path) == f"{path}:2: is not UTF-8 text; save the file as UTF-8"


def test_path_is_shown_as_the_user_wrote_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("otgd.toml").write_text("fleet = 1")
    assert refusal(Path("otgd.toml")).startswith("otgd.toml:1: fleet: ")


def test_byte_order_mark_is_overlooked(tmp_path: Path) -> None:
    path = tmp_path / "otgd.toml"
    path.write_bytes(b"\xef\xbb\xbf" + ONE.encode())
    assert [gadget.name for gadget in load_config(path).desired.gadgets] == ["ethusb1"]


def test_endless_brackets_are_refused() -> None:
    assert messages("a = " + "[" * 100_000) == ["otgd.toml: is nested too deep; remove brackets"]


def test_endless_number_is_refused() -> None:
    assert messages("a = " + "9" * 5000) == [
        "otgd.toml: has a number of thousands of digits; write a lesser one"
    ]


# --- what is accepted ----------------------------------------------------------------------------


def test_empty_config_has_no_gadget() -> None:
    assert parse_config("", file="otgd.toml") == Config(desired=DesiredState())


def test_installed_config_is_the_guides_network() -> None:
    config = load_config(CONFIG / "otgd.toml")
    assert config == Config(
        desired=DesiredState(
            gadgets=tuple(
                GadgetSpec(
                    name=f"ethusb{n}",
                    mac=f"00:22:82:ff:ff:0{n}",
                    host=IPv4Interface(f"10.0.1{n}.1/24"),
                    guest=IPv4Address(f"10.0.1{n}.2"),
                    guest_mac=f"00:22:82:ff:ff:1{n}",
                    hostname=f"worker{n}",
                )
                for n in (1, 2, 3, 4)
            )
        )
    )


def test_every_commented_out_key_of_the_installed_config_may_be_used() -> None:
    """Taking the # off is how a user starts."""
    text = (CONFIG / "otgd.toml").read_text()
    lines = [line[1:] if line.startswith(("#[", "#m", "#g", "#s", "#h", "#i", "#a")) else line
             for line in text.splitlines()]  # fmt: skip
    config = parse_config("\n".join(lines), file="otgd.toml")
    second = config.desired.gadgets[1]
    assert (second.name, second.isolate, second.masquerade) == ("ethusb2", True, False)
    assert config.swarm is not None
    assert config.swarm.members == ("ethusb1", "ethusb3", "ethusb4")


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.name)
def test_example_is_accepted(path: Path) -> None:
    assert load_config(path).desired.gadgets


def test_mixed_example_means_what_its_comments_say() -> None:
    config = load_config(CONFIG / "examples" / "mixed.toml")
    by_name = {gadget.name: gadget for gadget in config.desired.gadgets}
    assert list(by_name) == ["ethusb1", "ethusb2", "ethusb3", "camera", "ethusb9"]
    assert by_name["ethusb2"] == GadgetSpec(
        name="ethusb2",
        mac="00:22:82:ff:ff:02",
        host=IPv4Interface("10.0.12.1/24"),
        guest=IPv4Address("10.0.12.2"),
        isolate=True,
        guest_mac="00:22:82:ff:ff:12",
        hostname="sandbox",
    )
    assert by_name["ethusb9"].host == IPv4Interface("10.0.200.1/31")
    assert by_name["ethusb9"].guest == IPv4Address("10.0.200.0")
    assert not by_name["camera"].masquerade
    assert config.desired.uplink_policy == UplinkPolicy(interfaces=("eth0", "wlan0"))
    assert config.desired.unknown is UnknownPolicy.BLOCK


def test_settings_reach_the_model() -> None:
    text = """\
[uplink]
interface = "wlan0"
[firewall]
backend = "nftables"
[hotplug]
drivers = ["veth"]
source = "kernel"
[service]
on_stop = "release"
resync_s = 0.5
log_level = "debug"
metrics_file = "/run/otgd/otgd.prom"
"""
    config = parse_config(text, file="otgd.toml")
    assert config == Config(
        desired=DesiredState(
            uplink_policy=UplinkPolicy(interfaces=("wlan0",)), drivers=frozenset({"veth"})
        ),
        settings=Settings(
            source=HotplugSource.KERNEL,
            backend=Backend.NFTABLES,
            on_stop=OnStop.RELEASE,
            resync_s=0.5,
            log_level="debug",
            metrics_file="/run/otgd/otgd.prom",
        ),
    )
    choices = (config.settings.source, config.settings.backend, config.settings.on_stop)
    # A StrEnum's member equals its text: what is text still would only be seen here.
    assert [type(choice) for choice in choices] == [HotplugSource, Backend, OnStop]


def test_swarm_has_every_gadget_by_default() -> None:
    text = f'{FLEET}[gadget.lamp]\nmac = "02:00:00:00:00:01"\nsubnet = "10.9.0.0/30"\n[swarm]\n'
    config = parse_config(text + 'hub_address = "10.0.10.1"\n', file="otgd.toml")
    swarm = SwarmSpec(
        hub_address=IPv4Address("10.0.10.1"),
        address_pool=IPv4Network("10.20.0.0/16"),
        ssh_user="pi",
        members=("ethusb1", "ethusb2", "ethusb3", "ethusb4", "lamp"),
        auto_join=False,
    )
    assert config.swarm == swarm
    fleet_too = parse_config(
        text + 'hub_address = "10.0.10.1"\nmembers = "fleet"\n', file="otgd.toml"
    )
    assert fleet_too.swarm == swarm
    assert config.desired.hub == IPv4Address("10.0.10.1")
    assert all(gadget.via_hub for gadget in config.desired.gadgets)


def test_swarm_is_as_the_file_says() -> None:
    text = f"""{FLEET}
[gadget.ethusb2]
isolate = true
[swarm]
hub_address = "192.168.7.1"
address_pool = "172.31.0.0/20"
ssh_user = "zero"
members = ["ethusb3", "ethusb1"]
auto_join = true
"""
    config = parse_config(text, file="otgd.toml")
    assert [gadget.name for gadget in config.desired.gadgets if gadget.via_hub] == [
        "ethusb1",
        "ethusb3",
    ]
    assert config.swarm == SwarmSpec(
        hub_address=IPv4Address("192.168.7.1"),
        address_pool=IPv4Network("172.31.0.0/20"),
        ssh_user="zero",
        members=("ethusb3", "ethusb1"),
        auto_join=True,
    )


def test_single_member_may_be_isolated() -> None:
    """The host alone has to reach it."""
    text = f'{ONE}isolate = true\n[swarm]\nhub_address = "10.0.10.1"\n'
    swarm = parse_config(text, file="otgd.toml").swarm
    assert swarm is not None
    assert swarm.members == ("ethusb1",)


def test_upper_case_mac_is_lowered() -> None:
    config = parse_config(ONE.replace("ff", "FF"), file="otgd.toml")
    assert config.desired.gadgets[0].mac == "00:22:82:ff:ff:01"


def test_slash_31_has_the_two_addresses_it_has() -> None:
    config = parse_config(ONE.replace("0/24", "4/31"), file="otgd.toml")
    assert config.desired.gadgets[0].host == IPv4Interface("10.0.11.4/31")
    assert config.desired.gadgets[0].guest == IPv4Address("10.0.11.5")


def test_fleet_may_fill_a_whole_octet() -> None:
    text = fleet(
        count=256, mac='"02:00:00:00:00:00"', guest_mac='"02:00:00:00:01:00"', hostname='"w{n}"'
    )
    gadgets = parse_config(text, file="otgd.toml").desired.gadgets
    assert gadgets[-1].mac == "02:00:00:00:00:ff"
    assert gadgets[-1].subnet == IPv4Network("10.1.10.0/24")
