"""The list from which udev learns the gadgets' names."""

from __future__ import annotations

from dataclasses import replace
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


LINE_1 = "00:22:82:ff:ff:01 ethusb1 cdc_ether,cdc_ncm\n"
LINE_2 = "00:22:82:ff:ff:02 ethusb2 cdc_ether,cdc_ncm\n"


def names_in(directory: Path) -> dict[str, str]:
    return {path.name: path.read_text() for path in directory.iterdir()}


def test_a_new_list_has_a_line_for_each_gadget(tmp_path: Path) -> None:
    NamesFile(tmp_path).write(desired(1, 2))

    assert names_in(tmp_path) == {"names.new": LINE_1 + LINE_2}
    assert (tmp_path / "names.new").stat().st_mode & 0o777 == 0o644


def test_other_signs_are_listed_beside_the_mac(tmp_path: Path) -> None:
    spec = desired(1).gadgets[0]
    known = (
        replace(spec, serial="d4c3b2a1", port="1-1.2"),
        replace(spec, name="ethusb2", mac=None, serial="a*b", port="1-1.3"),  # udev would glob it
    )

    NamesFile(tmp_path).write(replace(desired(), gadgets=known))

    assert (tmp_path / "names.new").read_text().splitlines() == [
        "00:22:82:ff:ff:01 ethusb1 cdc_ether,cdc_ncm",
        "serial=d4c3b2a1 ethusb1 cdc_ether,cdc_ncm",
        "port=1-1.2 ethusb1 cdc_ether,cdc_ncm",
        "port=1-1.3 ethusb2 cdc_ether,cdc_ncm",
    ]


@pytest.mark.parametrize("name", ["names", "names.new"])
def test_a_list_that_is_known_is_not_told_again(tmp_path: Path, name: str) -> None:
    """It would make otgd-names.service run and udev look at links again."""
    (tmp_path / name).write_text(LINE_1)

    NamesFile(tmp_path).write(desired(1))

    assert names_in(tmp_path) == {name: LINE_1}


def test_what_is_told_last_counts(tmp_path: Path) -> None:
    """The config was changed and changed back before the helper had time to run."""
    (tmp_path / "names").write_text(LINE_1)
    (tmp_path / "names.new").write_text(LINE_2)

    NamesFile(tmp_path).write(desired(1))

    assert names_in(tmp_path) == {"names": LINE_1, "names.new": LINE_1}


def test_no_gadgets_any_more_is_told_too(tmp_path: Path) -> None:
    (tmp_path / "names").write_text(LINE_1)

    NamesFile(tmp_path).write(desired())

    assert names_in(tmp_path) == {"names": LINE_1, "names.new": ""}


def test_a_directory_that_is_gone_is_told(tmp_path: Path) -> None:
    with pytest.raises(PermanentError, match=r"write .*/names\.new: No such file or directory"):
        NamesFile(tmp_path / "gone").write(desired(1))
