"""The textfile for node_exporter: whole, for everybody, and gone with its path."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from otgd.adapters.textfile import Textfile
from otgd.errors import PermanentError
from tests.unit.cli.conftest import gadget, state

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture
def textfile(tmp_path: Path) -> Textfile:
    built = Textfile()
    built.path = str(tmp_path / "otgd.prom")
    return built


def test_it_tells_the_state_and_everybody_may_read_it(textfile: Textfile, tmp_path: Path) -> None:
    textfile.write(state(gadget()))
    file = tmp_path / "otgd.prom"
    assert file.stat().st_mode & 0o777 == 0o644
    assert 'otgd_gadget_state{gadget="ethusb1",state="configured"} 1\n' in file.read_text()
    assert list(tmp_path.iterdir()) == [file]


def test_at_the_end_it_tells_that_nothing_runs(textfile: Textfile, tmp_path: Path) -> None:
    textfile.write(state(gadget()))
    textfile.finish()
    lines = (tmp_path / "otgd.prom").read_text().splitlines()
    assert [line for line in lines if not line.startswith("#")] == ["otgd_up 0"]


def test_another_path_leaves_nothing_at_the_old_one(textfile: Textfile, tmp_path: Path) -> None:
    textfile.write(state())
    textfile.path = str(tmp_path / "new.prom")
    textfile.write(state())
    assert [file.name for file in tmp_path.iterdir()] == ["new.prom"]
    textfile.path = ""
    textfile.write(state())
    assert list(tmp_path.iterdir()) == []


def test_a_directory_that_is_not_there_is_told(textfile: Textfile, tmp_path: Path) -> None:
    textfile.path = str(tmp_path / "gone" / "otgd.prom")
    with pytest.raises(PermanentError, match=r"write .*/gone/otgd.prom: No such file"):
        textfile.write(state())
    textfile.finish()
