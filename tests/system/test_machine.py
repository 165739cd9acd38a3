"""Real USB gadgets on Debian's kernel, with the package and the config as installed."""

from __future__ import annotations

import json
import os
import re
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import pytest

from otgd.events import Kind
from tests.lab.topology import host_address, mac
from tests.system.conftest import bootable
from tests.system.deadline import until
from tests.system.machine import PATIENCE_S, running
from tests.system.zeros import ECM, G_ETHER, NCM, RNDIS, Function, Zeros, plugged_at_boot

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.system.booted_system import BootedSystem
    from tests.system.conftest import System
    from tests.system.image import Image

pytestmark = pytest.mark.timeout(3600)  # the first one builds what is not in the cache

LONG = bool(os.environ.get("OTGD_LONG"))
"""Whether to do what takes half an hour as well."""

FIRST_PLUGS = 40 if LONG else 3
COLD_BOOTS = 20 if LONG else 2


@pytest.fixture(scope="module")
def zeros(image: Image, workspace: Path) -> Iterator[Zeros]:
    with running(image, workspace / "machine") as machine:
        until(lambda: machine.unit("otgd.service", "ActiveState") == "active", PATIENCE_S)
        yield Zeros(machine)


def told(machine: BootedSystem) -> str:
    """Return what helps to see why a gadget is not there."""
    log = machine.run("journalctl", "--boot", "-u", "otgd.service", "-n", "30")
    return log + machine.run("ip", "address") + machine.run("dmesg")[-3000:]


def await_online(zeros: Zeros, n: int) -> None:
    until(lambda: zeros.reaches(n), PATIENCE_S, what=lambda: told(zeros.machine))


def await_driver(zeros: Zeros, n: int, driver: str) -> None:
    def marks() -> dict[str, str]:
        return zeros.machine.udev(f"ethusb{n}")

    until(lambda: marks().get("ID_NET_DRIVER") == driver, PATIENCE_S, what=marks)


def await_absent(machine: BootedSystem, n: int) -> None:
    until(lambda: f"ethusb{n}" not in machine.links(), PATIENCE_S)
    until(lambda: f"10.0.{10 + n}." not in machine.run("nft", "list", "ruleset"), PATIENCE_S)


UNLOAD = """
take_out() {
    [ -e "/sys/module/$1" ] || return 0
    for holder in "/sys/module/$1/holders"/*; do
        [ ! -e "$holder" ] || take_out "${holder##*/}"
    done
    rmmod "$1"
}
take_out cdc_subset
take_out cdc_ether
"""


def await_unloaded(machine: BootedSystem) -> None:
    """Take both drivers out, and what uses cdc_ether's code, as soon as no link needs them."""

    def fault() -> str:
        return machine.attempt("sh", "-euc", UNLOAD).err + machine.run("lsmod")

    until(lambda: machine.attempt("sh", "-euc", UNLOAD).code == 0, PATIENCE_S, what=fault)


@pytest.mark.parametrize("function", [ECM, RNDIS, NCM], ids=lambda function: function.name)
def test_prepared_zero_works_with_the_config_as_installed(zeros: Zeros, function: Function) -> None:
    zeros.plug(1, function)
    try:
        await_online(zeros, 1)
        assert zeros.reaches(1, host_address(1))
        await_driver(zeros, 1, function.driver)
    finally:
        zeros.scrap(1)
    await_absent(zeros.machine, 1)


def test_pulled_cable_leaves_nothing_and_comes_back(zeros: Zeros) -> None:
    zeros.plug(1)
    try:
        await_online(zeros, 1)
        zeros.pull(1)
        await_absent(zeros.machine, 1)
        zeros.plug_again(1)
        await_online(zeros, 1)
    finally:
        zeros.scrap(1)


def test_gadgets_own_end_is_left_alone(zeros: Zeros) -> None:
    zeros.plug(1)
    try:
        await_online(zeros, 1)
        own = ("ip", "netns", "exec", "z1", "ip", "-oneline", "-4", "address", "show", "usb0")
        assert zeros.machine.run(*own).count("inet") == 1
        assert "usb0" not in zeros.machine.run("otgctl", "status")
    finally:
        zeros.scrap(1)


