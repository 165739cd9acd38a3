"""What a plan refuses, leaves alone and does on request."""

from __future__ import annotations

from dataclasses import replace

import pytest

from otgd.guest.identity import Login
from otgd.guest.plan import Wishes
from otgd.guest.release import Release
from otgd.guest.tree import CardError, Directory, File, Link, boot, root
from tests.unit.guest.cards import WORKER1, MemoryCard, golden_card, golden_entries, prepare, undo

KEY = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAI me@host"
LOGIN = Login(name="pi", key=KEY)


def test_missing_os_release_names_the_option_that_helps() -> None:
    entries = golden_entries("buster")
    del entries[root("usr/lib/os-release")]

    with pytest.raises(CardError, match=r"root:/etc/os-release: it is missing.*--release"):
        prepare(MemoryCard(entries))


def test_release_of_the_command_line_overrides_the_card() -> None:
    entries = golden_entries("buster")
    del entries[root("usr/lib/os-release")]

    assert prepare(MemoryCard(entries), wishes=Wishes(release=Release.BUSTER)).changes


def test_wrong_release_is_refused_instead_of_writing_what_nobody_reads() -> None:
    with pytest.raises(CardError, match=r"dhcpcd.conf is missing.*does not use dhcpcd as buster"):
        prepare(golden_card("bookworm"), wishes=Wishes(release=Release.BUSTER))


def test_root_partition_given_as_boot_is_refused() -> None:
    entries = golden_entries("buster")
    del entries[boot("config.txt")]

    with pytest.raises(CardError, match=r"boot:/config.txt: it is missing; is this the boot"):
        prepare(MemoryCard(entries))


def test_trixie_without_netplan_gets_a_networkmanager_profile() -> None:
    entries = golden_entries("trixie")
    del entries[root("usr/sbin/netplan")]
    card = MemoryCard(entries)

    prepare(card)

    assert card.read(root("etc/NetworkManager/system-connections/otgd-usb0.nmconnection"))
    assert card.read(root("etc/netplan/60-otgd.yaml")) is None


def test_trixie_watcher_that_serves_dhcp_is_masked_and_comes_back_with_undo() -> None:
    card = golden_card("trixie")
    mask = root("etc/systemd/system/rpi-usb-gadget-ics.service")

    prepare(card)
    assert card.read(mask) == Link(target="/dev/null")

    undo(card)
    assert card.read(mask) is None


def test_gadget_without_hostname_and_guest_mac_keeps_the_cards_own() -> None:
    card = golden_card("buster")

    plan = prepare(card, replace(WORKER1, hostname=None, guest_mac=None))

    assert card.read(root("etc/hostname")) == File(content=b"raspberrypi\n")
    assert [note.split(":")[0] for note in plan.notes] == [
        "gadget.ethusb1 has no hostname",
        "gadget.ethusb1 has no guest_mac",
    ]


@pytest.mark.parametrize(
    ("motd", "content"), [("", b""), ("Keep out.", b"Keep out.\n")], ids=["none", "own"]
)
def test_message_of_the_day_is_replaced_on_request(motd: str, content: bytes) -> None:
    card = golden_card("jessie")

    prepare(card, wishes=Wishes(motd=motd))

    assert card.read(root("etc/motd")) == File(content=content)


def test_enabled_ssh_is_left_as_it_is() -> None:
    entries = golden_entries("buster")
    wants = root("etc/systemd/system/multi-user.target.wants")
    entries |= {place: Directory() for place in (*wants.parents, wants)}
    own = Link(target="/lib/systemd/system/ssh.service")
    entries[root(f"{wants.path}/ssh.service")] = own
    card = MemoryCard(entries)

    prepare(card)

    assert card.read(root(f"{wants.path}/ssh.service")) == own


def test_card_without_ssh_server_is_refused() -> None:
    entries = golden_entries("buster")
    del entries[root("usr/lib/systemd/system/ssh.service")]

    with pytest.raises(CardError, match="install openssh-server on the card first"):
        prepare(MemoryCard(entries))


