"""``otgctl adopt`` with a real link, a real daemon and drop-ins that it reads."""

from __future__ import annotations

import os
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

import pytest

from tests.lab.deadline import until
from tests.lab.otgctl import Otgctl, Said
from tests.lab.topology import guest_address, host_address, mac
from tests.lab.traffic import ping

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.daemon.conftest import Launcher
    from tests.lab.daemon import Daemon
    from tests.lab.topology import Lab

STRANGER = "00:22:82:ff:ff:99"
NOBODY = 65534


@pytest.fixture
def tmp_path() -> Iterator[Path]:
    """Return a directory that everybody may enter, as they may /etc and /run."""
    with TemporaryDirectory(prefix="otgctl-") as directory:
        path = Path(directory)
        path.chmod(0o755)
        yield path


@pytest.fixture
def backend() -> str:
    """Return one packet filter: adopting has nothing to do with it."""
    return "nftables"


class Adopting:
    """otgctl on a host with a daemon for two gadgets, and the stranger plugged in as usb0.

    PID 1 is no systemd here: ``systemctl`` is a script that does what the unit's ExecReload= does.
    """

    def __init__(self, lab: Lab, daemon: Daemon, directory: Path) -> None:
        self.lab = lab
        self.daemon = daemon
        self.directory = directory
        self.drop_ins = directory / "otgd.toml.d"
        self._otgctl = Otgctl(lab.host, directory)
        self.systemctl(f'[ "$*" = "reload otgd.service" ] && kill -HUP {daemon.pid}')

    def systemctl(self, script: str) -> None:
        program = self.directory / "bin/systemctl"
        program.parent.mkdir(exist_ok=True)
        program.write_text(f"#!/bin/sh\n{script}\n")
        program.chmod(0o755)

    def __call__(self, *arguments: str, user: int = 0) -> Said:
        before = os.environ["PATH"]
        os.environ["PATH"] = f"{self.directory}/bin:{before}"
        try:
            return self._otgctl("adopt", *arguments, user=user)
        finally:
            os.environ["PATH"] = before

    def written(self) -> dict[str, str]:
        """Return every file in the drop-in directory."""
        return {path.name: path.read_text() for path in self.drop_ins.glob("*")} | {
            path.name: "hidden" for path in self.drop_ins.glob(".*")
        }


@pytest.fixture
def adopt(lab: Lab, launch: Launcher, tmp_path: Path) -> Adopting:
    daemon = launch(count=2)
    lab.plug(3, host_mac=STRANGER)
    until(lambda: [x["mac"] for x in daemon.state()["unknown"]] == [STRANGER])
    return Adopting(lab, daemon, tmp_path)


ENTRY = f"""\
# Written by otgctl adopt usb0.
[gadget.ethusb3]
mac = "{STRANGER}"
subnet = "10.0.13.0/24"
"""


def test_adopted_link_is_served_at_once(adopt: Adopting) -> None:
    said = adopt("usb0")
    file = adopt.drop_ins / "ethusb3.toml"
    assert (said.code, said.err) == (0, "")
    assert said.out == (
        f"Written: {file}\n\n{ENTRY}\n"
        "otgd reads its config again; otgctl status shows what became of it.\n"
    )
    assert adopt.written() == {"ethusb3.toml": ENTRY}
    assert (file.stat().st_mode & 0o777, adopt.drop_ins.stat().st_mode & 0o777) == (0o644, 0o755)
    until(lambda: len(adopt.daemon.state()["gadgets"]) == 3, what=adopt.daemon.stderr)
    adopt.daemon.wait_for("ethusb3", "configured")
    assert adopt.daemon.state()["unknown"] == []
    assert adopt.lab.addresses("ethusb3") == [f"{host_address(3)}/24"]
    until(lambda: ping(adopt.lab.guest(3), host_address(3)), what=lambda: guest_address(3))


def test_name_and_subnet_can_be_chosen_and_reload_left_out(adopt: Adopting) -> None:
    said = adopt("usb0", "--name", "camera", "--subnet", "10.0.40.0/30", "--no-reload", "--json")
    assert said.code == 0
    assert said.document["name"] == "camera"
    assert 'subnet = "10.0.40.0/30"' in adopt.written()["camera.toml"]
    assert "config reloaded" not in adopt.daemon.stderr()
    adopt.daemon.reload()
    adopt.daemon.wait_for("camera", "configured")


def test_subnet_that_the_host_uses_is_not_taken(adopt: Adopting) -> None:
    adopt.lab.host.run("ip", "address", "add", "10.0.13.77/24", "dev", "lo")
    adopt.lab.host.run("ip", "route", "add", "blackhole", "10.0.14.0/24")
    adopt.lab.host.run("ip", "route", "add", "10.0.15.0/24", "dev", "eth0")
    assert 'subnet = "10.0.14.0/24"' in adopt("usb0", "--no-reload").out


