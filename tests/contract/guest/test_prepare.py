"""``otgctl prepare`` as a user runs it, on directories and on image files."""

from __future__ import annotations

import io
import lzma
import os
import pty
import re
import shutil
import stat
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from otgd.cli import program
from otgd.guest import workbench
from otgd.guest.device import Device
from otgd.guest.image import ImageCard, read_layout
from otgd.guest.mounted import MountedCard
from otgd.guest.plan import Wishes
from otgd.guest.release import Release
from otgd.guest.tree import CardError, File, boot, root
from otgd.guest.workbench import loop_mounted
from tests.conftest import need
from tests.contract.guest.conftest import (
    BOOT_AT,
    BOOT_SIZE,
    ROOT_AT,
    ROOT_SIZE,
    build_image,
    check_image,
    lay_out,
)
from tests.lab.namespaces import run
from tests.unit.guest.cards import GOLDEN, WORKER1, golden_card, prepare

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

NOBODY = 65534
CONFIG = """\
[fleet]
count = 3
interface = "ethusb{n}"
mac = "00:22:82:ff:ff:01"
guest_mac = "00:22:82:ff:ff:11"
subnet = "10.0.11.0/24"
hostname = "worker{n}"
"""


@dataclass(frozen=True)
class Otgctl:
    """Runs otgctl with a config and keeps what it printed."""

    config: Path
    capsys: pytest.CaptureFixture[str]

    def __call__(self, *arguments: object) -> tuple[int, str, str]:
        code = program.main(["--config", str(self.config), *map(str, arguments)])
        out, err = self.capsys.readouterr()
        return code, out, err


