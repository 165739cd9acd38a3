"""``otgctl verify`` against guests that answer through a stand-in for ssh.

The stand-in runs the questions with a real shell in a network namespace whose usb0 is a real link.
"""

from __future__ import annotations

import json
import os
from typing import TYPE_CHECKING

import pytest

from otgd.cli import program
from tests.lab.namespaces import run
from tests.lab.schema import check

if TYPE_CHECKING:
    from pathlib import Path

MAC = "00:22:82:ff:ff:11"
CONFIG = """\
[gadget.ethusb1]
mac = "00:22:82:ff:ff:01"
guest_mac = "00:22:82:ff:ff:11"
subnet = "10.0.11.0/24"
hostname = "{hostname}"
"""

STAND_IN = """\
#!/bin/sh
echo "$@" >{asked}
for last; do :; done
exec sh -c "$last"
"""


@pytest.fixture
def config(tmp_path: Path, netns: None, monkeypatch: pytest.MonkeyPatch) -> Path:  # noqa: ARG001
    """Make this namespace the guest's, and ssh a way into it."""
    run("ip", "link", "add", "usb0", "address", MAC, "type", "veth", "peer", "name", "host0")
    run("ip", "address", "add", "10.0.11.2/24", "dev", "usb0")
    run("ip", "link", "set", "usb0", "up")
    run("ip", "link", "set", "host0", "up")
    run("ip", "route", "add", "default", "via", "10.0.11.1")
    ssh = tmp_path / "bin/ssh"
    ssh.parent.mkdir()
    ssh.write_text(
        f'#!/bin/sh\necho "$@" >{tmp_path}/asked\nfor last; do :; done\nexec sh -c "$last"\n'
    )
    ssh.chmod(0o755)
    monkeypatch.setenv("PATH", f"{ssh.parent}:{os.environ['PATH']}")
    file = tmp_path / "otgd.toml"
    file.write_text(CONFIG.format(hostname=os.uname().nodename))
    return file


def verify(
    config: Path, capsys: pytest.CaptureFixture[str], *arguments: str
) -> tuple[int, dict[str, str], str]:
    code = program.main(["--config", str(config), "verify", "--json", *arguments])
    documents = json.loads(capsys.readouterr().out)
    check(documents, "verify")
    [document] = documents
    wrong = {one["subject"]: one["found"] for one in document["findings"] if not one["agrees"]}
    return code, wrong, document["fault"]


def test_guest_as_configured_passes(config: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert verify(config, capsys, "--user", "pi") == (0, {}, "")

    asked = (config.parent / "asked").read_text()
    assert "BatchMode=yes" in asked
    assert " -l pi 10.0.11.2 sh -c " in asked


def test_guest_with_another_address_fails(config: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run("ip", "address", "add", "10.12.194.1/28", "dev", "usb0")

    code, wrong, _ = verify(config, capsys)

    assert code == 1
    assert wrong == {"address of usb0": "10.0.11.2/24 10.12.194.1/28"}


def test_guest_without_usb0_fails_in_each_point(
    config: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run("ip", "link", "delete", "usb0")

    code, wrong, _ = verify(config, capsys, "ethusb1")

    assert code == 1
    assert wrong == {"guest MAC (usb0)": "", "address of usb0": "", "gateway": ""}


def test_guest_that_ssh_cannot_reach_is_told_with_sshs_words(
    config: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (config.parent / "bin/ssh").write_text("#!/bin/sh\necho 'No route to host' >&2\nexit 255\n")

    assert verify(config, capsys) == (1, {}, "ssh 10.0.11.2: No route to host")


def test_table_names_what_differs(config: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config.write_text(CONFIG.format(hostname="elsewhere"))

    code = program.main(["--config", str(config), "verify"])
    row = next(line for line in capsys.readouterr().out.splitlines() if "hostname" in line)

    assert code == 1
    assert "elsewhere" in row
    assert "run otgctl prepare ethusb1 on its card" in row
