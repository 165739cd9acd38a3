"""A virtual machine with Debian's kernel, in QEMU's software emulation.

USB gadgets need a kernel with dummy_hcd, which a container cannot bring. Nothing of the machine's
disk is kept.
"""

from __future__ import annotations

import json
import socket
import subprocess
import time
from contextlib import contextmanager
from itertools import count
from typing import TYPE_CHECKING

from tests.system.agent import NAME, TIMEOUT_S
from tests.system.booted_system import BootedSystem, Completed
from tests.system.deadline import until

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path
    from typing import IO, Any

    from tests.system.image import Image

PATIENCE_S = 600
"""Only for what never comes. Software emulation makes Python some fifteen times slower, and the
machine may be busy with other things."""

ANSWER_S = TIMEOUT_S + 60


class Machine(BootedSystem):
    """One running virtual machine."""

    def __init__(self, port: socket.socket, answers: IO[str]) -> None:
        self._port = port
        self._answers = answers
        self._numbers = count(1)

    def attempt(self, *command: str, stdin: str | None = None) -> Completed:
        """Run a program as root inside, whatever it comes to."""
        number = next(self._numbers)
        request = {"id": number, "command": command, "stdin": stdin}
        self._port.sendall(json.dumps(request).encode() + b"\n")
        answer: dict[str, Any] = json.loads(self._answers.readline())
        assert answer["id"] == number
        return Completed(code=answer["code"], out=answer["out"], err=answer["err"])


def _qemu(
    image: Image, where: Path, *, kernel_arguments: str, memory_mib: int, cpus: int
) -> list[str]:
    console = "console=ttyS0 quiet systemd.show_status=0 mitigations=off"
    return [
        *("qemu-system-x86_64", "-machine", "q35", "-accel", "tcg,thread=multi", "-cpu", "max"),
        *("-smp", str(cpus), "-m", str(memory_mib)),
        *("-nodefaults", "-display", "none", "-no-reboot"),
        *("-kernel", str(image.kernel), "-initrd", str(image.initramfs)),
        *("-append", f"root=/dev/vda rw {console} {kernel_arguments}"),
        *("-drive", f"if=none,id=disk,file={image.disk},format=raw,snapshot=on,cache=unsafe"),
        *("-device", "virtio-blk-pci,drive=disk", "-device", "virtio-rng-pci"),
        *("-device", "virtio-serial-pci", "-device", f"virtserialport,chardev=port,name={NAME}"),
        *("-chardev", f"socket,id=port,path={where}/port,server=on,wait=off"),
        *("-chardev", f"file,id=console,path={where}/console.log", "-serial", "chardev:console"),
    ]


def _connect(path: Path) -> socket.socket | None:
    port = socket.socket(socket.AF_UNIX)
    try:
        port.connect(str(path))
    except OSError:
        port.close()
        return None
    port.settimeout(ANSWER_S)
    return port


def _tail(log: Path) -> str:
    return log.read_text(errors="replace")[-3000:] if log.exists() else "no console"


@contextmanager
def running(
    image: Image,
    where: Path,
    *,
    kernel_arguments: str = "",
    memory_mib: int = 768,
    cpus: int = 1,
) -> Iterator[Machine]:
    """Boot a machine from *image*, and pull its plug in the end.

    Args:
        image: is not changed.
        where: a directory for its sockets and its console.
        kernel_arguments: added to the kernel's command line.
        memory_mib: how much memory it has.
        cpus: how many processors. One by default: with more, the emulator misses once in dozens of
            boots that one processor patches the code that another one runs, and the kernel panics.
    """
    where.mkdir(parents=True, exist_ok=True)
    command = _qemu(
        image, where, kernel_arguments=kernel_arguments, memory_mib=memory_mib, cpus=cpus
    )
    qemu = subprocess.Popen(["setpriv", "--pdeathsig", "KILL", *command], stdin=subprocess.DEVNULL)
    try:
        port = until(lambda: _connect(where / "port"), what=lambda: qemu.poll())
        with port, port.makefile("r", encoding="utf-8") as answers:
            machine = Machine(port, answers)
            start = time.monotonic()
            # QEMU keeps the first request until the agent in there reads it.
            machine.run("true")
            assert time.monotonic() - start < PATIENCE_S, _tail(where / "console.log")
            yield machine
    finally:
        qemu.kill()
        qemu.wait()