@pytest.fixture
def otgctl(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Otgctl:
    config = tmp_path / "otgd.toml"
    config.write_text(CONFIG)
    return Otgctl(config, capsys)


def mounted(top: Path, release: str = "buster") -> tuple[str, ...]:
    lay_out(release, top)
    return ("--boot", str(top / "boot"), "--root", str(top / "root"))


def test_mounted_card_is_prepared_checked_and_undone(otgctl: Otgctl, tmp_path: Path) -> None:
    card = mounted(tmp_path / "card")

    assert otgctl("prepare", "ethusb1", *card, "--check")[0] == 1
    code, out, _ = otgctl("prepare", "ethusb1", *card)
    assert code == 0
    assert "wrote boot:/cmdline.txt" in out
    assert out.endswith("The card is now that of ethusb1 (buster).\n")
    assert otgctl("prepare", "ethusb1", *card, "--check") == (0, "", "")
    assert otgctl("prepare", "ethusb2", *card, "--check")[0] == 1
    assert (
        otgctl("prepare", "ethusb1", *card)[1] == "The card was already that of ethusb1 (buster).\n"
    )

    code, out, _ = otgctl("prepare", "--undo", *card)
    assert code == 0
    assert "restored boot:/cmdline.txt" in out
    assert (tmp_path / "card/root/etc/hostname").read_text() == "raspberrypi\n"
    assert not (tmp_path / "card/boot/otgd-undo.json").exists()


def test_hostname_names_the_gadget_too(otgctl: Otgctl, tmp_path: Path) -> None:
    card = mounted(tmp_path / "card")

    assert otgctl("prepare", "worker1", *card)[0] == 0
    assert otgctl("prepare", "ethusb1", *card, "--check")[0] == 0


def test_password_hash_may_come_through_a_pipe(
    otgctl: Otgctl, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    card = mounted(tmp_path / "card", "bookworm")
    monkeypatch.setattr(sys, "stdin", io.StringIO("$6$salt$hash\n"))

    assert otgctl("prepare", "ethusb1", *card, "--user", "ada", "--password-hash", "-")[0] == 0
    assert (tmp_path / "card/boot/userconf.txt").read_text() == "ada:$6$salt$hash\n"


def test_dry_run_shows_the_diff_and_changes_nothing(otgctl: Otgctl, tmp_path: Path) -> None:
    card = mounted(tmp_path / "card")

    code, out, _ = otgctl("prepare", "ethusb1", *card, "--dry-run")

    assert (code, out) == (0, (GOLDEN / "buster" / "expected.diff").read_text())
    assert otgctl("prepare", "ethusb1", *card, "--dry-run")[1] == out


@pytest.mark.parametrize("terminal", [False, True], ids=["file", "terminal"])
def test_diff_of_a_cards_file_commands_no_terminal(
    otgctl: Otgctl, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, *, terminal: bool
) -> None:
    card = mounted(tmp_path)
    with (tmp_path / "boot/config.txt").open("a") as config:
        config.write("#\tx\x1b]0;owned\x07\n")
    monkeypatch.setattr(sys.stdout, "isatty", lambda: terminal)

    diff = otgctl("prepare", "ethusb1", *card, "--dry-run")[1]

    assert ("#\tx?]0;owned?\n" if terminal else "#\tx\x1b]0;owned\x07\n") in diff


def test_undo_can_be_looked_at_first(otgctl: Otgctl, tmp_path: Path) -> None:
    card = mounted(tmp_path / "card")
    otgctl("prepare", "ethusb1", *card)

    code, out, _ = otgctl("prepare", "--undo", "--dry-run", *card)

    assert code == 0
    assert "-worker1\n+raspberrypi\n" in out
    assert (tmp_path / "card/root/etc/hostname").read_text() == "worker1\n"


def test_mounted_root_finds_its_boot_volume(otgctl: Otgctl, tmp_path: Path) -> None:
    lay_out("bookworm", tmp_path)
    shutil.copytree(tmp_path / "boot", tmp_path / "root/boot/firmware")

    assert otgctl("prepare", "ethusb1", "--root", tmp_path / "root")[0] == 0
    assert "g_ether" in (tmp_path / "root/boot/firmware/cmdline.txt").read_text()


def test_image_is_prepared_in_place(
    otgctl: Otgctl, fresh_image: Callable[[str], Path], tmp_path: Path
) -> None:
    image = fresh_image("bookworm")
    image.chmod(0o640)

    assert otgctl("prepare", "ethusb1", "--image", image, "--check")[0] == 1
    assert otgctl("prepare", "ethusb1", "--image", image)[0] == 0
    assert otgctl("prepare", "ethusb1", "--image", image, "--check") == (0, "", "")

    check_image(image)
    assert stat.S_IMODE(image.stat().st_mode) == 0o640
    assert sorted(path.name for path in tmp_path.iterdir()) == ["card.img", "otgd.toml"]
    assert otgctl("prepare", "--undo", "--image", image)[0] == 0
    with ImageCard(image) as card:
        assert card.read(root("etc/hostname")) == File(content=b"raspberrypi\n")
        assert card.read(boot("otgd-undo.json")) is None


def test_packed_image_becomes_a_prepared_copy(
    otgctl: Otgctl, pristine_image: Callable[[str], Path], tmp_path: Path
) -> None:
    packed = tmp_path / "raspios.img.xz"
    packed.write_bytes(lzma.compress(pristine_image("trixie").read_bytes(), preset=0))
    target = tmp_path / "worker1.img"

    assert otgctl("prepare", "ethusb1", "--image", packed)[0] == 2
    assert otgctl("prepare", "ethusb1", "--image", packed, "--check")[0] == 1
    assert otgctl("prepare", "ethusb1", "--image", packed, "--out", target)[0] == 0

    assert otgctl("prepare", "ethusb1", "--image", target, "--check")[0] == 0
    check_image(target)
    assert target.stat().st_blocks * 512 < target.stat().st_size
    names = sorted(path.name for path in tmp_path.iterdir())
    assert names == ["otgd.toml", "raspios.img.xz", "worker1.img"]


def test_existing_output_is_overwritten_only_by_force(
    otgctl: Otgctl, pristine_image: Callable[[str], Path], tmp_path: Path
) -> None:
    target = tmp_path / "worker1.img"
    target.write_text("mine")
    arguments = ("prepare", "ethusb1", "--image", pristine_image("buster"), "--out", target)

    code, _, err = otgctl(*arguments)
    assert code == 2
    assert f"{target} exists; remove it, or say --force" in err
    assert target.read_text() == "mine"

    assert otgctl(*arguments, "--force")[0] == 0
    assert otgctl("prepare", "ethusb1", "--image", target, "--check")[0] == 0


def test_fleet_gets_one_image_for_each_gadget(
    otgctl: Otgctl, pristine_image: Callable[[str], Path], tmp_path: Path
) -> None:
    packed = tmp_path / "raspios.img.xz"
    packed.write_bytes(lzma.compress(pristine_image("buster").read_bytes(), preset=0))
    out = tmp_path / "cards"

    code, told, _ = otgctl("prepare", "--all", "--image", packed, "--out", out)

    assert code == 0
    assert told == "".join(f"wrote {out}/worker{n}.img for ethusb{n}\n" for n in (1, 2, 3))
    assert sorted(path.name for path in out.iterdir()) == [f"worker{n}.img" for n in (1, 2, 3)]
    for n in (1, 2, 3):
        image = out / f"worker{n}.img"
        assert otgctl("prepare", f"ethusb{n}", "--image", image, "--check")[0] == 0
        check_image(image)


@pytest.fixture
def nobodys() -> Iterator[Path]:
    """Yield a directory of nobody's; pytest's own ones are closed to all but their owner."""
    with tempfile.TemporaryDirectory() as folder:
        os.chown(folder, NOBODY, NOBODY)
        yield Path(folder)


def test_image_edited_as_nobody_needs_no_root(
    otgctl: Otgctl, pristine_image: Callable[[str], Path], nobodys: Path
) -> None:
    image = Path(shutil.copy(pristine_image("bookworm"), nobodys))
    config = Path(shutil.copy(otgctl.config, nobodys))
    os.chown(image, NOBODY, NOBODY)

    child = os.fork()
    if child == 0:
        os.setgroups([])
        os.setgid(NOBODY)
        os.setuid(NOBODY)
        os._exit(program.main(["-c", str(config), "prepare", "ethusb1", "--image", str(image)]))
    _, status = os.waitpid(child, 0)

    assert os.waitstatus_to_exitcode(status) == 0
    with ImageCard(image) as card:
        entry = card.read(root("etc/NetworkManager/system-connections/otgd-usb0.nmconnection"))
    assert isinstance(entry, File)
    assert (entry.mode, entry.uid) == (0o600, 0)


@pytest.mark.parametrize(
    ("offset", "byte", "what"),
    [
        pytest.param(ROOT_AT + 1024 + 0x3A, 0x00, "root", id="ext4 not clean"),
        pytest.param(ROOT_AT + 1024 + 0x60, 0xC6, "root", id="ext4 journal to replay"),
        pytest.param(BOOT_AT + 0x25, 0x01, "boot", id="FAT dirty"),
    ],
)
def test_image_that_was_not_unmounted_cleanly_is_refused(
    otgctl: Otgctl, fresh_image: Callable[[str], Path], offset: int, byte: int, what: str
) -> None:
    image = fresh_image("buster")
    with image.open("r+b") as file:
        file.seek(offset)
        file.write(bytes([byte]))
    held = image.read_bytes()

    code, _, err = otgctl("prepare", "ethusb1", "--image", image)

    assert code == 1
    assert f"its {what} partition was not unmounted cleanly; check it with" in err
    assert image.read_bytes() == held


def test_image_whose_root_is_full_stays_as_it_was(otgctl: Otgctl, tmp_path: Path) -> None:
    image = tmp_path / "full.img"
    build_image("buster", image)
    filler = tmp_path / "filler"
    with filler.open("wb") as file:
        file.write(os.urandom(ROOT_SIZE))
    run("debugfs", "-w", "-R", f"write {filler} filler", f"{image}?offset={ROOT_AT}")
    held = image.read_bytes()

    code, _, err = otgctl("prepare", "ethusb1", "--image", image)

    assert code == 1
    assert "make room in it" in err
    assert image.read_bytes() == held
    assert not list(tmp_path.glob(".*"))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        pytest.param(b"", "it has no partition table", id="empty"),
        pytest.param(b"x" * 4096, "it has no partition table", id="noise"),
        pytest.param(
            bytes(510) + b"\x55\xaa", "it has no FAT and Linux partition in an MBR", id="blank"
        ),
    ],
)
def test_file_that_is_no_card_is_refused(
    otgctl: Otgctl, tmp_path: Path, content: bytes, message: str
) -> None:
    image = tmp_path / "x.img"
    image.write_bytes(content)

    code, _, err = otgctl("prepare", "ethusb1", "--image", image)

    assert code == 1
    assert message in err


