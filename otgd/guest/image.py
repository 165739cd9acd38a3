"""A card as an image file, edited without root and without mounting: mtools and debugfs.

Neither of the two tools is atomic, so they only ever work on a copy (see ``workbench``).
The partition table and the "was it unmounted cleanly?" marks are read here, byte by byte.
"""

from __future__ import annotations

import os
import re
import shutil
import struct
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Self

from otgd.guest.tree import (
    CardError,
    Change,
    Directory,
    Entry,
    File,
    Link,
    Place,
    Volume,
    room_needed_bytes,
)

if TYPE_CHECKING:
    from collections.abc import Sequence
    from types import TracebackType

TOOLS = {"mcopy": "mtools", "mdel": "mtools", "debugfs": "e2fsprogs"}
"""Program and the Debian package that has it."""

_SECTOR_BYTES = 512
_FAT_TYPES = frozenset({0x01, 0x04, 0x06, 0x0B, 0x0C, 0x0E})
_LINUX_TYPE = 0x83
_EXT_MAGIC = 0xEF53
_EXT_CLEAN = 0x1
_EXT_RECOVER = 0x4
"""EXT4_VALID_FS and EXT4_FEATURE_INCOMPAT_RECOVER, fs/ext4/ext4.h."""
_ABSENT = (b"File not found", b"is not a directory")
"""et_list entries EXT2_ET_FILE_NOT_FOUND and EXT2_ET_NO_DIRECTORY, lib/ext2fs/ext2_err.et."""
_PATH_SAFE = re.compile(r"[\w./ @:+-]*", re.ASCII)


@dataclass(frozen=True, slots=True, kw_only=True)
class Partition:
    """Where a volume lies in the image."""

    offset_bytes: int
    size_bytes: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Layout:
    """The two partitions of a Raspberry Pi OS card."""

    boot: Partition
    root: Partition


def read_layout(image: Path) -> Layout:
    """Find the boot and the root partition in the image's MBR.

    Raises:
        CardError: it is no image of a card, or a volume in it was not unmounted cleanly.
    """
    try:
        with image.open("rb") as file:
            sector = file.read(_SECTOR_BYTES)
    except OSError as err:
        raise CardError(f"read {image}: {err.strerror}; name a readable image file") from err
    if len(sector) < _SECTOR_BYTES or sector[510:] != b"\x55\xaa":
        raise CardError(
            f"read {image}: it has no partition table; name an unpacked image of Raspberry Pi OS"
        )
    boot = root = None
    for at in range(446, 510, 16):
        kind, start, sectors = struct.unpack("<4xB3xII", sector[at : at + 16])
        part = Partition(offset_bytes=start * _SECTOR_BYTES, size_bytes=sectors * _SECTOR_BYTES)
        if kind in _FAT_TYPES and boot is None:
            boot = part
        if kind == _LINUX_TYPE and root is None:
            root = part
    if boot is None or root is None:
        raise CardError(
            f"read {image}: it has no FAT and Linux partition in an MBR; "
            "name an image of Raspberry Pi OS"
        )
    layout = Layout(boot=boot, root=root)
    _check_clean(image, layout)
    return layout


def missing_tools() -> dict[str, str]:
    """Return the programs that ``ImageCard`` would need and cannot find, with their packages."""
    return {tool: package for tool, package in TOOLS.items() if _program(tool) is None}


def _program(name: str) -> str | None:
    path = os.environ.get("PATH", os.defpath)
    return shutil.which(name, path=f"{path}{os.pathsep}/usr/sbin{os.pathsep}/sbin")


def _check_clean(image: Path, layout: Layout) -> None:
    with image.open("rb") as file:
        file.seek(layout.boot.offset_bytes)
        fat = file.read(_SECTOR_BYTES)
        file.seek(layout.root.offset_bytes + 1024)
        ext = file.read(1024)
    # The state byte: fat_boot_sector, include/uapi/linux/msdos_fs.h; FAT32 has no 16-bit size.
    state = fat[0x41] if fat[0x16:0x18] == b"\0\0" else fat[0x25]
    if state & 1:
        raise CardError(
            f"read {image}: its boot partition was not unmounted cleanly; "
            "check it with fsck.vfat through `losetup -P`, then try again"
        )
    magic, ext_state = struct.unpack_from("<HH", ext, 0x38)
    (incompatible,) = struct.unpack_from("<I", ext, 0x60)
    if magic != _EXT_MAGIC:
        raise CardError(
            f"read {image}: its root partition is no ext4; only Raspberry Pi OS cards are known"
        )
    if incompatible & _EXT_RECOVER or not ext_state & _EXT_CLEAN:
        raise CardError(
            f"read {image}: its root partition was not unmounted cleanly; "
            "check it with e2fsck through `losetup -P`, then try again"
        )


