"""The helper that makes .link files of otgd's list: run as it is, with directories of its own."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.conftest import need

if TYPE_CHECKING:
    from collections.abc import Callable

SCRIPT = Path(__file__).parents[2] / "systemd/otgd-names"
LINE = "00:22:82:ff:ff:01 ethusb1 cdc_ether\n"
MOUNTED = 'mount --bind "$1" /var/lib && mount --bind "$2" /run && exec sh "$3"'
IN_NAMESPACE = ("timeout", "20", "unshare", "--mount", "sh", "-c", MOUNTED)


class Machine:
    """What the helper takes for /var/lib and /run."""

    def __init__(self, top: Path) -> None:
        self._directories = (top / "lib", top / "run")
        self.state = top / "lib/otgd"
        self.state.mkdir(parents=True)
        (top / "run").mkdir()

    def run_helper(self) -> str:
        """Run the helper to its end; return what it says."""
        done = subprocess.run(
            [*IN_NAMESPACE, "sh", *self._directories, SCRIPT],
            check=True,
            stdout=subprocess.PIPE,
            text=True,
        )
        return done.stdout

    @property
    def link_files(self) -> list[str]:
        found = (self._directories[1] / "systemd/network").glob("*.link")
        return sorted(path.name for path in found)


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    need(os.geteuid() == 0, "root, for mounts of its own")
    return Machine(tmp_path)


def test_a_new_list_is_put_in_force(machine: Machine) -> None:
    (machine.state / "names.new").write_text(LINE)

    assert machine.run_helper() == ""

    assert [path.name for path in machine.state.iterdir()] == ["names"]
    assert machine.link_files == ["70-otgd-ethusb1.link", "71-otgd-ethusb1.link"]


def _link_to_a_list(path: Path) -> None:
    (path.parents[2] / "list").write_text(LINE)
    path.symlink_to(path.parents[2] / "list")


@pytest.mark.parametrize("name", ["names", "names.new"])
@pytest.mark.parametrize("make", [os.mkfifo, _link_to_a_list], ids=["pipe", "link"])
def test_what_is_no_file_is_neither_waited_on_nor_followed(
    machine: Machine, name: str, make: Callable[[Path], None]
) -> None:
    """Whoever has taken otgd over shall not keep the machine from coming up."""
    make(machine.state / name)

    machine.run_helper()

    assert machine.link_files == []
    assert not os.path.lexists(machine.state / "names.new")  # it would start the helper again
