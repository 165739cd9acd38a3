"""Compares a plugged guest, asked over SSH, with the config.

Pure: this module holds the questions (a shell script for the guest) and judges the
answers; who carries them over is the caller's business.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

    from otgd.model import GadgetSpec

QUESTIONS = r"""
PATH=$PATH:/sbin:/usr/sbin
echo "hostname=$(hostname)"
echo "mac=$(cat /sys/class/net/usb0/address 2>/dev/null)"
echo "host_addr=$(cat /sys/module/g_ether/parameters/host_addr 2>/dev/null)"
ip -4 -o addr show dev usb0 2>/dev/null | sed -n 's/.* inet \([^ ]*\).*/address=\1/p'
ip -4 route show default 2>/dev/null | sed 's/^/route=/'
if [ -d /run/systemd/system ]; then
    echo "ics=$(systemctl is-active rpi-usb-gadget-ics.service 2>/dev/null)"
fi
echo "end=1"
"""
"""Asks with what Jessie's busyboxless base system has: no ``ip -json``, no Python."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """One thing compared; *found* is empty where the guest has nothing of the kind."""

    subject: str
    wanted: str
    found: str
    remedy: str = ""

    @property
    def agrees(self) -> bool:
        """Whether the guest is as the config wants it."""
        return not self.remedy


@dataclass(frozen=True, slots=True, kw_only=True)
class GuestFacts:
    """What a guest said of itself."""

    hostname: str
    mac: str
    host_addr: str
    addresses: tuple[str, ...]
    routes: tuple[str, ...]
    serves_dhcp: bool


def read_answers(text: str) -> GuestFacts | None:
    """Understand what ``QUESTIONS`` printed; None where it was cut off."""
    answers: dict[str, list[str]] = {}
    for line in text.splitlines():
        key, _, value = line.partition("=")
        answers.setdefault(key, []).append(value.strip())
    if "end" not in answers:
        return None

    def one(key: str) -> str:
        return answers.get(key, [""])[0]

    return GuestFacts(
        hostname=one("hostname"),
        mac=one("mac").lower(),
        host_addr=one("host_addr").lower(),
        addresses=tuple(answers.get("address", ())),
        routes=tuple(answers.get("route", ())),
        serves_dhcp=one("ics") == "active",
    )


def compare(spec: GadgetSpec, facts: GuestFacts) -> tuple[Finding, ...]:
    """Return everything compared, agreeing or not."""
    return tuple(_findings(spec, facts))


def _findings(spec: GadgetSpec, facts: GuestFacts) -> Iterator[Finding]:
    again = f"run otgctl prepare {spec.name} on its card"
    address = f"{spec.guest}/{spec.subnet.prefixlen}"
    if spec.hostname:
        yield _judged("hostname", spec.hostname, facts.hostname, remedy=again)
    if spec.mac and facts.host_addr:
        yield _judged("host MAC (g_ether.host_addr)", spec.mac, facts.host_addr, remedy=again)
    if spec.guest_mac:
        yield _judged("guest MAC (usb0)", spec.guest_mac, facts.mac, remedy=again)
    yield _judged("address of usb0", address, " ".join(facts.addresses), remedy=again)
    yield _judged("gateway", f"{spec.host.ip} on usb0", _gateway(spec, facts), remedy=again)
    if facts.serves_dhcp:
        yield Finding(
            subject="rpi-usb-gadget",
            wanted="off",
            found="on",
            remedy=f"it serves DHCP on usb0; run `sudo rpi-usb-gadget off` there, or {again}",
        )


def _judged(subject: str, wanted: str, found: str, *, remedy: str) -> Finding:
    return Finding(
        subject=subject, wanted=wanted, found=found, remedy="" if wanted == found else remedy
    )


def _gateway(spec: GadgetSpec, facts: GuestFacts) -> str:
    """Name the wanted gateway if any default route leads there, else the first there is."""
    ways = [
        f"{match[1]} on {match[2]}"
        for route in facts.routes
        if (match := re.search(r"via (\S+) dev (\S+)", route))
    ]
    wanted = f"{spec.host.ip} on usb0"
    return wanted if wanted in ways else next(iter(ways), "")
