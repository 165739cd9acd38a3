"""Which image runs on which machine. Pure.

Images say an architecture and, for arm, a variant (OCI image spec, "platform"); machines say what
``uname -m`` says.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

MACHINES = {"x86_64": "amd64", "aarch64": "arm64", "i386": "386", "i686": "386"}

ELF_MACHINES = {3: "386", 40: "arm", 62: "amd64", 183: "arm64"}
"""e_machine, include/uapi/linux/elf-em.h."""

UNSAID_ARM = 7
"""What arm without a variant means (containerd, platforms/database.go)."""

ARM_ON_ARM64 = 8
"""The variants that a Pi's 64-bit processors run as well: all of them."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Platform:
    """An architecture in Go's words; *variant* (``v6``) only with arm and arm64."""

    architecture: str
    variant: str = ""

    def __str__(self) -> str:
        return f"{self.architecture}/{self.variant}" if self.variant else self.architecture

    @property
    def arm_version(self) -> int:
        """The number of arm's variant."""
        number = re.match(r"v(\d+)", self.variant)
        return int(number[1]) if number else UNSAID_ARM


def of_machine(machine: str) -> Platform:
    """Return the platform of a machine, for example ``armv6l``: arm/v6."""
    arm = re.match(r"armv(\d+)", machine)
    if arm:
        # "armv8l" is a 32-bit system on a 64-bit processor; its programs are v7's.
        return Platform(architecture="arm", variant=f"v{min(int(arm[1]), 7)}")
    return Platform(architecture=MACHINES.get(machine, machine))


def runs_on(image: Platform, machine: Platform) -> bool:
    """Tell whether *image* runs on *machine*."""
    if image.architecture == "arm" and machine.architecture == "arm":
        return image.arm_version <= machine.arm_version
    if image.architecture == "arm" and machine.architecture == "arm64":
        return image.arm_version <= ARM_ON_ARM64
    if (image.architecture, machine.architecture) == ("386", "amd64"):
        return True
    return image.architecture == machine.architecture
