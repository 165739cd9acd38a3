"""``otgctl monitor``: each change once, in words and as JSON."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import pytest

from otgd.cli.monitor import changes
from tests.unit.cli.conftest import absent, gadget, state

if TYPE_CHECKING:
    from tests.unit.cli.conftest import Tool

LINK = {
    "ifindex": 9,
    "ifname": "usb3",
    "mac": "00:22:82:ff:ff:99",
    "driver": "cdc_ether",
    "port": None,
    "reason": "no entry of the config has its MAC",
}
RUNS = "otgd 0.1.0 runs (pid 4711)"
SILENT = "otgd runs, but has told no state yet"
CONFIGURED = "10.0.11.1/24, port 1-1.2"


@pytest.mark.parametrize(
    ("old", "new", "told"),
    [
        pytest.param(state(gadget()), state(gadget()), [], id="nothing"),
        pytest.param(
            state(gadget()),
            state(gadget(), last_pass={"duration_s": 1, "steps": 9, "failures": []}),
            [],
            id="a pass without news",
        ),
        pytest.param(
            state(absent("ethusb1")),
            state(gadget()),
            [f"ethusb1: absent → configured: {CONFIGURED}"],
            id="plugged",
        ),
        pytest.param(
            state(gadget()),
            state(absent("ethusb1")),
            ["ethusb1: configured → absent: no link is there"],
            id="unplugged",
        ),
        pytest.param(
            state(gadget()),
            state(gadget(ifindex=8)),
            [f"ethusb1: configured → configured: {CONFIGURED}"],
            id="plugged into another port",
        ),
        pytest.param(
            state(gadget()),
            state(gadget(state="failed", reason="no", port=None)),
            ["ethusb1: configured → failed: 10.0.11.1/24, no"],
            id="failed",
        ),
        pytest.param(
            state(gadget()),
            state(),
            ["ethusb1: no longer in the config"],
            id="taken out of the config",
        ),
        pytest.param(
            state(),
            state(unknown=[LINK]),
            ["usb3: left alone: no entry of the config has its MAC (MAC 00:22:82:ff:ff:99)"],
            id="unknown link",
        ),
        pytest.param(
            state(unknown=[LINK]), state(), ["usb3: unknown link is gone"], id="unknown link gone"
        ),
        pytest.param(state(), state(uplink="wlan0"), ["uplink is wlan0"], id="other uplink"),
        pytest.param(state(), state(uplink=None), ["uplink eth0 lost"], id="no uplink"),
        pytest.param(
            None,
            state(gadget(), absent()),
            [RUNS, "uplink is eth0", f"ethusb1: configured: {CONFIGURED}"],
            id="daemon starts",
        ),
        pytest.param(state(gadget()), None, ["otgd does not run"], id="daemon stops"),
        pytest.param(
            state(gadget()),
            state(gadget(), pid=4712),
            ["otgd 0.1.0 runs (pid 4712)"],
            id="daemon restarts",
        ),
        pytest.param(None, None, [], id="no daemon"),
    ],
)
def test_what_is_new_is_told(
    old: dict[str, Any] | None, new: dict[str, Any] | None, told: list[str]
) -> None:
    assert [change["text"] for change in changes(old, new)] == told


@pytest.mark.parametrize(
    ("old", "new", "was_silent", "is_silent", "told"),
    [
        pytest.param(None, None, False, True, [SILENT], id="starts, tells nothing yet"),
        pytest.param(None, None, True, True, [], id="goes on in silence"),
        pytest.param(None, state(uplink=None), True, False, [RUNS], id="tells its state"),
        pytest.param(state(), None, False, True, [SILENT], id="its state is deleted"),
        pytest.param(None, None, True, False, ["otgd does not run"], id="stops in silence"),
    ],
)
def test_silent_daemon_is_not_told_as_stopped(
    old: dict[str, Any] | None,
    new: dict[str, Any] | None,
    *,
    was_silent: bool,
    is_silent: bool,
    told: list[str],
) -> None:
    news = changes(old, new, was_silent=was_silent, is_silent=is_silent)
    assert [change["text"] for change in news] == told


def test_daemon_without_a_state_is_told_to_run(otgctl: Tool) -> None:
    assert otgctl.daemon.lock()  # and writes nothing
    place = ("--runtime-dir", str(otgctl.daemon.directory))
    command = (sys.executable, "-m", "otgd.cli", *place, "monitor", "--json")
    with subprocess.Popen(command, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        first = json.loads(process.stdout.readline())
        process.send_signal(signal.SIGINT)
    assert (first["running"], first["pid"], first["text"]) == (True, None, SILENT)


def test_changes_are_printed_as_they_happen(otgctl: Tool) -> None:
    otgctl.run_daemon(state(absent("ethusb1")))
    place = ("--runtime-dir", str(otgctl.daemon.directory))
    command = (sys.executable, "-m", "otgd.cli", *place, "monitor", "--json")
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        first = json.loads(process.stdout.readline())
        assert (first["event"], first["running"], first["pid"]) == ("service", True, 4711)
        otgctl.daemon.write(state(gadget()))
        second = json.loads(process.stdout.readline())
        assert second["event"] == "gadget"
        assert (second["name"], second["was"], second["state"]) == (
            *("ethusb1", "absent"),
            "configured",
        )
        process.send_signal(signal.SIGINT)
        assert process.wait(10) == 130
        assert process.stderr.read().strip() == b""
