"""Which packet filter ``auto`` takes, and why, on hosts as they come; in real namespaces."""

from __future__ import annotations

import shutil
import sys
from ipaddress import IPv4Network
from typing import TYPE_CHECKING

import pytest

from otgd import wiring
from otgd.adapters import docker_user, nf_tables
from otgd.adapters.nf_tables import list_tables
from otgd.config import load_config
from otgd.errors import PermanentError
from otgd.model import Backend, Masquerade, Settings, SourceGuard
from otgd.wiring import Kernel, choose_backend, open_firewall
from tests.conftest import need
from tests.lab.daemon import REPOSITORY
from tests.lab.namespaces import run
from tests.lab.topology import config_text

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.usefixtures("netns")

AUTO = Settings()
SUBNET = IPv4Network("10.0.11.0/24")
RULES = (
    SourceGuard(gadget="ethusb1", ifname="ethusb1", subnet=SUBNET),
    Masquerade(gadget="ethusb1", subnet=SUBNET, uplink="eth0"),
)
BOTH = (Backend.IPTABLES, Backend.NFTABLES)


@pytest.fixture(autouse=True)
def tools() -> None:
    for tool in ("iptables-legacy", "iptables-nft", "nft"):
        need(shutil.which(tool), f"the program {tool}")


def fill(backend: Backend) -> None:
    """Leave rules of ours, as an earlier run does."""
    open_firewall(backend).apply(remove=(), add=RULES)


def test_config_decides_where_it_says_so() -> None:
    run("iptables-legacy", "-A", "FORWARD", "-j", "ACCEPT")
    for backend in BOTH:
        assert choose_backend(Settings(backend=backend)) == (backend, "the config says so")


def test_nothing_in_use_takes_nftables() -> None:
    assert choose_backend(AUTO) == (Backend.NFTABLES, "no other firewall is in use")


def test_nft_in_use_takes_nftables() -> None:
    run("nft", "add", "table", "inet", "firewalld")
    run("nft", "add", "table", "ip", "filter")
    reason = "nf_tables are in use (filter, firewalld)"
    assert choose_backend(AUTO) == (Backend.NFTABLES, reason)


def test_iptables_command_of_the_nft_flavour_counts_as_nf_tables() -> None:
    run("iptables-nft", "-P", "FORWARD", "DROP")
    assert choose_backend(AUTO) == (Backend.NFTABLES, "nf_tables are in use (filter)")


@pytest.mark.parametrize(
    "command",
    [
        "-t filter -A INPUT -s 192.0.2.1 -j DROP",
        "-t filter -N DOCKER-USER",
        "-t filter -P FORWARD DROP",
    ],
    ids=["rule", "chain", "policy"],
)
def test_legacy_in_use_alone_takes_iptables(command: str) -> None:
    run("iptables-legacy", *command.split())
    reason = "legacy tables are in use (filter), nf_tables not"
    assert choose_backend(AUTO) == (Backend.IPTABLES, reason)


def test_both_in_use_takes_nftables() -> None:
    run("iptables-legacy", "-P", "FORWARD", "DROP")
    run("nft", "add", "table", "inet", "lxc")
    assert choose_backend(AUTO) == (Backend.NFTABLES, "nf_tables are in use (lxc)")


def test_looking_into_legacy_tables_is_no_use_of_them() -> None:
    for table in ("filter", "nat", "mangle"):
        run("iptables-legacy", "-t", table, "-S")
    assert choose_backend(AUTO) == (Backend.NFTABLES, "no other firewall is in use")


def test_without_iptables_save_tables_that_are_there_count(monkeypatch: pytest.MonkeyPatch) -> None:
    run("iptables-legacy", "-P", "FORWARD", "DROP")
    monkeypatch.setattr(wiring, "LEGACY_SAVE", "no-such-program")
    reason = "legacy tables are in use (filter), nf_tables not"
    assert choose_backend(AUTO) == (Backend.IPTABLES, reason)


@pytest.mark.parametrize("earlier", BOTH)
def test_rules_of_our_own_are_no_reason(earlier: Backend) -> None:
    fill(earlier)
    assert choose_backend(AUTO) == (Backend.NFTABLES, "no other firewall is in use")


def test_our_passage_is_no_reason() -> None:
    run("iptables-legacy", "-A", "FORWARD", *docker_user.RULE)
    assert choose_backend(AUTO) == (Backend.NFTABLES, "no other firewall is in use")


def test_without_the_library_it_is_iptables(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda _: None)
    assert choose_backend(AUTO) == (Backend.IPTABLES, "python3-nftables is not installed")


