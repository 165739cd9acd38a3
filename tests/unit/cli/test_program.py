"""The guard around every command: exit codes, one line per trouble, no traceback."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from otgd import __version__
from otgd.cli import program
from otgd.errors import PermanentError
from tests.unit.cli.conftest import gadget, state

if TYPE_CHECKING:
    from tests.unit.cli.conftest import Tool

COMMANDS = [name for section in program.SECTIONS.values() for name in section]


def test_version(otgctl: Tool) -> None:
    said = otgctl("--version")
    assert (said.code, said.out) == (0, f"otgctl {__version__}\n")


def test_help_lists_every_command_with_examples(otgctl: Tool) -> None:
    said = otgctl("--help")
    assert said.code == 0
    assert "Examples:" in said.out
    for name in COMMANDS:
        assert f"\n  {name} " in said.out


@pytest.mark.parametrize("group", [(), ("swarm",)], ids=["otgctl", "swarm"])
def test_list_of_commands_breaks_no_sentence_off(
    otgctl: Tool, monkeypatch: pytest.MonkeyPatch, group: tuple[str, ...]
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    said = otgctl(*group, "--help")
    assert said.code == 0
    for line in said.out.rpartition("Options:")[2].splitlines():
        assert not line.endswith("..."), line


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_explains_itself_with_an_example(otgctl: Tool, name: str) -> None:
    said = otgctl(name, "--help")
    assert said.code == 0
    assert "\\b" not in said.out
    # Each on a line of its own; what comes before otgctl is sudo or a pipe.
    assert re.search(rf"^ +Examples:\n +.*otgctl {name}", said.out, re.MULTILINE), said.out


@pytest.mark.parametrize(
    "arguments",
    [
        pytest.param(("nonsense",), id="command"),
        pytest.param(("status", "--nonsense"), id="option"),
        pytest.param(("release", "a", "b"), id="argument"),
    ],
)
def test_wrong_usage_is_2(otgctl: Tool, arguments: tuple[str, ...]) -> None:
    said = otgctl(*arguments)
    assert said.code == 2
    assert "--help" in said.err


def test_bad_config_is_78_with_every_problem(otgctl: Tool) -> None:
    otgctl.write_config('[uplink]\ninterfce = "eth0"\n\n[firewall]\nbackend = "ipchains"\n')
    said = otgctl("check")
    assert said.code == 78
    first, second = said.err.splitlines()
    assert first.startswith(f"{otgctl.config_file}:2: uplink.interfce: ")
    assert second.startswith(f"{otgctl.config_file}:5: firewall.backend: ")
    assert said.out == ""


@pytest.mark.parametrize(
    ("error", "code", "line"),
    [
        pytest.param(PermanentError("no"), 1, "otgctl: no", id="OtgdError"),
        pytest.param(FileNotFoundError(2, "gone", "/x"), 1, "otgctl: /x: gone", id="OSError"),
        pytest.param(OSError("odd"), 1, "otgctl: odd", id="OSError without errno"),
        pytest.param(KeyError("k"), 1, "otgctl: this is a bug: KeyError: 'k' (", id="bug"),
        pytest.param(KeyboardInterrupt(), 130, "", id="interrupt"),
    ],
)
def test_trouble_is_one_line(
    otgctl: Tool,
    monkeypatch: pytest.MonkeyPatch,
    error: BaseException,
    code: int,
    line: str,
) -> None:
    otgctl.run_daemon(state(gadget()))

    def fail(_: object) -> None:
        raise error

    monkeypatch.setattr("otgd.cli.installation.Installation.told_state", fail)
    said = otgctl("status")
    assert said.code == code
    assert said.err.strip().startswith(line)
    assert len(said.err.strip().splitlines()) == (1 if line else 0)


@pytest.mark.parametrize("told", ["{}", '{"version": 2}', '{"version": 1, "gad', "[]"])
@pytest.mark.parametrize("command", ["status", "metrics", "show ethusb1", "wait ethusb1"])
def test_state_that_cannot_be_understood_comes_with_a_remedy(
    otgctl: Tool, command: str, told: str
) -> None:
    otgctl.run_daemon(state(gadget()))
    otgctl.daemon.path.write_text(told)
    said = otgctl(*command.split())
    assert (said.code, said.out) == (1, "")
    assert said.err.startswith(f"otgctl: read {otgctl.daemon.path}: ")
    assert said.err.endswith("; sudo systemctl restart otgd writes it anew\n")


@pytest.mark.parametrize("count", [pytest.param(1, id="little"), pytest.param(500, id="much")])
def test_reader_that_goes_away_is_no_trouble(otgctl: Tool, count: int) -> None:
    otgctl.run_daemon(state(*(gadget(f"ethusb{n}", reason="x" * 500) for n in range(count))))
    command = [sys.executable, "-m", "otgd.cli", "--runtime-dir", str(otgctl.daemon.directory)]
    reader, writer = os.pipe()
    os.close(reader)
    done = subprocess.run([*command, "status"], stdout=writer, stderr=subprocess.PIPE, check=False)
    os.close(writer)
    assert (done.returncode, done.stderr) == (1, b"")


@pytest.mark.parametrize("count", [pytest.param(1, id="little"), pytest.param(500, id="much")])
def test_full_disk_is_one_line(otgctl: Tool, count: int) -> None:
    otgctl.run_daemon(state(*(gadget(f"ethusb{n}", reason="x" * 500) for n in range(count))))
    command = [sys.executable, "-m", "otgd.cli", "--runtime-dir", str(otgctl.daemon.directory)]
    with Path("/dev/full").open("wb") as full:
        done = subprocess.run(
            [*command, "status"], stdout=full, stderr=subprocess.PIPE, check=False
        )
    assert (done.returncode, done.stderr) == (1, b"otgctl: No space left on device\n")


@pytest.mark.parametrize("stream", [pytest.param(n, id=f"fd {n}") for n in range(3)])
def test_closed_standard_stream_is_no_trouble(otgctl: Tool, stream: int) -> None:
    otgctl.run_daemon(state(gadget()))
    command = [sys.executable, "-m", "otgd.cli", "--runtime-dir", str(otgctl.daemon.directory)]
    script = f'exec "$@" {stream}>&-'
    done = subprocess.run(
        ["sh", "-c", script, "sh", *command, "status"], capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert ("ethusb1" in done.stdout) == (stream != 1)


def test_runtime_directory_comes_from_the_environment(
    otgctl: Tool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    otgctl.run_daemon(state(gadget(), otgd_version="9.9"))
    monkeypatch.setenv("OTGD_RUNTIME_DIR", str(tmp_path / "run"))
    assert program.main(["status"]) == 0
    assert otgctl.capture.readouterr().out.startswith("otgd 9.9 runs")


@pytest.mark.parametrize(
    ("words", "completed"),
    [
        pytest.param("show ethusb", ["ethusb1", "ethusb2"], id="gadget"),
        pytest.param("show worker", [], id="no gadget"),
        pytest.param("wait ethusb1 ethusb2", ["ethusb2"], id="second gadget"),
        pytest.param("mon", ["monitor"], id="command"),
    ],
)
def test_shell_completes(otgctl: Tool, words: str, completed: list[str]) -> None:
    line = f"otgctl -c {otgctl.config_file} {words}"
    environment = {
        "_OTGCTL_COMPLETE": "bash_complete",
        "COMP_WORDS": line,
        "COMP_CWORD": str(len(line.split()) - 1),
    }
    done = subprocess.run(
        [sys.executable, "-m", "otgd.cli"],
        env=os.environ | environment,
        check=True,
        capture_output=True,
        text=True,
    )
    assert [each.removeprefix("plain,") for each in done.stdout.split()] == completed
    assert done.stderr == ""


def test_refused_config_completes_nothing(otgctl: Tool) -> None:
    otgctl.write_config("[gadget")
    test_shell_completes(otgctl, "show ethusb", [])
