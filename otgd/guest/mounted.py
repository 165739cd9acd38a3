"""A card whose two volumes are mounted as directories.

Symbolic links are followed as the guest would follow them: an absolute one begins at the card's
own top, ``..`` stops there. Nothing of the host is ever read or written through a link.
"""

from __future__ import annotations

import errno
import os
import stat
from contextlib import suppress
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING

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
    from collections.abc import Iterable, Mapping, Sequence

_MAX_LINKS = 40
"""MAXSYMLINKS of the kernel's namei."""


class MountedCard:
    """Implements ``Card`` over directories.

    Args:
        boot: where the boot volume is mounted.
        root: where the root volume is mounted.
    """

    def __init__(self, *, boot: Path, root: Path) -> None:
        self._tops: Mapping[Volume, Path] = {Volume.BOOT: boot, Volume.ROOT: root}

    def read(self, place: Place) -> Entry | None:
        """Return what lies at *place*, or None."""
        try:
            path = self._path(place)
            status = path.lstat()
        except (FileNotFoundError, NotADirectoryError):
            return None
        except OSError as err:
            raise CardError(f"read {place}: {err.strerror}; check the card's file system") from err
        return _entry(place, path, status)

    def apply(self, changes: Sequence[Change]) -> None:
        """Carry out all changes: write and fsync every new file beside the old, then rename all.

        A power cut leaves each file either old or new, and running again finishes the rest.
        """
        self._check_room(changes)
        staged: dict[Place, Path] = {}
        try:
            for change in changes:
                self._stage(change, staged)
            for change in changes:
                self._commit(change, staged.pop(change.place, None))
        except OSError as err:
            raise CardError(_explain(err, change.place, self._tops[change.place.volume])) from err
        finally:
            for left_over in staged.values():
                left_over.unlink(missing_ok=True)

    def _path(self, place: Place) -> Path:
        """Return the host's path of *place*, its parents resolved inside the card."""
        pure = PurePosixPath(place.path)
        return _resolved(self._tops[place.volume], *pure.parts[:-1]) / pure.name

    def _stage(self, change: Change, staged: dict[Place, Path]) -> None:
        path = self._path(change.place)
        temporary = path.with_name(f".{path.name}.otgd-new")
        owned = change.place.volume is Volume.ROOT
        match change.after:
            case Directory():
                _make_directory(change.place, path, change.after)
                _sync_directory(path.parent)
            case File():
                temporary.unlink(missing_ok=True)
                staged[change.place] = temporary
                _write(temporary, change.after, owned=owned)
            case Link():
                temporary.unlink(missing_ok=True)
                staged[change.place] = temporary
                temporary.symlink_to(change.after.target)
            case None:
                pass

    def _commit(self, change: Change, temporary: Path | None) -> None:
        path = self._path(change.place)
        if temporary is not None:
            temporary.replace(path)
        elif change.after is None:
            _remove(path)
        if path.parent.is_dir():
            _sync_directory(path.parent)

    def _check_room(self, changes: Iterable[Change]) -> None:
        """Refuse before the first write what cannot end well."""
        for volume, needed_bytes in room_needed_bytes(changes).items():
            top = self._tops[volume]
            status = os.statvfs(top)
            if status.f_flag & os.ST_RDONLY:
                raise CardError(_explain(OSError(errno.EROFS, ""), None, top))
            free_bytes = status.f_bavail * status.f_frsize
            if free_bytes < needed_bytes:
                raise CardError(
                    f"write {top}: {free_bytes} bytes are free and {needed_bytes} are needed; "
                    "make room on the card, nothing was changed"
                )


def find_boot(root: Path) -> Path:
    """Return where a mounted root has its boot volume: /boot/firmware, before Bookworm /boot."""
    for steps in (("boot", "firmware"), ("boot",)):
        candidate = _resolved(root, *steps)
        config = candidate / "config.txt"
        if config.is_file() and not config.is_symlink():
            return candidate
    raise CardError(
        f"read {root}/boot: neither /boot/firmware nor /boot holds a config.txt; "
        "mount the boot partition and name it with --boot"
    )


