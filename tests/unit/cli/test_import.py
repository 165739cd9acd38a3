"""``otgctl import`` and ``otgctl export``: from the guide's files, and there and back again."""

from __future__ import annotations

from dataclasses import replace
from itertools import chain, combinations
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from otgd.config import load_config, parse_config
from otgd.model import UplinkPolicy

if TYPE_CHECKING:
    from otgd.model import DesiredState, GadgetSpec
    from tests.unit.cli.conftest import Said, Tool

CONFIGS = Path(__file__).resolve().parents[3] / "config"
FOUR = (1, 2, 3, 4)

UDEV = "etc/udev/rules.d/90-pi-network.rules"
SYSTEMD = "etc/systemd/network"
CONNECTIONS = "etc/NetworkManager/system-connections"

GUIDE = {
    UDEV: "".join(
        f'SUBSYSTEM=="net", ATTR{{address}}=="00:22:82:ff:ff:0{n}", NAME="ethusb{n}"\n'
        for n in FOUR
    ),
    "etc/dhcpcd.conf": "hostname\nclientid\nslaac private\n"
    + "".join(
        f"\ninterface ethusb{n}\nstatic ip_address=10.0.1{n}.1/24\n"
        "static domain_name_servers=8.8.8.8\n"
        for n in FOUR
    ),
}
"""What the guide has people write on the host; its masquerades, typed in, are in GUIDE_RULES."""

GUIDE_RULES = "".join(
    f"iptables -t nat -A POSTROUTING ! -d 10.0.1{n}.0/24 -o eth0 -j MASQUERADE\n" for n in FOUR
)
GUIDE_CARD = {
    "boot/cmdline.txt": "dwc_otg.lpm_enable=0 console=tty1 root=/dev/mmcblk0p2 rootwait "
    "modules-load=dwc2,g_ether g_ether.host_addr=00:22:82:ff:ff:0{n} "
    "g_ether.dev_addr=00:22:82:ff:ff:1{n} quiet\n",
    "etc/hostname": "worker{n}\n",
    "etc/dhcpcd.conf": "interface usb0\nstatic ip_address=10.0.1{n}.2/24\n"
    "static routers=10.0.1{n}.1\nstatic domain_name_servers=8.8.8.8\n",
}


def lay(directory: Path, files: dict[str, str], **values: object) -> Path:
    """Write *files* below *directory*, with *values* put in."""
    for name, text in files.items():
        path = directory / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text.format(**values) if values else text)
    return directory


def meaning(said: Said) -> DesiredState:
    assert said.code == 0, said.err
    return parse_config(said.out, file="imported").desired


def only(said: Said) -> GadgetSpec:
    (gadget,) = meaning(said).gadgets
    return gadget


@pytest.fixture
def guide(tmp_path: Path) -> tuple[str, ...]:
    """Return the arguments that import the guide's own files."""
    root = lay(tmp_path / "pi", GUIDE)
    lay(tmp_path, {"rules.sh": GUIDE_RULES})
    cards = [lay(tmp_path / f"zero{n}", GUIDE_CARD, n=n) for n in FOUR]
    cards_given = [word for card in cards for word in ("--card", str(card))]
    return ("import", "--root", str(root), *cards_given, str(tmp_path / "rules.sh"))


def test_guides_own_files_mean_what_the_installed_config_means(
    otgctl: Tool, guide: tuple[str, ...]
) -> None:
    assert meaning(otgctl(*guide)) == load_config(CONFIGS / "otgd.toml").desired


def test_what_the_guides_files_say_beyond_is_told(otgctl: Tool, guide: tuple[str, ...]) -> None:
    comments = [line for line in otgctl(*guide).lines if line.startswith("#   ")]
    assert comments == [
        f"#   /etc/dhcpcd.conf:{4 * n + 3}: static domain_name_servers=8.8.8.8: "
        "the host's end needs no name server"
        for n in FOUR
    ]


def gadget_known_by(*signs: str, n: int) -> str:
    values = {"mac": f"00:22:82:ff:ff:0{n}", "serial": f"d4c3-{n}", "port": f"1-1.{n}"}
    match = ", ".join(f'{sign} = "{values[sign]}"' for sign in signs)
    return f'[gadget.zero{n}]\nsubnet = "10.0.1{n}.0/24"\nmatch = {{ {match} }}\n'


SIGNS = "".join(
    gadget_known_by(*signs, n=n)
    for n, signs in enumerate(
        chain.from_iterable(combinations(("mac", "serial", "port"), k) for k in (1, 2, 3)), start=1
    )
)
"""A gadget for each way to be known by a MAC, a serial and a port."""

