"""The service of ``otgctl swarm test``: tells a GUID and which container made it. Pure.

Made of one static program, Debian's busybox, so it takes no registry and no compiler.
"""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING

from otgd.swarm.archive import make_archive
from otgd.swarm.platforms import ELF_MACHINES

if TYPE_CHECKING:
    from otgd.swarm.platforms import Platform

TAG = "localhost/otgd-guid:1"
"""An engine looks for a task's image in its registry first; at ``localhost`` it is refused at once,
and takes its own copy, while a name without a host would wait for the Internet."""

SERVICE = "otgd-guid"
NETWORK = "otgd-guid"
PORT = 9000
"""As in the guide."""

PATH = "/cgi-bin/guid"
PEERS_PATH = "/cgi-bin/peers"

_GUID = r"""#!/bin/busybox sh
read -r guid < /proc/sys/kernel/random/uuid
read -r name < /etc/hostname
printf 'Content-Type: application/json\r\n\r\n{"guid":"%s","container":"%s"}\n' "$guid" "$name"
"""
_PEERS = rf"""#!/bin/busybox sh
printf 'Content-Type: text/plain\r\n\r\n'
ask() {{
    printf 'GET {PATH} HTTP/1.0\r\n\r\n' | /bin/busybox nc -w 3 "$1" {PORT} |
        /bin/busybox grep '^{{'
}}
/bin/busybox nslookup tasks.{SERVICE} 127.0.0.11 2> /dev/null | while read -r key value; do
    case $key$value in
        Address:*:*) ;; # the name server's own, with its port
        Address:*) ask "$value" ;;
    esac
done
"""
"""Asks every replica through the overlay network: what a published port cannot show.

With nc, since bookworm's static busybox crashes at ``wget -T``.
"""

_PT_INTERP = 3


class NotStaticError(ValueError):
    """A program that is not what the image needs."""


def check_program(program: bytes, platform: Platform) -> None:
    """See that *program* runs on *platform* without any library.

    Raises:
        NotStaticError: it does not; the message says why.
    """
    if len(program) < 64 or program[:4] != b"\x7fELF":
        raise NotStaticError("it is no program")
    order = "<" if program[5] == 1 else ">"
    architecture = ELF_MACHINES.get(struct.unpack_from(f"{order}H", program, 18)[0], "unknown")
    if architecture != platform.architecture:
        raise NotStaticError(f"it is for {architecture}")
    if program[4] == 2:  # ELFCLASS64
        (table,) = struct.unpack_from(f"{order}Q", program, 32)
        size, count = struct.unpack_from(f"{order}HH", program, 54)
    else:
        (table,) = struct.unpack_from(f"{order}I", program, 28)
        size, count = struct.unpack_from(f"{order}HH", program, 42)
    for n in range(count):
        if struct.unpack_from(f"{order}I", program, table + n * size)[0] == _PT_INTERP:
            raise NotStaticError("it needs libraries")


def make_image(busybox: bytes, platform: Platform) -> bytes:
    """Make the service's image, as an archive.

    Raises:
        NotStaticError: *busybox* cannot be used on *platform*.
    """
    check_program(busybox, platform)
    files = {
        "bin/busybox": (0o755, busybox),
        "etc/hostname": (0o644, b""),
        f"www{PATH}": (0o755, _GUID.encode()),
        f"www{PEERS_PATH}": (0o755, _PEERS.encode()),
    }
    config = {
        "Cmd": ["/bin/busybox", "httpd", "-f", "-p", str(PORT), "-h", "/www"],
        "ExposedPorts": {f"{PORT}/tcp": {}},
        "StopSignal": "SIGKILL",  # it has nothing to save, and process 1 ignores SIGTERM
    }
    return make_archive(TAG, files, platform, config)
