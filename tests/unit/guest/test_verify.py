"""What a guest's answers mean."""

from __future__ import annotations

import pytest

from otgd.guest.verify import compare, read_answers
from tests.unit.guest.cards import WORKER1

GOOD = """\
hostname=worker1
mac=00:22:82:FF:ff:11
host_addr=00:22:82:ff:ff:01
address=10.0.11.2/24
route=default via 10.0.11.1 dev usb0 src 10.0.11.2 metric 203
ics=inactive
end=1
"""


def disagreements(answers: str) -> list[str]:
    facts = read_answers(answers)
    assert facts is not None
    return [finding.subject for finding in compare(WORKER1, facts) if not finding.agrees]


def test_guest_as_configured_has_no_disagreement() -> None:
    assert disagreements(GOOD) == []


@pytest.mark.parametrize(
    ("old", "new", "subject"),
    [
        ("hostname=worker1", "hostname=raspberrypi", "hostname"),
        ("mac=00:22:82:FF:ff:11", "mac=02:00:00:00:00:01", "guest MAC (usb0)"),
        ("host_addr=00:22:82:ff:ff:01", "host_addr=(null)", "host MAC (g_ether.host_addr)"),
        ("address=10.0.11.2/24", "address=10.0.11.2/16", "address of usb0"),
        ("address=10.0.11.2/24\n", "", "address of usb0"),
        ("10.0.11.2/24\n", "10.0.11.2/24\naddress=10.12.194.1/28\n", "address of usb0"),
        ("via 10.0.11.1 dev usb0", "via 10.0.11.1 dev wlan0", "gateway"),
        ("ics=inactive", "ics=active", "rpi-usb-gadget"),
    ],
)
def test_each_difference_is_found(old: str, new: str, subject: str) -> None:
    assert old in GOOD
    assert disagreements(GOOD.replace(old, new)) == [subject]


def test_second_way_out_does_not_hide_ours() -> None:
    wlan = "route=default via 192.168.1.1 dev wlan0\nroute=default via 10.0.11.1 dev usb0"

    assert disagreements(GOOD.replace("route=default via 10.0.11.1 dev usb0", wlan)) == []


def test_answer_that_was_cut_off_is_no_answer() -> None:
    assert read_answers(GOOD.replace("end=1\n", "")) is None
