"""``otgctl gadgets``: which line of the config has which device, and what to write for the rest."""

from __future__ import annotations

import pytest

from otgd.cli.gadgets import Matcher
from otgd.config import parse_config
from otgd.identity import Sign
from otgd.model import ObservedLink
from tests.unit.cli.conftest import CONFIG

ENTRY = '\n[gadget.ethusb2]\nmac = "00:22:82:ff:ff:42"\n'
PLACES = {
    ("", Sign.MAC): "otgd.toml:4: fleet.mac",
    ("ethusb2", Sign.MAC): "otgd.toml:10: gadget.ethusb2.mac",
}


def link(
    mac: str, *, driver: str = "cdc_ether", port: str = "1-1.2", random: bool = False
) -> ObservedLink:
    return ObservedLink(
        ifindex=7, ifname="usb0", mac=mac, driver=driver, port=port, random_mac=random
    )


@pytest.fixture
def matcher() -> Matcher:
    return Matcher(parse_config(CONFIG + ENTRY, file="otgd.toml"), PLACES)


def test_fleet_and_entry_are_told_apart(matcher: Matcher) -> None:
    of_fleet = matcher.match(link("00:22:82:ff:ff:01"))
    of_entry = matcher.match(link("00:22:82:ff:ff:42"))
    assert (of_fleet.gadget, of_fleet.config) == ("ethusb1", "otgd.toml:4: fleet.mac")
    assert (of_entry.gadget, of_entry.config) == ("ethusb2", "otgd.toml:10: gadget.ethusb2.mac")


def test_driver_that_is_not_listed_matches_nothing(matcher: Matcher) -> None:
    device = matcher.match(link("00:22:82:ff:ff:01", driver="smsc95xx"))
    assert device.gadget is None
    assert device.config == "none: driver smsc95xx is not in [hotplug] drivers"


@pytest.mark.parametrize(
    ("driver", "port", "told"),
    [
        pytest.param("smsc95xx", "1-1.1", True, id="on USB, other driver"),
        pytest.param("cdc_ether", "", True, id="gadget driver, no USB"),
        pytest.param("macb", "", False, id="neither"),
    ],
)
def test_only_what_may_be_a_gadget_is_told(
    matcher: Matcher, driver: str, port: str, *, told: bool
) -> None:
    assert matcher.concerns(link("00:00:00:00:00:02", driver=driver, port=port)) is told