def _free_bytes(image: Path, partition: Partition) -> int:
    """Read the free blocks from the superblock: s_free_blocks_count_lo/_hi, s_log_block_size."""
    with image.open("rb") as file:
        file.seek(partition.offset_bytes + 1024)
        block = file.read(1024)
    (low,), (high,) = struct.unpack_from("<I", block, 0x0C), struct.unpack_from("<I", block, 0x158)
    (log_size,) = struct.unpack_from("<I", block, 0x18)
    return int(((high << 32) + low) * (1024 << log_size))


class ImageCard:
    """Implements ``Card`` over an image file; a context manager.

    Args:
        image: the file; ``apply`` changes it in place, step by step.
    """

    def __init__(self, image: Path) -> None:
        self._image = image
        self._layout = read_layout(image)
        self._scratch = tempfile.TemporaryDirectory(prefix="otgctl-")
        # A name of our own: both tools read meaning into some characters of a file's name.
        alias = Path(self._scratch.name) / "card.img"
        alias.symlink_to(image.absolute())
        self._boot = f"{alias}@@{self._layout.boot.offset_bytes}"
        self._root = f"{alias}?offset={self._layout.root.offset_bytes}"

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._scratch.cleanup()

    def read(self, place: Place) -> Entry | None:
        """Return what lies at *place*, or None."""
        _check_path(place)
        return self._read_fat(place) if place.volume is Volume.BOOT else self._read_ext(place)

    def apply(self, changes: Sequence[Change]) -> None:
        """Carry out all changes and read every one back."""
        for change in changes:
            _check_path(change.place)
            _check_target(change)
        needed_bytes = room_needed_bytes(changes).get(Volume.ROOT, 0)
        free_bytes = _free_bytes(self._image, self._layout.root)
        if free_bytes < needed_bytes:
            raise CardError(
                f"write the root partition in {self._image}: {free_bytes} bytes are free and "
                f"{needed_bytes} are needed; make room in it, or resize it first"
            )
        for change in changes:
            if change.place.volume is Volume.BOOT:
                self._write_fat(change)
        self._write_ext([change for change in changes if change.place.volume is Volume.ROOT])
        for change in changes:
            gone = isinstance(change.before, Directory) and change.after is None
            if not gone and self.read(change.place) != change.after:
                raise CardError(
                    f"write {change.place} in {self._image}: it does not read back as written; "
                    "check the image with fsck and make room in it"
                )

    # --- boot: FAT through mtools

    def _read_fat(self, place: Place) -> File | None:
        done = self._run("mcopy", "-n", "-i", self._boot, f"::{place.path}", "-")
        if done.returncode == 0:
            return File(content=done.stdout)
        if b"not found" in done.stderr:
            return None
        raise self._failed(f"read {place}", done.stderr)

    def _write_fat(self, change: Change) -> None:
        target = f"::{change.place.path}"
        if isinstance(change.after, File):
            source = self._staged(change.after.content)
            done = self._run("mcopy", "-o", "-i", self._boot, str(source), target)
        elif change.after is None and change.before is not None:
            done = self._run("mdel", "-i", self._boot, target)
        else:
            raise CardError(f"write {change.place}: FAT holds files only; this is a bug in otgctl")
        if done.returncode != 0:
            raise self._failed(f"write {change.place}", done.stderr)

    # --- root: ext4 through debugfs, which exits 0 whatever happens and speaks on stderr

    def _read_ext(self, place: Place) -> Entry | None:
        status = self._ask(place, f'stat "/{place.path}"')
        if status is None:
            return None
        kind = _field(status, rb"Type: (\w+)")
        mode = int(_field(status, rb"Mode: +(\d+)"), 8)
        uid, gid = int(_field(status, rb"User: +(\d+)")), int(_field(status, rb"Group: +(\d+)"))
        match kind:
            case "directory":
                return Directory(mode=mode, uid=uid, gid=gid)
            case "regular":
                return File(content=self._dumped(place), mode=mode, uid=uid, gid=gid)
            case "symlink":
                fast = re.search(rb'Fast link dest: "(.*)"', status)
                return Link(target=os.fsdecode(fast[1] if fast else self._dumped(place)))
            case _:
                raise CardError(f"read {place}: it is neither file, link nor directory; remove it")

    def _dumped(self, place: Place) -> bytes:
        target = Path(self._scratch.name) / "dump"
        target.unlink(missing_ok=True)
        if self._ask(place, f'dump "/{place.path}" {target}') is None or not target.exists():
            raise CardError(f"read {place} in {self._image}: debugfs cannot read it; run e2fsck")
        return target.read_bytes()

    def _ask(self, place: Place, request: str) -> bytes | None:
        done = self._run("debugfs", "-R", request, self._root)
        complaint = _complaint(done.stderr)
        if any(absence in complaint for absence in _ABSENT):
            return None
        if done.returncode != 0 or complaint:
            raise self._failed(f"read {place}", complaint)
        return done.stdout

    def _write_ext(self, changes: Sequence[Change]) -> None:
        script = [line for change in changes for line in self._requests(change)]
        if not script:
            return
        commands = self._staged("\n".join([*script, ""]).encode())
        done = self._run("debugfs", "-w", "-f", str(commands), self._root)
        complaint = _complaint(done.stderr)
        if done.returncode != 0 or complaint:
            raise self._failed("write the root partition", complaint)

    def _requests(self, change: Change) -> list[str]:
        path = f"/{change.place.path}"
        pure = PurePosixPath(path)
        match change.after:
            case None:
                return [f'{"rmdir" if isinstance(change.before, Directory) else "rm"} "{path}"']
            case Directory(mode=mode, uid=uid, gid=gid):
                return [f'mkdir "{path}"', *_attributes(path, 0o040000 | mode, uid, gid)]
            case Link(target=target):
                removal = [f'rm "{path}"'] if change.before else []
                return [*removal, f'symlink "{path}" "{target}"']
            case File(content=content, mode=mode, uid=uid, gid=gid):
                removal = [f'rm "{path}"'] if change.before else []
                # write takes a slash in the target's name literally: change directory first;
                # the dot makes cd follow a parent that is a link.
                write = f'write {self._staged(content)} "{pure.name}"'
                attributes = _attributes(path, 0o100000 | mode, uid, gid)
                return [*removal, f'cd "{pure.parent}/."', write, "cd /", *attributes]

    # --- tools

    def _staged(self, content: bytes) -> Path:
        handle, name = tempfile.mkstemp(dir=self._scratch.name)
        with os.fdopen(handle, "wb") as file:
            file.write(content)
        return Path(name)

    def _run(self, tool: str, *arguments: str) -> subprocess.CompletedProcess[bytes]:
        program = _program(tool)
        if program is None:
            raise CardError(f"run {tool}: it is not installed; install the package {TOOLS[tool]}")
        environment = {**os.environ, "LC_ALL": "C", "MTOOLS_SKIP_CHECK": "1", "DEBUGFS_PAGER": ""}
        return subprocess.run(  # noqa: S603 - fixed programs, no shell, paths checked
            [program, *arguments],
            check=False,
            capture_output=True,
            stdin=subprocess.DEVNULL,
            env=environment,
        )

    def _failed(self, what: str, stderr: bytes) -> CardError:
        reason = " ".join(stderr.decode(errors="replace").split()) or "the tool says nothing"
        remedy = (
            "make room in it" if "full" in reason or "space" in reason else "check it with fsck"
        )
        return CardError(f"{what} in {self._image}: {reason}; {remedy}")