def test_damaged_packed_image_is_told(otgctl: Otgctl, tmp_path: Path) -> None:
    packed = tmp_path / "raspios.img.xz"
    packed.write_bytes(lzma.compress(os.urandom(100_000))[:50_000])

    code, _, err = otgctl("prepare", "ethusb1", "--image", packed, "--out", tmp_path / "x.img")

    assert code == 1
    assert "the file is damaged, fetch it again" in err
    assert sorted(path.name for path in tmp_path.iterdir()) == ["otgd.toml", "raspios.img.xz"]


@pytest.mark.usefixtures("netns")
def test_loop_mounts_do_the_same_and_are_undone(tmp_path: Path) -> None:
    need(Path("/dev/loop-control").exists(), "loop devices")
    image = tmp_path / "card.img"
    build_image("bookworm", image, fat=False)
    mounts = Path("/proc/self/mountinfo").read_text()

    with loop_mounted(image, read_layout(image)) as card:
        assert isinstance(card, MountedCard)
        assert prepare(card) == prepare(golden_card("bookworm"), WORKER1)

    assert Path("/proc/self/mountinfo").read_text() == mounts
    with loop_mounted(image, read_layout(image), read_only=True) as card:
        assert prepare(card).changes == ()


@pytest.mark.usefixtures("netns")
def test_loop_mounts_are_undone_after_an_error(tmp_path: Path) -> None:
    need(Path("/dev/loop-control").exists(), "loop devices")
    image = tmp_path / "card.img"
    build_image("bookworm", image, fat=False)
    mounts = Path("/proc/self/mountinfo").read_text()

    with pytest.raises(CardError), loop_mounted(image, read_layout(image)) as card:
        prepare(card, wishes=Wishes(release=Release.BUSTER))

    assert Path("/proc/self/mountinfo").read_text() == mounts