def test_first_plug_never_shows_a_random_mac(zeros: Zeros) -> None:
    """By loading order alone, with both drivers out: cdc_subset wants the same device."""
    zeros.plug(2, G_ETHER)
    try:
        for _ in range(FIRST_PLUGS):
            await_online(zeros, 2)
            await_driver(zeros, 2, "cdc_ether")
            zeros.pull(2)
            await_unloaded(zeros.machine)
            zeros.plug_again(2)
    finally:
        zeros.scrap(2)


CONFIG = "/etc/otgd/otgd.toml"


def reload_with_backend(machine: BootedSystem, name: str) -> None:
    machine.run("sed", "-i", f's/^backend = ".*"/backend = "{name}"/', CONFIG)
    machine.run("systemctl", "reload", "otgd.service")


def test_legacy_iptables_finds_its_modules(zeros: Zeros) -> None:
    """Nobody but the kernel may load one: otgd has no right to, and iptables is not run."""
    machine = zeros.machine
    loaded = machine.run("cut", "-d ", "-f1", "/proc/modules").split()
    assert "ip_tables" in loaded
    assert "iptable_nat" not in loaded
    zeros.plug(1)
    try:
        await_online(zeros, 1)
        reload_with_backend(machine, "iptables")
        until(lambda: state(machine)["firewall"]["backend"] == "iptables", PATIENCE_S)
        until(lambda: "inet otgd" not in machine.run("nft", "list", "tables"), PATIENCE_S)
        await_online(zeros, 1)
        assert "-j MASQUERADE" in machine.run("iptables-legacy", "-t", "nat", "-S")
    finally:
        reload_with_backend(machine, "auto")
        zeros.scrap(1)
    await_absent(machine, 1)
    until(lambda: "OTGD" not in machine.run("iptables-legacy-save"), PATIENCE_S)


# --- the MAC lies --------------------------------------------------------------------------------

BOOTS = 6
LINK_FILES = {"serial": 72, "port": 73}
"""Numbers of the .link files that otgd-names.service makes of these signs."""


@pytest.fixture
def adopted(zeros: Zeros, request: pytest.FixtureRequest) -> Iterator[int]:
    """Plug in a Zero with a MAC that the kernel made up, and adopt it by the sign in question."""
    n, sign, serial = request.param
    machine = zeros.machine
    zeros.plug(n, macs=False, serial=serial)
    try:
        ifname = until(lambda: named_by_udev(machine), PATIENCE_S, what=lambda: told(machine))
        machine.run("otgctl", "adopt", ifname, "--name", f"ethusb{n}", "--by", sign)
        link_file = f"/run/systemd/network/{LINK_FILES[sign]}-otgd-ethusb{n}.link"
        until(lambda: machine.attempt("test", "-e", link_file).code == 0, PATIENCE_S)
        rests = ("otgd-names.service", "ActiveState")
        until(lambda: machine.unit(*rests) == "inactive", PATIENCE_S)
        yield n
    finally:
        zeros.scrap(n)
        machine.run("rm", "-f", f"/etc/otgd/otgd.toml.d/ethusb{n}.toml")
        machine.run("systemctl", "reload", "otgd.service")


def state(machine: BootedSystem) -> dict[str, Any]:
    told: dict[str, Any] = json.loads(machine.run("cat", "/run/otgd/state.json"))
    return told


def named_by_udev(machine: BootedSystem) -> str:
    """Return the name of the link that is left alone, once udev has given it one."""
    return next((name for name in unknown(machine) if name.startswith("enx")), "")


def unknown(machine: BootedSystem) -> list[str]:
    return [link["ifname"] for link in state(machine)["unknown"]]


def recognized(machine: BootedSystem, n: int) -> list[str]:
    """Return what the journal tells of gadget *n*'s other MACs."""
    message = f"MESSAGE_ID={Kind.GADGET_RECOGNIZED.message_id}"
    return [entry["MESSAGE"] for entry in machine.journal(message, f"OTGD_GADGET=ethusb{n}")]