@pytest.mark.parametrize(
    ("arguments", "code", "why"),
    [
        (["usb9"], 1, "there is no link usb9; USB network devices: usb0"),
        (["eth0"], 1, "eth0 has driver macvlan; [hotplug] drivers are veth"),
        (["usb0", "--by", "port"], 1, "usb0 cannot be known by its USB port: it is not on USB"),
        (["usb0", "--name", "../x"], 1, 'the name "../x" has "/" in it; choose another --name'),
        (["usb0", "--name", "ethusb1"], 1, "ethusb1 is in the config already, with the MAC"),
        (["usb0", "--subnet", "10.0.9.1/24"], 2, 'has host bits set; write "10.0.9.0/24"'),
        (
            ["usb0", "--subnet", "10.0.12.0/24"],
            78,
            'ethusb3.toml:4: gadget.ethusb3.subnet: "10.0.12.0/24" overlaps 10.0.12.0/24 of',
        ),
    ],
    ids=["no link", "driver", "no port", "bad name", "known name", "host bits", "overlap"],
)
def test_refusal_is_one_sentence_and_writes_nothing(
    adopt: Adopting, arguments: list[str], code: int, why: str
) -> None:
    said = adopt(*arguments)
    assert said.code == code
    assert why in said.err
    assert "Traceback" not in said.err
    assert adopt.written() == {}


def test_link_that_the_config_knows_is_refused(adopt: Adopting) -> None:
    adopt.lab.plug(1)
    adopt.daemon.wait_for("ethusb1", "configured")
    said = adopt("ethusb1")
    assert (said.code, said.out) == (1, "")
    assert said.err.startswith("otgctl: ethusb1 is ethusb1 already (otgd.toml:")
    assert said.err.endswith(": fleet.mac)\n")


def test_config_with_a_problem_is_refused_as_a_whole(adopt: Adopting) -> None:
    adopt.drop_ins.mkdir()
    (adopt.drop_ins / "old.toml").write_text("colour = 5\n")
    said = adopt("usb0")
    assert said.code == 78
    assert "old.toml:1: colour: unknown key" in said.err
    assert adopt.written() == {"old.toml": "colour = 5\n"}


def test_file_that_is_there_is_not_replaced(adopt: Adopting) -> None:
    adopt.drop_ins.mkdir()
    (adopt.drop_ins / "ethusb3.toml").write_text("# mine\n")
    said = adopt("usb0")
    assert said.code == 1
    assert "ethusb3.toml is there already; add the entry to it" in said.err
    assert adopt.written() == {"ethusb3.toml": "# mine\n"}


def test_who_may_not_write_is_told_so(adopt: Adopting) -> None:
    adopt.drop_ins.mkdir()
    said = adopt("usb0", user=NOBODY)
    assert said.code == 1
    assert said.err == (
        f"otgctl: write {adopt.drop_ins}/ethusb3.toml: Permission denied; sudo otgctl adopt\n"
    )
    assert adopt.written() == {}


def test_full_disk_leaves_nothing(adopt: Adopting) -> None:
    adopt.drop_ins.mkdir()
    fill = 'mount -t tmpfs -o size=4k none "$0" && cat /dev/zero > "$0/full"'
    adopt.lab.host.run_inside("sh", "-c", fill, str(adopt.drop_ins), check=False)
    said = adopt("usb0")
    assert said.code == 1
    assert said.err == (f"otgctl: write {adopt.drop_ins}/ethusb3.toml: No space left on device\n")
    assert adopt.lab.host.run_inside("ls", "-A", str(adopt.drop_ins)) == "full\n"


def test_reload_that_fails_is_told_and_the_file_stays(adopt: Adopting) -> None:
    adopt.systemctl("echo 'Unit otgd.service not loaded.' >&2; exit 5")
    said = adopt("usb0")
    assert said.code == 1
    assert said.err == (
        "otgctl: written, but not in force yet: systemctl reload otgd.service: "
        "Unit otgd.service not loaded.\n"
    )
    assert adopt.written() == {"ethusb3.toml": ENTRY}


def test_without_a_daemon_nothing_is_reloaded(adopt: Adopting) -> None:
    adopt.daemon.terminate()
    adopt.systemctl("exit 5")
    said = adopt("usb0")
    assert said.code == 0
    assert said.lines[-1] == "otgd does not run; it reads this when it starts."


def test_gadgets_says_how_to_adopt(adopt: Adopting) -> None:
    said = Otgctl(adopt.lab.host, adopt.directory)("gadgets")
    assert "For usb0: sudo otgctl adopt usb0, which writes:" in said.out
    assert ENTRY.partition("\n")[2] in said.out
    assert mac(1) not in said.out
