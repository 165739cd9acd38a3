"""Where the sources lie below a root directory."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from otgd.cli.importing import card, dhcpcd, ini, packet_filter, udev
from otgd.cli.importing.findings import Left, Origin

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from pathlib import Path

    from otgd.cli.importing.findings import Finding

    Reader = Callable[[str, str], Iterator[Finding]]

SOURCES: tuple[tuple[str, Reader], ...] = (
    ("etc/udev/rules.d/*.rules", udev.read),
    ("etc/systemd/network/*.link", ini.read_link),
    ("etc/NetworkManager/system-connections/*", ini.read_keyfile),
    ("etc/dhcpcd.conf", dhcpcd.read),
    ("etc/systemd/network/*.network", ini.read_network),
    ("etc/iptables/rules.v4", packet_filter.read_iptables),
    ("etc/iptables*", packet_filter.read_iptables),  # iptables.rules, iptables.ipv4.nat, ...
    ("etc/network/iptables*", packet_filter.read_iptables),
    ("etc/network/interfaces", packet_filter.read_iptables),
    ("etc/network/if-*.d/*", packet_filter.read_iptables),
    ("etc/rc.local", packet_filter.read_iptables),
    ("etc/nftables.conf", packet_filter.read_nft),
    ("etc/nftables.d/*.nft", packet_filter.read_nft),
)
"""Pattern below the root, and who reads what matches; names come before what refers to them."""

CMDLINES = ("boot/firmware/cmdline.txt", "boot/cmdline.txt", "cmdline.txt")


def read_root(root: Path) -> Iterator[Finding]:
    """Yield all that the files below *root* tell."""
    for pattern, reader in SOURCES:
        for path in sorted(root.glob(pattern)):
            if path.is_file():
                yield from _read(path, f"/{path.relative_to(root)}", reader)


def read_rules(paths: Sequence[Path]) -> Iterator[Finding]:
    """Yield what further files tell: an iptables-save, a script, or an nft ruleset."""
    for path in paths:
        yield from _read(path, str(path), _read_any_rules)


def read_card(directory: Path) -> Iterator[Finding]:
    """Yield what a Zero's card tells; *directory* is its root, or its boot partition alone."""
    for name in CMDLINES:
        path = directory / name
        if path.is_file():
            reader = partial(
                card.read,
                hostname=_text(directory / "etc/hostname"),
                dhcpcd_conf=_text(directory / "etc/dhcpcd.conf"),
            )
            yield from _read(path, str(path), reader)
            return
    origin = Origin(file=str(directory), line=1)
    yield Left(origin=origin, text="cmdline.txt", why="is not there, so this is no Zero's card")


def _read_any_rules(text: str, file: str) -> Iterator[Finding]:
    yield from packet_filter.read_iptables(text, file)
    yield from packet_filter.read_nft(text, file)


def _read(path: Path, shown: str, reader: Reader) -> Iterator[Finding]:
    try:
        text = path.read_text(encoding="utf-8", errors="replace")
    except OSError as err:
        origin = Origin(file=shown, line=1)
        yield Left(origin=origin, text="the file", why=f"cannot be read: {err.strerror}")
        return
    yield from reader(text, shown)


def _text(path: Path) -> str:
    return path.read_text(encoding="utf-8", errors="replace") if path.is_file() else ""
