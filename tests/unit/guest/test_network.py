"""The static address in dhcpcd's, NetworkManager's, netplan's and cloud-init's words."""

from __future__ import annotations

from ipaddress import IPv4Address, IPv4Interface

import pytest

from otgd.guest import network
from otgd.guest.tree import CardError
from otgd.model import GadgetSpec

SPEC = GadgetSpec(
    name="ethusb1",
    mac="00:22:82:ff:ff:01",
    host=IPv4Interface("10.0.11.1/24"),
    guest=IPv4Address("10.0.11.2"),
)
GUEST = network.guest_network(SPEC, [IPv4Address("8.8.8.8")])
BLOCK = (
    "interface usb0\nstatic ip_address=10.0.11.2/24\nstatic routers=10.0.11.1\n"
    "static domain_name_servers=8.8.8.8\n"
)


def test_dhcpcd_block_is_the_guides() -> None:
    assert network.dhcpcd_conf("hostname\n", GUEST) == "hostname\n" + BLOCK


@pytest.mark.parametrize(
    ("before", "after"),
    [
        pytest.param(
            "interface usb0\nstatic ip_address=10.0.12.2/24\nstatic routers=10.0.12.1\n"
            "static domain_name_servers=8.8.8.8\n\ninterface wlan0\nmetric 300\n",
            BLOCK + "\ninterface wlan0\nmetric 300\n",
            id="old values replaced in place",
        ),
        pytest.param(
            "interface usb0\nnoipv6\n",
            BLOCK + "noipv6\n",
            id="other options of the block stay",
        ),
        pytest.param(
            "interface eth0\nstatic ip_address=192.168.0.2/24\n",
            "interface eth0\nstatic ip_address=192.168.0.2/24\n" + BLOCK,
            id="another interface's values untouched",
        ),
        pytest.param(
            "interface usb0\nstatic ip_address=1.2.3.4/24\ninterface eth0\ninterface usb0\n"
            "static routers=1.2.3.1\n",
            BLOCK + "interface eth0\ninterface usb0\n",
            id="second block emptied",
        ),
        pytest.param("#interface usb0\n", "#interface usb0\n" + BLOCK, id="comment is no block"),
        pytest.param(BLOCK, BLOCK, id="already there"),
    ],
)
def test_dhcpcd_block_replaces_ours_only(before: str, after: str) -> None:
    assert network.dhcpcd_conf(before, GUEST) == after


def test_guest_without_name_servers_gets_no_empty_setting() -> None:
    bare = network.guest_network(SPEC, [])

    assert "domain_name_servers" not in network.dhcpcd_conf("", bare)
    assert "dns" not in network.keyfile(bare)
    assert "nameservers" not in network.netplan(bare)


def test_profile_uuid_belongs_to_the_gadget() -> None:
    other = network.guest_network(
        GadgetSpec(
            name="x",
            mac="00:22:82:ff:ff:02",
            host=IPv4Interface("10.0.12.1/24"),
            guest=IPv4Address("10.0.12.2"),
        ),
        [],
    )

    assert other.profile_uuid != GUEST.profile_uuid
    assert network.guest_network(SPEC, []).profile_uuid == GUEST.profile_uuid


@pytest.mark.parametrize(
    ("before", "head", "tail"),
    [
        pytest.param("", "network:\n  version: 2\n  ethernets:\n    usb0:\n", "", id="empty"),
        pytest.param(
            "# only\n# comments\n",
            "# only\n# comments\nnetwork:\n  version: 2\n  ethernets:\n    usb0:\n",
            "",
            id="comments",
        ),
        pytest.param(
            "network:\n  version: 2\n  wifis:\n    wlan0:\n      dhcp4: true\n",
            "network:\n  version: 2\n  wifis:\n    wlan0:\n      dhcp4: true\n"
            "  ethernets:\n    usb0:\n",
            "",
            id="Imager's with wireless",
        ),
        pytest.param(
            "network:\n    ethernets:\n        eth0:\n            dhcp4: true # x\n    # w\n"
            "    wifis:\n        wlan0: {dhcp4: true}\n",
            "network:\n    ethernets:\n        eth0:\n            dhcp4: true # x\n        usb0:\n",
            "    # w\n    wifis:\n        wlan0: {dhcp4: true}\n",
            id="own indent",
        ),
        pytest.param(
            "version: 2\nethernets:\n  usb0:\n    dhcp4: true\n  eth0:\n    dhcp4: true\n",
            "version: 2\nethernets:\n  usb0:\n",
            "  eth0:\n    dhcp4: true\n",
            id="without the network key; old block replaced",
        ),
    ],
)
def test_network_config_keeps_what_is_not_usb0s(before: str, head: str, tail: str) -> None:
    after = network.network_config(before, GUEST)

    assert after.startswith(head)
    assert after.endswith(tail)
    assert after.count("usb0:") == 1
    assert "- 10.0.11.2/24\n" in after[len(head) :]
    assert network.network_config(after, GUEST) == after


@pytest.mark.parametrize(
    ("text", "message"),
    [
        pytest.param("version: 1\nconfig: []\n", "write it as version 2", id="version 1"),
        pytest.param("network: {version: 2}\n", "line 1 .* no plain block", id="flow style"),
        pytest.param("network:\n\tversion: 2\n", "tabs", id="tabs"),
        pytest.param("{}\n", "no `key:` line", id="json"),
        pytest.param("network: *anchor\n", "no plain block", id="alias"),
    ],
)
def test_network_config_that_cannot_be_edited_is_refused(text: str, message: str) -> None:
    with pytest.raises(CardError, match=message):
        network.network_config(text, GUEST)
