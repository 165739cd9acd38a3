"""What is missing on a card: ``make_plan(tree, gadget, wishes)`` turns what was read into changes.

``observe`` is the only function here that reads a card; the rest is pure.
"""

from __future__ import annotations

import difflib
from dataclasses import dataclass
from ipaddress import IPv4Address
from typing import TYPE_CHECKING

from otgd.guest import cmdline, config_txt, identity, network
from otgd.guest.release import OS_RELEASE, Release, read_release
from otgd.guest.tree import (
    CardError,
    Change,
    Directory,
    File,
    Link,
    Place,
    Tree,
    boot,
    encode,
    read_tree,
    root,
)
from otgd.guest.undo import MANIFEST

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from otgd.guest.identity import Login
    from otgd.guest.tree import Card, Entry
    from otgd.model import GadgetSpec

CONFIG_TXT = boot("config.txt")
USER_DATA = boot("user-data")
NETWORK_CONFIG = boot("network-config")
FIRSTRUN = boot("firstrun.sh")
CUSTOM_TOML = boot("custom.toml")
USERCONF_TXT = boot("userconf.txt")
HOSTNAME = root("etc/hostname")
HOSTS = root("etc/hosts")
MOTD = root("etc/motd")
PASSWD = root("etc/passwd")
DHCPCD_CONF = root("etc/dhcpcd.conf")
NM = root("etc/NetworkManager")
KEYFILE = root("etc/NetworkManager/system-connections/otgd-usb0.nmconnection")
NETPLAN_PROGRAM = root("usr/sbin/netplan")
NETPLAN_FILE = root("etc/netplan/60-otgd.yaml")
UDEV_FILE = root("etc/udev/rules.d/90-otgd-usb0.rules")
ICS_UNIT = root("usr/lib/systemd/system/rpi-usb-gadget-ics.service")
ICS_MASK = root("etc/systemd/system/rpi-usb-gadget-ics.service")
SSH_UNITS = (root("usr/lib/systemd/system/ssh.service"), root("lib/systemd/system/ssh.service"))
SSH_ENABLED = root("etc/systemd/system/multi-user.target.wants/ssh.service")
USERCONF = root("usr/lib/userconf-pi/userconf")
RENAME_PENDING = root("etc/ssh/sshd_config.d/rename_user.conf")
"""userconf-pi puts it there until the image's first user has been given a name."""