STATIC = {
    "udev, dhcpcd, iptables": ("udev", "dhcpcd", "iptables-restore"),
    "udev, dhcpcd, nftables": ("udev", "dhcpcd", "nftables"),
    "networkd, iptables": ("networkd", "iptables-restore"),
    "networkd, nftables": ("networkd", "nftables"),
}


@pytest.mark.parametrize("formats", STATIC.values(), ids=STATIC.keys())
@pytest.mark.parametrize("config", ["guide", "signs", "mixed.toml", "minimal.toml"])
def test_import_export_import_is_the_identity(
    otgctl: Tool, guide: tuple[str, ...], tmp_path: Path, formats: tuple[str, ...], config: str
) -> None:
    if config == "guide":
        otgctl.write_config(otgctl(*guide).out)
        uplinks = ["eth0"]
    elif config == "signs":
        otgctl.write_config(SIGNS)
        uplinks = ["eth0"]
    else:
        otgctl.write_config((CONFIGS / "examples" / config).read_text())
        policy = load_config(otgctl.config_file).desired.uplink_policy
        uplinks = list(policy.interfaces) or ["eth0"]

    def round_trip(name: str) -> str:
        given = [word for each in formats for word in ("--format", each)]
        given += [word for each in uplinks for word in ("--uplink", each)]
        exported = otgctl("export", *given, "--output", str(tmp_path / name))
        assert exported.code == 0, exported.err
        return otgctl("import", "--root", str(tmp_path / name)).out

    first = round_trip("first")
    wanted = load_config(otgctl.config_file).desired
    got = parse_config(first, file="first").desired
    assert set(map(hosts_part, got.gadgets)) == set(map(hosts_part, wanted.gadgets))
    assert got.uplink_policy == wanted.uplink_policy
    otgctl.write_config(first)
    assert round_trip("second") == first


def hosts_part(spec: GadgetSpec) -> GadgetSpec:
    """Return what the host's files can say of a gadget: neither its guest nor its isolation."""
    return replace(spec, guest_mac=None, hostname=None, guest=spec.host.ip, isolate=False)


def test_config_without_fleet_keeps_its_uplinks(otgctl: Tool, tmp_path: Path) -> None:
    root = lay(tmp_path / "pi", GUIDE)
    rules = GUIDE_RULES + GUIDE_RULES.replace("eth0", "wlan0")
    lay(root, {"etc/rc.local": f"#!/bin/sh\n{rules}exit 0\n"})
    policy = meaning(otgctl("import", "--root", str(root))).uplink_policy
    assert policy == UplinkPolicy(interfaces=("eth0", "wlan0"))


def test_unknown_addresses_and_names_are_told(otgctl: Tool, tmp_path: Path) -> None:
    files = dict(GUIDE)
    files["etc/dhcpcd.conf"] = (
        "interface eth0\nstatic ip_address=192.168.1.2/24\n"
        "interface ethusb1\nstatic ip_address=10.0.11.1/24\ninform 10.0.11.1\n"
        "interface ethusb2\nstatic ip_address=10.0.12.one\n"
    )
    files[UDEV] += 'SUBSYSTEM=="net", KERNEL=="wlan*", NAME="wlan0"\n'
    said = otgctl("import", "--root", str(lay(tmp_path / "pi", files)))
    assert [gadget.name for gadget in meaning(said).gadgets] == ["ethusb1"]
    told = "\n".join(line for line in said.lines if line.startswith("#   "))
    for part in (
        "/etc/dhcpcd.conf:2: 192.168.1.2/24: no MAC, USB serial or USB port is known for eth0",
        "/etc/dhcpcd.conf:5: inform 10.0.11.1: otgd has nothing like it",
        "ethusb2: MAC 00:22:82:ff:ff:02 has no address",
        '/etc/udev/rules.d/90-pi-network.rules:5: NAME="wlan0": the match has no MAC, ',
    ):
        assert part in told


def test_nothing_to_import_is_a_failure(otgctl: Tool, tmp_path: Path) -> None:
    said = otgctl("import", "--root", str(tmp_path))
    assert said.code == 1
    assert "has a name, an address, and a MAC, USB serial or USB port" in said.err


def test_what_otgd_refuses_is_told_with_its_line(otgctl: Tool, tmp_path: Path) -> None:
    files = dict(GUIDE)
    files["etc/dhcpcd.conf"] = files["etc/dhcpcd.conf"].replace("10.0.12.1", "10.0.11.9")
    said = otgctl("import", "--root", str(lay(tmp_path / "pi", files)))
    assert said.code == 78
    line = int(said.err.split(":")[1])
    assert said.lines[line - 1].startswith("subnet")


