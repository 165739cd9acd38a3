"""cmdline.txt: the guide's example, and every other way it may look."""

from __future__ import annotations

import pytest

from otgd.guest.cmdline import with_gadget

GUIDE_BEFORE = (
    "dwc_otg.lpm_enable=0 console=serial0,115200 console=tty1 root=/dev/mmcblk0p2 "
    "rootfstype=ext4 elevator=deadline fsck.repair=yes rootwait\n"
)
GUIDE_AFTER = (
    "dwc_otg.lpm_enable=0 console=serial0,115200 console=tty1 root=/dev/mmcblk0p2 "
    "rootfstype=ext4 elevator=deadline fsck.repair=yes rootwait modules-load=dwc2,g_ether "
    "g_ether.host_addr=00:22:82:ff:ff:01 g_ether.dev_addr=00:22:82:ff:ff:11 quiet\n"
)
OURS = (
    "modules-load=dwc2,g_ether g_ether.host_addr=00:22:82:ff:ff:01 "
    "g_ether.dev_addr=00:22:82:ff:ff:11"
)


def edited(text: str, guest_mac: str | None = "00:22:82:ff:ff:11") -> str:
    return with_gadget(text, host_mac="00:22:82:ff:ff:01", guest_mac=guest_mac)


def test_guides_before_becomes_the_guides_after() -> None:
    assert edited(GUIDE_BEFORE) == GUIDE_AFTER.replace(" quiet", "")


def test_guides_after_holds_what_is_wanted_already() -> None:
    assert edited(GUIDE_AFTER) == GUIDE_AFTER


@pytest.mark.parametrize(
    ("before", "after"),
    [
        pytest.param("a rootwait b", f"a rootwait {OURS} b\n", id="after rootwait"),
        pytest.param("a b", f"{OURS} a b\n", id="front without rootwait"),
        pytest.param("", f"{OURS}\n", id="empty"),
        pytest.param("a -- rootwait", f"{OURS} a -- rootwait\n", id="before what is init's"),
        pytest.param(
            "a systemd.run=/x rootwait",
            f"{OURS} a systemd.run=/x rootwait\n",
            id="before what Imager's first boot cuts off",
        ),
        pytest.param(
            'a="x y" rootwait "b  c"', f'a="x y" rootwait {OURS} "b  c"\n', id="quoted blanks"
        ),
        pytest.param(
            "a rootwait\nmodules-load=dwc2,g_ether\n", f"a rootwait {OURS}\n", id="second line"
        ),
        pytest.param("a rootwait\r\n", f"a rootwait {OURS}\n", id="Windows line end"),
        pytest.param(
            "g_ether.host_addr=02:00:00:00:00:01 a rootwait g_ether.dev_addr=02:00:00:00:00:02",
            f"a rootwait {OURS}\n",
            id="old MACs",
        ),
        pytest.param(
            "rootwait g-ether.host-addr=02:00:00:00:00:01", f"rootwait {OURS}\n", id="dashes"
        ),
        pytest.param(
            "rootwait modules-load=i2c-dev,dwc2,g_serial x",
            f"rootwait {OURS} modules-load=i2c-dev x\n",
            id="other modules stay, rival gadgets go",
        ),
        pytest.param(
            "rootwait modules_load=dwc2", f"rootwait {OURS}\n", id="underscore means the same"
        ),
        pytest.param(
            "rootwait modules-load=i2c-dev",
            f"rootwait {OURS} modules-load=i2c-dev\n",
            id="foreign modules-load untouched",
        ),
    ],
)
def test_our_arguments_find_their_place(before: str, after: str) -> None:
    assert edited(before) == after


def test_prepared_line_with_double_blanks_counts_as_prepared() -> None:
    text = f"a  rootwait  {OURS}  quiet\n"

    assert edited(text) == text


def test_without_guest_mac_the_lines_own_stays() -> None:
    text = "rootwait g_ether.dev_addr=02:00:00:00:00:02\n"

    assert edited(text, guest_mac=None) == (
        "rootwait modules-load=dwc2,g_ether g_ether.host_addr=00:22:82:ff:ff:01 "
        "g_ether.dev_addr=02:00:00:00:00:02\n"
    )


def test_no_break_space_does_not_end_an_argument() -> None:
    assert edited("a\u00a0b rootwait\n") == f"a\u00a0b rootwait {OURS}\n"
