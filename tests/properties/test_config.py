"""What holds for every config: one of two outcomes, lines that exist, remedies that work."""

from __future__ import annotations

import json
import re
from ipaddress import IPv4Address, IPv4Network
from itertools import combinations
from typing import TYPE_CHECKING

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from otgd.config import parse_config, values
from otgd.config.spares import spare_mac, spare_subnet
from otgd.errors import ConfigError, Problem

if TYPE_CHECKING:
    from collections.abc import Callable

    from otgd.model import Config

HOSTILE = st.text(st.sampled_from('aZ09fF.:-*/%{n} _"\\\n\0é+'), max_size=20)
OCTETS = st.integers(0, 255)
MAC_LIKE = st.builds(
    lambda octets, separator, form: separator.join(format(octet, form) for octet in octets),
    st.lists(OCTETS, min_size=5, max_size=7),
    st.sampled_from([":", "-", "", ".", " : ", "**:"]),
    st.sampled_from(["02x", "x", "02X"]),
)
PORT_LIKE = st.builds(
    lambda before, numbers, after: (
        before + ".".join(map(str, numbers)).replace(".", "-", 1) + after
    ),
    st.sampled_from(["", "usb-", "platform-3f980000.usb-usb-0:"]),
    st.lists(st.integers(0, 1000), max_size=8),
    st.sampled_from(["", ":1.0", ".", " "]),
)
ADDRESSES = st.integers(0, 2**32 - 1).map(IPv4Address).map(str)
SUBNET_LIKE = st.builds(
    lambda address, end: f"{address}{end}",
    ADDRESSES,
    st.sampled_from(["", "/0", "/24", "/31", "/32", "/33", "/255.255.0.0", "/024"]),
)


# --- single values: what a remedy proposes is accepted -------------------------------------------


def proposal(refused: values.RefusedError) -> object:
    """Return the first string or list that the remedy tells the user to write."""
    match = re.search(r'"(?:[^"\\]|\\.)*"|\[.*\]', refused.remedy)
    assert match, refused.remedy
    value: object = json.loads(match.group())
    return value


@pytest.mark.parametrize(
    ("parse", "likely"),
    [
        pytest.param(values.parse_mac, MAC_LIKE, id="mac"),
        pytest.param(values.parse_serial, st.text(max_size=140), id="serial"),
        pytest.param(values.parse_port, PORT_LIKE, id="port"),
        pytest.param(values.parse_subnet, SUBNET_LIKE, id="subnet"),
        pytest.param(values.parse_address, SUBNET_LIKE, id="address"),
        pytest.param(values.parse_hub, SUBNET_LIKE, id="hub"),
        pytest.param(values.parse_pool, SUBNET_LIKE, id="pool"),
        pytest.param(values.parse_user, st.text(max_size=40), id="user"),
        pytest.param(values.parse_members, st.text(max_size=9), id="member"),
        pytest.param(values.parse_members, st.lists(st.text(max_size=2)), id="members"),
        pytest.param(values.parse_hostname, st.text(max_size=80), id="hostname"),
        pytest.param(values.parse_uplink, st.text(max_size=20), id="uplink"),
        pytest.param(values.parse_uplink, st.lists(st.text(max_size=20)), id="uplinks"),
        pytest.param(values.parse_drivers, st.lists(st.text(max_size=9)), id="drivers"),
    ],
)
@given(source=st.data())
def test_proposal_is_accepted(
    parse: Callable[[object], object], likely: st.SearchStrategy[object], source: st.DataObject
) -> None:
    try:
        parse(source.draw(likely | HOSTILE | st.integers() | st.booleans()))
    except values.RefusedError as refused:
        parse(proposal(refused))


@given(st.text(max_size=20) | HOSTILE)
def test_proposed_name_is_accepted(name: str) -> None:
    assert values.ifname_fault(values.propose_ifname(name)) is None


@given(st.text(max_size=20) | HOSTILE, st.integers(1, values.MAX_COUNT))
def test_proposed_templates_give_good_names(template: str, number: int) -> None:
    ifname = values.propose_ifname_template(template)
    assert (
        values.ifname_fault(values.numbered(values.parse_ifname_template(ifname), number)) is None
    )
    hostname = values.propose_hostname_template(template)
    name = values.numbered(values.parse_hostname_template(hostname), number)
    assert values.hostname_fault(name) is None


MACS = st.builds(
    lambda middle, last: f"02:00:00:00:{middle:02x}:{last:02x}", st.integers(0, 1), OCTETS
)


@given(MACS, st.sets(MACS), st.integers(1, 256))
def test_spare_macs_are_free_and_good(like: str, taken: set[str], length: int) -> None:
    first = spare_mac(like, taken=taken, length=length)
    last_octet = int(first[-2:], 16)
    run = {f"{first[:-2]}{last_octet + n:02x}" for n in range(length)}
    assert all(values.parse_mac(mac) == mac for mac in run)
    assert not run & taken


