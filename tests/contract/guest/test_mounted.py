"""Mounted cards that go wrong: full, read-only, hostile, cut off half-way."""

from __future__ import annotations

import os
import stat
from itertools import count
from typing import TYPE_CHECKING

import pytest

from otgd.guest.mounted import MountedCard, find_boot
from otgd.guest.tree import CardError, Change, Directory, File, Link, boot, root
from tests.contract.guest.conftest import lay_out
from tests.lab.namespaces import run
from tests.unit.guest.cards import golden_card, prepare, undo

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

POWER_CUT = 77


def mounted_card(top: Path) -> MountedCard:
    return MountedCard(boot=top / "boot", root=top / "root")


def contents(top: Path) -> dict[str, bytes | str]:
    """Return every file and link under *top*."""
    found: dict[str, bytes | str] = {}
    for path in sorted(top.rglob("*")):
        if path.is_symlink():
            found[str(path.relative_to(top))] = str(path.readlink())
        elif path.is_file():
            found[str(path.relative_to(top))] = path.read_bytes()
    return found


@pytest.mark.usefixtures("netns")
@pytest.mark.parametrize("volume", ["boot", "root"])
def test_full_card_is_refused_before_anything_is_written(tmp_path: Path, volume: str) -> None:
    (tmp_path / volume).mkdir()
    run("mount", "-t", "tmpfs", "-o", "size=200k", "none", str(tmp_path / volume))
    lay_out("buster", tmp_path)
    free_bytes = os.statvfs(tmp_path / volume).f_bavail * 4096
    (tmp_path / volume / "filler").write_bytes(b"x" * (free_bytes - 8192))
    held = contents(tmp_path)

    with pytest.raises(CardError, match=f"write .*/{volume}: .* bytes are free and .* are needed"):
        prepare(mounted_card(tmp_path))

    assert contents(tmp_path) == held


@pytest.mark.usefixtures("netns")
def test_card_that_fills_up_half_way_keeps_its_old_files(tmp_path: Path) -> None:
    (tmp_path / "root").mkdir()
    run("mount", "-t", "tmpfs", "-o", "nr_inodes=60", "none", str(tmp_path / "root"))
    lay_out("buster", tmp_path)
    status = os.statvfs(tmp_path / "root")
    for number in range(status.f_ffree - 3):
        (tmp_path / "root" / f"filler{number}").touch()
    held = contents(tmp_path)

    with pytest.raises(CardError, match="the card is full; make room"):
        prepare(mounted_card(tmp_path))

    assert contents(tmp_path) == held


@pytest.mark.usefixtures("netns")
@pytest.mark.parametrize("volume", ["boot", "root"])
def test_card_mounted_read_only_is_refused_with_the_cure(tmp_path: Path, volume: str) -> None:
    (tmp_path / volume).mkdir()
    run("mount", "-t", "tmpfs", "none", str(tmp_path / volume))
    lay_out("buster", tmp_path)
    run("mount", "-o", "remount,ro", str(tmp_path / volume))
    held = contents(tmp_path)

    with pytest.raises(CardError, match=f"/{volume} is mounted read-only; if the kernel did that"):
        prepare(mounted_card(tmp_path))

    assert contents(tmp_path) == held


def test_power_cut_leaves_each_file_old_or_new_and_the_next_run_finishes(tmp_path: Path) -> None:
    new = _contents_of_a_whole_run(tmp_path / "whole")

    for survived in count():
        top = tmp_path / str(survived)
        lay_out("trixie", top)
        old = contents(top)
        if not _power_is_cut(top, survived):
            break
        for name, content in contents(top).items():
            if not name.endswith(".otgd-new"):
                assert content in {old.get(name), new.get(name)}
        prepare(mounted_card(top))
        assert _but_manifest(contents(top)) == _but_manifest(new)
        undo(mounted_card(top))
        assert contents(top) == old

    assert survived > 2 * len(new.keys() - old.keys())


def _contents_of_a_whole_run(top: Path) -> dict[str, bytes | str]:
    lay_out("trixie", top)
    prepare(mounted_card(top))
    return contents(top)


def _but_manifest(files: dict[str, bytes | str]) -> dict[str, bytes | str]:
    """The order in it depends on the history."""
    return {name: content for name, content in files.items() if name != "boot/otgd-undo.json"}


def _power_is_cut(top: Path, survived: int) -> bool:
    """Prepare in a process that ends for good in the middle; False if it got to the end."""
    child = os.fork()
    if child == 0:
        _die_after(survived)
        prepare(mounted_card(top))
        os._exit(0)
    _, status = os.waitpid(child, 0)
    code = os.waitstatus_to_exitcode(status)
    assert code in {0, POWER_CUT}
    return code == POWER_CUT


