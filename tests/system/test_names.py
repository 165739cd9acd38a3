"""From the list of names to udev: .link files, at boot and when the list changes."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.lab.topology import mac
from tests.system.conftest import rest
from tests.system.deadline import until
from tests.system.host import CONFIG, NAMES, NEW_NAMES, container_config, names_list

if TYPE_CHECKING:
    from pathlib import Path

    from tests.system.conftest import Boot, System
    from tests.system.host import Host

pytestmark = pytest.mark.timeout(1200)  # the first one builds what is not in the cache

LINK_FILES = "run/systemd/network"


def link_files(root: Path) -> set[str]:
    return {path.name for path in (root / LINK_FILES).glob("*otgd*.link")}


def of_gadgets(*numbers: int) -> set[str]:
    """Return the names of both .link files of each of these gadgets."""
    return {f"{order}-otgd-ethusb{n}.link" for n in numbers for order in (70, 71)}


def await_helper(host: Host) -> None:
    """Wait until what reads the list has come to rest."""
    until(lambda: host.system.unit("otgd-names.service", "ActiveState") == "inactive")


def test_udev_gives_a_listed_link_its_name_without_otgd(host: Host) -> None:
    host.system.run("systemctl", "stop", "otgd.service")
    host.system.write(NEW_NAMES, names_list(1, 2))
    host.system.run("systemctl", "start", "otgd-names.service")
    host.plug(1, "usb0")
    host.plug(2, "eth7")
    for name in ("ethusb1", "ethusb2"):
        until(lambda name=name: name in host.links(), what=host.links)  # type: ignore[misc]
    marks = host.system.udev("ethusb1")
    assert marks["ID_NET_LINK_FILE"] == f"/{LINK_FILES}/70-otgd-ethusb1.link"
    assert marks["NM_UNMANAGED"] == "1"
    assert marks["ID_NET_MANAGED_BY"] == "otgd"
    assert marks["ID_MM_PORT_IGNORE"] == "1"


def test_unlisted_link_keeps_its_name_and_has_no_mark(host: Host) -> None:
    host.plug(9, "usb0")
    until(lambda: host.system.udev("usb0").get("ID_NET_LINK_FILE"))
    assert "NM_UNMANAGED" not in host.system.udev("usb0")
    assert "ID_NET_MANAGED_BY" not in host.system.udev("usb0")


def test_last_of_many_changes_is_in_force(host: Host) -> None:
    for n in range(1, 16):
        host.system.write(NEW_NAMES, names_list(n, n + 1))
    until(lambda: link_files(host.system.root) == of_gadgets(15, 16))
    assert (host.system.root / NAMES.lstrip("/")).read_text() == names_list(15, 16)


@pytest.mark.parametrize(
    "line",
    [
        f"{mac(5)} ../../../etc/evil veth",
        f"{mac(5)} ethusb5 veth;Name=evil",
        f"{mac(5)} $(reboot) veth",
        f"{mac(5)} ethusb5",
        "* ethusb5 veth",
    ],
    ids=["path", "more", "command", "short", "pattern"],
)
def test_only_well_formed_lines_are_believed(host: Host, line: str) -> None:
    host.system.write(NEW_NAMES, names_list(1) + line + "\n")
    until(lambda: link_files(host.system.root) == of_gadgets(1))
    await_helper(host)
    log = host.system.run(
        "journalctl", "-b", "-u", "otgd-names.service", "-o", "cat", "-p", "warning"
    )
    assert log.splitlines() == [f"{NAMES}:2: refused"]
    assert link_files(host.system.root) == of_gadgets(1)


def test_names_of_the_last_time_are_there_before_udevd(boot: Boot, installed: System) -> None:
    def prepare(root: Path) -> None:
        rest(root)
        (root / "var/lib/otgd").mkdir(exist_ok=True)
        (root / NAMES.lstrip("/")).write_text(names_list(1, 2, 3, 4))

    with boot(installed, prepare) as container:
        key = "ExecMainExitTimestampMonotonic"
        written_us = int(container.unit("otgd-names-boot.service", key))
        udevd_us = int(container.unit("systemd-udevd.service", "ExecMainStartTimestampMonotonic"))
        assert 0 < written_us < udevd_us
        assert link_files(container.root) == of_gadgets(1, 2, 3, 4)


def test_otgd_lists_the_gadgets_of_its_config(host: Host) -> None:
    listed = host.system.root / NAMES.lstrip("/")
    until(lambda: listed.exists() and listed.read_text() == names_list(1, 2, 3, 4))
    until(lambda: link_files(host.system.root) == of_gadgets(1, 2, 3, 4))


def test_reloaded_names_hold_for_a_plugged_link_and_for_udev(host: Host) -> None:
    host.plug(1)
    host.await_online(1)
    renamed = container_config().replace("ethusb{n}", "zero{n}")
    host.system.write(CONFIG, renamed)
    host.system.run("systemctl", "reload", "otgd.service")
    until(lambda: "zero1" in host.links(), what=host.links)
    assert host.addresses("zero1") == ["10.0.11.1/24"]
    assert host.online(1)
    wanted = {f"{order}-otgd-zero{n}.link" for n in (1, 2, 3, 4) for order in (70, 71)}
    until(lambda: link_files(host.system.root) == wanted, what=lambda: link_files(host.system.root))
    await_helper(host)
    host.unplug(1)
    host.system.run("systemctl", "stop", "otgd.service")
    host.plug(1)
    until(lambda: "zero1" in host.links(), what=host.links)
