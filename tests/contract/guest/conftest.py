"""Real cards: golden trees as directories, and as image files with a FAT and an ext4 volume."""

from __future__ import annotations

import os
import shutil
import struct
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from otgd.guest.tree import Directory, File, Link, Volume
from tests.conftest import need
from tests.lab.namespaces import run
from tests.unit.guest.cards import golden_entries

if TYPE_CHECKING:
    from collections.abc import Callable

MIB = 1024 * 1024
BOOT_AT, BOOT_SIZE = 1 * MIB, 16 * MIB
ROOT_AT, ROOT_SIZE = 17 * MIB, 24 * MIB
TOOLS = ("mkfs.vfat", "mkfs.ext4", "mcopy", "debugfs", "e2fsck", "fsck.vfat")


def lay_out(release: str, top: Path) -> None:
    """Write a golden tree to top/boot and top/root, with modes and owners (root only)."""
    need(os.geteuid() == 0, "root, for files that belong to others")
    for place, entry in golden_entries(release).items():
        path = top / place.volume / place.path
        path.parent.mkdir(parents=True, exist_ok=True)
        match entry:
            case File(content=content, mode=mode, uid=uid, gid=gid):
                path.write_bytes(content)
            case Directory(mode=mode, uid=uid, gid=gid):
                path.mkdir(exist_ok=True)
            case Link(target=target):
                path.symlink_to(target)
                continue
        path.chmod(mode)
        os.chown(path, uid, gid)


def build_image(release: str, image: Path, *, fat: bool = True) -> None:
    """Build an image as Raspberry Pi OS comes: MBR, FAT boot partition, ext4 root partition.

    Without *fat* the boot partition is ext4 as well, for kernels that have no vfat.
    """
    for tool in TOOLS:
        need(shutil.which(tool), f"{tool} (packages dosfstools, mtools, e2fsprogs)")
    tree = image.with_suffix(".tree")
    lay_out(release, tree)
    boot, root = image.with_suffix(".boot"), image.with_suffix(".root")
    if fat:
        run("mkfs.vfat", "-C", str(boot), str(BOOT_SIZE // 1024))
        run("mcopy", "-i", str(boot), *(map(str, (tree / Volume.BOOT).iterdir())), "::")
    else:
        run("mkfs.ext4", "-q", "-d", str(tree / Volume.BOOT), str(boot), f"{BOOT_SIZE // 1024}k")
    run("mkfs.ext4", "-q", "-d", str(tree / Volume.ROOT), str(root), f"{ROOT_SIZE // 1024}k")
    with image.open("wb") as file:
        file.truncate(ROOT_AT + ROOT_SIZE)
        file.seek(446)
        file.write(_mbr_entry(0x0C, BOOT_AT, BOOT_SIZE) + _mbr_entry(0x83, ROOT_AT, ROOT_SIZE))
        file.seek(510)
        file.write(b"\x55\xaa")
        for at, volume in ((BOOT_AT, boot), (ROOT_AT, root)):
            file.seek(at)
            file.write(volume.read_bytes())
    boot.unlink()
    root.unlink()
    shutil.rmtree(tree)


def _mbr_entry(kind: int, at: int, size: int) -> bytes:
    return struct.pack("<4xB3xII", kind, at // 512, size // 512)


def check_image(image: Path) -> None:
    """Let the file systems' own checkers judge both volumes of *image*."""
    for at, size, *checker in (
        (BOOT_AT, BOOT_SIZE, "fsck.vfat", "-n"),
        (ROOT_AT, ROOT_SIZE, "e2fsck", "-f", "-n"),
    ):
        volume = image.with_suffix(".volume")
        with image.open("rb") as file:
            file.seek(at)
            volume.write_bytes(file.read(size))
        run(*checker, str(volume))
        volume.unlink()


@pytest.fixture(scope="session")
def pristine_image(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """Return what builds a release's image once for the session."""
    top = tmp_path_factory.mktemp("images")

    def build(release: str) -> Path:
        image = top / f"{release}.img"
        if not image.exists():
            build_image(release, image)
        return image

    return build


@pytest.fixture
def fresh_image(pristine_image: Callable[[str], Path], tmp_path: Path) -> Callable[[str], Path]:
    """Return what copies a release's image for one test to spoil."""

    def copy(release: str) -> Path:
        return Path(shutil.copy(pristine_image(release), tmp_path / "card.img"))

    return copy
