"""Runs inside the virtual machine: does what the test asks for over a virtio serial port.

One JSON object per line: ``{"id", "command", "stdin"}`` comes in, ``{"id", "code", "out", "err"}``
goes out. Copied into the image alone, so it imports nothing of ours.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

NAME = "otgd-test"
TIMEOUT_S = 1200


def open_port() -> int:
    """Open the port that QEMU calls NAME; it need not have its symbolic link from udev yet."""
    for port in Path("/sys/class/virtio-ports").iterdir():
        if (port / "name").read_text().strip() == NAME:
            return os.open(f"/dev/{port.name}", os.O_RDWR)
    raise SystemExit(f"no virtio port is called {NAME}")


def answer(request: dict[str, Any]) -> dict[str, object]:
    """Run the command of *request*."""
    try:
        done = subprocess.run(
            request["command"],
            check=False,
            capture_output=True,
            text=True,
            errors="replace",
            input=request["stdin"] or "",
            timeout=TIMEOUT_S,
        )
    except (OSError, subprocess.TimeoutExpired) as err:
        return {"id": request["id"], "code": 127, "out": "", "err": str(err)}
    return {"id": request["id"], "code": done.returncode, "out": done.stdout, "err": done.stderr}


def main() -> None:
    """Serve until the machine goes down."""
    port = open_port()
    with os.fdopen(os.dup(port), "rb") as requests, os.fdopen(port, "wb", buffering=0) as answers:
        for line in requests:
            text = json.dumps(answer(json.loads(line))) + "\n"
            unsent = memoryview(text.encode())
            while unsent:
                unsent = unsent[answers.write(unsent) or 0 :]
    sys.exit("the port was closed")


if __name__ == "__main__":
    main()
