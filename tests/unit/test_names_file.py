"""The list from which udev learns the gadgets' names."""

from __future__ import annotations

from ipaddress import IPv4Address, IPv4Interface
from typing import TYPE_CHECKING

import pytest

from otgd.adapters.names_file import NamesFile
from otgd.errors import PermanentError
from otgd.model import DesiredState, GadgetSpec

if TYPE_CHECKING:
    from pathlib import Path


def desired(*numbers: int) -> DesiredState:
    gadgets = tuple(
        GadgetSpec(
            name=f"ethusb{n}",
            mac=f"00:22:82:ff:ff:0{n}",
            host=IPv4Interface(f"10.0.1{n}.1/24"),
            guest=IPv4Address(f"10.0.1{n}.2"),
        )
        for n in numbers
    )
    return DesiredState(gadgets=gadgets, drivers=frozenset({"cdc_ncm", "cdc_ether"}))


def test_it_has_a_line_for_each_gadget(tmp_path: Path) -> None:
    NamesFile(tmp_path).write(desired(1, 2))

    assert (tmp_path / "names.new").read_text() == (
        "00:22:82:ff:ff:01 ethusb1 cdc_ether,cdc_ncm\n00:22:82:ff:ff:02 ethusb2 cdc_ether,cdc_ncm\n"
    )
    assert (tmp_path / "names.new").stat().st_mode & 0o777 == 0o644


@pytest.mark.parametrize("taken", [False, True], ids=["waiting", "taken"])
def test_a_list_that_is_right_is_not_touched(tmp_path: Path, *, taken: bool) -> None:
    """Its existence makes otgd-names.service run and udev look at links again."""
    names = NamesFile(tmp_path)
    names.write(desired(1))
    path = tmp_path / "names.new"
    if taken:
        path = path.rename(tmp_path / "names")
    before = path.stat()

    names.write(desired(1))

    assert path.stat() == before
    assert list(tmp_path.iterdir()) == [path]


def test_a_list_that_nobody_took_yet_is_replaced_whole(tmp_path: Path) -> None:
    names = NamesFile(tmp_path)
    names.write(desired(1, 2))

    names.write(desired(2))

    line = "00:22:82:ff:ff:02 ethusb2 cdc_ether,cdc_ncm\n"
    assert (tmp_path / "names.new").read_text() == line
    assert [path.name for path in tmp_path.iterdir()] == ["names.new"]


def test_a_change_back_to_what_was_taken_is_left_too(tmp_path: Path) -> None:
    names = NamesFile(tmp_path)
    names.write(desired(1))
    (tmp_path / "names.new").rename(tmp_path / "names")
    names.write(desired(2))

    names.write(desired(1))

    assert (tmp_path / "names.new").read_text() == (tmp_path / "names").read_text()


def test_a_directory_that_is_gone_is_told(tmp_path: Path) -> None:
    with pytest.raises(PermanentError, match=r"write .*/names\.new: No such file or directory"):
        NamesFile(tmp_path / "gone").write(desired(1))
