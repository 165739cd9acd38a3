"""otgctl beside a real daemon, live: wait, monitor, show; and what the journal adds."""

from __future__ import annotations

import json
import os
import shutil
import sys
import threading
from contextlib import contextmanager
from datetime import datetime, timedelta, timezone
from typing import TYPE_CHECKING, Any

import pytest

from otgd.events import Kind
from tests.conftest import need
from tests.lab.deadline import until
from tests.lab.otgctl import Otgctl
from tests.lab.schema import check
from tests.lab.topology import guest_address, mac
from tests.lab.traffic import ping

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.daemon.conftest import Launcher
    from tests.lab.topology import Lab

JOURNALD = "/lib/systemd/systemd-journald"
WRITER = """\
import os, sys
from systemd import journal
os.setuid(int(sys.argv[1]))
journal.sendv(*sys.argv[2:])
"""


@pytest.fixture
def otgctl(lab: Lab, tmp_path: Path) -> Otgctl:
    """Return otgctl in the lab's host."""
    return Otgctl(lab.host, tmp_path)


@contextmanager
def monitored(lab: Lab, otgctl: Otgctl) -> Iterator[list[dict[str, Any]]]:
    """Run ``otgctl monitor --json`` and keep what it told so far up to date."""
    told: list[dict[str, Any]] = []
    reader, writer = os.pipe()
    with open(writer, "wb") as sink:  # noqa: PTH123 - a descriptor
        process = lab.host.start(
            *otgctl.command("monitor", "--json"), env=dict(os.environ), stderr=sink
        )

    def read() -> None:
        with open(reader) as lines:  # noqa: PTH123 - a descriptor
            told.extend(map(json.loads, lines))

    thread = threading.Thread(target=read, daemon=True)
    thread.start()
    try:
        until(lambda: told)
        yield told
    finally:
        process.kill()
        process.wait()
        thread.join()


def test_wait_comes_back_when_the_gadget_is_plugged(
    lab: Lab, launch: Launcher, otgctl: Otgctl, tmp_path: Path
) -> None:
    launch(count=2)
    said = otgctl("wait", "ethusb1", "--timeout", "0")
    assert said.code == 1
    assert said.err.startswith("otgctl: ethusb1 is absent: ")
    command = otgctl.command("wait", "ethusb1", "--timeout", "30")
    with (tmp_path / "wait").open("wb") as stderr:
        waiting = lab.host.start(*command, env=dict(os.environ), stderr=stderr)
    assert waiting.poll() is None
    lab.plug(1)
    assert waiting.wait(20) == 0
    assert lab.addresses("ethusb1") == ["10.0.11.1/24"]


def test_monitor_tells_plug_and_unplug(lab: Lab, launch: Launcher, otgctl: Otgctl) -> None:
    daemon = launch(count=1)
    with monitored(lab, otgctl) as told:
        assert (told[0]["event"], told[0]["pid"]) == ("service", daemon.pid)
        lab.plug(1)
        until(lambda: any(e["event"] == "gadget" and e["state"] == "reachable" for e in told))
        lab.unplug(1)
        until(lambda: any(e["event"] == "gadget" and e["state"] == "absent" for e in told))
        daemon.terminate()
        until(lambda: told[-1]["event"] == "service" and told[-1]["running"] is False)


def test_show_tells_state_config_and_traffic(lab: Lab, launch: Launcher, otgctl: Otgctl) -> None:
    daemon = launch(count=1)
    lab.plug(1)
    daemon.wait_for("ethusb1", "reachable")
    assert until(lambda: ping(lab.host, guest_address(1)))
    document = otgctl("show", "ethusb1", "--json").document
    check(document, "show")
    assert document["gadget"] == daemon.gadget("ethusb1")
    assert document["ifname"] == "ethusb1"
    assert document["config"]["guest_address"] == "10.0.11.2"
    assert document["counters"]["rx_packets"] > 0
    words = dict(line.split(":", 1) for line in otgctl("show", "ethusb1").lines)
    assert words["State"].split(",")[0].strip() == "reachable"
    assert words["May reach"].strip() == "the host, other gadgets, the uplink"
    assert words["From gadget"].strip().endswith("packets")


def test_show_of_a_stopped_daemon_asks_the_kernel(
    lab: Lab, launch: Launcher, otgctl: Otgctl
) -> None:
    daemon = launch(count=1)
    lab.plug(1)
    daemon.wait_for("ethusb1", "configured")
    daemon.terminate()
    document = otgctl("show", "ethusb1", "--json").document
    check(document, "show")
    assert document["running"] is False
    assert document["gadget"]["state"] == "configured"
    assert otgctl("show", "ethusb7").code == 2


class Journal:
    """A journald of the lab's host."""

    def __init__(self, lab: Lab, directory: Path) -> None:
        self._host = lab.host
        lab.host.run_inside("mkdir", "-p", "/run/systemd/journal", "/run/log/journal")
        # journald wants to know its control group; the host's own /sys has no such file system.
        lab.host.run_inside("mount", "-t", "cgroup2", "none", "/sys/fs/cgroup")
        with (directory / "journald").open("wb") as stderr:
            self.process = lab.host.start(JOURNALD, env={}, stderr=stderr)
        until(lambda: lab.host.run_inside("ls", "/run/systemd/journal").count("socket"))

    def write(self, kind: Kind, gadget: str, message: str, *, user: int = 0) -> None:
        fields = (f"MESSAGE_ID={kind.message_id}", f"OTGD_GADGET={gadget}", f"MESSAGE={message}")
        self._host.run_inside(sys.executable, "-c", WRITER, str(user), *fields)