def _attributes(path: str, mode: int, uid: int, gid: int) -> list[str]:
    return [
        f'set_inode_field "{path}" mode 0{mode:o}',
        f'set_inode_field "{path}" uid {uid}',
        f'set_inode_field "{path}" gid {gid}',
    ]


def _field(status: bytes, pattern: bytes) -> str:
    match = re.search(pattern, status)
    if match is None:
        raise CardError("read debugfs stat: its output has another form; update e2fsprogs")
    return match[1].decode()


def _complaint(stderr: bytes) -> bytes:
    """What debugfs said apart from its banner; a directory that got other files may stay."""
    lines = stderr.split(b"\n")
    return b"\n".join(
        line
        for line in lines
        if line and not line.startswith(b"debugfs 1.") and b"directory not empty" not in line
    )


def _check_path(place: Place) -> None:
    """Refuse what could mean something else to a tool's own parser."""
    if not _PATH_SAFE.fullmatch(place.path):
        raise CardError(f"read {str(place)!a}: its name cannot be passed to debugfs; rename it")


def _check_target(change: Change) -> None:
    """Refuse a link that says more to debugfs than where it leads; undo takes it from the card."""
    if isinstance(change.after, Link) and not _PATH_SAFE.fullmatch(change.after.target):
        raise CardError(
            f"write {change.place}: the link's target {change.after.target!a} cannot be "
            "passed to debugfs; write the image to a card and use --root or --device"
        )
