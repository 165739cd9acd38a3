"""Undo after the card was used: our part goes, the first boot's and the owner's changes stay."""

from __future__ import annotations

import json

import pytest

from otgd.guest.tree import CardError, File, Place, Tree, boot, root
from otgd.guest.undo import MANIFEST, read_record
from tests.unit.guest.cards import MemoryCard, golden_card, prepare, undo

CMDLINE = boot("cmdline.txt")
CONFIG = boot("config.txt")
HOSTNAME = root("etc/hostname")


def rewrite(card: MemoryCard, place: Place, old: str, new: str) -> None:
    entry = card.read(place)
    assert isinstance(entry, File)
    assert old in entry.text
    card.entries[place] = entry.with_text(entry.text.replace(old, new))


def text(card: MemoryCard, place: Place) -> str:
    entry = card.read(place)
    assert isinstance(entry, File)
    return entry.text


def test_cmdline_after_the_first_boot_still_boots() -> None:
    card = golden_card("trixie")
    prepare(card)
    rewrite(card, CMDLINE, " resize", "")
    rewrite(card, CMDLINE, "PARTUUID=8a438930-02", "PARTUUID=12345678-02")

    undo(card)

    assert text(card, CMDLINE) == (
        "console=serial0,115200 console=tty1 root=PARTUUID=12345678-02 rootfstype=ext4 "
        "fsck.repair=yes rootwait ds=nocloud;i=rpi-imager-1764000000000\n"
    )


def test_lines_that_the_owner_appended_to_config_txt_stay() -> None:
    card = golden_card("buster")
    before = text(card, CONFIG)
    prepare(card)
    card.entries[CONFIG] = File(content=(text(card, CONFIG) + "enable_uart=1\n").encode())

    undo(card)

    assert text(card, CONFIG) == before + "enable_uart=1\n"


def test_file_of_ours_that_the_owner_emptied_out_is_gone() -> None:
    card = golden_card("bookworm")
    prepare(card)
    profile = root("etc/NetworkManager/system-connections/otgd-usb0.nmconnection")
    del card.entries[profile]

    undo(card)

    assert card.read(profile) is None


def test_hostname_that_the_owner_changed_is_not_lost_unasked() -> None:
    card = golden_card("buster")
    prepare(card)
    card.entries[HOSTNAME] = File(content=b"attic\n")
    held = dict(card.entries)

    with pytest.raises(CardError, match=r"undo root:/etc/hostname: it was changed after.*--force"):
        undo(card)
    assert card.entries == held

    undo(card, force=True)
    assert text(card, HOSTNAME) == "raspberrypi\n"


def test_card_that_was_never_prepared_has_nothing_to_undo() -> None:
    with pytest.raises(CardError, match="this card was not prepared by otgctl"):
        undo(golden_card("buster"))


def test_bytes_that_are_no_utf8_come_back() -> None:
    card = golden_card("buster")
    held = File(content=b"# \xff\xfe caf\xe9\r\n" + text(card, CONFIG).encode())
    card.entries[CONFIG] = held

    prepare(card)
    undo(card)

    assert card.read(CONFIG) == held


@pytest.mark.parametrize(
    "content",
    [
        pytest.param(b"{", id="cut off"),
        pytest.param(b"[]", id="other shape"),
        pytest.param(b'{"version": 1, "changes": [{"volume": "boot"}]}', id="missing keys"),
        pytest.param(
            b'{"version": 1, "changes": [{"volume": "root", "path": "../../etc/passwd",'
            b' "before": null, "after": null}]}',
            id="leads out of the card",
        ),
    ],
)
def test_damaged_manifest_is_told_and_nothing_is_touched(content: bytes) -> None:
    card = golden_card("buster")
    prepare(card)
    card.entries[MANIFEST] = File(content=content)
    held = dict(card.entries)

    with pytest.raises(CardError, match=r"read boot:/otgd-undo.json: it is damaged"):
        undo(card)
    assert card.entries == held


def test_manifest_of_a_later_format_is_refused() -> None:
    card = golden_card("buster")
    card.entries[MANIFEST] = File(content=json.dumps({"version": 2}).encode())

    with pytest.raises(CardError, match="format 2; use the otgctl that wrote it"):
        prepare(card)


FILE = {"text": "", "mode": "0644", "uid": 0, "gid": 0}
FOLDER = {"directory": "0755", "uid": 0, "gid": 0}


@pytest.mark.parametrize(
    ("path", "before"),
    [
        pytest.param("etc/x", {"link": 'x"\ndump "/evil" /tmp/victim\nln "'}, id="link, newline"),
        pytest.param("etc/x", {"link": "x\x9b31m"}, id="link, C1"),
        pytest.param("etc/x", {"link": "\ud800"}, id="link, no name at all"),
        pytest.param("etc/x", {"link": ["x"]}, id="link, no text"),
        pytest.param("etc/x\ndump", None, id="path, newline"),
        pytest.param("etc/x\0", None, id="path, NUL"),
        pytest.param("", FOLDER, id="path, the top"),
        pytest.param("./", FILE, id="path, the top in other words"),
        pytest.param(7, None, id="path, no text"),
        pytest.param("etc/x", FILE | {"text": 7}, id="content, no text"),
        pytest.param("etc/x", FILE | {"mode": "100000"}, id="mode, too high"),
        pytest.param("etc/x", FOLDER | {"directory": "-1"}, id="mode, negative"),
        pytest.param("etc/x", FOLDER | {"uid": -1}, id="owner, none"),
        pytest.param("etc/x", FOLDER | {"gid": 1e400}, id="owner, infinite"),
    ],
)
def test_what_no_card_of_ours_holds_is_damage(path: object, before: object) -> None:
    change = {"volume": "root", "path": path, "before": before, "after": None}
    manifest = json.dumps({"version": 1, "changes": [change]})

    with pytest.raises(CardError, match=r"read boot:/otgd-undo.json: it is damaged") as told:
        read_record(Tree({MANIFEST: File(content=manifest.encode())}))
    assert str(told.value).isprintable()
