"""That the benchmark works: one tiny round of it here, without containers, and its report."""

from __future__ import annotations

import os
import shutil
import xml.etree.ElementTree as ET
from contextlib import contextmanager
from typing import TYPE_CHECKING

import pytest

from tests.bench import __main__ as bench
from tests.bench.cables import Crowd, Watcher
from tests.bench.gadgets import MOST, guest_mac, host_address, mac
from tests.bench.peers import FLEET, all_peers, otgd_config
from tests.bench.plot import draw
from tests.bench.programs import build
from tests.bench.report import slowest, write_report
from tests.bench.samples import Figure, Results, percentile
from tests.conftest import need
from tests.lab.daemon import Daemon
from tests.lab.deadline import until
from tests.lab.topology import Lab

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

SVG = "{http://www.w3.org/2000/svg}"


@pytest.fixture(scope="module")
def programs(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    need(shutil.which("gcc"), "gcc")
    directory = tmp_path_factory.mktemp("programs")
    return build("watcher", directory), build("bound", directory)


@pytest.fixture
def lab() -> Iterator[Lab]:
    need(os.geteuid() == 0, "root, for network namespaces")
    with Lab() as lab:
        yield lab


@contextmanager
def watching(watcher: Path, lab: Lab, guests: int) -> Iterator[Watcher]:
    with Watcher(watcher, lab.host, [lab.guest(n) for n in range(1, guests + 1)]) as each:
        yield each


def masquerade_all(lab: Lab) -> None:
    rule = "add rule ip bench nat oifname eth0 masquerade"
    chain = "add chain ip bench nat { type nat hook postrouting priority srcnat; }"
    lab.host.run("nft", "-f", "-", stdin=f"add table ip bench\n{chain}\n{rule}\n")
    lab.host.run("sysctl", "--quiet", "--write", "net.ipv4.ip_forward=1")


# The measuring


def test_lower_bound_is_measured(lab: Lab, programs: tuple[Path, Path], tmp_path: Path) -> None:
    watcher, bound = programs
    masquerade_all(lab)
    with (tmp_path / "bound.log").open("wb") as log:
        process = lab.host.start(str(bound), env={}, stderr=log)
    try:
        with watching(watcher, lab, 2) as cables:
            for _ in range(2):
                for plug in cables.plug(2):
                    assert plug.named_ms
                    assert plug.addressed_ms
                    assert plug.up_ms
                    assert plug.answered_ms
                    assert plug.named_ms <= plug.up_ms <= plug.answered_ms
                cables.unplug()
                assert "ethusb1" not in lab.links()
    finally:
        process.kill()
        process.wait()


def test_what_nobody_configures_is_never_answered(lab: Lab, programs: tuple[Path, Path]) -> None:
    masquerade_all(lab)
    with watching(programs[0], lab, 1) as cables:
        (plug,) = cables.plug(1, timeout_s=0.2)
    assert (plug.named_ms, plug.addressed_ms, plug.up_ms, plug.answered_ms) == (None,) * 4


def test_answer_without_masquerade_does_not_count(
    lab: Lab, programs: tuple[Path, Path], tmp_path: Path
) -> None:
    watcher, bound = programs
    lab.host.run("sysctl", "--quiet", "--write", "net.ipv4.ip_forward=1")
    with (tmp_path / "bound.log").open("wb") as log:
        process = lab.host.start(str(bound), env={}, stderr=log)
    try:
        with watching(watcher, lab, 1) as cables:
            (plug,) = cables.plug(1, timeout_s=0.5)
            assert plug.up_ms
            assert plug.answered_ms is None
    finally:
        process.kill()
        process.wait()


def test_otgd_is_measured_with_a_crowd_present(
    lab: Lab, programs: tuple[Path, Path], tmp_path: Path
) -> None:
    daemon = Daemon(lab.host, tmp_path, otgd_config("nftables", count=3), measured=False)
    crowd = Crowd(lab.host)
    try:
        daemon.start_and_wait()
        crowd.grow_to(3)
        daemon.wait_for("ethusb3", "configured", "reachable")
        with watching(programs[0], lab, 1) as cables:
            (plug,) = cables.plug(1)
            assert plug.answered_ms
            assert daemon.state()["last_pass"]["duration_s"] > 0
            cables.unplug()
        until(lambda: daemon.gadget("ethusb1")["state"] == "absent")
    finally:
        daemon.close()
        crowd.close()


# The peers


def test_every_gadget_has_a_mac_and_a_subnet_of_its_own() -> None:
    numbers = range(1, MOST + 1)
    assert len({*map(mac, numbers), *map(guest_mac, numbers)}) == 2 * MOST
    assert len({host_address(n) for n in numbers}) == MOST
    assert host_address(1) == "10.0.11.1/24"
    assert host_address(MOST) == "10.1.4.1/24"


def test_every_peer_is_told_of_the_whole_fleet(tmp_path: Path) -> None:
    program = tmp_path / "a program"
    program.touch()
    for peer in all_peers(program):
        root = tmp_path / peer.key
        (root / "usr/local/bin").mkdir(parents=True)
        (root / "etc").mkdir()
        (root / "etc/dhcpcd.conf").write_text("hostname\n")
        peer.prepare(root)
        text = peer.rules + "".join(x.read_text() for x in root.rglob("*") if x.is_file())
        assert f"10.0.{10 + FLEET}." in text or f"count = {FLEET}" in text, peer.key


# The report


def results() -> Results:
    made = Results(
        machine={"processor": "none"},
        peers={"bound": "C", "otgd-nftables": "otgd <nft>", "networkd": "networkd"},
    )
    for peer, factor in (("bound", 1.0), ("otgd-nftables", 2.0), ("networkd", 20.0)):
        for count in (1, 4, 50):
            for i in (1, 2, 3):
                values = [factor * i + n / 100 for n in range(count)]
                made.add(Figure.ANSWER_MS, peer, *values, gadgets=count)
        made.add(Figure.OWN_CPU_MS, peer, factor, gadgets=1)
    return made


@pytest.mark.parametrize(
    ("values", "share", "expected"),
    [([5.0], 0.95, 5.0), ([3, 1, 2], 0.5, 2), ([*range(1, 101)], 0.95, 95), ([1, 2], 1.0, 2)],
    ids=["one", "median", "p95", "max"],
)
def test_percentile_is_the_smallest_value_that_covers_the_share(
    values: list[float], share: float, expected: float
) -> None:
    assert percentile(values, share) == expected


def test_slowest_is_the_median_over_rounds() -> None:
    assert slowest(results(), "bound", 50) == pytest.approx(2.49)


def test_results_survive_their_file(tmp_path: Path) -> None:
    made = results()
    made.save(tmp_path / "results.json")
    assert Results.load(tmp_path / "results.json") == made


def test_report_holds_ratios_and_goals() -> None:
    report = write_report(results())
    assert "| otgd <nft> | 4.0 | 6.0 | 6.0 | 4.0 | 2.0 | 0.10 | 3 |" in report
    assert "| otgd <nft>: median, ms: ≤ 3 x the lower bound | 4.0 | 6.0 | yes |" in report
    assert "| otgd <nft>: fifty at once" in report
    assert "growth" not in report


def test_lost_gadgets_are_reported() -> None:
    made = results()
    made.add(Figure.ANSWER_MS, "networkd", gadgets=1, lost=1)
    assert "| 3 (+ 1 lost) |" in write_report(made)


def test_picture_shows_a_dot_for_each_peer_and_number_of_gadgets() -> None:
    picture = ET.fromstring(draw(results()))  # noqa: S314 - our own
    keys = 3
    assert len(picture.findall(f"{SVG}circle")) == 3 * 3 + keys
    assert "otgd <nft>" in [each.text for each in picture.findall(f"{SVG}text")]


def test_earlier_results_are_reported_anew(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "results.json"
    results().save(path)
    monkeypatch.setattr("sys.argv", ["bench.sh", "--report", str(path)])
    assert bench.main() == 0
    assert (tmp_path / "plug-to-ping.svg").stat().st_size > 0
    assert (tmp_path / "report.md").read_text() == capsys.readouterr().out.rstrip("\n") + "\n"