@pytest.mark.usefixtures("netns")
def test_root_without_the_tools_mounts_the_image(
    otgctl: Otgctl, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    need(Path("/dev/loop-control").exists(), "loop devices")
    image = tmp_path / "card.img"
    build_image("bookworm", image, fat=False)
    monkeypatch.setattr(workbench, "missing_tools", lambda: {"mcopy": "mtools"})

    assert otgctl("prepare", "ethusb1", "--image", image)[0] == 0
    assert otgctl("prepare", "ethusb1", "--image", image, "--check") == (0, "", "")


@pytest.fixture
def device(tmp_path: Path, netns: None, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:  # noqa: ARG001
    """Yield a device whose partitions are loop devices; judging devices has tests of its own."""
    need(Path("/dev/loop-control").exists(), "loop devices")
    image = tmp_path / "card.img"
    build_image("bookworm", image, fat=False)
    attach = ("losetup", "--find", "--show")
    parts = []
    for at, size in ((BOOT_AT, BOOT_SIZE), (ROOT_AT, ROOT_SIZE)):
        parts.append(run(*attach, "-o", str(at), "--sizelimit", str(size), str(image)).strip())
    found = Device(
        path=image,
        model="Card Reader",
        size_bytes=16_000_000_000,
        partitions=(Path(parts[0]), Path(parts[1])),
    )
    monkeypatch.setattr("otgd.cli.prepare.find_device", lambda _: found)
    yield image
    for part in parts:
        run("losetup", "--detach", part)


def test_device_is_prepared_after_yes_and_unmounted(otgctl: Otgctl, device: Path) -> None:
    mounts = Path("/proc/self/mountinfo").read_text()

    assert otgctl("prepare", "ethusb1", "--device", device, "--check")[0] == 1
    assert otgctl("prepare", "ethusb1", "--device", device, "--yes")[0] == 0
    assert otgctl("prepare", "ethusb1", "--device", device, "--check") == (0, "", "")
    assert Path("/proc/self/mountinfo").read_text() == mounts


def test_device_is_asked_about_and_left_alone_at_no(
    otgctl: Otgctl, device: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.stdin", io.StringIO("n\n"))
    held = device.read_bytes()

    code, out, _ = otgctl("prepare", "ethusb1", "--device", device)

    assert code != 0
    assert f"Write to {device} (Card Reader, 16.0 GB)? [y/N]" in out
    assert device.read_bytes() == held


def test_progress_is_shown_on_a_terminal(
    otgctl: Otgctl, pristine_image: Callable[[str], Path], tmp_path: Path
) -> None:
    """A real terminal: a pseudo-terminal whose other end is read."""
    out = tmp_path / "cards"
    image = pristine_image("buster")
    child, terminal = pty.fork()
    if child == 0:
        command = [sys.executable, "-m", "otgd.cli", "--config", str(otgctl.config), "prepare"]
        command += ["--all", "--image", str(image), "--out", str(out)]
        os.execv(sys.executable, command)  # noqa: S606 - the program under test
    shown = b"".join(iter(lambda: _read(terminal), b"")).decode()
    _, status = os.waitpid(child, 0)
    os.close(terminal)

    assert os.waitstatus_to_exitcode(status) == 0
    for n in (1, 2, 3):
        assert re.search(rf"worker{n}\.img .*━", shown)


def _read(terminal: int) -> bytes:
    """Read what is there; a terminal whose other end is gone gives EIO instead of an end."""
    try:
        return os.read(terminal, 65536)
    except OSError:
        return b""


def test_nobody_without_the_tools_is_told_what_to_install(
    otgctl: Otgctl, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    image = tmp_path / "card.img"
    image.touch()
    monkeypatch.setattr(workbench, "missing_tools", lambda: {"mcopy": "mtools"})
    monkeypatch.setattr(os, "geteuid", lambda: 1000)

    code, _, err = otgctl("prepare", "ethusb1", "--image", image)

    assert code == 1
    assert "install mtools, or run otgctl as root" in err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        pytest.param(["ethusb1"], "name the card with --root", id="no card"),
        pytest.param(["ethusb1", "--root", ".", "--image", "i"], "name the card", id="two cards"),
        pytest.param(["--root", "."], "the config has ethusb1, ethusb2, ethusb3", id="no name"),
        pytest.param(["x", "--root", "."], "the config has no gadget x", id="unknown name"),
        pytest.param(["--all", "--root", "."], "--all goes with --image FILE and --out", id="all"),
        pytest.param(["ethusb1", "--root", ".", "--user", "pi"], "--user needs", id="user alone"),
        pytest.param(["ethusb1", "--root", ".", "--dns", "x"], "write an IPv4 address", id="dns"),
        pytest.param(["ethusb1", "--root", "/"], "is this computer's own", id="host's root"),
        pytest.param(["x", "--undo", "--root", "."], "--undo takes a card", id="undo of a name"),
    ],
)
def test_wrong_usage_says_what_to_write(
    otgctl: Otgctl,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    arguments: list[str],
    message: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("i").touch()
    (tmp_path / "boot").mkdir()
    (tmp_path / "boot/config.txt").touch()

    code, _, err = otgctl("prepare", *arguments)

    assert code == 2
    assert message in " ".join(err.split())


def test_bad_config_exits_with_78(otgctl: Otgctl, tmp_path: Path) -> None:
    otgctl.config.write_text("[nonsense]\n")

    assert otgctl("prepare", "ethusb1", *mounted(tmp_path / "card"))[0] == 78
