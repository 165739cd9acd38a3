"""The service under a real systemd, with real udevd and journald."""

from __future__ import annotations

import json
import re
import time
from itertools import pairwise
from typing import TYPE_CHECKING

import pytest

from otgd.events import Kind
from tests.lab.topology import FAR_SIDE
from tests.lab.traffic import PingStream
from tests.system.deadline import until
from tests.system.host import CONFIG, container_config

if TYPE_CHECKING:
    from tests.system.host import Host

pytestmark = pytest.mark.timeout(1200)  # the first one builds what is not in the cache

EX_CONFIG = 78
CAP_NET_ADMIN, CAP_NET_RAW = 12, 13


def test_plugged_gadget_is_online(host: Host) -> None:
    host.plug(1)
    host.await_online(1)
    assert host.addresses("ethusb1") == ["10.0.11.1/24"]
    until(lambda: host.gadget("ethusb1")["state"] in {"configured", "reachable"})


def test_boot_has_no_ordering_cycle(host: Host) -> None:
    log = host.system.run("journalctl", "--boot", "--output", "cat", "_PID=1")
    assert "otgd.service" in log
    assert "ordering cycle" not in log
    assert "cyclic" not in log


def test_gadget_plugged_before_the_boot_of_otgd_is_online(host: Host) -> None:
    host.system.run("systemctl", "stop", "otgd.service")
    host.plug(1, "eth1")
    host.plug(2, "usb0")
    host.system.run("systemctl", "start", "otgd.service")
    host.await_online(1)
    host.await_online(2)


def test_unplugged_gadget_leaves_nothing(host: Host) -> None:
    before = host.firewall()
    host.plug(1)
    host.await_online(1)
    host.unplug(1)
    until(lambda: host.gadget("ethusb1")["state"] == "absent")
    until(lambda: host.firewall() == before, what=host.firewall)
    assert "ethusb1" not in host.links()


def test_show_tells_what_happened(host: Host) -> None:
    host.plug(1)
    host.await_online(1)
    until(lambda: host.told("ethusb1"))
    shown = json.loads(host.system.run("otgctl", "show", "ethusb1", "--json"))
    told = [event["message"] for event in shown["events"]]
    assert "ethusb1: configured: 10.0.11.1/24, masquerade through eth0" in told


def test_strangers_words_are_not_shown(host: Host) -> None:
    message_id = Kind.GADGET_FAILED.message_id
    lie = f"MESSAGE=ethusb1: a lie\nMESSAGE_ID={message_id}\nOTGD_GADGET=ethusb1\n"
    as_nobody = ("setpriv", "--reuid=65534", "--regid=65534", "--clear-groups")
    host.system.run(*as_nobody, "logger", "--journald", stdin=lie)
    until(lambda: "ethusb1: a lie" in host.told_by_anybody("ethusb1"))
    shown = json.loads(host.system.run("otgctl", "show", "ethusb1", "--json"))
    assert "ethusb1: a lie" not in [event["message"] for event in shown["events"]]


def test_status_line_is_for_people(host: Host) -> None:
    host.plug(1)
    host.await_online(1)
    until(lambda: host.status() == "1 of 4 gadgets up, uplink eth0", what=host.status)
    shown = host.system.run("systemctl", "status", "--no-pager", "otgd.service")
    assert 'Status: "1 of 4 gadgets up, uplink eth0"' in shown


def test_journal_tells_a_gadgets_whole_story_once(host: Host) -> None:
    host.plug(1)
    host.await_online(1)
    host.unplug(1)
    until(lambda: host.gadget("ethusb1")["state"] == "absent")
    host.plug(1)
    host.await_online(1)
    told = host.told("ethusb1")
    assert len(told) >= 3
    assert told[0] == told[-1]
    assert all(one != other for one, other in pairwise(told))


def test_catalog_explains_a_message(host: Host) -> None:
    host.plug(1)
    host.await_online(1)
    text = host.system.run("journalctl", "--catalog", "-u", "otgd.service", "OTGD_GADGET=ethusb1")
    assert "Cause:" in text
    assert "Remedy:" in text


def test_reload_adds_a_gadget(host: Host) -> None:
    host.plug(5)
    host.system.write(CONFIG, container_config(count=5))
    host.system.run("systemctl", "reload", "otgd.service")
    host.await_online(5)


def test_bad_config_at_reload_leaves_the_old_one_in_force(host: Host) -> None:
    host.plug(1)
    host.await_online(1)
    host.system.write(CONFIG, "[fleet]\ncount = 4\n")
    host.system.attempt("systemctl", "reload", "otgd.service")
    until(lambda: "config" in host.status(), what=host.status)
    host.plug(2)
    host.await_online(2)
    assert host.online(1)


def test_bad_config_at_start_is_not_tried_again(host: Host) -> None:
    host.system.write(CONFIG, "[fleet]\ncount = 4\n")
    host.system.attempt("systemctl", "restart", "otgd.service")
    until(lambda: host.system.unit("otgd.service", "ActiveState") == "failed")
    assert host.system.unit("otgd.service", "ExecMainStatus") == str(EX_CONFIG)
    assert host.system.unit("otgd.service", "NRestarts") == "0"
    text = host.system.run("journalctl", "-u", "otgd.service", "-o", "cat")
    assert f"{CONFIG}:1: fleet.interface" in text
    assert "Traceback" not in text