SUBNETS = st.builds(
    lambda address, length: IPv4Network((address, length), strict=False),
    st.sampled_from([0x0A000000, 0xAC100000, 0xC0A80000, 0x0B000000]).flatmap(
        lambda base: st.integers(base, base + 0xFFFF)
    ),
    st.integers(9, 31),  # so none covers 10.0.0.0/8
)


@given(SUBNETS, st.lists(SUBNETS))
def test_spare_subnet_is_free_and_good(like: IPv4Network, taken: list[IPv4Network]) -> None:
    spare = spare_subnet(like, taken=taken)
    assert spare is not None
    assert values.parse_subnet(str(spare)) == spare
    assert not any(spare.overlaps(block) for block in taken)


# --- whole files ---------------------------------------------------------------------------------


def toml(value: object) -> str:
    match value:
        case bool():
            return str(value).lower()
        case str():
            return json.dumps(value).replace("\x7f", "\\u007f")
        case list():
            return f"[{', '.join(map(toml, value))}]"
        case dict():
            return f"{{{', '.join(f'{toml(k)} = {toml(v)}' for k, v in value.items())}}}"
        case _:
            return str(value)


VALUES = st.recursive(
    st.booleans() | st.integers(-(2**70), 2**70) | st.floats() | HOSTILE | MAC_LIKE | SUBNET_LIKE,
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(HOSTILE, inner, max_size=2),
    max_leaves=4,
)
TABLE_KEYS = {
    "uplink": ["interface"],
    "firewall": ["backend"],
    "hotplug": ["drivers", "source", "unknown"],
    "service": ["on_stop", "resync_s", "log_level"],
    "fleet": ["count", "interface", "mac", "guest_mac", "subnet", "hostname", "isolate"],
    "gadget.ethusb1.match": ["mac", "serial", "port"],
    "gadget.ethusb1": [
        "mac",
        "match",
        "guest_mac",
        "subnet",
        "host_address",
        "guest_address",
        "hostname",
    ],
    'gadget."a b"': ["mac", "subnet"],
    "gadget": ["mac"],
    "swarm": ["hub_address", "address_pool", "ssh_user", "members", "auto_join"],
    "wrong": [],
}
GOOD = {
    "count": 3,
    "interface": "ethusb{n}",
    "mac": "00:22:82:ff:ff:01",
    "guest_mac": "00:22:82:ff:ff:11",
    "subnet": "10.0.11.0/24",
    "hostname": "worker{n}",
}


@st.composite
def files(draw: st.DrawFn) -> str:
    lines = []
    for table in draw(st.lists(st.sampled_from(sorted(TABLE_KEYS)), unique=True)):
        lines.append(f"[{table}]")
        for key in draw(st.lists(st.sampled_from([*TABLE_KEYS[table], "x y"]), unique=True)):
            value = GOOD[key] if key in GOOD and draw(st.booleans()) else draw(VALUES)
            lines.append(f"{toml(key)} = {toml(value)}")
    return "\n".join(lines)


def outcome(text: str) -> Config | tuple[Problem, ...]:
    try:
        return parse_config(text, file="otgd.toml")
    except ConfigError as refused:
        return refused.problems


@given(files() | HOSTILE)
def test_any_file_is_understood_or_refused_with_lines(text: str) -> None:
    problems = outcome(text)
    if isinstance(problems, tuple):
        lines = [problem.line for problem in problems]
        assert problems
        assert all(line is None or 1 <= line <= text.count("\n") + 1 for line in lines)
        assert lines == sorted(lines, key=lambda line: line or 0)
        assert all(problem.cause and problem.remedy for problem in problems)
        assert all("\n" not in str(problem) for problem in problems)


ENTRIES = st.lists(
    st.fixed_dictionaries(
        {
            "name": st.sampled_from(
                ["ethusb1", "eth0", "a b", "ethernet-usb-port1", "lo", "..", "ä"]
            )
        },
        optional={
            "mac": st.sampled_from(["02:00:00:00:00:01", "02:00:00:00:00:**02**", "02-00", "x"]),
            "guest_mac": st.sampled_from(["02:00:00:00:00:01", "02:00:00:00:00:03", "03:" * 6]),
            "match.mac": st.sampled_from(["02:00:00:00:00:01", "02:00:00:00:00:04", 5]),
            "match.serial": st.sampled_from(["S1", "S2", "", " S1", "S\n1"]),
            "match.port": st.sampled_from(["1-1.2", "1-1.2:1.0", "1-1", "2", 1.2]),
            "subnet": st.sampled_from(["10.0.0.0/16", "10.0.1.0/24", "10.0.1.7/30", "10.0.1.1", 5]),
            "host_address": st.sampled_from(["10.0.1.1", "10.0.1.2", "10.0.1.0", "10.0.2.1/24"]),
            "guest_address": st.sampled_from(["10.0.1.1", "10.0.1.2", "10.0.1.255", "::1"]),
            "hostname": st.sampled_from(["zero", "Zero", "my zero", "z" * 70]),
            "isolate": st.sampled_from([True, "true", "False"]),
        },
    ),
    max_size=5,
    unique_by=lambda entry: str(entry["name"]),
)