UDEV_RULES = {
    "plain": ('SUBSYSTEM=="net", ATTR{address}=="00:22:82:FF:FF:01", NAME="zero"', "zero"),
    "continued": (
        'SUBSYSTEM=="net", \\\n  ATTR{address}=="00:22:82:ff:ff:01", NAME="zero"',
        "zero",
    ),
    "final": ('SUBSYSTEM=="net", ATTR{address}=="00:22:82:ff:ff:01", NAME:="zero"', "zero"),
    "persistent-net": (
        'SUBSYSTEM=="net", ACTION=="add", DRIVERS=="?*", ATTR{address}=="00:22:82:ff:ff:01", '
        'ATTR{dev_id}=="0x0", ATTR{type}=="1", KERNEL=="usb*", NAME="zero"',
        "zero",
    ),
    "last wins": (
        'ATTR{address}=="00:22:82:ff:ff:01", NAME="one"\n'
        'ATTR{address}=="00:22:82:ff:ff:01", NAME="zero"',
        "zero",
    ),
    "comment": ('#SUBSYSTEM=="net", ATTR{address}=="00:22:82:ff:ff:01", NAME="zero"', None),
    "other subsystem": ('SUBSYSTEM=="tty", ATTR{address}=="00:22:82:ff:ff:01", NAME="zero"', None),
    "comparison": ('ATTR{address}=="00:22:82:ff:ff:01", NAME=="zero", MODE="0600"', None),
    "serial too": ('ATTR{address}=="00:22:82:ff:ff:01", ATTRS{serial}=="x", NAME="zero"', None),
}


@pytest.mark.parametrize(("rule", "name"), UDEV_RULES.values(), ids=UDEV_RULES.keys())
def test_udev_rule_gives_the_name(
    otgctl: Tool, tmp_path: Path, rule: str, name: str | None
) -> None:
    stanza = "interface zero\nstatic ip_address=10.0.11.1/24\n"
    root = lay(tmp_path / "pi", {UDEV: rule + "\n", "etc/dhcpcd.conf": stanza})
    said = otgctl("import", "--root", str(root))
    assert (only(said).name if said.code == 0 else None) == name


POSTROUTING = "iptables -t nat -A POSTROUTING"
MASQUERADES = {
    "guide": f"{POSTROUTING} ! -d 10.0.11.0/24 -o eth0 -j MASQUERADE",
    "supernet": "/sbin/iptables -w -t nat -I POSTROUTING 1 -s 10.0.0.0/8 -j MASQUERADE",
    "long options": "iptables --table nat --append POSTROUTING --source 10.0.11.0/24 "
    "--out-interface eth0 --jump MASQUERADE",
    "save": "*nat\n:POSTROUTING ACCEPT [0:0]\n-A POSTROUTING -o eth0 -j MASQUERADE\nCOMMIT",
    "nft": 'ip saddr 10.0.11.0/24 oifname "eth0" counter packets 0 bytes 0 masquerade',
    "nft, any source": 'oifname { "eth0", "wlan0" } masquerade',
}
NO_MASQUERADES = {
    "of another": f"{POSTROUTING} -s 10.9.0.0/16 -o eth0 -j MASQUERADE",
    "all but one": f"{POSTROUTING} ! -s 10.9.0.0/16 -o eth0 -j MASQUERADE",
    "all but one, the old way": f"{POSTROUTING} -s ! 10.9.0.0/16 -o eth0 -j MASQUERADE",
    "one destination": f"{POSTROUTING} -d 8.8.8.8 -o eth0 -j MASQUERADE",
    "any of a kind": f"{POSTROUTING} -o eth+ -j MASQUERADE",
    "SNAT": f"{POSTROUTING} -o eth0 -j SNAT --to-source 1.2.3.4",
    "nft, all but one": "ip saddr != 10.0.11.0/24 masquerade",
    "nft, one destination": "ip saddr 10.0.11.0/24 ip daddr 8.8.8.8 masquerade",
    "FORWARD": "iptables -A FORWARD -i ethusb1 -o eth0 -j ACCEPT",
}
NO_RULES = {
    "none": "",
    "comment": f"# {POSTROUTING} -o eth0 -j MASQUERADE",
    "nft comment": "# oifname eth0 masquerade",
    "other table": "*mangle\n-A POSTROUTING -o eth0 -j MASQUERADE\nCOMMIT",
    "of others": "iptables -A FORWARD -i docker0 -o eth0 -j ACCEPT",
    "no end": f'{POSTROUTING} -m comment --comment "never ends -j MASQUERADE',
}