def test_restart_interrupts_nobody(host: Host) -> None:
    host.plug(1)
    host.await_online(1)
    before = host.pid
    with PingStream(host.guest(1), FAR_SIDE) as stream:
        until(lambda: stream.answers > 10)
        start = time.monotonic()
        host.system.run("systemctl", "restart", "otgd.service")
        until(lambda: time.monotonic() > start + 2)
        assert stream.lost_since(start) == []
    assert host.pid != before


def test_killed_daemon_comes_back_and_catches_up(host: Host) -> None:
    host.plug_all(1, 2)
    host.await_online(1)
    host.await_online(2)
    with PingStream(host.guest(1), FAR_SIDE) as stream:
        until(lambda: stream.answers > 10)
        start = time.monotonic()
        host.system.run("kill", "-KILL", str(host.pid))
        host.unplug(2)
        host.plug(3)
        host.await_online(3)
        assert stream.lost_since(start) == []
    assert host.system.unit("otgd.service", "NRestarts") == "1"
    until(lambda: host.gadget("ethusb2")["state"] == "absent")
    assert "10.0.12" not in host.firewall()


def test_hanging_daemon_is_replaced_by_the_watchdog(host: Host) -> None:
    drop_in = "[Service]\nWatchdogSec=2\n"
    host.system.write("/run/systemd/system/otgd.service.d/watchdog.conf", drop_in)
    host.system.run("systemctl", "daemon-reload")
    host.system.run("systemctl", "restart", "otgd.service")
    hanging = host.pid
    host.system.run("kill", "-STOP", str(hanging))
    host.plug(1)
    host.await_online(1)
    assert host.pid != hanging
    # SIGABRT, systemd.service(5), WatchdogSec=; a stopped process cannot heed it, so SIGKILL.
    log = host.system.run("journalctl", "-u", "otgd.service", "-o", "cat")
    assert "Watchdog timeout" in log


def test_idle_daemon_is_not_hit_by_the_watchdog(host: Host) -> None:
    drop_in = "[Service]\nWatchdogSec=1\n"
    host.system.write("/run/systemd/system/otgd.service.d/watchdog.conf", drop_in)
    host.system.run("systemctl", "daemon-reload")
    host.system.run("systemctl", "restart", "otgd.service")
    start = time.monotonic()
    until(lambda: time.monotonic() > start + 4)
    assert host.system.unit("otgd.service", "NRestarts") == "0"


def test_daemon_is_not_root(host: Host) -> None:
    lines = (host.system.root / f"proc/{host.pid}/status").read_text().splitlines()
    status = dict(line.split(":", 1) for line in lines)
    assert "0" not in status["Uid"].split()
    wanted = 1 << CAP_NET_ADMIN | 1 << CAP_NET_RAW
    assert {int(status[key], 16) for key in ("CapEff", "CapPrm", "CapBnd")} == {wanted}


def test_sandbox_is_tight(host: Host) -> None:
    text = host.system.run("systemd-analyze", "security", "--no-pager", "otgd.service")
    found = re.search(r"Overall exposure level for otgd.service: ([0-9.]+)", text)
    assert found is not None
    assert float(found[1]) <= 1.5, text


def test_forwarding_comes_back_on_from_inside_the_sandbox(host: Host) -> None:
    host.system.run("sysctl", "--write", "net.ipv4.ip_forward=0")
    host.plug(1)
    host.await_online(1)
    assert host.system.run("sysctl", "--values", "net.ipv4.ip_forward").strip() == "1"


def test_service_takes_the_packet_filter_that_the_host_uses(host: Host) -> None:
    def legacy() -> str:
        return host.system.run("iptables-legacy-save")

    host.plug(1)
    host.await_online(1)
    foreign = ("INPUT", "-s", "192.0.2.1", "-j", "DROP")
    host.system.run("iptables-legacy", "-A", *foreign)
    host.system.run("systemctl", "restart", "otgd.service")
    reason = "legacy tables are in use (filter), nf_tables not"
    assert host.state()["firewall"] == {"backend": "iptables", "reason": reason}
    until(lambda: "-A OTGD-" in legacy(), what=legacy)
    host.system.run("iptables-legacy", "-D", *foreign)
    host.system.run("systemctl", "restart", "otgd.service")
    reason = "no other firewall is in use"
    assert host.state()["firewall"] == {"backend": "nftables", "reason": reason}
    until(lambda: "OTGD-" not in legacy(), what=legacy)
    host.await_online(1)


def test_stop_then_release_takes_everything_back(host: Host) -> None:
    before = host.firewall()
    host.plug(1)
    host.await_online(1)
    host.system.run("systemctl", "stop", "otgd.service")
    assert host.online(1)
    host.system.run("otgctl", "release")
    assert host.firewall() == before
    assert host.addresses("ethusb1") == []


def test_status_needs_no_root(host: Host) -> None:
    host.plug(1)
    host.await_online(1)
    out = host.system.run("setpriv", "--reuid=65534", "--clear-groups", "otgctl", "status")
    assert "ethusb1" in out
    assert "reachable" in out or "configured" in out


def test_termination_is_clean(host: Host) -> None:
    host.system.run("systemctl", "kill", "--signal=TERM", "otgd.service")
    until(lambda: host.system.unit("otgd.service", "ActiveState") == "inactive")
    assert host.system.unit("otgd.service", "Result") == "success"