def test_key_of_a_user_that_is_there_goes_to_the_home() -> None:
    card = golden_card("buster")

    prepare(card, wishes=Wishes(login=LOGIN))

    assert card.read(root("home/pi/.ssh")) == Directory(mode=0o700, uid=1000, gid=1000)
    assert card.read(root("home/pi/.ssh/authorized_keys")) == File(
        content=f"{KEY}\n".encode(), mode=0o600, uid=1000, gid=1000
    )
    assert card.read(boot("userconf.txt")) is None


def test_keys_that_are_there_survive() -> None:
    entries = golden_entries("buster")
    entries[root("home/pi/.ssh")] = Directory(mode=0o755, uid=1000, gid=1000)
    entries[root("home/pi/.ssh/authorized_keys")] = File(
        content=b"ssh-rsa AAAA other", mode=0o640, uid=1000, gid=1000
    )
    card = MemoryCard(entries)

    prepare(card, wishes=Wishes(login=LOGIN))

    assert card.read(root("home/pi/.ssh/authorized_keys")) == File(
        content=f"ssh-rsa AAAA other\n{KEY}\n".encode(), mode=0o640, uid=1000, gid=1000
    )


def test_image_without_a_user_names_its_first_one_and_gives_it_the_key() -> None:
    card = golden_card("bullseye")

    prepare(card, wishes=Wishes(login=Login(name="ada", key=KEY)))

    assert card.read(boot("userconf.txt")) == File(content=b"ada:*\n")
    assert card.read(root("home/pi/.ssh/authorized_keys"))


def test_image_without_a_user_says_that_ssh_will_refuse() -> None:
    assert any("--user" in note for note in prepare(golden_card("bullseye")).notes)


def test_cloud_init_makes_the_user_on_trixie() -> None:
    card = golden_card("trixie")
    wishes = Wishes(login=Login(name="ada", key=KEY, password_hash="$6$salt$hash"))  # noqa: S106

    prepare(card, wishes=wishes)

    entry = card.read(boot("user-data"))
    assert isinstance(entry, File)
    assert entry.text.endswith(
        "hostname: worker1\n"
        "# added by otgctl prepare\n"
        "users:\n"
        "- name: ada\n"
        "  groups: users,adm,dialout,cdrom,audio,video,plugdev,games,input,netdev,gpio,i2c,spi,"
        "render,sudo\n"
        "  shell: /bin/bash\n"
        '  sudo: "ALL=(ALL) NOPASSWD:ALL"\n'
        "  lock_passwd: false\n"
        '  passwd: "$6$salt$hash"\n'
        "  ssh_authorized_keys:\n"
        f'    - "{KEY}"\n'
    )
    assert prepare(card, wishes=wishes).changes == ()


def test_unknown_user_on_a_card_that_cannot_make_users_is_refused() -> None:
    with pytest.raises(CardError, match="add user ada: root:/etc/passwd does not know it"):
        prepare(golden_card("jessie"), wishes=Wishes(login=Login(name="ada", key=KEY)))


def test_cmdline_that_config_txt_names_is_the_one_that_is_edited() -> None:
    entries = golden_entries("buster")
    config = entries[boot("config.txt")]
    assert isinstance(config, File)
    entries[boot("config.txt")] = File(content=config.content + b"cmdline=my.txt\n")
    entries[boot("my.txt")] = File(content=b"root=/dev/sda2 rootwait\n")
    card = MemoryCard(entries)

    prepare(card)

    edited, unread = card.read(boot("my.txt")), card.read(boot("cmdline.txt"))
    assert isinstance(edited, File)
    assert isinstance(unread, File)
    assert "g_ether" in edited.text
    assert "g_ether" not in unread.text


def test_gadget_without_a_mac_is_refused() -> None:
    with pytest.raises(CardError, match=r"worker1|ethusb1.*no MAC for it; add mac = \"…\" to \["):
        prepare(golden_card("buster"), replace(WORKER1, mac=None, port="1-1.2"))