def import_with_rules(otgctl: Tool, directory: Path, rules: str) -> Said:
    stanza = "interface ethusb1\nstatic ip_address=10.0.11.1/24\n"
    root = lay(directory / "pi", {UDEV: GUIDE[UDEV], "etc/dhcpcd.conf": stanza})
    (directory / "rules").write_text(f"{rules}\n")
    return otgctl("import", "--root", str(root), str(directory / "rules"))


@pytest.mark.parametrize("rules", MASQUERADES.values(), ids=MASQUERADES.keys())
def test_masquerade_is_taken_over(otgctl: Tool, tmp_path: Path, rules: str) -> None:
    said = import_with_rules(otgctl, tmp_path, rules)
    assert only(said).masquerade
    assert f"{tmp_path}/rules:" not in said.out


@pytest.mark.parametrize("rules", NO_MASQUERADES.values(), ids=NO_MASQUERADES.keys())
def test_rule_that_is_not_taken_over_is_told(otgctl: Tool, tmp_path: Path, rules: str) -> None:
    said = import_with_rules(otgctl, tmp_path, rules)
    assert not only(said).masquerade
    assert f"{tmp_path}/rules:1: " in said.out


@pytest.mark.parametrize("rules", NO_RULES.values(), ids=NO_RULES.keys())
def test_what_is_no_rule_for_a_gadget_is_passed_over(
    otgctl: Tool, tmp_path: Path, rules: str
) -> None:
    said = import_with_rules(otgctl, tmp_path, rules)
    assert not only(said).masquerade
    assert f"{tmp_path}/rules:" not in said.out


KEYFILE = """\
[connection]
id=zero
type=ethernet
{name}

[ethernet]
mac-address=00:22:82:FF:FF:01

[ipv4]
address1=10.0.11.1/24,10.0.11.254
method={method}
"""


@pytest.mark.parametrize(("method", "masquerade"), [("manual", False), ("shared", True)])
def test_connection_of_network_manager(
    otgctl: Tool, tmp_path: Path, method: str, *, masquerade: bool
) -> None:
    text = KEYFILE.format(name="interface-name=zero", method=method)
    root = lay(tmp_path / "pi", {f"{CONNECTIONS}/zero.nmconnection": text})
    gadget = only(otgctl("import", "--root", str(root)))
    assert (gadget.name, str(gadget.host)) == ("zero", "10.0.11.1/24")
    assert gadget.mac == "00:22:82:ff:ff:01"
    assert gadget.masquerade is masquerade


def test_connection_without_a_name_gets_one(otgctl: Tool, tmp_path: Path) -> None:
    text = KEYFILE.format(name="", method="manual")
    root = lay(tmp_path / "pi", {f"{CONNECTIONS}/zero.nmconnection": text})
    said = otgctl("import", "--root", str(root))
    assert only(said).name == "ethusb1"
    assert "nothing gives it a name; called ethusb1 here" in said.out


NETWORKD = {
    "by name": "[Match]\nName=zero\n",
    "by MAC": "[Match]\nMACAddress=00:22:82:ff:ff:01\n",
}
ADDRESS = {
    "short": "[Network]\nIPMasquerade=ipv4\nAddress=10.0.11.7/24\nDHCPServer=yes\n",
    "long": "[Address]\nAddress=10.0.11.7/24\n\n[Network]\nIPMasquerade=both\nDHCPServer=yes\n",
}


@pytest.mark.parametrize("match", NETWORKD.values(), ids=NETWORKD.keys())
@pytest.mark.parametrize("address", ADDRESS.values(), ids=ADDRESS.keys())
def test_files_of_networkd(otgctl: Tool, tmp_path: Path, match: str, address: str) -> None:
    files = {
        f"{SYSTEMD}/10-zero.link": "[Match]\nMACAddress=00:22:82:ff:ff:01\n[Link]\nName=zero\n",
        f"{SYSTEMD}/10-zero.network": f"{match}\n{address}",
    }
    said = otgctl("import", "--root", str(lay(tmp_path / "pi", files)))
    gadget = only(said)
    assert (gadget.name, str(gadget.host), gadget.masquerade) == ("zero", "10.0.11.7/24", True)
    assert "DHCPServer=yes: otgd has nothing like it" in said.out


def test_what_is_no_file_is_passed_over(otgctl: Tool, tmp_path: Path) -> None:
    root = lay(tmp_path / "pi", GUIDE)
    (root / "etc/udev/rules.d/99-gone.rules").symlink_to("nowhere")
    (root / "etc/iptables").mkdir()
    assert len(meaning(otgctl("import", "--root", str(root))).gadgets) == 4


