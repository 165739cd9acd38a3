"""``otgctl check`` of a config that is fine; what is refused is in tests of the config."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

    from tests.unit.cli.conftest import Tool


def test_gadgets_are_listed(otgctl: Tool) -> None:
    said = otgctl("check")
    assert said.code == 0
    assert said.lines[0] == f"{otgctl.config_file} is fine: 2 gadgets, uplink auto, firewall auto"
    assert said.lines[-1].split() == [
        "ethusb2",
        "00:22:82:ff:ff:02",
        "-",
        "00:22:82:ff:ff:12",
        "10.0.12.0/24",
        "10.0.12.1",
        "10.0.12.2",
        "worker2",
        "yes",
    ]


def test_another_file_can_be_named(otgctl: Tool, tmp_path: Path) -> None:
    other = tmp_path / "other.toml"
    other.write_text(
        '[gadget.zero]\nmac = "00:22:82:ff:ff:01"\nsubnet = "10.9.9.0/30"\nmasquerade = false\n'
    )
    said = otgctl("check", str(other))
    assert said.lines[0] == f"{other} is fine: 1 gadget, uplink auto, firewall auto"
    assert said.lines[-1].split()[-1] == "no"


def test_drop_ins_are_checked_too(otgctl: Tool) -> None:
    directory = otgctl.directory / "otgd.toml.d"
    directory.mkdir()
    (directory / "a.toml").write_text("[gadget.ethusb2]\nisolate = true\n")
    assert otgctl("check").lines[0].startswith(f"{otgctl.config_file} and 1 drop-in are fine: ")
    (directory / "b.toml").write_text("")
    assert " and 2 drop-ins are fine: 2 gadgets" in otgctl("check").lines[0]
    (directory / "b.toml").write_text("colour = 5\n")
    said = otgctl("check")
    assert (said.code, said.err.startswith(f"{directory}/b.toml:1: colour: ")) == (78, True)


def test_missing_file_is_a_problem_of_the_config(otgctl: Tool, tmp_path: Path) -> None:
    said = otgctl("check", str(tmp_path / "none.toml"))
    assert said.code == 78
    assert "none.toml: cannot be read" in said.err
