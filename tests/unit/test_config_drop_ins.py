"""Drop-ins beside the config: they add to it, and problems name the file that has them."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from otgd.config import load_config
from otgd.errors import ConfigError

if TYPE_CHECKING:
    from pathlib import Path

    from otgd.model import Config

MAIN = """\
[uplink]
interface = "eth0"

[gadget.ethusb1]
mac = "00:22:82:ff:ff:01"
subnet = "10.0.11.0/24"
"""
SECOND = """\
[gadget.ethusb2]
mac = "00:22:82:ff:ff:02"
subnet = "10.0.12.0/24"
"""
THIRD = """\
[gadget.ethusb3]
match = { port = "1-1.3" }
subnet = "10.0.13.0/24"
"""


@pytest.fixture
def main(tmp_path: Path) -> Path:
    file = tmp_path / "otgd.toml"
    file.write_text(MAIN)
    (tmp_path / "otgd.toml.d").mkdir()
    return file


def write(main: Path, **texts: str) -> None:
    for name, text in texts.items():
        (main.parent / "otgd.toml.d" / f"{name}.toml").write_text(text)


def names(config: Config) -> list[str]:
    return [spec.name for spec in config.desired.gadgets]


def problems(main: Path) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        load_config(main)
    return [str(problem).replace(f"{main.parent}/", "") for problem in caught.value.problems]


def test_drop_ins_add_gadgets_in_the_order_of_their_names(main: Path) -> None:
    write(main, b=SECOND.replace("ethusb2", "a3"), a="[service]\n", c="")
    assert names(load_config(main)) == ["ethusb1", "a3"]
    write(main, a=SECOND, b=THIRD)
    assert names(load_config(main)) == ["ethusb1", "ethusb2", "ethusb3"]


def test_drop_in_adds_keys_to_a_table_of_another_file(main: Path) -> None:
    write(main, a="[gadget.ethusb1]\nisolate = true\n[service]\nresync_s = 5\n")
    config = load_config(main)
    assert config.desired.gadgets[0].isolate
    assert (config.settings.resync_s, config.desired.uplink_policy.interfaces) == (5.0, ("eth0",))


def test_no_directory_is_fine(main: Path) -> None:
    (main.parent / "otgd.toml.d").rmdir()
    assert names(load_config(main)) == ["ethusb1"]


@pytest.mark.parametrize("name", ["a.toml.bak", ".a.toml", "README", "a.toml~"])
def test_other_files_are_not_read(main: Path, name: str) -> None:
    (main.parent / "otgd.toml.d" / name).write_text("no TOML")
    assert names(load_config(main)) == ["ethusb1"]


def test_what_two_files_say_is_refused_with_both_places(main: Path) -> None:
    write(main, a='[uplink]\ninterface = "eth0"\n', b="gadget = 5\n")
    assert problems(main) == [
        "otgd.toml.d/a.toml:2: uplink.interface: is there already, in otgd.toml:2; "
        "remove one of them",
        "otgd.toml.d/b.toml:1: gadget: is there already, in otgd.toml:4; remove one of them",
    ]


def test_conflict_between_files_names_both(main: Path) -> None:
    write(main, a=SECOND.replace("ff:02", "ff:01").replace("10.0.12.0", "10.0.11.0"))
    assert problems(main) == [
        'otgd.toml.d/a.toml:2: gadget.ethusb2.mac: "00:22:82:ff:ff:01" is also the mac of ethusb1 '
        '(otgd.toml:5); write "00:22:82:ff:ff:02", here and as g_ether.host_addr of the gadget',
        'otgd.toml.d/a.toml:3: gadget.ethusb2.subnet: "10.0.11.0/24" overlaps 10.0.11.0/24 of '
        'ethusb1 (otgd.toml:6); write "10.0.12.0/24"',
    ]


def test_every_problem_of_every_file_is_told_at_once(main: Path) -> None:
    main.write_text(MAIN + "colour = 5\n")
    write(main, a=SECOND + "colour = 5\n", b="[service]\nresync_s = 0\n")
    assert [problem.partition(": ")[0] for problem in problems(main)] == [
        "otgd.toml:7",
        "otgd.toml.d/a.toml:4",
        "otgd.toml.d/b.toml:2",
    ]


def test_all_files_that_are_no_toml_are_told(main: Path) -> None:
    write(main, a="[", b=SECOND, c="x = = 5")
    assert [problem.partition(": ")[0] for problem in problems(main)] == [
        "otgd.toml.d/a.toml:1",
        "otgd.toml.d/c.toml:1",
    ]


def test_what_cannot_be_read_is_told(main: Path) -> None:
    (main.parent / "otgd.toml.d/a.toml").mkdir()
    (main.parent / "otgd.toml.d/b.toml").write_bytes(b"\xff")
    main.unlink()
    assert problems(main) == [
        "otgd.toml: cannot be read: No such file or directory; "
        "write the file, or name another one with --config",
        "otgd.toml.d/a.toml: cannot be read: Is a directory; name a file",
        "otgd.toml.d/b.toml:1: is not UTF-8 text; save the file as UTF-8",
    ]


def test_directory_that_cannot_be_read_is_told(main: Path) -> None:
    directory = main.parent / "otgd.toml.d"
    directory.rmdir()
    directory.symlink_to(directory.name)  # a ring, which not even root can follow
    assert problems(main) == [
        "otgd.toml.d: cannot be read: Too many levels of symbolic links; "
        "make the file readable, or name another one with --config"
    ]


def test_file_in_the_directorys_place_is_no_directory(main: Path) -> None:
    directory = main.parent / "otgd.toml.d"
    directory.rmdir()
    directory.write_text("")
    assert names(load_config(main)) == ["ethusb1"]