@pytest.mark.parametrize(
    ("cmdline", "told"),
    [
        (None, "cmdline.txt: is not there"),
        ("rootwait quiet", "without good MACs nobody knows whose it is"),
        ("g_ether.host_addr=00:22:82:ff:ff:09", "the host has no address for a link with this MAC"),
    ],
    ids=["no card", "no gadget", "unknown to the host"],
)
def test_card_that_helps_nothing_is_told(
    otgctl: Tool, tmp_path: Path, cmdline: str | None, told: str
) -> None:
    root = lay(tmp_path / "pi", GUIDE)
    card = lay(
        tmp_path / "card", {"boot/cmdline.txt": cmdline} if cmdline else {"etc/hostname": "x"}
    )
    said = otgctl("import", "--root", str(root), "--card", str(card))
    assert told in said.out
    assert len(meaning(said).gadgets) == 4


def test_export_writes_over_nothing(otgctl: Tool, tmp_path: Path) -> None:
    given = ("export", "--format", "udev", "--format", "dhcpcd", "--output", str(tmp_path / "out"))
    assert otgctl(*given).code == 0
    written = tmp_path / "out/etc/udev/rules.d/90-gadgets.rules"
    written.unlink()
    again = otgctl(*given)
    assert again.code == 1
    assert "etc/dhcpcd.conf exists" in again.err
    assert not written.exists()


ODD_FILES = {
    "link without sign": (
        f"{SYSTEMD}/20-x.link",
        "[Match]\nDriver=cdc_ether\n[Link]\nName=x\n",
        "Name=x: the match has no MAC, USB serial or USB port",
    ),
    "address for whatever has a property": (
        f"{SYSTEMD}/20-x.network",
        "[Match]\nProperty=ID_BUS=usb\n[Network]\nAddress=10.0.99.1/24\n",
        "Address=10.0.99.1/24: [Match] has neither Name nor MACAddress",
    ),
    "second MAC for a name": (
        f"{SYSTEMD}/20-x.link",
        "[Match]\nMACAddress=00:22:82:ff:ff:09\n[Link]\nName=ethusb1\n",
        "ethusb1 for MAC 00:22:82:ff:ff:09: the link has MAC 00:22:82:ff:ff:01, ",
    ),
    "link with a bad MAC": (
        f"{SYSTEMD}/20-x.link",
        "[Match]\nMACAddress=00:22:82:ff:ff:**09**\n[Link]\nName=x\n",
        "Name=x: MACAddress ",
    ),
    "second name for a MAC": (
        f"{SYSTEMD}/20-x.link",
        "[Match]\nMACAddress=00:22:82:ff:ff:01\n[Link]\nName=x\n",
        "x: MAC 00:22:82:ff:ff:01 is ethusb1 already",
    ),
    "IPv6 address": (
        f"{SYSTEMD}/20-x.network",
        "[Match]\nName=ethusb1\n[Network]\nAddress=fd00::1/64\n",
        "Address=fd00::1/64: is not an IPv4 address",
    ),
    "second address": (
        f"{SYSTEMD}/20-x.network",
        "[Match]\nName=ethusb1\n[Network]\nAddress=10.0.99.1/24\n",
        "10.0.99.1/24: the link has 10.0.11.1/24, and otgd gives one address",
    ),
    "address by DHCP": (
        f"{CONNECTIONS}/x.nmconnection",
        "[connection]\ninterface-name=ethusb1\n[ipv4]\nmethod=auto\n",
        "method=auto: otgd wants an address of its own for the link",
    ),
}


@pytest.mark.parametrize(("name", "text", "told"), ODD_FILES.values(), ids=ODD_FILES.keys())
def test_what_is_beside_the_gadgets_is_told(
    otgctl: Tool, tmp_path: Path, name: str, text: str, told: str
) -> None:
    said = otgctl("import", "--root", str(lay(tmp_path / "pi", {**GUIDE, name: text})))
    assert told in said.out
    assert {str(gadget.host) for gadget in meaning(said).gadgets} == {
        f"10.0.1{n}.1/24" for n in FOUR
    }


@pytest.mark.parametrize(
    "text",
    ["[Match]\nDriver=e1000e\n[Link]\nWakeOnLan=magic\n", "", "no section\n"],
    ids=["no name", "empty", "no ini"],
)
def test_link_file_that_names_nothing_is_passed_over(
    otgctl: Tool, tmp_path: Path, text: str
) -> None:
    said = otgctl(
        "import", "--root", str(lay(tmp_path / "pi", {**GUIDE, f"{SYSTEMD}/9.link": text}))
    )
    assert len(meaning(said).gadgets) == 4
    assert "9.link" not in said.out


