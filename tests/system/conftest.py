"""Installed systems to test on: the .deb on trixie, install.sh on bookworm."""

from __future__ import annotations

import os
import shutil
import sys
import tempfile
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.conftest import need
from tests.lab.namespaces import private_mounts, run
from tests.system.container import booted, make_root
from tests.system.host import CONFIG, Host, container_config
from tests.system.image import make_image

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tests.system.container import Container
    from tests.system.image import Image

REPOSITORY = Path(__file__).resolve().parents[2]

SYSTEM = (
    *("dbus", "iproute2", "iputils-ping", "kmod", "nftables", "procps"),
    *("systemd", "systemd-sysv", "udev"),
)
"""What a Raspberry Pi OS has, as far as it matters here."""

NEIGHBOURS = ("dhcpcd", "network-manager")
"""Other programs that configure networks; they rest unless a test starts them."""

DEPENDS = (
    "iptables",
    *("python3-click", "python3-iptables", "python3-nftables", "python3-pydantic"),
    *("python3-pyroute2", "python3-pyudev", "python3-rich", "python3-systemd"),
)
"""What apt finds when it installs otgd; it has no network here."""


def rest(root: Path) -> None:
    """Keep the neighbours from starting by themselves."""
    # NetworkManager's own rule would keep it from veth links, and the test from seeing it greedy.
    (root / "etc/udev/rules.d/85-nm-unmanaged.rules").unlink(missing_ok=True)
    (root / "etc/udev/rules.d/85-nm-unmanaged.rules").symlink_to("/dev/null")
    for unit in ("NetworkManager", "dhcpcd"):
        mask = root / f"etc/systemd/system/{unit}.service"
        mask.unlink(missing_ok=True)
        mask.symlink_to("/dev/null")


def need_containers() -> None:
    """Skip or fail unless this machine can build and boot a system."""
    need(os.geteuid() == 0, "root, to boot a container")
    for program in ("mmdebstrap", "systemd-nspawn"):
        need(shutil.which(program), f"{program} (packaging/lib/system-needs.txt)")


@pytest.fixture(scope="session")
def workspace() -> Iterator[Path]:
    """A directory in memory, which an overlay can write to wherever the checkout is."""
    need_containers()
    with private_mounts():
        path = Path(tempfile.mkdtemp(prefix="otgd-system-"))
        run("mount", "-t", "tmpfs", "-o", "mode=755", "otgd-system", str(path))
        try:
            yield path
        finally:
            run("umount", "--lazy", str(path))
            path.rmdir()


@pytest.fixture(scope="session")
def deb(workspace: Path) -> Path:
    """The package, built from the checkout."""
    build = REPOSITORY / "packaging" / "build-deb.sh"
    return Path(run(str(build), str(workspace / "dist")).strip())


@dataclass(frozen=True, slots=True, kw_only=True)
class System:
    """A root to boot, as layers, top first."""

    suite: str
    layers: tuple[Path, ...]


@pytest.fixture(scope="session")
def trixie() -> System:
    """A fresh trixie; apt has the packages that otgd depends on at hand."""
    need_containers()
    root = make_root("trixie", *SYSTEM, *NEIGHBOURS, download=DEPENDS)
    return System(suite="trixie", layers=(root,))


class Boot:
    """Boots systems, each for one test alone."""

    def __init__(self, workspace: Path) -> None:
        self._workspace = workspace

    @contextmanager
    def __call__(
        self, system: System, prepare: Callable[[Path], None] = rest
    ) -> Iterator[Container]:
        where = Path(tempfile.mkdtemp(prefix=f"{system.suite}-", dir=self._workspace))
        with booted(where, system.layers, prepare=prepare) as container:
            yield container
        shutil.rmtree(where)

    def installed(self, system: System, install: Callable[[Container], None]) -> System:
        """Boot *system*, install something there, and return the result as a system to boot."""
        where = Path(tempfile.mkdtemp(prefix=f"{system.suite}-", dir=self._workspace))
        with booted(where, system.layers, prepare=rest) as container:
            install(container)
        return System(suite=system.suite, layers=(where / "upper", *system.layers))


@pytest.fixture(scope="session")
def boot(workspace: Path) -> Boot:
    return Boot(workspace)


