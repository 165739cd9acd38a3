"""Hostname, hosts, first-boot scripts and users, as text."""

from __future__ import annotations

import pytest

from otgd.guest import identity
from otgd.guest.tree import CardError


@pytest.mark.parametrize(
    ("before", "after"),
    [
        pytest.param("127.0.1.1\traspberrypi\n", "127.0.1.1\tworker1\n", id="image's"),
        pytest.param(
            "127.0.1.1 pi.lan raspberrypi # me\n", "127.0.1.1 pi.lan worker1 # me\n", id="aliases"
        ),
        pytest.param("127.0.1.1\tother\n", "127.0.1.1\tworker1 other\n", id="somebody else's"),
        pytest.param("127.0.1.1\n", "127.0.1.1\tworker1\n", id="nameless"),
        pytest.param("::1 localhost\n", "::1 localhost\n127.0.1.1\tworker1\n", id="no line yet"),
        pytest.param("::1 localhost", "::1 localhost\n127.0.1.1\tworker1\n", id="no line end"),
        pytest.param("", "127.0.0.1\tlocalhost\n127.0.1.1\tworker1\n", id="empty"),
        pytest.param("127.0.1.1 a worker1\n", "127.0.1.1 a worker1\n", id="already there"),
        pytest.param(
            "#127.0.1.1 raspberrypi\n", "#127.0.1.1 raspberrypi\n127.0.1.1\tworker1\n", id="comment"
        ),
        pytest.param(
            "127.0.1.1 raspberrypi raspberrypi-old\n",
            "127.0.1.1 worker1 raspberrypi-old\n",
            id="longer name stays",
        ),
    ],
)
def test_own_name_has_debians_line(before: str, after: str) -> None:
    assert identity.hosts(before, old="raspberrypi", new="worker1") == after
    assert identity.hosts(after, old="worker1", new="worker1") == after


def test_first_boot_script_with_a_name_of_its_own_making_is_refused() -> None:
    with pytest.raises(CardError, match=r'sets the hostname to "\$NAME".*write worker1 there'):
        identity.firstrun('imager_custom set_hostname "$NAME"\n', "worker1")


def test_first_boot_script_without_hostname_is_left_alone() -> None:
    assert identity.firstrun("#!/bin/sh\n", "worker1") == "#!/bin/sh\n"


def test_custom_toml_gets_our_hostname() -> None:
    text = "config_version = 1\n[system]\nhostname = 'x'\n[user]\nname = \"pi\"\n"

    assert identity.custom_toml(text, "worker1") == text.replace("'x'", '"worker1"')


def test_user_data_with_users_of_its_own_is_refused() -> None:
    with pytest.raises(CardError, match="users list of its own; add ada"):
        identity.user_data(
            "#cloud-config\nusers:\n- default\n",
            hostname=None,
            login=identity.Login(name="ada", key="ssh-ed25519 A"),
        )


def test_user_data_replaces_our_earlier_user_and_keeps_the_rest() -> None:
    one = identity.Login(name="ada", key="ssh-ed25519 A")
    two = identity.Login(name="bob", key="ssh-ed25519 B")
    text = "#cloud-config\nhostname: old\npackages:\n- vim\n"

    first = identity.user_data(text, hostname="worker1", login=one)
    second = identity.user_data(first, hostname="worker1", login=two)

    assert first.startswith("#cloud-config\nhostname: worker1\npackages:\n- vim\n")
    assert second == first.replace("ada", "bob").replace("ssh-ed25519 A", "ssh-ed25519 B")


def test_user_data_without_its_first_line_gets_it() -> None:
    assert identity.user_data("", hostname="w", login=None) == "#cloud-config\nhostname: w\n"


@pytest.mark.parametrize("hostname", ["7", "off", "1e3"])
def test_hostname_that_yaml_would_take_for_something_else_is_quoted(hostname: str) -> None:
    assert identity.user_data("", hostname=hostname, login=None).endswith(
        f'hostname: "{hostname}"\n'
    )


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("rpi:\n  enable_usb_gadget: true # on\n", "rpi:\n  enable_usb_gadget: false # on\n"),
        ("rpi: {enable_usb_gadget: True}\n", "rpi: {enable_usb_gadget: false}\n"),
        ("#  enable_usb_gadget: true\n", "#  enable_usb_gadget: true\n"),
    ],
    ids=["block", "flow", "comment"],
)
def test_cloud_init_does_not_switch_rpi_usb_gadget_on(before: str, after: str) -> None:
    head = "#cloud-config\n"

    assert identity.user_data(head + before, hostname=None, login=None) == head + after


def test_damaged_passwd_lines_are_no_accounts() -> None:
    text = "root:x:0:0:root:/root:/bin/sh\nbroken\npi:x:1000:1000::/home/pi:/bin/sh\n::x:y:::\n"

    assert [account.name for account in identity.accounts(text)] == ["root", "pi"]