ZERO = '[gadget.zero]\n{}\nsubnet = "10.0.11.0/24"\nmasquerade = false\n'
NETWORK = "[Match]\nName=zero\n[Network]\nAddress=10.0.11.1/24\n"
ADD = 'SUBSYSTEM=="net", ACTION=="add", '

SIGN_RULES = {
    "serial": (ADD + 'ATTRS{serial}=="d4c3", NAME="zero"', 'match = { serial = "d4c3" }'),
    "serial with a blank": (
        ADD + 'ATTRS{serial}=="d4 c3", NAME="zero"',
        'match = { serial = "d4 c3" }',
    ),
    "serial of a product": (
        ADD + 'ATTRS{idVendor}=="0525", ATTRS{idProduct}=="a4a2", ATTRS{serial}=="d4c3", '
        'DRIVERS=="cdc_ether", NAME="zero"',
        'match = { serial = "d4c3" }',
    ),
    "property": (
        ADD + 'ENV{ID_BUS}=="usb", ENV{ID_SERIAL_SHORT}=="d4c3", NAME="zero"',
        'match = { serial = "d4c3" }',
    ),
    "serial, said twice": (
        ADD + 'ENV{ID_USB_SERIAL_SHORT}=="d4c3", ATTRS{serial}=="d4c3", NAME="zero"',
        'match = { serial = "d4c3" }',
    ),
    "port": (ADD + 'KERNELS=="1-1.2", NAME="zero"', 'match = { port = "1-1.2" }'),
    "interface": (ADD + 'KERNELS=="1-1.2:1.0", NAME="zero"', 'match = { port = "1-1.2" }'),
    "any interface": (ADD + 'KERNELS=="1-1.2:*", NAME="zero"', 'match = { port = "1-1.2" }'),
    "below a port": (ADD + 'DEVPATH=="*/1-1.2/*", NAME="zero"', 'match = { port = "1-1.2" }'),
    "whole path": (
        ADD + 'DEVPATH=="/devices/platform/soc/3f980000.usb/usb1/1-1/1-1.2/1-1.2:1.0/net/usb*", '
        'NAME="zero"',
        'match = { port = "1-1.2" }',
    ),
    "path as a property": (
        ADD + 'ENV{DEVPATH}=="*/1-1/1-1.2:*/net/*", NAME="zero"',
        'match = { port = "1-1.2" }',
    ),
    "MAC of any parent": (
        ADD + 'ATTRS{address}=="00:22:82:ff:ff:01", KERNELS=="?*", NAME="zero"',
        'mac = "00:22:82:ff:ff:01"',
    ),
    "one each": (
        ADD + 'KERNELS=="1-1.2", NAME="zero"\n' + ADD + 'ATTRS{serial}=="d4c3", NAME="zero"\n'
        'SUBSYSTEM=="net", ATTR{address}=="00:22:82:ff:ff:01", NAME="zero"',
        'match = { mac = "00:22:82:ff:ff:01", serial = "d4c3", port = "1-1.2" }',
    ),
}


@pytest.mark.parametrize(("rules", "signs"), SIGN_RULES.values(), ids=SIGN_RULES.keys())
def test_udev_rule_says_what_the_link_is_known_by(
    otgctl: Tool, tmp_path: Path, rules: str, signs: str
) -> None:
    files = {UDEV: rules + "\n", f"{SYSTEMD}/zero.network": NETWORK}
    said = otgctl("import", "--root", str(lay(tmp_path, files)))
    assert said.out.endswith("\n\n" + ZERO.format(signs))
    assert "Not taken over" not in said.out
    assert only(said).name == "zero"


SIGN_LINKS = {
    "serial": ("Property=ID_SERIAL_SHORT=d4c3", 'match = { serial = "d4c3" }'),
    "quoted": ('Property="ID_SERIAL_SHORT=d4 c3" ID_BUS=usb', 'match = { serial = "d4 c3" }'),
    "two lines": (
        "Property=ID_USB_DRIVER=cdc_ether\nProperty=ID_SERIAL_SHORT=d4c3\nDriver=cdc_ether",
        'match = { serial = "d4c3" }',
    ),
    "port, as otgd has it": (
        "Property=DEVPATH=*/1-1.2:*\nDriver=cdc_eem cdc_ether",
        'match = { port = "1-1.2" }',
    ),
    "below a port": ("Property=DEVPATH=*/1-1.2/*", 'match = { port = "1-1.2" }'),
    "permanent MAC": (
        "PermanentMACAddress=00:22:82:FF:FF:01\nOriginalName=*",
        'mac = "00:22:82:ff:ff:01"',
    ),
}


