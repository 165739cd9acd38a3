"""Which image runs where, and which program goes into one."""

from __future__ import annotations

import struct

import pytest

from otgd.swarm.guid import NotStaticError, check_program
from otgd.swarm.platforms import Platform, of_machine, runs_on


@pytest.mark.parametrize(
    ("machine", "platform"),
    [
        ("armv6l", "arm/v6"),
        ("armv7l", "arm/v7"),
        ("armv8l", "arm/v7"),
        ("aarch64", "arm64"),
        ("x86_64", "amd64"),
        ("riscv64", "riscv64"),
    ],
)
def test_platform_of_a_machine(machine: str, platform: str) -> None:
    assert str(of_machine(machine)) == platform


@pytest.mark.parametrize(
    ("image", "machine", "runs"),
    [
        (("arm", "v6"), "armv6l", True),
        (("arm", "v7"), "armv6l", False),
        (("arm", ""), "armv6l", False),
        (("arm", "v5"), "armv6l", True),
        (("arm", "v6"), "armv7l", True),
        (("arm", ""), "armv7l", True),
        (("arm", "v7"), "aarch64", True),
        (("arm64", "v8"), "aarch64", True),
        (("arm64", ""), "armv7l", False),
        (("amd64", ""), "x86_64", True),
        (("386", ""), "x86_64", True),
        (("amd64", ""), "aarch64", False),
        (("arm", "v6"), "x86_64", False),
    ],
)
def test_images_run_where_their_variant_does(
    image: tuple[str, str], machine: str, *, runs: bool
) -> None:
    platform = Platform(architecture=image[0], variant=image[1])
    assert runs_on(platform, of_machine(machine)) is runs


def program(machine: int, *, wide: bool, interpreter: bool) -> bytes:
    """Write the headers of a program, as elf(5) has them."""
    ident = b"\x7fELF" + bytes([2 if wide else 1, 1, 1]) + bytes(9)
    kind = 3 if interpreter else 1  # PT_INTERP, PT_LOAD
    if wide:
        header = struct.pack("<HHIQQQIHHHHHH", 2, machine, 1, 0, 64, 0, 0, 64, 56, 1, 0, 0, 0)
        return ident + header + struct.pack("<I52x", kind)
    header = struct.pack("<HHIIIIIHHHHHH", 2, machine, 1, 0, 52, 0, 0, 52, 32, 1, 0, 0, 0)
    return ident + header + struct.pack("<I28x", kind)


@pytest.mark.parametrize(("machine", "name"), [(40, "armv6l"), (183, "aarch64"), (62, "x86_64")])
def test_static_program_of_the_machine_is_taken(machine: int, name: str) -> None:
    wide = machine != 40
    check_program(program(machine, wide=wide, interpreter=False), of_machine(name))
    with pytest.raises(NotStaticError, match="libraries"):
        check_program(program(machine, wide=wide, interpreter=True), of_machine(name))


def test_program_of_another_machine_is_refused() -> None:
    with pytest.raises(NotStaticError, match="it is for arm64"):
        check_program(program(183, wide=True, interpreter=False), of_machine("armv6l"))
    with pytest.raises(NotStaticError, match="no program"):
        check_program(b"#!/bin/sh\n" * 20, of_machine("armv6l"))
