"""Opens cards: directories as they are, images by way of a copy, devices by way of mounts.

What is opened here is closed here, mounts included, whatever happens in between.
"""

from __future__ import annotations

import fcntl
import lzma
import os
import shutil
import subprocess
import tempfile
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from otgd.guest.image import ImageCard, Layout, missing_tools, read_layout
from otgd.guest.mounted import MountedCard
from otgd.guest.tree import CardError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from otgd.guest.tree import Card

    Progress = Callable[[int], None]
    """Told how many bytes of the source were copied since the last call."""

_CHUNK_BYTES = 4 * 1024 * 1024
_ACCESS = {True: "ro", False: "rw"}
_FICLONE = 0x40049409
"""include/uapi/linux/fs.h: share the source's blocks, where the file system can (btrfs, xfs)."""


def is_packed(image: Path) -> bool:
    """Tell whether *image* is compressed (.img.xz, as Raspberry Pi OS comes)."""
    return image.suffix == ".xz"


@contextmanager
def edited_copy(source: Path, target: Path, progress: Progress) -> Iterator[Card]:
    """Yield a card over a copy of *source*; left without an error, the copy becomes *target*.

    *target* may be *source* itself: at each moment it is the old image or the new one.

    Raises:
        CardError: the copy cannot be made or opened.
    """
    temporary = target.with_name(f".{target.name}.otgd-new")
    try:
        _copy(source, temporary, progress)
        with opened(temporary) as card:
            yield card
        with temporary.open("rb") as file:
            os.fsync(file.fileno())
        temporary.replace(target)
    except OSError as err:
        raise CardError(
            f"write {target}: {err.strerror}; an image as large as {source.name} must fit there"
        ) from err
    finally:
        temporary.unlink(missing_ok=True)


@contextmanager
def unpacked(image: Path, folder: Path | None, progress: Progress) -> Iterator[Path]:
    """Yield the plain image: *image* itself, or for the while an unpacked copy in *folder*."""
    if not is_packed(image):
        yield image
        return
    with tempfile.TemporaryDirectory(prefix=".otgctl-", dir=folder) as scratch:
        plain = Path(scratch) / image.stem
        _copy(image, plain, progress)
        yield plain


@contextmanager
def opened(image: Path, *, read_only: bool = False) -> Iterator[Card]:
    """Yield the card in a plain image: without root by mtools and debugfs, else loop-mounted."""
    missing = missing_tools()
    if not missing:
        with ImageCard(image) as card:
            yield card
        return
    if os.geteuid() != 0:
        packages = " and ".join(sorted(set(missing.values())))
        raise CardError(f"open {image}: install {packages}, or run otgctl as root to mount it")
    with loop_mounted(image, read_layout(image), read_only=read_only) as card:
        yield card


@contextmanager
def loop_mounted(image: Path, layout: Layout, *, read_only: bool = False) -> Iterator[Card]:
    """Yield the card in *image* with its volumes mounted for the while."""
    mounts = [
        (
            str(image),
            f"{_ACCESS[read_only]},loop,offset={part.offset_bytes},sizelimit={part.size_bytes}",
        )
        for part in (layout.boot, layout.root)
    ]
    with _mounted(mounts) as (boot, root):
        yield MountedCard(boot=boot, root=root)


@contextmanager
def device_mounted(partitions: tuple[Path, Path], *, read_only: bool = False) -> Iterator[Card]:
    """Yield the card in a device's boot and root partition, mounted for the while."""
    mounts = [(str(partition), _ACCESS[read_only]) for partition in partitions]
    with _mounted(mounts) as (boot, root):
        yield MountedCard(boot=boot, root=root)


@contextmanager
def _mounted(sources: list[tuple[str, str]]) -> Iterator[list[Path]]:
    points: list[Path] = []
    with ExitStack() as stack:
        for source, options in sources:
            # Only ever rmdir: a recursive removal would empty a card that did not unmount.
            points.append(Path(tempfile.mkdtemp(prefix="otgctl-")))
            stack.callback(points[-1].rmdir)
            _run("mount", "-o", f"nosuid,nodev,noexec,{options}", source, str(points[-1]))
            stack.callback(_run, "umount", str(points[-1]))
        yield points


def _run(tool: str, *arguments: str) -> None:
    program = shutil.which(tool)
    if program is None:
        raise CardError(f"run {tool}: it is not installed; install the package mount")
    done = subprocess.run(  # noqa: S603 - fixed programs, no shell
        [program, *arguments], check=False, capture_output=True, text=True
    )
    if done.returncode != 0:
        raise CardError(
            f"{tool} {arguments[-2] if tool == 'mount' else arguments[-1]}: {done.stderr.strip()}; "
            "run otgctl as root, and check the card with fsck"
        )


def _copy(source: Path, target: Path, progress: Progress) -> None:
    """Copy or unpack *source*; runs of zeros become holes."""
    try:
        with source.open("rb") as packed, target.open("wb") as copy:
            shutil.copymode(source, target)
            if is_packed(source):
                with lzma.open(packed) as plain:
                    _pour(plain.read, copy.fileno(), packed.tell, progress)
            elif _cloned(packed.fileno(), copy.fileno()):
                progress(source.stat().st_size)
            else:
                _pour(packed.read, copy.fileno(), packed.tell, progress)
    except (lzma.LZMAError, EOFError) as err:
        raise CardError(f"unpack {source}: {err}; the file is damaged, fetch it again") from err
    except OSError as err:
        raise CardError(
            f"copy {source} to {target}: {err.strerror}; the unpacked image must fit there"
        ) from err


def _cloned(source: int, target: int) -> bool:
    try:
        fcntl.ioctl(target, _FICLONE, source)
    except OSError:
        return False
    return True


def _pour(
    read: Callable[[int], bytes], target: int, position: Callable[[], int], progress: Progress
) -> None:
    at = told = 0
    while chunk := read(_CHUNK_BYTES):
        if chunk.strip(b"\0"):
            view = memoryview(chunk)
            offset = at
            while view:
                written = os.pwrite(target, view, offset)
                view, offset = view[written:], offset + written
        at += len(chunk)
        progress(position() - told)
        told = position()
    os.ftruncate(target, at)