@pytest.mark.parametrize("adopted", [(3, "port", "")], indirect=True, ids=["by port"])
def test_zero_that_boots_with_six_macs_is_one_gadget(zeros: Zeros, adopted: int) -> None:
    machine, n = zeros.machine, adopted
    macs = []
    for boot in range(BOOTS):
        if boot:
            zeros.plug(n, macs=False)
        await_online(zeros, n)
        macs.append(machine.links()[f"ethusb{n}"]["address"])
        until(lambda: len(recognized(machine, n)) == len(macs), PATIENCE_S)
        if boot:
            marks = machine.udev(f"ethusb{n}")
            assert marks["ID_NET_LINK_FILE"] == f"/run/systemd/network/73-otgd-ethusb{n}.link"
            assert marks["NM_UNMANAGED"] == "1"
        if boot < BOOTS - 1:
            zeros.scrap(n)
            await_absent(machine, n)
            assert unknown(machine) == []
    assert len(set(macs)) == BOOTS
    ends = [f"; its MAC is {now}, was {was}" for was, now in pairwise([mac(n), *macs])]
    assert [text.partition("-1")[2] for text in recognized(machine, n)] == ends


@pytest.mark.parametrize("adopted", [(4, "serial", "d4c3b2a1")], indirect=True, ids=["by serial"])
def test_zero_that_moves_to_another_port_is_known_by_its_serial(zeros: Zeros, adopted: int) -> None:
    machine, n = zeros.machine, adopted
    await_online(zeros, n)
    ports = [gadget["port"] for gadget in state(machine)["gadgets"] if gadget["name"] == "ethusb4"]
    zeros.pull(n)
    await_absent(machine, n)
    zeros.plug_again(n, port=2)
    await_online(zeros, n)
    (entry,) = (gadget for gadget in state(machine)["gadgets"] if gadget["name"] == "ethusb4")
    assert (entry["known_by"], entry["serial"]) == ("serial", "d4c3b2a1")
    assert entry["port"] not in ports
    assert machine.udev("ethusb4")["ID_NET_LINK_FILE"].endswith("/72-otgd-ethusb4.link")


@pytest.fixture(scope="module")
def image_with_zeros(workspace: Path, trixie_installed: System) -> Image:
    """The same system with four Zeros plugged in whenever it boots."""
    extra = workspace / "zeros"
    plugged_at_boot(extra, 4)
    return bootable(workspace / "image-with-zeros", (extra, *trixie_installed.layers))


@pytest.mark.parametrize("boot_number", range(1, COLD_BOOTS + 1))
def test_gadgets_plugged_at_boot_have_their_names_from_the_start(
    image_with_zeros: Image, workspace: Path, boot_number: int
) -> None:
    with running(image_with_zeros, workspace / f"cold-boot-{boot_number}") as machine:
        until(
            lambda: len([name for name in machine.links() if name.startswith("ethusb")]) == 4,
            PATIENCE_S,
            what=lambda: told(machine),
        )
        until(
            lambda: "4 of 4 gadgets" in machine.unit("otgd.service", "StatusText"),
            PATIENCE_S,
            what=lambda: told(machine),
        )
        links = machine.links()
        assert [links[f"ethusb{n}"]["address"] for n in range(1, 5)] == [
            mac(n) for n in range(1, 5)
        ]
        log = machine.run("journalctl", "--boot", "--output", "cat")
        # Each link is renamed once, from what the kernel called it: udev and otgd never disagreed.
        renamed = re.findall(r"(ethusb\d): renamed from (\S+)", log)
        assert sorted(name for name, _ in renamed) == [f"ethusb{n}" for n in range(1, 5)], renamed
        assert not re.search(r"ID_RENAMING|Failed to rename|File exists|ordering cycle", log)
        assert machine.run("systemctl", "--failed", "--plain", "--no-legend") == ""
