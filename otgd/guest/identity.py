"""Who the guest is: hostname, message of the day, ssh, user and key.

Pure: text in, text out.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from otgd.guest import yaml_block
from otgd.guest.tree import CardError

USER_MARK = "# added by otgctl prepare"
_GADGET_MODE = re.compile(
    r"^([^#\n]*\benable_usb_gadget\s*:\s*)(?:true|yes|on)\b", re.MULTILINE | re.IGNORECASE
)
_YAML_OTHER = re.compile(r"[\d.+-].*|on|off|yes|no|y|n|true|false|null", re.IGNORECASE)
"""What YAML 1.1 would not read as a string."""
_GROUPS = "users,adm,dialout,cdrom,audio,video,plugdev,games,input,netdev,gpio,i2c,spi,render,sudo"


@dataclass(frozen=True, slots=True, kw_only=True)
class Login:
    """An account to log in with: a key, a password's hash as in /etc/shadow, or both."""

    name: str
    key: str = ""
    password_hash: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Account:
    """One line of passwd(5), as far as it matters."""

    name: str
    uid: int
    gid: int
    home: str


def hosts(text: str, *, old: str, new: str) -> str:
    """Return /etc/hosts with *new* on the 127.0.1.1 line (Debian's place for the own name)."""
    lines = (text or "127.0.0.1\tlocalhost\n").split("\n")
    found = False
    for number, line in enumerate(lines):
        names = line.partition("#")[0].split()
        if names[:1] != ["127.0.1.1"]:
            continue
        found = True
        if new not in names[1:]:
            lines[number] = _renamed(line, old, new)
    if not found:
        at = len(lines) if lines[-1] else len(lines) - 1
        lines[at:] = [f"127.0.1.1\t{new}", ""]
    return "\n".join(lines)


def _renamed(line: str, old: str, new: str) -> str:
    renamed = re.sub(rf"(?<=\s){re.escape(old)}(?=[\s#]|$)", new, line) if old else line
    if renamed != line:
        return renamed
    return re.sub(r"127\.0\.1\.1\s*", f"127.0.1.1\t{new} ", line, count=1).rstrip(" ")


def firstrun(text: str, hostname: str) -> str:
    """Return Imager's firstrun.sh with our hostname, since it runs after us and sets its own.

    Raises:
        CardError: it sets the hostname in a way of its own.
    """
    match = re.search(r"imager_custom set_hostname (\S+)", text)
    if match is None:
        return text
    old = match[1]
    if not re.fullmatch(r"[A-Za-z0-9.-]+", old):
        raise CardError(
            f"edit boot:/firstrun.sh: it sets the hostname to {old} at first boot; "
            f"write {hostname} there by hand"
        )
    for before, after in (
        (f"imager_custom set_hostname {old}", f"imager_custom set_hostname {hostname}"),
        (f"echo {old} >/etc/hostname", f"echo {hostname} >/etc/hostname"),
        (f"127.0.1.1\\t{old}/g", f"127.0.1.1\\t{hostname}/g"),
    ):
        text = text.replace(before, after)
    return text


def custom_toml(text: str, hostname: str) -> str:
    """Return Bookworm's custom.toml with our hostname, if it names one."""
    return re.sub(
        r'^(\s*hostname\s*=\s*)(["\']).*?\2', rf'\1"{hostname}"', text, flags=re.MULTILINE
    )


def user_data(text: str, *, hostname: str | None, login: Login | None) -> str:
    """Return cloud-init's user-data with our hostname and login, and rpi-usb-gadget off.

    cloud-init sets the hostname at each boot and would run ``rpi-usb-gadget on`` at the first,
    which hands out addresses on usb0.

    Raises:
        CardError: the file creates users of its own, or cannot be edited.
    """
    name = "boot:/user-data"
    text = _GADGET_MODE.sub(r"\1false", text)
    if hostname:
        scalar = f'"{hostname}"' if _YAML_OTHER.fullmatch(hostname) else hostname
        text = yaml_block.put(text, ["hostname"], [f"hostname: {scalar}"], name=name)
    if login:
        if "users" in yaml_block.top_level(text) and f"{USER_MARK}\nusers:" not in text:
            raise CardError(
                f"edit {name}: it has a users list of its own; add {login.name} and the key there "
                "and leave --user out"
            )
        block = _users_block(login)
        if USER_MARK not in text:
            block = [USER_MARK, *block]
        text = yaml_block.put(text, ["users"], block, name=name)
    return text if text.startswith("#cloud-config") else "#cloud-config\n" + text


def _users_block(login: Login) -> list[str]:
    secret = ["  lock_passwd: true"]
    if login.password_hash:
        secret = ["  lock_passwd: false", f'  passwd: "{login.password_hash}"']
    keys = ["  ssh_authorized_keys:", f'    - "{login.key}"'] if login.key else []
    return [
        "users:",
        f"- name: {login.name}",
        f"  groups: {_GROUPS}",
        "  shell: /bin/bash",
        '  sudo: "ALL=(ALL) NOPASSWD:ALL"',
        *secret,
        *keys,
    ]


def userconf(login: Login) -> str:
    """Return userconf.txt, by which Raspberry Pi OS names its first user; ``*``: no password."""
    return f"{login.name}:{login.password_hash or '*'}\n"


def authorized_keys(text: str, key: str) -> str:
    """Return an authorized_keys file with *key* in it, sshd(8)."""
    if key in text.split("\n"):
        return text
    joint = "" if not text or text.endswith("\n") else "\n"
    return f"{text}{joint}{key}\n"


def accounts(passwd: str) -> list[Account]:
    """Read passwd(5)."""
    rows = (line.split(":") for line in passwd.split("\n"))
    return [
        Account(name=row[0], uid=int(row[2]), gid=int(row[3]), home=row[5].strip("/"))
        for row in rows
        if len(row) == 7 and row[2].isdigit() and row[3].isdigit()
    ]
