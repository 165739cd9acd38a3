"""The service around the network: start, stop, reload, watchdog; what it tells, what it costs."""

from __future__ import annotations

import itertools
import json
import signal
import stat
from datetime import datetime
from statistics import median, quantiles
from typing import TYPE_CHECKING

from tests.lab.daemon import otgd
from tests.lab.deadline import until
from tests.lab.topology import Lab, mac

if TYPE_CHECKING:
    from pathlib import Path

    from tests.daemon.conftest import Launcher
    from tests.lab.daemon import Daemon

UP = ("configured", "reachable")
EX_USAGE = 2


def test_wrong_arguments_are_a_usage_error() -> None:
    assert otgd("--colour").returncode == EX_USAGE


def test_ready_comes_after_the_first_pass(lab: Lab, launch: Launcher) -> None:
    lab.plug_all(1, 2)
    daemon = launch()
    assert [daemon.gadget(f"ethusb{n}")["state"] in UP for n in (1, 2, 3)] == [True, True, False]
    status = daemon.manager.values("STATUS")[-1]
    assert "2 of 4" in status


def test_state_file_is_for_everybody_to_read(lab: Lab, launch: Launcher) -> None:
    lab.plug(1)
    daemon = launch()
    state = daemon.state()
    assert state["version"] == 1
    assert state["pid"] == daemon.pid
    assert state["uplink"] == "eth0"
    assert state["forwarding"] is True
    assert state["unknown"] == []
    assert state["last_pass"]["failures"] == []
    assert state["last_pass"]["duration_s"] > 0
    entry = daemon.gadget("ethusb1")
    assert entry["driver"] == "veth"
    assert datetime.fromisoformat(entry["since"]).utcoffset() is not None
    file = daemon.runtime_dir / "state.json"
    assert stat.S_IMODE(file.stat().st_mode) == 0o644


def test_faults_of_the_whole_are_in_the_state_until_they_are_mended(
    lab: Lab, launch: Launcher
) -> None:
    daemon = launch()
    good = daemon.config_file.read_text()
    lab.host.run("ip", "route", "del", "default")
    until(lambda: daemon.state()["uplink_fault"])
    assert daemon.state()["uplink"] is None

    daemon.reload("colour = 1\n" + good)
    assert "colour" in daemon.state()["config_fault"]
    daemon.reload(good)
    assert daemon.state()["config_fault"] is None


def test_metrics_are_left_for_a_collector_while_it_is_configured(
    lab: Lab, launch: Launcher, tmp_path: Path
) -> None:
    file = tmp_path / "otgd.prom"
    daemon = launch()
    assert not file.exists()
    daemon.reload(launch.config(service=f'metrics_file = "{file}"'))
    absent = 'otgd_gadget_state{gadget="ethusb1",state="absent"} 1'
    assert absent in file.read_text().splitlines()

    lab.plug(1)
    until(lambda: absent not in file.read_text().splitlines())
    daemon.terminate()
    assert file.read_text().splitlines()[-1] == "otgd_up 0"


def test_metrics_that_cannot_be_written_hold_nothing_up(
    lab: Lab, launch: Launcher, tmp_path: Path
) -> None:
    file = tmp_path / "missing" / "otgd.prom"
    daemon = launch(service=f'resync_s = 3600\nmetrics_file = "{file}"')
    lab.plug(1)
    daemon.wait_for("ethusb1", "reachable")
    assert daemon.stderr().count("what it tells is old until this is cured") == 1
    file.parent.mkdir()
    lab.plug(2)
    daemon.wait_for("ethusb2", *UP)
    until(file.exists)


def test_state_file_is_never_half_written(lab: Lab, launch: Launcher) -> None:
    daemon = launch()
    reads = 0
    for _ in range(5):
        lab.plug_all(1, 2)
        lab.unplug(1, 2)
        for _ in range(200):
            json.loads((daemon.runtime_dir / "state.json").read_text())
            reads += 1
    assert reads == 1000