def apt_install(container: Container, deb: Path) -> None:
    """Do what README tells: one command."""
    shutil.copy(deb, container.root / "root")
    container.run("apt-get", "install", "--yes", f"/root/{deb.name}")


@pytest.fixture(scope="session")
def trixie_installed(boot: Boot, trixie: System, deb: Path) -> System:
    """Trixie with the .deb."""
    return boot.installed(trixie, lambda container: apt_install(container, deb))


BUILD_DEPENDS = (
    *("gcc", "iptables", "libc6-dev", "libsystemd-dev", "pkg-config", "python3-dev"),
    *("python3-nftables", "python3-venv"),
)
"""What install.sh asks of apt."""


@pytest.fixture(scope="session")
def bookworm() -> System:
    """A fresh bookworm; apt has what install.sh asks for at hand."""
    need_containers()
    root = make_root("bookworm", *SYSTEM, *NEIGHBOURS, download=BUILD_DEPENDS)
    return System(suite="bookworm", layers=(root,))


@pytest.fixture(scope="session")
def wheelhouse(workspace: Path) -> Path:
    """What pip installs on bookworm, fetched beforehand, since a container has no network."""
    need(sys.version_info[:2] == (3, 11), "Python 3.11, to choose the files that bookworm's takes")
    where = workspace / "wheelhouse"
    requirements = REPOSITORY / "packaging" / "requirements.txt"
    pip = (sys.executable, "-m", "pip", "download", "--quiet", "--dest", str(where))
    run(*pip, "--require-hashes", "--requirement", str(requirements))
    run(*pip, "setuptools", "wheel")  # what pip builds with
    return where


def copy_checkout(target: Path) -> None:
    """Copy what the checkout holds, as a clone would."""
    listed = run("git", "-C", str(REPOSITORY), "ls-files", "-co", "--exclude-standard")
    for name in listed.splitlines():
        with suppress(FileNotFoundError):  # deleted, and not yet committed so
            (target / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(REPOSITORY / name, target / name, follow_symlinks=False)


def run_installer(container: Container, *arguments: str) -> None:
    """Run install.sh in a container that has no network."""
    pip = ("PIP_NO_INDEX=1", "PIP_FIND_LINKS=/root/wheelhouse")
    container.run("env", *pip, "/root/otgd/packaging/install.sh", *arguments)


@pytest.fixture(scope="session")
def bookworm_installed(boot: Boot, bookworm: System, wheelhouse: Path) -> System:
    """Bookworm after install.sh."""

    def install(container: Container) -> None:
        shutil.copytree(wheelhouse, container.root / "root/wheelhouse")
        copy_checkout(container.root / "root/otgd")
        run_installer(container)

    return boot.installed(bookworm, install)


@pytest.fixture(params=["trixie", "bookworm"])
def installed(request: pytest.FixtureRequest) -> System:
    """A system with otgd, for each way to install it."""
    system: System = request.getfixturevalue(f"{request.param}_installed")
    return system


@pytest.fixture
def host(boot: Boot, installed: System) -> Iterator[Host]:
    """A running host whose gadgets are veth links."""
    with boot_host(boot, installed) as each:
        yield each


@contextmanager
def boot_host(boot: Boot, system: System) -> Iterator[Host]:
    """Boot an installed system with the lab around it, and a config that counts veth links in."""

    def prepare(root: Path) -> None:
        rest(root)
        (root / CONFIG.lstrip("/")).write_text(container_config())

    with boot(system, prepare) as container, Host(container) as each:
        each.await_active()
        yield each


def bootable(where: Path, layers: tuple[Path, ...]) -> Image:
    """Make an image for a virtual machine, with Debian's kernel, of a system in *layers*."""
    for program in ("qemu-system-x86_64", "busybox", "cpio", "depmod", "mkfs.ext4"):
        need(shutil.which(program), f"{program} (packaging/lib/system-needs.txt)")
    kernel_root = make_root("trixie", "linux-image-amd64", variant="extract")
    where.mkdir()
    return make_image(where, kernel_root=kernel_root, layers=layers)


@pytest.fixture(scope="session")
def image(workspace: Path, trixie_installed: System) -> Image:
    """The installed trixie for a virtual machine."""
    return bootable(workspace / "image", trixie_installed.layers)
