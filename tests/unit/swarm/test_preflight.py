"""What is said before a machine becomes a node."""

from __future__ import annotations

import subprocess
from dataclasses import replace

import pytest

from otgd.diagnosis.findings import Mark
from otgd.model import Passage
from otgd.swarm.preflight import (
    QUESTIONS,
    Answers,
    GuestReport,
    Host,
    judge_guest,
    judge_host,
    read_answers,
)
from tests.unit.swarm.values import HUB, engine

ANSWERS = Answers(
    machine="armv6l",
    clock_s=1,
    memory_kib=300_000,
    memory_cgroup=True,
    ip_vs=True,
    forwarding=True,
    docker=True,
)
HOST = Host(
    answers=ANSWERS,
    engine=engine(machine="aarch64"),
    engine_fault="",
    hub=HUB,
    has_hub=True,
    passage=Passage.OPEN,
)
GUEST = GuestReport(
    gadget="ethusb1", target="pi@10.0.11.2", answers=ANSWERS, behind_s=0.4, engine=engine()
)


def test_fine_machines_have_no_trouble() -> None:
    findings = [*judge_host(HOST), *judge_guest(GUEST)]
    assert {finding.mark for finding in findings} == {Mark.OK}
    assert {finding.gadget for finding in findings} == {"", "ethusb1"}


@pytest.mark.parametrize(
    ("guest", "check", "what", "remedy"),
    [
        (replace(GUEST, behind_s=7300), "clock", "2 h behind", "sudo date -s @$(date +%s)"),
        (replace(GUEST, behind_s=-9e6), "clock", "104 days ahead", "sudo date -s"),
        (replace(GUEST, behind_s=61), "clock", "61 s behind", "sudo date -s"),
        (
            replace(GUEST, engine=engine(limits_memory=False)),
            *("memory-cgroup", "cannot be limited", "cgroup_enable=memory cgroup_memory=1"),
        ),
        (
            replace(
                GUEST,
                engine=None,
                engine_fault="x; type: y",
                answers=replace(ANSWERS, memory_cgroup=False),
            ),
            *("memory-cgroup", "cannot be limited", "cmdline.txt"),
        ),
        (
            replace(GUEST, answers=replace(ANSWERS, memory_kib=50_000)),
            *("memory", "only 48 MiB", "ssh pi@10.0.11.2 free"),
        ),
        (
            replace(GUEST, answers=replace(ANSWERS, ip_vs=False)),
            *("ip_vs", "no ip_vs", "--endpoint-mode dnsrr"),
        ),
        (replace(GUEST, engine=engine(version="29.0.0")), "engine", "ARMv6", "docker.io=28.*"),
        (replace(GUEST, engine=engine(version="17.12.1")), "engine", "too old", "docker.io"),
        (
            replace(GUEST, engine=None, engine_fault="no Docker; type: otgctl swarm install"),
            *("engine", "no Docker", "otgctl swarm install"),
        ),
        (
            replace(GUEST, fault="10.0.11.2 does not answer; type: otgctl doctor ethusb1"),
            *("ssh", "does not answer", "otgctl doctor ethusb1"),
        ),
    ],
)
def test_guests_trouble(guest: GuestReport, check: str, what: str, remedy: str) -> None:
    findings = {finding.check: finding for finding in judge_guest(guest)}
    assert findings[check].is_trouble
    assert what in findings[check].what
    assert remedy in findings[check].remedy
    assert findings[check].why


@pytest.mark.parametrize(
    ("host", "check", "what", "remedy"),
    [
        (replace(HOST, has_hub=False), "hub", "10.0.10.1", "systemctl reload otgd"),
        (
            replace(HOST, answers=replace(ANSWERS, forwarding=False)),
            *("forwarding", "does not forward", "restart otgd"),
        ),
        (replace(HOST, passage=Passage.CLOSED), "forward-chain", "drops", "doctor"),
        (
            replace(HOST, engine=None, engine_fault="gone; type: sudo systemctl start docker"),
            *("engine", "gone", "sudo systemctl start docker"),
        ),
        (replace(HOST, engine=engine(version="18.03.0")), "engine", "too old", "docker.io"),
        (
            replace(HOST, engine=engine(state="active", manages=True, node_address="10.0.11.1")),
            *("engine", "advertises 10.0.11.1", "docker swarm leave --force"),
        ),
    ],
)
def test_hosts_trouble(host: Host, check: str, what: str, remedy: str) -> None:
    findings = {finding.check: finding for finding in judge_host(host)}
    assert findings[check].is_trouble
    assert what in findings[check].what
    assert remedy in findings[check].remedy


def test_what_was_not_told_is_skipped() -> None:
    silent = replace(HOST, answers=Answers(), passage=None)
    marks = {finding.check: finding.mark for finding in judge_host(silent)}
    for check in ("forwarding", "forward-chain", "ip_vs", "memory"):
        assert marks[check] is Mark.SKIP
    guest = replace(GUEST, answers=Answers(), behind_s=None, engine=None, engine_fault="x; type: y")
    marks = {finding.check: finding.mark for finding in judge_guest(guest)}
    assert (marks["clock"], marks["memory-cgroup"]) == (Mark.SKIP, Mark.SKIP)


def test_last_docker_for_armv6_says_so() -> None:
    told = {finding.check: finding.what for finding in judge_guest(GUEST)}["engine"]
    assert "28 is Docker's last for ARMv6" in told
    older = replace(GUEST, engine=engine(version="26.1.5"))
    told = {finding.check: finding.what for finding in judge_guest(older)}["engine"]
    assert "arm/v6" in told


def test_granted_passage_is_fine() -> None:
    findings = {f.check: f for f in judge_host(replace(HOST, passage=Passage.GRANTED))}
    assert findings["forward-chain"].mark is Mark.OK


def test_this_machine_answers_every_question() -> None:
    said = subprocess.run(["sh", "-c", QUESTIONS], check=True, capture_output=True, text=True)
    answers = read_answers(said.stdout + "noise\nclock_x=1\n")
    assert answers.machine
    for value in (answers.clock_s, answers.memory_kib, answers.ip_vs, answers.docker):
        assert value is not None
    assert answers.memory_cgroup is not None
    assert answers.forwarding is not None