def _resolved(top: Path, *path: str) -> Path:
    """Follow every link on the way as the guest would, with *top* for its top."""
    steps = list(path)
    at: list[str] = []
    links = 0
    while steps:
        step = steps.pop(0)
        if step in {".", ".."}:
            at = at[:-1] if step == ".." else at
            continue
        reached = top.joinpath(*at, step)
        if not reached.is_symlink():
            at.append(step)
            continue
        links += 1
        if links > _MAX_LINKS:
            raise OSError(errno.ELOOP, os.strerror(errno.ELOOP), str(reached))
        target = PurePosixPath(reached.readlink())
        at = [] if target.is_absolute() else at
        # The first part of an absolute one is / or //, as POSIX has it.
        steps = [*(target.parts[1:] if target.is_absolute() else target.parts), *steps]
    return top.joinpath(*at)


def _entry(place: Place, path: Path, status: os.stat_result) -> Entry:
    owned = place.volume is Volume.ROOT
    mode = stat.S_IMODE(status.st_mode)
    if stat.S_ISLNK(status.st_mode):
        return Link(target=str(path.readlink()))
    if stat.S_ISDIR(status.st_mode):
        return Directory(mode=mode, uid=status.st_uid, gid=status.st_gid) if owned else Directory()
    if not stat.S_ISREG(status.st_mode):
        raise CardError(f"read {place}: it is neither file, link nor directory; remove it")
    try:
        content = path.read_bytes()
    except OSError as err:
        raise CardError(f"read {place}: {err.strerror}; run otgctl as root") from err
    if not owned:
        return File(content=content)
    return File(content=content, mode=mode, uid=status.st_uid, gid=status.st_gid)


def _write(path: Path, wanted: File, *, owned: bool) -> None:
    """Write a new file and make sure that it is on the card."""
    handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    with os.fdopen(handle, "wb") as file:
        file.write(wanted.content)
        if owned:
            os.fchmod(handle, wanted.mode)
            status = os.fstat(handle)
            if (status.st_uid, status.st_gid) != (wanted.uid, wanted.gid):
                os.fchown(handle, wanted.uid, wanted.gid)
        file.flush()
        os.fsync(handle)


def _make_directory(place: Place, path: Path, wanted: Directory) -> None:
    """Make the directory, or give the one that is there the mode and owner; follow no link."""
    with suppress(FileExistsError):
        path.mkdir(mode=wanted.mode)
    try:
        handle = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    except OSError as err:
        if err.errno not in {errno.ENOTDIR, errno.ELOOP}:
            raise
        raise CardError(f"write {place}: it is no directory, as it shall be; remove it") from err
    try:
        os.fchmod(handle, wanted.mode)
        status = os.fstat(handle)
        if (status.st_uid, status.st_gid) != (wanted.uid, wanted.gid):
            os.fchown(handle, wanted.uid, wanted.gid)
    finally:
        os.close(handle)


def _remove(path: Path) -> None:
    """Remove a file, a link, or a directory that nobody else has used since."""
    if path.is_symlink() or not path.is_dir():
        path.unlink(missing_ok=True)
        return
    try:
        path.rmdir()
    except OSError as err:
        if err.errno not in {errno.ENOTEMPTY, errno.EEXIST}:
            raise


def _sync_directory(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _explain(err: OSError, place: Place | None, top: Path) -> str:
    what = f"write {place}" if place else f"write {top}"
    match err.errno:
        case errno.EROFS:
            return (
                f"{what}: {top} is mounted read-only; if the kernel did that by itself, check the "
                "card with fsck, then mount it writable"
            )
        case errno.ENOSPC:
            return f"{what}: the card is full; make room on it and run otgctl prepare again"
        case errno.EPERM | errno.EACCES:
            return f"{what}: {os.strerror(err.errno)}; run otgctl as root"
        case _:
            return f"{what}: {err.strerror}; check the card's file system"