def test_kernel_without_nf_tables_is_iptables(monkeypatch: pytest.MonkeyPatch) -> None:
    """The kernel cannot be made to lose them: the contract's error stands in."""

    def absent() -> frozenset[tuple[str, str]]:
        raise PermanentError("list nf_tables: Protocol not supported")

    monkeypatch.setattr(nf_tables, "list_tables", absent)
    reason = "list nf_tables: Protocol not supported"
    assert choose_backend(AUTO) == (Backend.IPTABLES, reason)


def test_choosing_makes_nothing() -> None:
    choose_backend(AUTO)
    assert list_tables() == frozenset()
    assert wiring.LEGACY_TABLES.read_text() == ""


@pytest.mark.parametrize(("now", "before"), [BOTH, BOTH[::-1]])
def test_leftovers_are_found_in_the_other_backend(
    tmp_path: Path, now: Backend, before: Backend
) -> None:
    file = tmp_path / "otgd.toml"
    file.write_text(config_text(backend=now.value))
    kernel = Kernel(load_config(file))
    assert kernel.leftovers() == ()
    fill(now)
    assert kernel.leftovers() == ()
    fill(before)
    (left,) = kernel.leftovers()
    assert left.name == before
    left.apply(remove=left.observe(), add=())
    left.tidy()
    assert kernel.leftovers() == ()
    kernel.close()


# As the installed service: not root, and the kernel's list of legacy tables is root's.

AS_SERVICE = (
    *("setpriv", "--reuid=65534", "--regid=65534", "--clear-groups"),
    *("--inh-caps=+net_admin,+net_raw", "--ambient-caps=+net_admin,+net_raw"),
    *("env", "--unset=COVERAGE_PROCESS_START", "--unset=COVERAGE_PROCESS_CONFIG"),
    *(f"PYTHONPATH={REPOSITORY}", sys.executable, "-c"),
)
CHOICE = (
    "from otgd.model import Settings\n"
    "from otgd.wiring import choose_backend\n"
    "print(*choose_backend(Settings()), sep=': ')\n"
)
LEFTOVERS = (
    "from otgd.model import Backend, Config, DesiredState, Settings\n"
    "from otgd.wiring import Kernel\n"
    "settings = Settings(backend=Backend.NFTABLES, source='kernel')\n"
    "kernel = Kernel(Config(desired=DesiredState(), settings=settings))\n"
    "for left in kernel.leftovers():\n"
    "    print(left.name, len(left.observe()))\n"
)


def as_service(script: str) -> str:
    need(shutil.which("setpriv"), "the program setpriv")
    return run(*AS_SERVICE, script).strip()


def load_modules(*names: str) -> None:
    """Make /sys/module tell of *names* alone; this is the namespace's own /sys."""
    run("mount", "-t", "tmpfs", "tmpfs", str(wiring.KERNEL_MODULES))
    for name in names:
        (wiring.KERNEL_MODULES / name).mkdir()


def tables_here() -> set[str]:
    return set(wiring.LEGACY_TABLES.read_text().split())


@pytest.mark.parametrize(
    "modules",
    [(), ("ip_tables", "iptable_nat", "iptable_filter")],
    ids=["built-in", "modular"],
)
@pytest.mark.parametrize(
    "command",
    ["-t filter -A INPUT -s 192.0.2.1 -j DROP", "-t filter -P FORWARD DROP"],
    ids=["rule", "policy"],
)
def test_service_takes_iptables_where_root_does(command: str, modules: tuple[str, ...]) -> None:
    load_modules(*modules)
    run("iptables-legacy", *command.split())
    as_root = ": ".join(choose_backend(AUTO))
    assert as_root == "iptables: legacy tables are in use (filter), nf_tables not"
    assert as_service(CHOICE) == as_root


def test_service_takes_nftables_beside_what_is_built_in_or_ours() -> None:
    load_modules()
    fill(Backend.IPTABLES)
    assert as_service(CHOICE) == "nftables: no other firewall is in use"


def test_service_takes_nftables_where_nothing_tells() -> None:
    load_modules()
    script = CHOICE.replace("print", "import otgd.wiring as w; w.LEGACY_SAVE = 'none'\nprint")
    assert as_service(script) == "nftables: no other firewall is in use"


def test_choice_of_the_service_makes_no_table_whose_module_is_not_loaded() -> None:
    load_modules("ip_tables", "iptable_raw")
    assert as_service(CHOICE) == "nftables: no other firewall is in use"
    assert tables_here() == {"raw"}  # the module is there, so somebody uses it


@pytest.mark.parametrize(
    "modules",
    [(), ("ip_tables", "iptable_raw", "iptable_mangle", "iptable_nat")],
    ids=["built-in", "modular"],
)
def test_service_finds_what_it_left_in_legacy_tables(modules: tuple[str, ...]) -> None:
    load_modules(*modules)
    assert as_service(LEFTOVERS) == ""
    fill(Backend.IPTABLES)
    assert as_service(LEFTOVERS) == f"iptables {len(RULES)}"
