"""One contract for every card: in memory, mounted, and an image edited by mtools and debugfs."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from otgd.guest.image import ImageCard
from otgd.guest.mounted import MountedCard
from otgd.guest.plan import diff
from otgd.guest.tree import (
    CardError,
    Change,
    Directory,
    Entry,
    File,
    Link,
    Place,
    Volume,
    boot,
    root,
)
from tests.contract.guest.conftest import check_image, lay_out
from tests.unit.guest.cards import GOLDEN, RELEASES, MemoryCard, golden_entries, prepare, undo

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from otgd.guest.tree import Card

    Opener = Callable[[str], Card]


@pytest.fixture(params=["memory", "mounted", "image"])
def open_card(
    request: pytest.FixtureRequest, tmp_path: Path, fresh_image: Callable[[str], Path]
) -> Iterator[Opener]:
    """Yield what opens a fresh card of a release."""
    opened: list[ImageCard] = []
    images: list[Path] = []

    def memory(release: str) -> Card:
        return MemoryCard(golden_entries(release))

    def mounted(release: str) -> Card:
        lay_out(release, tmp_path)
        return MountedCard(boot=tmp_path / "boot", root=tmp_path / "root")

    def image(release: str) -> Card:
        images.append(fresh_image(release))
        opened.append(ImageCard(images[-1]))
        return opened[-1]

    yield {"memory": memory, "mounted": mounted, "image": image}[request.param]
    for card in opened:
        card.__exit__(None, None, None)
    for path in images:
        check_image(path)


def apply(card: Card, place: Place, after: Entry | None) -> None:
    card.apply([Change(place=place, before=card.read(place), after=after)])


@pytest.mark.parametrize("release", RELEASES)
def test_golden_tree_reads_as_it_was_laid_out(open_card: Opener, release: str) -> None:
    card = open_card(release)
    entries = golden_entries(release)

    assert {place: card.read(place) for place in entries} == entries


@pytest.mark.parametrize("release", RELEASES)
def test_golden_card_changes_as_expected_once_and_back(open_card: Opener, release: str) -> None:
    card = open_card(release)
    entries = golden_entries(release)

    plan = prepare(card)
    assert diff(plan.changes) == (GOLDEN / release / "expected.diff").read_text()
    assert prepare(card).changes == ()

    undo(card)
    left = {*entries, *(change.place for change in plan.changes), boot("otgd-undo.json")}
    assert {place: card.read(place) for place in left} == {
        place: entries.get(place) for place in left
    }


@pytest.mark.parametrize(
    "place",
    [root("etc/nothing"), root("nowhere/at/all"), root("etc/hostname/below"), boot("nothing.txt")],
    ids=str,
)
def test_what_is_not_there_is_none(open_card: Opener, place: Place) -> None:
    assert open_card("buster").read(place) is None


@pytest.mark.parametrize(
    ("place", "entry"),
    [
        pytest.param(root("etc/new"), File(content=b""), id="empty file"),
        pytest.param(root("etc/hostname"), File(content=b"x" * 100_000), id="large file"),
        pytest.param(
            root("etc/secret"), File(content=b"\0\xff", mode=0o600, uid=1000, gid=7), id="private"
        ),
        pytest.param(root("etc/hostname"), File(content=b"", mode=0o4755), id="setuid"),
        pytest.param(root("etc/link"), Link(target="/dev/null"), id="link"),
        pytest.param(root("etc/hostname"), Link(target="../x"), id="file becomes link"),
        pytest.param(root("etc/os-release"), File(content=b"x"), id="link becomes file"),
        pytest.param(root("etc/a b@c.conf"), File(content=b"x"), id="blank in the name"),
        pytest.param(root("etc/dir"), Directory(mode=0o700, uid=1000, gid=1000), id="directory"),
        pytest.param(root("lib/new"), File(content=b"x"), id="through a link"),
        pytest.param(boot("config.txt"), File(content=b"x"), id="FAT file"),
        pytest.param(boot("a longer name.txt"), File(content=b"\r\n"), id="FAT long name"),
        pytest.param(root("etc/hostname"), None, id="removed"),
        pytest.param(root("etc/os-release"), None, id="link removed"),
        pytest.param(boot("config.txt"), None, id="FAT file removed"),
    ],
)
def test_what_is_written_is_read(open_card: Opener, place: Place, entry: Entry | None) -> None:
    card = open_card("buster")

    apply(card, place, entry)

    assert card.read(place) == entry


def test_link_to_a_directory_is_followed_inside_the_card(open_card: Opener) -> None:
    card = open_card("buster")
    apply(card, root("etc/absolute"), Link(target="/usr/lib"))
    apply(card, root("etc/upward"), Link(target="../../../../usr/lib"))
    unit = root("usr/lib/systemd/system/ssh.service")

    for way in ("lib", "etc/absolute", "etc/upward"):
        assert card.read(root(f"{way}/systemd/system/ssh.service")) == card.read(unit)


def test_directory_with_files_of_others_survives_its_removal(open_card: Opener) -> None:
    card = open_card("buster")
    apply(card, root("etc/dir"), Directory())
    apply(card, root("etc/dir/theirs"), File(content=b"x"))

    apply(card, root("etc/dir"), None)

    assert card.read(root("etc/dir/theirs")) == File(content=b"x")


def test_empty_directory_is_removed(open_card: Opener) -> None:
    card = open_card("buster")
    apply(card, root("etc/dir"), Directory())

    apply(card, root("etc/dir"), None)

    assert card.read(root("etc/dir")) is None


def test_directory_and_file_in_it_come_in_one_go(open_card: Opener) -> None:
    card = open_card("buster")
    inside = root("etc/dir/file")

    card.apply(
        [
            Change(place=root("etc/dir"), before=None, after=Directory(mode=0o750)),
            Change(place=inside, before=None, after=File(content=b"x")),
        ]
    )

    assert card.read(root("etc/dir")) == Directory(mode=0o750)
    assert card.read(inside) == File(content=b"x")


def test_volumes_do_not_mix(open_card: Opener) -> None:
    card = open_card("buster")

    assert card.read(Place(Volume.ROOT, "config.txt")) is None
    assert card.read(Place(Volume.BOOT, "hostname")) is None


@pytest.mark.parametrize("field", ["target", "path"])
def test_words_to_debugfs_are_refused_before_anything_is_written(
    fresh_image: Callable[[str], Path], tmp_path: Path, field: str
) -> None:
    """A manifest on somebody's card could have debugfs write to files of the host."""
    image, victim = fresh_image("buster"), tmp_path / "victim"
    victim.write_text("mine")
    words = f'x"\ndump "/etc/hostname" {victim}\nln "'
    place = root("etc/link" if field == "target" else f"etc/{words}")
    link = Link(target=words if field == "target" else "x")
    with ImageCard(image) as card:
        held = image.read_bytes()
        with pytest.raises(CardError, match="cannot be passed to debugfs") as refusal:
            card.apply(
                [
                    Change(place=boot("new.txt"), before=None, after=File(content=b"x")),
                    Change(place=place, before=None, after=link),
                ]
            )
    assert str(refusal.value).isprintable()
    assert image.read_bytes() == held
    assert victim.read_text() == "mine"
