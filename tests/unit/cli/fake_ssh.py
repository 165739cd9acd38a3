"""An ssh whose guests are engines of this test: runs scripts here, dials a UNIX socket.

Run as ``python -m tests.unit.cli.fake_ssh DIRECTORY ARGUMENT...``; DIRECTORY has a socket named by
each guest's address. A guest without one has no Docker.
"""

from __future__ import annotations

import os
import select
import socket
import subprocess
import sys
from pathlib import Path


def dial(path: Path) -> int:
    """Carry bytes between stdin, stdout and the socket, as ``docker system dial-stdio``."""
    with socket.socket(socket.AF_UNIX) as sock:
        sock.connect(str(path))
        while True:
            ready, _, _ = select.select([sys.stdin.buffer, sock], [], [])
            if sock in ready:
                content = sock.recv(65536)
                if not content:
                    return 0
                sys.stdout.buffer.write(content)
                sys.stdout.buffer.flush()
            if sys.stdin.buffer in ready:
                content = os.read(0, 65536)
                if not content:
                    return 0
                sock.sendall(content)


def main(directory: Path, arguments: list[str]) -> int:
    """Do what ssh would."""
    if "-O" in arguments:
        return 0
    address, *command = arguments[arguments.index("--") + 1 :]
    if (directory / f"{address}.complaint").exists():
        sys.stderr.write((directory / f"{address}.complaint").read_text())
        return 255
    if command == ["docker system dial-stdio"]:
        if not (directory / address).exists():
            sys.stderr.write("sh: 1: docker: not found\n")
            return 127
        return dial(directory / address)
    return subprocess.run(command[0], shell=True, check=False).returncode  # noqa: S602 - as sshd


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]), sys.argv[2:]))
