"""Which Raspberry Pi OS a card holds, and what that means for its network."""

from __future__ import annotations

import re
from enum import StrEnum
from typing import TYPE_CHECKING

from otgd.guest.tree import CardError, File, root

if TYPE_CHECKING:
    from otgd.guest.tree import Tree

OS_RELEASE = (root("etc/os-release"), root("usr/lib/os-release"))
"""os-release(5): /etc's is a link to the other where both exist; Jessie's has no codename."""


class Release(StrEnum):
    """A release of Raspberry Pi OS (Raspbian), by the name of its Debian."""

    JESSIE = "jessie"
    STRETCH = "stretch"
    BUSTER = "buster"
    BULLSEYE = "bullseye"
    BOOKWORM = "bookworm"
    TRIXIE = "trixie"

    @property
    def uses_dhcpcd(self) -> bool:
        """Whether dhcpcd configures interfaces; NetworkManager does so later."""
        return self not in {Release.BOOKWORM, Release.TRIXIE}


_BY_VERSION_ID = dict(zip(("8", "9", "10", "11", "12", "13"), Release, strict=True))


def read_release(tree: Tree) -> Release:
    """Tell the card's release from its os-release.

    Raises:
        CardError: there is no os-release, or it names a release that otgd does not know.
    """
    place = next((place for place in OS_RELEASE if isinstance(tree.get(place), File)), None)
    if place is None:
        raise CardError(
            f"read {OS_RELEASE[0]}: it is missing; is this the root partition? "
            "If it is, name the release with --release"
        )
    text = tree.text(place)
    match = re.search(r'^VERSION_ID="?(\d+)', text, re.MULTILINE)
    release = _BY_VERSION_ID.get(match[1]) if match else None
    if release is None:
        named = match[1] if match else "none"
        raise CardError(
            f"read {place}: VERSION_ID {named} is no release that otgctl knows; "
            f"say --release with one of {', '.join(Release)}"
        )
    return release