def _die_after(survived: int) -> None:
    """End this process at the next rename or fsync after *survived* of them."""
    steps = iter(range(survived))

    def mortal(call: Callable[..., None]) -> Callable[..., None]:
        def dying(*args: object, **kwargs: object) -> None:
            if next(steps, None) is None:
                os._exit(POWER_CUT)
            call(*args, **kwargs)

        return dying

    os.replace = mortal(os.replace)
    os.fsync = mortal(os.fsync)


def test_link_that_leads_out_of_the_card_does_not_lead_to_the_host(tmp_path: Path) -> None:
    lay_out("buster", tmp_path)
    outside = tmp_path / "outside"
    outside.mkdir()
    (tmp_path / "root/etc/escape").symlink_to(outside)
    card = mounted_card(tmp_path)
    place = root("etc/escape/file")

    assert card.read(place) is None
    with pytest.raises(CardError):
        card.apply([Change(place=place, before=None, after=File(content=b"x"))])
    assert list(outside.iterdir()) == []


def test_links_in_a_circle_are_told(tmp_path: Path) -> None:
    lay_out("buster", tmp_path)
    (tmp_path / "root/a").symlink_to("b")
    (tmp_path / "root/b").symlink_to("a")

    with pytest.raises(CardError, match="read root:/a/file: Too many levels of symbolic links"):
        mounted_card(tmp_path).read(root("a/file"))


def test_pipe_in_place_of_a_file_is_told_and_not_waited_on(tmp_path: Path) -> None:
    lay_out("buster", tmp_path)
    (tmp_path / "boot/cmdline.txt").unlink()
    os.mkfifo(tmp_path / "boot/cmdline.txt")

    with pytest.raises(CardError, match=r"read boot:/cmdline.txt: it is neither file, link nor"):
        mounted_card(tmp_path).read(boot("cmdline.txt"))


@pytest.mark.parametrize("where", ["boot/firmware", "boot"])
def test_boot_volume_is_found_in_a_mounted_root(tmp_path: Path, where: str) -> None:
    (tmp_path / where).mkdir(parents=True)
    (tmp_path / where / "config.txt").touch()

    assert find_boot(tmp_path) == tmp_path / where


def test_root_without_its_boot_volume_asks_for_it(tmp_path: Path) -> None:
    with pytest.raises(CardError, match="mount the boot partition and name it with --boot"):
        find_boot(tmp_path)


def test_card_in_memory_and_mounted_card_end_up_the_same(tmp_path: Path) -> None:
    lay_out("bookworm", tmp_path)
    memory = golden_card("bookworm")

    assert prepare(mounted_card(tmp_path)) == prepare(memory)


def test_directory_is_not_made_of_what_a_link_leads_to(tmp_path: Path) -> None:
    lay_out("buster", tmp_path)
    outside = tmp_path / "outside"
    outside.mkdir(mode=0o700)
    link = tmp_path / "root/etc/escape"
    link.symlink_to(outside)
    change = Change(
        place=root("etc/escape"),
        before=Link(target=str(outside)),
        after=Directory(mode=0o777, uid=1234, gid=1234),
    )

    with pytest.raises(CardError, match=r"write root:/etc/escape: it is no directory.*; remove it"):
        mounted_card(tmp_path).apply([change])
    status = outside.stat()
    assert (stat.S_IMODE(status.st_mode), status.st_uid) == (0o700, os.geteuid())
    assert link.is_symlink()


def test_directory_that_is_there_gets_its_mode_and_owner(tmp_path: Path) -> None:
    lay_out("buster", tmp_path)
    place, wanted = root("etc"), Directory(mode=0o750, uid=1234, gid=1234)
    card = mounted_card(tmp_path)

    card.apply([Change(place=place, before=card.read(place), after=wanted)])

    assert card.read(place) == wanted


@pytest.mark.parametrize("slashes", ["/", "//", "///"])
def test_absolute_link_begins_at_the_top_of_the_card(tmp_path: Path, slashes: str) -> None:
    """POSIX, and so PurePosixPath, gives a path with two slashes a meaning of its own."""
    lay_out("buster", tmp_path)
    (tmp_path / "outside").mkdir()
    (tmp_path / "outside/file").write_text("the host's")
    within = str(tmp_path / "outside").lstrip("/")
    (tmp_path / "root/etc/escape").symlink_to(slashes + within)
    (tmp_path / "root" / within).mkdir(parents=True)
    (tmp_path / "root" / within / "file").write_text("the card's")

    entry = mounted_card(tmp_path).read(root("etc/escape/file"))

    assert isinstance(entry, File)
    assert entry.content == b"the card's"


@pytest.mark.parametrize("linked", ["boot", "boot/config.txt"])
def test_boot_volume_is_not_found_outside_the_card(tmp_path: Path, linked: str) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "config.txt").touch()
    link = tmp_path / "root" / linked
    link.parent.mkdir(parents=True)
    link.symlink_to(outside / link.relative_to(tmp_path / "root/boot"))

    with pytest.raises(CardError, match="name it with --boot"):
        find_boot(tmp_path / "root")