SWARMS = st.none() | st.fixed_dictionaries(
    {},
    optional={
        "hub_address": st.sampled_from(["10.0.10.1", "10.0.1.7", "10.20.0.1", "224.0.0.1", "x"]),
        "address_pool": st.sampled_from(["10.0.0.0/16", "10.20.0.0/16", "10.0.10.0/24", "172"]),
        "ssh_user": st.sampled_from(["zero", "-oProxyCommand=x", ""]),
        "members": st.sampled_from(["fleet", "all", ["ethusb1"], ["ethusb1", "ethusb1"], []]),
        "auto_join": st.sampled_from([True, "True"]),
    },
)


def obey(lines: list[str], problem: Problem) -> None:
    """Edit the file as the remedy says; what is added waits on its table's line."""
    assert problem.line is not None
    at = problem.line - 1
    key = problem.key.rpartition(".")[2]
    verb, _, text = problem.remedy.partition(" ")
    if ".match." in problem.key:
        key = f"match.{key}"
    text = text.partition(", here")[0].partition(", the gadget's")[0].rpartition("such as ")[2]
    if verb == "add":
        lines[at] += f"\n{text}"
    elif key.isdecimal():
        name, _, members = lines[at].partition(" = ")
        elements = json.loads(members)
        elements[int(key) : int(key) + 1] = [json.loads(text)] if verb == "write" else []
        lines[at] = f"{name} = {json.dumps(elements or 'fleet')}"
    elif verb == "remove":
        lines[at] = ""
    elif text.startswith("[gadget."):
        lines[at] = "\n".join([text, *lines[at].split("\n")[1:]])
    else:
        text = text.removeprefix('"fleet" for all of them, or names ')
        lines[at] = f"{key} = {text}"


@settings(deadline=None)  # several parses of a file, on a machine that may be busy
@given(ENTRIES, SWARMS)
def test_doing_what_the_remedies_say_mends_the_file(
    entries: list[dict[str, object]], swarm: dict[str, object] | None
) -> None:
    lines = ["[uplink]", 'interface = "eth0"']
    if swarm is not None:
        lines += ["[swarm]", *(f"{key} = {toml(value)}" for key, value in swarm.items())]
    for entry in entries:
        lines.append(f"[gadget.{toml(entry['name'])}]")
        lines += [f"{key} = {toml(value)}" for key, value in entry.items() if key != "name"]
    for _ in range(6):  # what a faulty value hid comes to light one round later
        problems = outcome("\n".join(lines))
        if not isinstance(problems, tuple):
            break
        for problem in problems:
            obey(lines, problem)
        lines = "\n".join(lines).split("\n")
    assert not isinstance(problems, tuple), problems
    assert len(problems.desired.gadgets) == len(entries)
    assert (problems.swarm is None) == (swarm is None)
    if problems.swarm:
        hub, pool = problems.swarm.hub_address, problems.swarm.address_pool
        gadgets = problems.desired.gadgets
        assert hub not in pool
        assert not any(hub in gadget.subnet or pool.overlaps(gadget.subnet) for gadget in gadgets)
        members = [gadget for gadget in gadgets if gadget.name in problems.swarm.members]
        assert len(members) == len(problems.swarm.members)
        assert len(members) < 2 or not any(gadget.isolate for gadget in members)


@given(
    count=st.integers(1, 40),
    mac=st.integers(1, 0x100),
    guest_mac=st.integers(1, 0x100),
    start=st.integers(0, 2**16),
    prefixlen=st.integers(20, 31),
)
def test_accepted_fleet_shares_nothing(
    count: int, mac: int, guest_mac: int, start: int, prefixlen: int
) -> None:
    subnet = IPv4Network((0xDFFF0000 + start, prefixlen), strict=False)  # near the end of IPv4
    text = f"""[fleet]
count = {count}
interface = "e{{n}}"
mac = "02:00:00:00:00:{mac & 0xFF:02x}"
guest_mac = "02:00:00:00:00:{guest_mac & 0xFF:02x}"
subnet = "{subnet}"
"""
    fits = (
        (mac & 0xFF) + count <= 256
        and (guest_mac & 0xFF) + count <= 256
        and abs((mac & 0xFF) - (guest_mac & 0xFF)) >= count
        and int(subnet[0]) + count * subnet.num_addresses <= 0xE0000000
    )
    config = outcome(text)
    assert isinstance(config, tuple) == (not fits)
    assume(fits)
    assert not isinstance(config, tuple)
    gadgets = config.desired.gadgets
    assert ((gadgets[0].mac or "")[-2:], gadgets[0].subnet) == (f"{mac & 0xFF:02x}", subnet)
    assert [gadget.name for gadget in gadgets] == [f"e{n}" for n in range(1, count + 1)]
    assert len({mac for g in gadgets for mac in (g.mac, g.guest_mac)}) == 2 * count
    assert not any(a.subnet.overlaps(b.subnet) for a, b in combinations(gadgets, 2))
    assert all(g.host.ip != g.guest and g.guest in g.subnet for g in gadgets)