@pytest.mark.parametrize(("match", "signs"), SIGN_LINKS.values(), ids=SIGN_LINKS.keys())
def test_link_file_says_what_the_link_is_known_by(
    otgctl: Tool, tmp_path: Path, match: str, signs: str
) -> None:
    files = {
        f"{SYSTEMD}/zero.link": f"[Match]\n{match}\n\n[Link]\nName=zero\nMACAddressPolicy=none\n",
        f"{SYSTEMD}/zero.network": NETWORK,
    }
    said = otgctl("import", "--root", str(lay(tmp_path, files)))
    assert said.out.endswith("\n\n" + ZERO.format(signs))
    assert "Not taken over" not in said.out
    assert only(said).name == "zero"


NO_SIGNS = {
    "two signs": (
        'ATTRS{serial}=="d4c3", KERNELS=="1-1.2"',
        "the match asks for USB serial and USB port at once; "
        "write match = { serial = …, port = … } if either is enough",
    ),
    "two ports": ('KERNELS=="1-1", KERNELS=="1-1.2"', "asks for USB port 1-1 and 1-1.2 at once; "),
    "serials by pattern": ('ATTRS{serial}=="d4*"', 'ATTRS{serial} "d4*" is a pattern; '),
    "serials to choose from": ('ATTRS{serial}=="d4|c3"', 'ATTRS{serial} "d4|c3" is a pattern; '),
    "no serial": ('ATTRS{serial}==""', "ATTRS{serial} is empty, "),
    "any serial": ('ATTRS{serial}=="?*"', "the match has no MAC, USB serial or USB port, "),
    "any but one": ('ATTRS{serial}!="d4c3"', "the match has no MAC, USB serial or USB port, "),
    "not at a port": (
        'ATTRS{serial}=="d4c3", KERNELS!="1-1.2"',
        "the match also asks for KERNELS, and otgd goes by USB serial alone; ",
    ),
    "not a serial": (
        'KERNELS=="1-1.2", ENV{ID_SERIAL_SHORT}!="d4c3"',
        "the match also asks for ENV{ID_SERIAL_SHORT}, and otgd goes by USB port alone; ",
    ),
    "long serial": (
        'ENV{ID_SERIAL}=="Linux_Ethernet_Gadget_d4c3"',
        "has vendor and product in it; write match = { serial = … }",
    ),
    "a program": (
        'KERNELS=="1-1.2", PROGRAM=="/bin/true"',
        "the match also asks for PROGRAM, and otgd goes by USB port alone; "
        'write match = { port = "1-1.2" } if that is enough',
    ),
    "ports by pattern": ('KERNELS=="1-1.*"', 'KERNELS "1-1.*" is not one USB port\'s; '),
    "whole bus": ('KERNELS=="usb1"', 'KERNELS "usb1" is not one USB port\'s; '),
    "no such port": ('KERNELS=="0-1"', 'KERNELS "0-1" is not a USB port path; '),
    "paths by pattern": ('DEVPATH=="*/1-1/1-1.2*/net/*"', " is not one USB port's; "),
    "paths to choose from": ('DEVPATH=="*/1-1.2/*|*/1-1.3/*"', " is not one USB port's; "),
    "path that begins anywhere": ('DEVPATH=="*1-1.2/*"', " is not one USB port's; "),
    "path without a bus": (
        'ENV{ID_PATH}=="platform-3f980000.usb-usb-0:1.2:1.0"',
        'has no number of the USB bus; write match = { port = "1-1.2" } if it is bus 1',
    ),
    "path of no USB port": ('ENV{ID_PATH}=="pci-0000:00:1f.6"', "; write the port (otgctl gadgets"),
}


@pytest.mark.parametrize(("conditions", "why"), NO_SIGNS.values(), ids=NO_SIGNS.keys())
def test_rule_that_is_no_sign_is_told_with_its_reason(
    otgctl: Tool, tmp_path: Path, conditions: str, why: str
) -> None:
    rules = GUIDE[UDEV] + f'SUBSYSTEM=="net", {conditions}, NAME="zero"\n'
    said = otgctl("import", "--root", str(lay(tmp_path, {**GUIDE, UDEV: rules})))
    assert len(meaning(said).gadgets) == len(FOUR)
    (told,) = (line for line in said.lines if line.startswith(f"#   /{UDEV}:5: "))
    assert told.startswith(f'#   /{UDEV}:5: NAME="zero": ')
    assert why in told