_STATIC_PLACES = (
    *(CONFIG_TXT, USER_DATA, NETWORK_CONFIG, FIRSTRUN, CUSTOM_TOML, USERCONF_TXT, MANIFEST),
    *(*OS_RELEASE, HOSTNAME, HOSTS, MOTD, PASSWD, DHCPCD_CONF, NM, KEYFILE),
    *(NETPLAN_PROGRAM, NETPLAN_FILE, UDEV_FILE, ICS_UNIT, ICS_MASK),
    *(*SSH_UNITS, SSH_ENABLED, USERCONF, RENAME_PENDING),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Wishes:
    """What the config does not say and the command line may.

    Attributes:
        release: overrides what the card says of itself.
        dns: the guest's name servers.
        motd: the message of the day; None leaves it alone, empty clears it.
        gpu_mem: whether to set gpu_mem=16; None: unless the card wants the camera.
    """

    release: Release | None = None
    dns: tuple[IPv4Address, ...] = (IPv4Address("8.8.8.8"),)
    motd: str | None = None
    login: Login | None = None
    gpu_mem: bool | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class CardPlan:
    """The changes that make the card the gadget's; none when it is already.

    Attributes:
        notes: sentences about what was left alone, and why.
    """

    gadget: str
    release: Release
    changes: tuple[Change, ...]
    notes: tuple[str, ...] = ()


def observe(card: Card, wishes: Wishes) -> Tree:
    """Read everything of the card that a plan may depend on."""
    first = read_tree(card, _STATIC_PLACES)
    further = {_cmdline_place(first)}
    for home in _homes(first, wishes.login):
        further |= {root(f"{home}/.ssh"), root(f"{home}/.ssh/authorized_keys")}
    return read_tree(card, {*_STATIC_PLACES, *further})


def make_plan(tree: Tree, spec: GadgetSpec, wishes: Wishes) -> CardPlan:
    """Compare the card with what the gadget's entry and *wishes* want of it.

    Raises:
        CardError: the card is not what it should be; the sentence names the file and the cure.
    """
    release = wishes.release or read_release(tree)
    wanted = dict(_wanted(tree, spec, wishes, release))
    return CardPlan(
        gadget=spec.name,
        release=release,
        changes=tuple(_changes(tree, wanted)),
        notes=tuple(_notes(tree, spec, wishes)),
    )


def diff(changes: Iterable[Change]) -> str:
    """Show changes as a unified diff; modes and links are told in git's words."""
    return "".join(_diff_of(change) for change in changes)


# --- what is wanted ------------------------------------------------------------------------------


def _wanted(
    tree: Tree, spec: GadgetSpec, wishes: Wishes, release: Release
) -> Iterator[tuple[Place, Entry | None]]:
    """Yield each place with what it shall hold; cmdline.txt, which makes it a gadget, last."""
    if spec.hostname:
        yield from _wanted_hostname(tree, spec.hostname)
    if wishes.motd is not None:
        yield _text(tree, MOTD, wishes.motd.rstrip("\n") + "\n" if wishes.motd else "")
    yield from _wanted_ssh(tree)
    if wishes.login:
        yield from _wanted_login(tree, wishes.login)
    yield from _wanted_network(tree, spec, wishes, release)
    if tree.has(USER_DATA):
        yield _text(
            tree,
            USER_DATA,
            identity.user_data(
                tree.text(USER_DATA),
                hostname=spec.hostname,
                login=wishes.login if _cloud_init_makes_user(tree, wishes.login) else None,
            ),
        )
    yield _text(
        tree,
        CONFIG_TXT,
        config_txt.with_gadget(_required(tree, CONFIG_TXT), gpu_mem=wishes.gpu_mem),
    )
    place = _cmdline_place(tree)
    yield _text(
        tree,
        place,
        cmdline.with_gadget(
            _required(tree, place), host_mac=_host_mac(spec), guest_mac=spec.guest_mac
        ),
    )


def _host_mac(spec: GadgetSpec) -> str:
    """Return the MAC that the card shall give the host's end.

    Raises:
        CardError: the config knows the gadget by another sign.
    """
    if spec.mac is None:
        remedy = f'add mac = "…" to [gadget.{spec.name}], as its g_ether.host_addr'
        raise CardError(f"prepare {spec.name}: the config has no MAC for it; {remedy}")
    return spec.mac


def _wanted_hostname(tree: Tree, hostname: str) -> Iterator[tuple[Place, Entry | None]]:
    old = tree.text(HOSTNAME).strip()
    # hosts first: were the power cut in between, the next run would still know the old name.
    yield _text(tree, HOSTS, identity.hosts(tree.text(HOSTS), old=old, new=hostname))
    yield _text(tree, HOSTNAME, hostname + "\n" if old != hostname else tree.text(HOSTNAME))
    if tree.has(FIRSTRUN):
        yield _text(tree, FIRSTRUN, identity.firstrun(tree.text(FIRSTRUN), hostname))
    if tree.has(CUSTOM_TOML):
        yield _text(tree, CUSTOM_TOML, identity.custom_toml(tree.text(CUSTOM_TOML), hostname))


def _wanted_ssh(tree: Tree) -> Iterator[tuple[Place, Entry | None]]:
    """What ``systemctl enable ssh`` does; the file ``ssh`` on the boot volume is eaten at boot."""
    unit = next((unit for unit in SSH_UNITS if tree.has(unit)), None)
    if unit is None:
        raise CardError(
            f"enable ssh: {SSH_UNITS[0]} is missing; install openssh-server on the card first"
        )
    if not tree.has(SSH_ENABLED):
        yield SSH_ENABLED, Link(target=f"/{unit.path}")


def _wanted_login(tree: Tree, login: Login) -> Iterator[tuple[Place, Entry | None]]:
    account = _account(tree, login)
    settled = account is not None and not tree.has(RENAME_PENDING)
    if settled and login.password_hash:
        raise CardError(
            f"set a password for {login.name}: {PASSWD} has that user already; "
            "leave the password out and change it on the Zero"
        )
    if _cloud_init_makes_user(tree, login):
        return
    if not settled:
        if not tree.has(USERCONF):
            raise CardError(
                f"add user {login.name}: {PASSWD} does not know it and this card cannot make "
                "users at first boot; name one that it has with --user"
            )
        yield _text(tree, USERCONF_TXT, identity.userconf(login))
    if login.key:
        yield from _wanted_key(tree, login, account)


def _wanted_key(
    tree: Tree, login: Login, account: identity.Account | None
) -> Iterator[tuple[Place, Entry | None]]:
    """Put the key where the user will find it: first boot renames uid 1000 with its home."""
    account = account or _first_user(tree)
    if account is None:
        raise CardError(
            f"add a key for {login.name}: {PASSWD} has no user with uid 1000; "
            "boot the card once, or name a user that it has with --user"
        )
    directory = root(f"{account.home}/.ssh")
    place = root(f"{account.home}/.ssh/authorized_keys")
    yield (
        directory,
        tree.get(directory) or Directory(mode=0o700, uid=account.uid, gid=account.gid),
    )
    found = tree.file(place) or File(content=b"", mode=0o600, uid=account.uid, gid=account.gid)
    yield place, found.with_text(identity.authorized_keys(found.text, login.key))


def _wanted_network(
    tree: Tree, spec: GadgetSpec, wishes: Wishes, release: Release
) -> Iterator[tuple[Place, Entry | None]]:
    guest = network.guest_network(spec, wishes.dns)
    if release.uses_dhcpcd:
        if not tree.has(DHCPCD_CONF):
            raise _other_release(DHCPCD_CONF, release, "dhcpcd")
        yield _text(tree, DHCPCD_CONF, network.dhcpcd_conf(tree.text(DHCPCD_CONF), guest))
        return
    if not tree.has(NM):
        raise _other_release(NM, release, "NetworkManager")
    yield UDEV_FILE, File(content=encode(network.UDEV_RULE))
    if release is Release.TRIXIE or tree.has(ICS_UNIT):
        yield ICS_MASK, Link(target="/dev/null")
    if release is not Release.TRIXIE or not tree.has(NETPLAN_PROGRAM):
        yield KEYFILE, File(content=encode(network.keyfile(guest)), mode=0o600)
        return
    yield NETPLAN_FILE, File(content=encode(network.netplan(guest)), mode=0o600)
    if tree.has(NETWORK_CONFIG):
        text = network.network_config(tree.text(NETWORK_CONFIG), guest)
        yield _text(tree, NETWORK_CONFIG, text)


def _other_release(place: Place, release: Release, program: str) -> CardError:
    return CardError(
        f"set the address: {place} is missing, so this card does not use {program} "
        f"as {release} does; name its release with --release"
    )


def _notes(tree: Tree, spec: GadgetSpec, wishes: Wishes) -> Iterator[str]:
    named = wishes.login or tree.has(FIRSTRUN) or tree.has(USERCONF_TXT)
    if tree.has(RENAME_PENDING) and not named:
        yield "the card has no user yet and refuses ssh until it has: name one with --user"
    if not spec.hostname:
        yield f"gadget.{spec.name} has no hostname: the card's own is left alone"
    if not spec.guest_mac and "g_ether.dev_addr" not in tree.text(_cmdline_place(tree)):
        yield (f"gadget.{spec.name} has no guest_mac: the guest's end gets a new MAC at each boot")


# --- reading the tree ----------------------------------------------------------------------------


def _text(tree: Tree, place: Place, text: str) -> tuple[Place, File]:
    return place, (tree.file(place) or File(content=b"")).with_text(text)


def _required(tree: Tree, place: Place) -> str:
    if not tree.has(place):
        raise CardError(f"read {place}: it is missing; is this the boot partition of a Zero?")
    return tree.text(place)


def _cmdline_place(tree: Tree) -> Place:
    """The file the firmware reads: cmdline.txt unless config.txt says otherwise."""
    setting = config_txt.effective(tree.text(CONFIG_TXT), "cmdline")
    return boot(setting.value.lstrip("/") if setting and setting.value else "cmdline.txt")


def _account(tree: Tree, login: Login) -> identity.Account | None:
    users = identity.accounts(tree.text(PASSWD))
    return next((one for one in users if one.name == login.name), None)


def _first_user(tree: Tree) -> identity.Account | None:
    users = identity.accounts(tree.text(PASSWD))
    return next((one for one in users if one.uid == 1000), None)


def _homes(tree: Tree, login: Login | None) -> list[str]:
    if login is None:
        return []
    found = (_account(tree, login), _first_user(tree))
    return [account.home for account in found if account]


def _cloud_init_makes_user(tree: Tree, login: Login | None) -> bool:
    if login is None or not tree.has(USER_DATA):
        return False
    return tree.has(RENAME_PENDING) or _account(tree, login) is None


# --- changes -------------------------------------------------------------------------------------


def _changes(tree: Tree, wanted: dict[Place, Entry | None]) -> Iterator[Change]:
    """Yield what differs, each missing directory before the first file that needs it."""
    made: set[Place] = set()
    for place, after in wanted.items():
        before = tree.get(place)
        if before == after:
            continue
        for above in place.parents:
            if above not in made and above not in wanted and not tree.has(above):
                made.add(above)
                yield Change(place=above, before=None, after=Directory())
        yield Change(place=place, before=before, after=after)


def _diff_of(change: Change) -> str:
    before, after = _shown(change.before), _shown(change.after)
    lines = difflib.unified_diff(
        before,
        after,
        f"a/{change.place}" if change.before else "/dev/null",
        f"b/{change.place}" if change.after else "/dev/null",
    )
    head = _modes(change)
    return head + "".join(
        line if line.endswith("\n") else f"{line}\n\\ No newline at end of file\n" for line in lines
    )


def _shown(entry: Entry | None) -> list[str]:
    match entry:
        case File():
            text = entry.content.decode("utf-8", "backslashreplace")
            return [line + "\n" for line in text.split("\n")[:-1]] + (
                [tail] if (tail := text.split("\n")[-1]) else []
            )
        case Link():
            return [f"{entry.target}\n"]
        case _:
            return []


def _modes(change: Change) -> str:
    match change.before, change.after:
        case None, File() as new:
            return f"new file mode {0o100000 | new.mode:o} {change.place}\n"
        case None, Directory() as new:
            return f"new directory mode {new.mode:o} {change.place}\n"
        case None, Link():
            return f"new link {change.place}\n"
        case File() as old, File() as new if old.mode != new.mode:
            return f"mode {old.mode:o} -> {new.mode:o} {change.place}\n"
        case _:
            return ""