def test_each_event_is_one_line_on_stderr(lab: Lab, launch: Launcher) -> None:
    daemon = launch()
    lab.plug(1)
    daemon.wait_for("ethusb1", *UP)
    lab.unplug(1)
    daemon.wait_for("ethusb1", "absent")
    assert daemon.terminate() == 0
    lines = daemon.stderr().splitlines()
    assert all(line.startswith("otgd: ") for line in lines)
    assert [line for line in lines if "ethusb1: configured" in line] == lines[1:2]
    assert [line for line in lines if "ethusb1: unplugged" in line] == lines[2:3]
    assert len(lines) == 4  # ready, configured, unplugged, stopped


def test_second_daemon_is_refused(lab: Lab, launch: Launcher) -> None:
    daemon = launch()
    second = ("--config", str(daemon.config_file), "--runtime-dir", str(daemon.runtime_dir))
    done = otgd(*second)
    assert done.returncode == 1
    assert "already runs" in done.stderr
    lab.plug(1)
    daemon.wait_for("ethusb1", *UP)


def test_sigterm_keeps_the_network_by_default(lab: Lab, launch: Launcher) -> None:
    daemon = launch()
    lab.plug(1)
    daemon.wait_for("ethusb1", *UP)
    until(lambda: lab.online(1))
    rules, links = lab.firewall(), lab.links()
    assert daemon.terminate() == 0
    assert daemon.manager.values("STOPPING") == ["1"]
    assert lab.firewall() == rules
    assert lab.links() == links
    assert lab.online(1)
    assert not (daemon.runtime_dir / "state.json").exists()


def test_sigterm_releases_the_network_where_the_config_says_so(lab: Lab, launch: Launcher) -> None:
    daemon = launch(service='on_stop = "release"')
    lab.plug_all(1, 2)
    for n in (1, 2):
        daemon.wait_for(f"ethusb{n}", *UP)
    lab.host.run("ip", "address", "add", "192.0.2.9/32", "dev", "ethusb1")
    assert daemon.terminate() == 0
    assert lab.addresses("ethusb1") == ["192.0.2.9/32"]
    assert lab.addresses("ethusb2") == []
    assert "otgd" not in lab.firewall().lower()


def test_sigint_ends_it_like_sigterm(launch: Launcher) -> None:
    daemon = launch()
    daemon.signal(signal.SIGINT)
    assert daemon.wait() == 0
    assert "Traceback" not in daemon.stderr()


def test_reload_brings_a_new_config_into_force(lab: Lab, launch: Launcher) -> None:
    lab.plug_all(1, 2, 3)
    daemon = launch(count=2)
    assert lab.masquerades(3) == 0
    seen = len(daemon.manager.received)
    daemon.reload(launch.config(count=1, more=gadget_entry("zero3", 3)))
    told = [each.key for each in daemon.manager.received[seen:]]
    assert told.index("RELOADING") < told.index("MONOTONIC_USEC") < told.index("READY")
    assert {gadget["name"] for gadget in daemon.state()["gadgets"]} == {"ethusb1", "zero3"}
    assert lab.addresses("zero3") == ["10.0.13.1/24"]
    assert lab.addresses("ethusb2") == []
    assert [lab.masquerades(n) for n in (1, 2, 3)] == [1, 0, 1]
    until(lambda: lab.online(1))
    until(lambda: lab.online(3))


def gadget_entry(name: str, n: int) -> str:
    """Write one gadget's entry."""
    return f'[gadget.{name}]\nmac = "{mac(n)}"\nsubnet = "10.0.{10 + n}.0/24"'


def test_bad_config_at_reload_leaves_the_old_one_in_force(lab: Lab, launch: Launcher) -> None:
    lab.plug(1)
    daemon = launch()
    rules = lab.firewall()
    good = daemon.config_file.read_text()
    daemon.reload(good + '\n[gadget.ethusb9]\nmac = "00:22:82:ff:ff"\nsubnet = "10.0.30.0/24"\n')
    line = good.count("\n") + 3
    complaint = f"{daemon.config_file}:{line}: gadget.ethusb9.mac: "
    assert complaint in daemon.stderr()
    assert complaint in daemon.manager.values("STATUS")[-1]
    assert "Traceback" not in daemon.stderr()
    assert lab.firewall() == rules
    lab.plug(2)
    daemon.wait_for("ethusb2", *UP)
    until(lambda: lab.online(2))

    daemon.reload(good)
    assert "refused" not in daemon.manager.values("STATUS")[-1]


