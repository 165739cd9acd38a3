"""Take the README's pictures: real runs of otgctl beside the real daemon, as SVG.

Run as root from the checkout: ``python -m tests.lab.pictures DIRECTORY``.
"""

from __future__ import annotations

import fcntl
import io
import os
import pty
import re
import select
import struct
import sys
import termios
import time
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

from rich.console import Console
from rich.terminal_theme import MONOKAI
from rich.text import Text

from tests.lab.daemon import Daemon
from tests.lab.deadline import until
from tests.lab.otgctl import Otgctl
from tests.lab.topology import FAR_SIDE, Lab, config_text

if TYPE_CHECKING:
    import subprocess

    from tests.lab.namespaces import Namespace

COLUMNS, LINES = 118, 40
COMMANDS = {"status": 30.0, "doctor": 60.0, "top": 4.0}
"""How long each is looked at, in seconds, if it does not end before."""

WEB_FONT = re.compile(r"@font-face \{.*?\}", re.DOTALL)
SCREEN_START = "\x1b[H"


def main(directory: Path) -> None:
    """Play a scene, and take one picture of each command."""
    directory.mkdir(parents=True, exist_ok=True)
    with TemporaryDirectory(prefix="otgd-") as place, Lab() as lab:
        where = Path(place)
        daemon = Daemon(lab.host, where, config_text(backend="nftables"), measured=False)
        otgctl = Otgctl(lab.host, where)
        daemon.start_and_wait()
        try:
            play(lab, daemon)
            for name, patience_s in COMMANDS.items():
                shown = screen_of(lab.host, otgctl.command(name), patience_s)
                (directory / f"{name}.svg").write_text(picture(shown, f"otgctl {name}"))
        finally:
            daemon.close()


def play(lab: Lab, daemon: Daemon) -> None:
    """Plug three known gadgets, one with a deaf guest, and one that nothing names."""
    lab.plug_all(1, 2, 3, 9)
    for name in ("ethusb1", "ethusb2", "ethusb3"):
        daemon.wait_for(name, "reachable")
    lab.guest(3).run("ip", "addr", "flush", "dev", "usb0")
    lab.host.run("ip", "neigh", "flush", "dev", "ethusb3")
    until(lambda: daemon.gadget("ethusb3")["reason"], 30)
    for n in (1, 2):
        lab.guest(n).start("ping", "-q", "-f", "-s", "1200", "-w", "30", FAR_SIDE)


def screen_of(host: Namespace, command: tuple[str, ...], patience_s: float) -> str:
    """Return what the last screen of *command* shows on a terminal, colours included."""
    leader, follower = pty.openpty()
    fcntl.ioctl(follower, termios.TIOCSWINSZ, struct.pack("HHHH", LINES, COLUMNS, 0, 0))
    terminal = {**os.environ, "TERM": "xterm-256color", "COLUMNS": str(COLUMNS)}
    process = host.start(*command, env=terminal, stdin=follower, stderr=follower)
    os.close(follower)
    shown = _read(leader, process, patience_s)
    process.terminate()
    process.wait()
    os.close(leader)
    return shown.decode(errors="replace")


def _read(leader: int, process: subprocess.Popen[bytes], patience_s: float) -> bytes:
    shown = b""
    ends_at = time.monotonic() + patience_s
    while time.monotonic() < ends_at:
        ready, _, _ = select.select([leader], [], [], 0.2)
        try:
            shown += os.read(leader, 65536) if ready else b""
        except OSError:  # the last one closed the terminal
            break
        if not ready and process.poll() is not None:
            break
    return shown


def picture(shown: str, title: str) -> str:
    """Draw a screen as SVG, without fonts from the web."""
    last = shown.rpartition(SCREEN_START)[2]
    text = "\n".join(line.rstrip() for line in last.replace("\r", "").splitlines())
    lines = max(len(line) for line in Text.from_ansi(text).plain.splitlines())
    console = Console(record=True, width=lines, file=io.StringIO(), force_terminal=True)
    console.print(Text.from_ansi(text.strip("\n")), no_wrap=True)
    return WEB_FONT.sub("", console.export_svg(title=title, theme=MONOKAI))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
