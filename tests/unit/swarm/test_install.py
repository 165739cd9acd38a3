"""What apt and sudo say, read."""

from __future__ import annotations

import pytest

from otgd.swarm.install import explain, percent, read_candidate


@pytest.mark.parametrize(
    ("line", "done"),
    [
        ("dlstatus:3:20.5:Retrieving file 3 of 9 (2s remaining)", 10),
        ("dlstatus:9:100:Retrieving file 9 of 9", 50),
        ("pmstatus:docker.io:0.0000:Preparing docker.io (armhf)", 50),
        ("pmstatus:libc6:armhf:44.4444:Unpacking libc6", 72),
        ("pmstatus:dpkg-exec:100.0000:Running dpkg", 100),
        ("Unpacking docker.io (20.10.24) ...", None),
        ("", None),
    ],
)
def test_apts_report_as_percent(line: str, done: int | None) -> None:
    assert percent(line) == done


def test_candidate_of_apt() -> None:
    assert read_candidate("machine=armv6l\ncandidate=20.10.24+dfsg1\n") == (
        *("armv6l", "20.10.24+dfsg1"),
    )
    assert read_candidate("machine=armv6l\ncandidate=(none)\n") == ("armv6l", "")
    assert read_candidate("") == ("", "")


@pytest.mark.parametrize(
    ("complaint", "told"),
    [
        ("sudo: a password is required\n", "sudo asks for a password there"),
        ("sh: 4: sudo: not found\n", "no sudo"),
        ("E: x\nW: Temporary failure resolving 'deb'\n", "otgctl doctor ethusb1"),
        ("E: Could not get lock /var/lib/dpkg/lock\n", "apt failed: E: Could not get lock"),
        ("", "said nothing"),
    ],
)
def test_complaints(complaint: str, told: str) -> None:
    assert told in explain(complaint, "ethusb1")