def test_watchdog_is_fed_while_passes_finish(launch: Launcher) -> None:
    daemon = launch(watchdog_s=0.4)
    until(lambda: len(daemon.manager.values("WATCHDOG")) >= 5)
    times = [each.at_s for each in daemon.manager.received if each.key == "WATCHDOG"]
    assert median(b - a for a, b in itertools.pairwise(times)) < 0.4


def keep_alives(daemon: Daemon) -> int:
    return len(daemon.manager.values("WATCHDOG"))


def test_idle_daemon_wakes_up_for_nothing_but_the_watchdog(lab: Lab, launch: Launcher) -> None:
    daemon = launch(watchdog_s=1.0, service="resync_s = 3600", measured=False)
    lab.plug_all(1, 2, 3, 4)
    for n in (1, 2, 3, 4):
        daemon.wait_for(f"ethusb{n}", *UP)
        until(lambda n=n: lab.online(n))  # type: ignore[misc] # n is bound on purpose

    def is_quiet() -> bool:
        """Tell whether six keep-alives went by and nothing else happened.

        The kernel's neighbour table settles only some time after the guests' pings.
        """
        wakeups, fed = daemon.wakeups(), keep_alives(daemon)
        until(lambda: keep_alives(daemon) >= fed + 6)
        return daemon.wakeups() - wakeups <= keep_alives(daemon) - fed + 1

    until(is_quiet, 90)


def test_quiet_system_is_told_nothing_about(lab: Lab, launch: Launcher) -> None:
    daemon = launch(watchdog_s=0.4, service="resync_s = 0.1")
    lab.plug_all(1, 2)
    for n in (1, 2):
        daemon.wait_for(f"ethusb{n}", "reachable")
        until(lambda n=n: lab.online(n))  # type: ignore[misc] # n is bound on purpose
    told, state = daemon.stderr(), (daemon.runtime_dir / "state.json").stat()
    fed = keep_alives(daemon)
    until(lambda: keep_alives(daemon) >= fed + 5)  # some ten passes later
    assert daemon.stderr() == told
    assert (daemon.runtime_dir / "state.json").stat() == state


def test_pass_with_nothing_to_do_costs_under_ten_milliseconds(lab: Lab, launch: Launcher) -> None:
    lab.plug_all(1, 2, 3, 4)
    daemon = launch(measured=False, service="resync_s = 3600")
    costs_s = []
    for _ in range(40):
        before_s = daemon.cpu_s()
        daemon.reload()  # reads the config and makes one pass
        costs_s.append(daemon.cpu_s() - before_s)
    # The first quartile: what is slower shared its core with another program.
    assert quantiles(costs_s, n=4)[0] < 0.010


def come_and_go(lab: Lab, daemon: Daemon) -> None:
    """Plug a gadget, wait until it is served, pull it."""
    lab.plug(1)
    daemon.wait_for("ethusb1", *UP)
    until(lambda: lab.online(1))
    lab.unplug(1)
    daemon.wait_for("ethusb1", "absent")


def test_pulled_gadget_takes_its_rules_along_at_once_and_an_empty_table_soon(
    lab: Lab, launch: Launcher
) -> None:
    untouched = lab.firewall()
    daemon = launch(service="resync_s = 3600")
    for _ in range(2):  # the second one may find the table of the first
        come_and_go(lab, daemon)
        assert lab.masquerades(1) == 0
        assert "ethusb1" not in lab.firewall()
    until(lambda: lab.firewall() == untouched, what=lab.firewall)


def test_stop_takes_an_empty_table_along(lab: Lab, launch: Launcher) -> None:
    untouched = lab.firewall()
    daemon = launch()
    come_and_go(lab, daemon)
    assert daemon.terminate() == 0
    assert lab.firewall() == untouched


def test_empty_table_of_one_that_was_killed_goes(lab: Lab, launch: Launcher) -> None:
    untouched = lab.firewall()
    daemon = launch()
    come_and_go(lab, daemon)
    daemon.kill()
    daemon.start_and_wait()
    until(lambda: lab.firewall() == untouched, what=lab.firewall)