@pytest.fixture
def journal(lab: Lab, tmp_path: Path) -> Iterator[Journal]:
    """Run a journald in the lab's host; its files are in the host's own /run."""
    need(shutil.which(JOURNALD), "systemd-journald")
    running = Journal(lab, tmp_path)
    yield running
    running.process.kill()
    running.process.wait()


def test_show_tells_what_the_journal_has_of_the_gadget(
    launch: Launcher, otgctl: Otgctl, journal: Journal
) -> None:
    launch(count=2)
    journal.write(Kind.GADGET_CONFIGURED, "ethusb1", "first")
    journal.write(Kind.GADGET_CONFIGURED, "ethusb2", "of another")
    journal.write(Kind.STEP_APPLIED, "ethusb1", "too small to tell")
    journal.write(Kind.REPAIRED, "ethusb1", "made up by a user", user=65534)
    journal.write(Kind.REPAIRED, "ethusb1", "second")

    def messages() -> list[str]:
        document = otgctl("show", "ethusb1", "--json").document
        return [event["message"] for event in document["events"]]

    until(lambda: messages() == ["first", "second"], what=messages)
    assert otgctl("show", "ethusb1").lines[-1].endswith("  second")


def test_show_prints_local_time_and_utc_for_programs(
    launch: Launcher, otgctl: Otgctl, journal: Journal, monkeypatch: pytest.MonkeyPatch
) -> None:
    launch(count=1)
    journal.write(Kind.GADGET_CONFIGURED, "ethusb1", "first")
    until(lambda: otgctl("show", "ethusb1", "--json").document["events"])
    monkeypatch.setenv("TZ", "<+0545>-5:45")
    (event,) = otgctl("show", "ethusb1", "--json").document["events"]
    time = datetime.fromisoformat(event["time"])
    assert time.utcoffset() == timedelta()
    there = time.astimezone(timezone(timedelta(hours=5, minutes=45)))
    assert otgctl("show", "ethusb1").lines[-1] == f"  {there:%b %d %H:%M:%S}  first"


def test_monitor_tells_what_only_the_journal_knows(
    lab: Lab, launch: Launcher, otgctl: Otgctl, journal: Journal
) -> None:
    launch(count=1)
    journal.write(Kind.REPAIRED, "ethusb1", "long ago")
    with monitored(lab, otgctl) as told:
        journal.write(Kind.GADGET_CONFIGURED, "ethusb1", "told from state.json already")
        journal.write(Kind.REPAIRED, "ethusb1", "ethusb1: repaired: set ethusb1 up")
        until(lambda: told[-1]["event"] == "journal")
    (entry,) = [event for event in told if event["event"] == "journal"]
    assert (entry["gadget"], entry["text"]) == ("ethusb1", "ethusb1: repaired: set ethusb1 up")


def test_what_is_written_keeps_to_the_published_schema(
    lab: Lab, launch: Launcher, otgctl: Otgctl
) -> None:
    daemon = launch(count=2)
    lab.plug_all(1, 9)
    daemon.wait_for("ethusb1", "configured")
    until(lambda: len(daemon.state()["unknown"]) == 1)
    check(daemon.state(), "state")
    check(otgctl("status", "--json").document, "state")
    daemon.terminate()
    check(otgctl("status", "--json").document, "state")
    lab.unplug(1)
    lab.plug(2)
    check(otgctl("status", "--json").document, "state")
    plan = otgctl("plan", "--json").document
    assert plan["steps"]
    check(plan, "plan")


def test_gadgets_lists_what_is_plugged(lab: Lab, launch: Launcher, otgctl: Otgctl) -> None:
    daemon = launch(count=2)
    lab.plug_all(1, 9)
    daemon.wait_for("ethusb1", "configured")
    listed = otgctl("gadgets", "--json").document
    check(listed, "gadgets")
    found = {each["mac"]: each for each in listed}
    assert set(found) == {mac(1), mac(9)}  # not the uplink
    assert (found[mac(1)]["gadget"], found[mac(9)]["gadget"]) == ("ethusb1", None)
    line = int(found[mac(1)]["config"].split(":")[1])
    assert daemon.config_file.read_text().splitlines()[line - 1] == f'mac = "{mac(1)}"'
    said = otgctl("gadgets").out
    assert f'[gadget.ethusb3]\nmac = "{mac(9)}"\nsubnet = "10.0.13.0/24"\n' in said
    daemon.reload(
        daemon.config_file.read_text()
        + said.partition("[gadget.")[1]
        + said.partition("[gadget.")[2]
    )
    daemon.wait_for("ethusb3", "configured")


def test_metrics_count_what_the_gadget_sent(lab: Lab, launch: Launcher, otgctl: Otgctl) -> None:
    daemon = launch(count=1)
    lab.plug(1)
    daemon.wait_for("ethusb1", "reachable")
    until(lambda: ping(lab.host, guest_address(1)))
    values = dict(line.rsplit(" ", 1) for line in otgctl("metrics").lines)
    assert values['otgd_gadget_state{gadget="ethusb1",state="reachable"}'] == "1"
    assert int(values['otgd_gadget_receive_packets_total{gadget="ethusb1"}']) > 0
