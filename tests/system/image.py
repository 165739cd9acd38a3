"""What a virtual machine boots from: Debian's kernel, an initramfs that finds the disk, the disk.

The disk holds a system that was installed in a container, with the kernel's modules and an agent
added. The initramfs does nothing but mount it, so everything that matters is Debian's.
"""

from __future__ import annotations

import lzma
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from tests.lab.namespaces import run
from tests.system.container import overlay

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

AGENT = Path(__file__).with_name("agent.py")

AGENT_UNIT = """\
[Unit]
Description=What the test asks for
DefaultDependencies=no
After=systemd-remount-fs.service
Conflicts=shutdown.target

[Service]
ExecStart=/usr/bin/python3 -u /usr/local/lib/otgd-test-agent.py
Restart=on-failure
RestartSec=1
"""

ROOT_MODULES = ("virtio_pci", "virtio_blk", "ext4")
"""What it takes to mount the disk."""

MODULE_DIRECTORIES = (
    *("crypto", "lib", "net", "fs/autofs", "fs/configfs", "fs/ext4", "fs/jbd2", "fs/overlayfs"),
    *("drivers/block", "drivers/char", "drivers/net/usb", "drivers/net/vxlan", "drivers/usb"),
    "drivers/virtio",
)
"""What of Debian's modules a USB host needs; the rest would only make the image slower to make."""

MODULE_FILES = (
    *("fs/binfmt_misc.ko.xz", "fs/mbcache.ko.xz"),
    *(f"drivers/net/{n}.ko.xz" for n in ("dummy", "mii", "veth")),
)

INIT = """\
#!/bin/sh
mount -t devtmpfs dev /dev
for module in /modules/*; do insmod "$module"; done
while [ ! -b /dev/vda ]; do usleep 10000; done
mount -t ext4 /dev/vda /root
mount --move /dev /root/dev
exec switch_root /root /sbin/init
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Image:
    """Three files for QEMU; none is changed by a machine that runs from them."""

    kernel: Path
    initramfs: Path
    disk: Path


def make_image(where: Path, *, kernel_root: Path, layers: Sequence[Path]) -> Image:
    """Make an image of the system that *layers* (top first) hold.

    Args:
        where: an empty directory.
        kernel_root: where Debian's kernel package is unpacked.
        layers: as for a container.
    """
    kernel = next((kernel_root / "boot").glob("vmlinuz-*"))
    release = kernel.name.removeprefix("vmlinuz-")
    disk = where / "disk"
    with overlay(where / "build", layers) as root:
        _copy_modules(kernel_root, root, release)
        _add_agent(root)
        initramfs = _make_initramfs(where, root, release)
        run("mkfs.ext4", "-q", "-O", "^has_journal", "-m", "0", "-d", str(root), str(disk), "2G")
    shutil.rmtree(where / "build")
    return Image(kernel=kernel, initramfs=initramfs, disk=disk)


def _copy_modules(source: Path, root: Path, release: str) -> None:
    modules = Path("usr/lib/modules") / release
    target = root / modules
    for name in MODULE_DIRECTORIES:
        shutil.copytree(source / modules / "kernel" / name, target / "kernel" / name)
    for name in MODULE_FILES:
        shutil.copy(source / modules / "kernel" / name, target / "kernel" / name)
    for listing in (source / modules).glob("modules.*"):
        shutil.copy(listing, target)
    run("depmod", "--basedir", str(root), release)


def _add_agent(root: Path) -> None:
    shutil.copy(AGENT, root / "usr/local/lib/otgd-test-agent.py")
    units = root / "etc/systemd/system"
    (units / "otgd-test-agent.service").write_text(AGENT_UNIT)
    wants = units / "sysinit.target.wants"
    wants.mkdir(exist_ok=True)
    (wants / "otgd-test-agent.service").symlink_to("../otgd-test-agent.service")


def _modules_in_order(root: Path, release: str) -> Iterator[Path]:
    """Yield what must be inserted, each after what it needs."""
    seen = set()
    for name in ROOT_MODULES:
        show = ("modprobe", "--dirname", str(root), "--set-version", release, "--show-depends")
        for line in run(*show, name).splitlines():
            verb, path, *_ = line.split()
            if verb == "insmod" and path not in seen:
                seen.add(path)
                yield Path(path)


def _make_initramfs(where: Path, root: Path, release: str) -> Path:
    tree = where / "initramfs"
    for name in ("bin", "dev", "modules", "root"):
        (tree / name).mkdir(parents=True)
    shutil.copy("/bin/busybox", tree / "bin/busybox")
    for applet in ("insmod", "mount", "sh", "switch_root", "usleep"):
        (tree / "bin" / applet).symlink_to("busybox")
    for number, module in enumerate(_modules_in_order(root, release)):
        with lzma.open(module) as packed:
            (tree / "modules" / f"{number:02}").write_bytes(packed.read())
    (tree / "init").write_text(INIT)
    (tree / "init").chmod(0o755)
    archive = where / "initramfs.cpio"
    names = "\n".join(str(path.relative_to(tree)) for path in sorted(tree.rglob("*")))
    with archive.open("wb") as output:
        subprocess.run(
            ["cpio", "--create", "--quiet", "--format=newc"],
            cwd=tree,
            input=names.encode(),
            stdout=output,
            check=True,
        )
    shutil.rmtree(tree)
    return archive