NO_LINK_SIGNS = {
    "path": (
        "Path=platform-3f980000.usb-usb-0:1.2:1.0",
        'Path "platform-3f980000.usb-usb-0:1.2:1.0" has no number of the USB bus; '
        'write match = { port = "1-1.2" } if it is bus 1 (otgctl gadgets shows it)',
    ),
    "MAC and serial": (
        "MACAddress=00:22:82:ff:ff:09\nProperty=ID_SERIAL_SHORT=d4c3",
        "the match asks for MAC and USB serial at once; "
        "write match = { mac = …, serial = … } if either is enough",
    ),
    "not": (
        "Property=!ID_SERIAL_SHORT=d4c3",
        "the match has no MAC, USB serial or USB port, and otgd goes by those; "
        "write an entry with one (otgctl gadgets shows them)",
    ),
    "quote": ('Property="ID_SERIAL_SHORT=d4c3', "a quote in [Match] has no end"),
}


@pytest.mark.parametrize(("match", "why"), NO_LINK_SIGNS.values(), ids=NO_LINK_SIGNS.keys())
def test_link_file_that_is_no_sign_is_told_with_its_reason(
    otgctl: Tool, tmp_path: Path, match: str, why: str
) -> None:
    text = f"[Link]\nName=zero\n[Match]\n{match}\n"
    said = otgctl("import", "--root", str(lay(tmp_path, {**GUIDE, f"{SYSTEMD}/z.link": text})))
    assert len(meaning(said).gadgets) == len(FOUR)
    assert f"#   /{SYSTEMD}/z.link:2: Name=zero: {why}" in said.lines


def test_product_that_a_port_rule_wants_is_told(otgctl: Tool, tmp_path: Path) -> None:
    rule = 'KERNELS=="1-1.2", ATTRS{idVendor}=="0525", DRIVERS=="?*", NAME="zero"\n'
    files = {UDEV: rule, f"{SYSTEMD}/zero.network": NETWORK}
    said = otgctl("import", "--root", str(lay(tmp_path, files)))
    assert only(said).port == "1-1.2"
    assert [line for line in said.lines if line.startswith("#   ")] == [
        f"#   /{UDEV}:1: ATTRS{{idVendor}}: "
        "otgd takes what is on that port and has one of [hotplug] drivers"
    ]


def test_links_that_only_a_mac_tells_of_get_names_of_their_own(
    otgctl: Tool, tmp_path: Path
) -> None:
    files = {
        UDEV: 'ATTRS{serial}=="d4c3", NAME="zero"\n',
        f"{SYSTEMD}/1.network": "[Match]\nMACAddress=00:22:82:ff:ff:01\nName=ethusb1\n"
        "[Network]\nAddress=10.0.11.1/24\n",
        f"{SYSTEMD}/2.network": "[Match]\nMACAddress=00:22:82:ff:ff:02\n"
        "[Network]\nAddress=10.0.12.1/24\n",
        f"{SYSTEMD}/3.network": "[Match]\nMACAddress=00:22:82:ff:ff:03\nName=zero\n"
        "[Network]\nAddress=10.0.13.1/24\n",
    }
    gadgets = meaning(otgctl("import", "--root", str(lay(tmp_path, files)))).gadgets
    assert [(gadget.name, gadget.mac, gadget.serial) for gadget in gadgets] == [
        ("zero", None, "d4c3"),
        ("ethusb1", "00:22:82:ff:ff:01", None),
        ("ethusb2", "00:22:82:ff:ff:02", None),
    ]


def test_sign_that_is_one_too_many_for_a_name_may_be_anothers(otgctl: Tool, tmp_path: Path) -> None:
    files = {
        f"{SYSTEMD}/1.link": "[Match]\nProperty=ID_SERIAL_SHORT=d4\n[Link]\nName=zero\n",
        f"{SYSTEMD}/2.link": "[Match]\nProperty=ID_SERIAL_SHORT=c3\n[Link]\nName=zero\n",
        f"{SYSTEMD}/3.link": "[Match]\nProperty=ID_SERIAL_SHORT=c3\n[Link]\nName=other\n",
        f"{SYSTEMD}/zero.network": NETWORK,
        f"{SYSTEMD}/other.network": NETWORK.replace("zero", "other").replace("0.11", "0.12"),
    }
    said = otgctl("import", "--root", str(lay(tmp_path, files)))
    assert {gadget.name: gadget.serial for gadget in meaning(said).gadgets} == {
        "zero": "d4",
        "other": "c3",
    }
    why = "the link has USB serial d4, and otgd goes by one"
    assert f"#   /{SYSTEMD}/2.link:4: zero for USB serial c3: {why}" in said.lines
