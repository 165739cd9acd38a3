"""What every keeper of ``FirewallPort`` must do, the fake included, and then each backend alone."""

from __future__ import annotations

import fcntl
import importlib
import importlib.util
import os
import re
import select
import shutil
import subprocess
import sys
from contextlib import suppress
from dataclasses import replace
from ipaddress import IPv4Network
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from otgd.adapters.iptables import IptablesFirewall
from otgd.adapters.nftables import NftablesFirewall
from otgd.errors import PermanentError, TransientError
from otgd.model import Forward, Masquerade, Quarantine, Rule, SourceGuard, Stray
from tests.conftest import need
from tests.fakes import FakeFirewall
from tests.lab.namespaces import run

if TYPE_CHECKING:
    from collections.abc import Collection

    from otgd.ports import FirewallPort

GOLDEN = Path(__file__).parent / "golden"
LOCK_FILE = Path("/run/xtables.lock")  # a private /run: see private_network()
RENEW_GOLDEN = bool(os.environ.get("OTGD_RENEW_GOLDEN"))


def subnet(number: int) -> IPv4Network:
    return IPv4Network(f"10.{number // 200}.{number % 200}.0/24")


def masquerade(number: int, *, uplink: str = "eth0") -> Masquerade:
    return Masquerade(gadget=f"ethusb{number}", subnet=subnet(number), uplink=uplink)


def guard(number: int) -> SourceGuard:
    name = f"ethusb{number}"
    return SourceGuard(gadget=name, ifname=name, subnet=subnet(number))


def forward(
    number: int, *, uplink: str = "eth0", to_uplink: bool = True, to_peers: bool = True
) -> Forward:
    name = f"ethusb{number}"
    return Forward(gadget=name, ifname=name, uplink=uplink, to_uplink=to_uplink, to_peers=to_peers)


def gadget(number: int) -> set[Rule]:
    return {masquerade(number), guard(number), forward(number)}


GOLDEN_RULES: frozenset[Rule] = frozenset(
    {
        *gadget(1),
        *gadget(2),
        masquerade(3),
        guard(3),
        forward(3, to_peers=False),
        guard(4),
        forward(4, to_uplink=False),
        Quarantine(ifname="usb0"),
    }
)
"""Two plain gadgets, an isolated one, one without masquerade, one unknown link."""


def put(firewall: FirewallPort, *rules: Rule) -> None:
    firewall.apply(remove=(), add=rules)


def strays(firewall: FirewallPort) -> set[Rule]:
    return {rule for rule in firewall.observe() if isinstance(rule, Stray)}


def converge(firewall: FirewallPort, wanted: Collection[Rule]) -> None:
    """Do what a pass does: look, take away what is too much, add what is missing."""
    observed = firewall.observe()
    firewall.apply(remove=observed - set(wanted), add=set(wanted) - observed)


@pytest.fixture
def iptables(request: pytest.FixtureRequest) -> IptablesFirewall:
    request.getfixturevalue("netns")
    need(shutil.which("iptables-legacy"), "iptables-legacy (package iptables)")
    return IptablesFirewall()


@pytest.fixture
def nftables(request: pytest.FixtureRequest) -> NftablesFirewall:
    request.getfixturevalue("netns")
    need(shutil.which("nft"), "nft (package nftables)")
    for ifname in ("usb0", "usb-1.2_x"):  # before kernel 6.16 a quarantine needs its link
        run("ip", "link", "add", ifname, "type", "bridge")
    need(importlib.util.find_spec("nftables"), "package python3-nftables")
    return NftablesFirewall()


@pytest.fixture(params=["fake", "iptables", "nftables"])
def firewall(request: pytest.FixtureRequest) -> FirewallPort:
    if request.param == "fake":
        return FakeFirewall()
    port: FirewallPort = request.getfixturevalue(request.param)
    return port


# --- every keeper --------------------------------------------------------------------------------


def test_an_untouched_firewall_holds_none_of_our_rules(firewall: FirewallPort) -> None:
    assert firewall.observe() == frozenset()


@pytest.mark.parametrize(
    "rules",
    [
        pytest.param({masquerade(1)}, id="masquerade"),
        pytest.param({guard(1)}, id="guard"),
        pytest.param({guard(1), forward(1)}, id="forward-all"),
        pytest.param({guard(1), forward(1, to_peers=False)}, id="forward-isolated"),
        pytest.param({guard(1), forward(1, to_uplink=False)}, id="forward-no-uplink"),
        pytest.param({guard(1), forward(1, uplink="")}, id="forward-uplink-missing"),
        pytest.param(
            {guard(1), forward(1, uplink="", to_uplink=False, to_peers=False)},
            id="forward-nowhere",
        ),
        pytest.param({forward(1)}, id="forward-unguarded"),
        pytest.param({guard(1), guard(2), forward(2)}, id="guard-beside-forward"),
        pytest.param({Quarantine(ifname="usb0")}, id="quarantine"),
        pytest.param({Quarantine(ifname="usb0"), Quarantine(ifname="usb-1.2_x")}, id="quarantines"),
        pytest.param(
            {
                Masquerade(gadget="g", subnet=IPv4Network("10.1.2.4/31"), uplink="wlan0"),
                SourceGuard(gadget="g", ifname="g", subnet=IPv4Network("10.1.2.4/31")),
            },
            id="smallest-subnet",
        ),
        pytest.param(
            {
                Masquerade(gadget="ethusb0123456", subnet=subnet(9), uplink="a23456789012345"),
                SourceGuard(gadget="ethusb0123456", ifname="usb0", subnet=subnet(9)),
            },
            id="long-and-other-names",
        ),
        pytest.param(GOLDEN_RULES, id="a-fleet"),
    ],
)
def test_what_is_put_is_observed_and_can_be_taken_back(
    firewall: FirewallPort, rules: set[Rule]
) -> None:
    put(firewall, *rules)
    assert firewall.observe() == rules

    firewall.apply(remove=rules, add=())
    assert firewall.observe() == frozenset()


def test_adding_twice_and_removing_what_is_gone_succeed(firewall: FirewallPort) -> None:
    put(firewall, *GOLDEN_RULES)
    put(firewall, *GOLDEN_RULES)
    assert firewall.observe() == GOLDEN_RULES

    firewall.apply(remove=gadget(7), add=())
    assert firewall.observe() == GOLDEN_RULES


def test_gadgets_come_and_go_one_by_one(firewall: FirewallPort) -> None:
    held: set[Rule] = set()
    for number in (3, 1, 2):
        put(firewall, *gadget(number))
        held |= gadget(number)
        assert firewall.observe() == held
    for number in (1, 3, 2):
        firewall.apply(remove=gadget(number), add=())
        held -= gadget(number)
        assert firewall.observe() == held


def test_one_transaction_moves_everything_to_another_uplink(firewall: FirewallPort) -> None:
    before: set[Rule] = {masquerade(1), forward(1), guard(1)}
    after: set[Rule] = {masquerade(1, uplink="wlan0"), forward(1, uplink="wlan0"), guard(1)}
    put(firewall, *before)
    firewall.apply(remove=before - after, add=after - before)
    assert firewall.observe() == after


def test_a_gadget_has_one_rule_of_a_kind(firewall: FirewallPort) -> None:
    put(firewall, *gadget(1))
    put(firewall, masquerade(1, uplink="wlan0"), forward(1, to_peers=False))
    assert firewall.observe() == {
        masquerade(1, uplink="wlan0"),
        forward(1, to_peers=False),
        guard(1),
    }


def test_a_link_passes_from_one_gadget_to_another(firewall: FirewallPort) -> None:
    first = SourceGuard(gadget="a", ifname="usb0", subnet=subnet(1))
    second = SourceGuard(gadget="b", ifname="usb0", subnet=subnet(2))
    put(firewall, first)
    firewall.apply(remove=[first], add=[second])
    assert firewall.observe() == {second}


def test_a_subnet_stays_masqueraded_when_its_gadget_is_renamed(firewall: FirewallPort) -> None:
    before = Masquerade(gadget="old", subnet=subnet(1), uplink="eth0")
    after = Masquerade(gadget="new", subnet=subnet(1), uplink="eth0")
    put(firewall, before, *gadget(2))

    put(firewall, after)
    assert firewall.observe() == {after, *gadget(2)}
    firewall.apply(remove=[before], add=())

    assert firewall.observe() == {after, *gadget(2)}
    if isinstance(firewall, NftablesFirewall):
        assert NftablesFirewall().observe() == firewall.observe()  # what it knows is so


def test_two_gadgets_swap_their_subnets(firewall: FirewallPort) -> None:
    one, two = masquerade(1), masquerade(2)
    put(firewall, one, two)

    swapped = {replace(one, subnet=two.subnet), replace(two, subnet=one.subnet)}
    put(firewall, *swapped)

    assert firewall.observe() == swapped
    if isinstance(firewall, NftablesFirewall):
        assert NftablesFirewall().observe() == swapped


@pytest.mark.parametrize("stays", [(), (Quarantine(ifname="usb9"),)], ids=["nothing", "quarantine"])
def test_tidy_takes_what_serves_no_rule(firewall: FirewallPort, stays: tuple[Rule, ...]) -> None:
    def listed() -> str:
        return legacy_rules() if isinstance(firewall, IptablesFirewall) else nft_rules()

    put(firewall, *gadget(2))
    firewall.apply(remove=gadget(2), add=stays)  # a legacy table is there from now on
    firewall.tidy()
    needed = listed()
    put(firewall, *gadget(1))
    full = listed()
    firewall.tidy()
    assert firewall.observe() == {*gadget(1), *stays}
    assert listed() == full

    firewall.apply(remove=gadget(1), add=())
    firewall.tidy()
    firewall.tidy()
    assert firewall.observe() == {*stays}
    assert listed() == needed
    assert stays or "otgd" not in needed.lower()


def test_a_stray_is_removed_by_asking_for_it(firewall: FirewallPort) -> None:
    put(firewall, *gadget(1))
    play_foreign_hand(firewall)
    found = strays(firewall)
    assert found

    firewall.apply(remove=found, add=())
    assert not strays(firewall)
    converge(firewall, gadget(1))
    assert firewall.observe() == gadget(1)


def play_foreign_hand(firewall: FirewallPort) -> None:
    match firewall:
        case FakeFirewall():
            firewall.held.add(Stray(text="somebody was here"))
        case IptablesFirewall():
            legacy(LEGACY_STRAYS["unknown-rule-last"])
        case NftablesFirewall():
            run("nft", NFT_STRAYS["element-without-owner"])
        case _:
            raise AssertionError(firewall)


def test_a_fake_that_shall_fail_does_so_once_and_changes_nothing() -> None:
    firewall = FakeFirewall(gadget(1))
    firewall.fail_next.append(TransientError("busy"))
    with pytest.raises(TransientError, match="busy"):
        put(firewall, *gadget(2))
    assert firewall.observe() == gadget(1)
    put(firewall, *gadget(2))
    assert firewall.observe() == gadget(1) | gadget(2)


# --- legacy iptables -----------------------------------------------------------------------------

LEGACY_STRAYS = {
    "unknown-rule-first": "-t nat -I OTGD-POSTROUTING -s 1.2.3.4 -j ACCEPT",
    "unknown-rule-last": "-t mangle -A OTGD-FORWARD -p tcp --dport 22 -j DROP",
    "unknown-match": "-t raw -A OTGD-PREROUTING -m ttl --ttl-eq 3"
    " -m comment --comment otgd -j DROP",
    "duplicate": "-t nat -A OTGD-POSTROUTING -s 10.0.1.0/24 ! -d 10.0.1.0/24 -o eth0"
    " -m comment --comment otgd:ethusb1 -j MASQUERADE",
    "second-jump": "-t nat -A POSTROUTING -j OTGD-POSTROUTING",
    "jump-from-elsewhere": "-t raw -A OUTPUT -j OTGD-PREROUTING",
    "jump-gone": "-t nat -D POSTROUTING -m comment --comment otgd -j OTGD-POSTROUTING",
    "mangle-jump-gone": "-t mangle -D FORWARD -m comment --comment otgd -j OTGD-FORWARD",
    "mark-never-cleared": "-t mangle -D POSTROUTING -m comment --comment otgd -j OTGD-POSTROUTING",
    "mark-never-set": "-t mangle -F OTGD-ALLOW",
    "one-forward-part-gone": "-t mangle -D OTGD-FORWARD 2",
    "one-dispatch-gone": "-t mangle -D OTGD-FORWARD -i ethusb1"
    " -m comment --comment otgd:ethusb1 -g OTGD-OPEN",
    "isolated-dispatch-gone": "-t mangle -D OTGD-FORWARD -i ethusb3"
    " -m comment --comment otgd:ethusb3 -g OTGD-ISOLATED",
    "one-peer-gone": "-t mangle -D OTGD-OPEN 2",
    "masquerade-gone": "-t nat -D OTGD-POSTROUTING 2",
    "guard-gone": "-t raw -D OTGD-PREROUTING 3",
    "quarantine-half-gone": "-t mangle -D OTGD-POSTROUTING 1",
    "all-flushed": "-t mangle -F",
    "chain-of-our-prefix": "-t nat -N OTGD-OLD",
    "other-subnet": "-t raw -R OTGD-PREROUTING 2 -i ethusb1 ! -s 10.9.0.0/16"
    " -m comment --comment otgd:ethusb1 -j ACCEPT",
    "counts-by-protocol": "-t nat -R OTGD-POSTROUTING 1 -p tcp -s 10.0.1.0/24 ! -d 10.0.1.0/24"
    " -o eth0 -m comment --comment otgd:ethusb1 -j MASQUERADE",
    "masquerade-with-options": "-t nat -R OTGD-POSTROUTING 1 -s 10.0.1.0/24 ! -d 10.0.1.0/24"
    " -o eth0 -m comment --comment otgd:ethusb1 -j MASQUERADE --random",
}


def legacy(command: str) -> None:
    run("iptables-legacy", *command.split())


def legacy_rules() -> str:
    """Return the legacy rules as they are saved, without dates; counters included."""
    saved = run("iptables-legacy-save", "-c")
    return "".join(line for line in saved.splitlines(keepends=True) if not line.startswith("#"))


@pytest.mark.parametrize("command", LEGACY_STRAYS.values(), ids=LEGACY_STRAYS.keys())
def test_a_foreign_hand_in_our_chains_is_seen_and_cured(
    iptables: IptablesFirewall, command: str
) -> None:
    put(iptables, *GOLDEN_RULES)
    right = sorted(re.sub(r"\[.*?\] ?", "", legacy_rules()).splitlines())
    legacy(command)
    assert iptables.observe() != GOLDEN_RULES

    converge(iptables, GOLDEN_RULES)
    assert iptables.observe() == GOLDEN_RULES
    assert sorted(re.sub(r"\[.*?\] ?", "", legacy_rules()).splitlines()) == right


@pytest.mark.parametrize("command", LEGACY_STRAYS.values(), ids=LEGACY_STRAYS.keys())
def test_a_foreign_hand_does_not_keep_us_from_leaving(
    iptables: IptablesFirewall, command: str
) -> None:
    put(iptables, *GOLDEN_RULES)
    legacy(command)
    iptables.apply(remove=iptables.observe(), add=())
    assert "otgd" not in legacy_rules().lower()


def test_an_unharmed_gadget_keeps_its_rules_when_another_is_harmed(
    iptables: IptablesFirewall,
) -> None:
    put(iptables, *GOLDEN_RULES)
    legacy(LEGACY_STRAYS["one-dispatch-gone"])
    assert iptables.observe() >= GOLDEN_RULES - gadget(1)


def test_lines_in_another_order_are_cured(iptables: IptablesFirewall) -> None:
    put(iptables, Quarantine(ifname="usb0"), *gadget(1))
    legacy("-t mangle -D OTGD-POSTROUTING 2")
    legacy(
        "-t mangle -I OTGD-POSTROUTING -m comment --comment otgd -j MARK --set-xmark 0x0/0x10000000"
    )
    assert strays(iptables) == {Stray(text="mangle: OTGD-POSTROUTING is out of order")}
    iptables.apply(remove=strays(iptables), add=())
    assert iptables.observe() == {Quarantine(ifname="usb0"), *gadget(1)}


FOREIGN_LEGACY = """\
*raw
:PREROUTING ACCEPT [0:0]
:OUTPUT ACCEPT [0:0]
[3:252] -A PREROUTING -i docker0 -p tcp -m tcp --dport 53 -j NOTRACK
COMMIT
*mangle
:PREROUTING ACCEPT [0:0]
:INPUT ACCEPT [0:0]
:FORWARD ACCEPT [0:0]
:OUTPUT ACCEPT [0:0]
:POSTROUTING ACCEPT [0:0]
:QOS - [0:0]
[4:400] -A FORWARD -m comment --comment "a \\"b\\" otgd" -j QOS
[5:500] -A QOS -m mark --mark 0x1/0xff -j MARK --set-xmark 0x2/0xffffffff
COMMIT
*nat
:PREROUTING ACCEPT [0:0]
:INPUT ACCEPT [0:0]
:OUTPUT ACCEPT [0:0]
:POSTROUTING ACCEPT [0:0]
:DOCKER - [0:0]
[7:420] -A PREROUTING -m addrtype --dst-type LOCAL -j DOCKER
[8:480] -A POSTROUTING -s 172.17.0.0/16 ! -o docker0 -j MASQUERADE
[0:0] -A POSTROUTING -s 10.0.1.0/24 -o eth0 -j MASQUERADE
[6:360] -A DOCKER ! -i docker0 -p tcp -m tcp --dport 80 -j DNAT --to-destination 172.17.0.2:80
COMMIT
"""


def test_foreign_rules_and_their_counters_stay_byte_for_byte(iptables: IptablesFirewall) -> None:
    """Policy counters aside: they restart at any commit, of iptables(8) as well."""
    run("iptables-legacy-restore", "-c", stdin=FOREIGN_LEGACY)
    before = legacy_rules()
    put(iptables, *GOLDEN_RULES)
    ours = [line for line in legacy_rules().splitlines(keepends=True) if "OTGD-" not in line]
    assert "".join(ours) == before

    iptables.apply(remove=GOLDEN_RULES, add=())
    assert legacy_rules() == before


def test_our_own_counters_survive_the_coming_of_another_gadget(iptables: IptablesFirewall) -> None:
    put(iptables, *gadget(2))
    rule = "OTGD-POSTROUTING -s 10.0.2.0/24 ! -d 10.0.2.0/24 -o eth0"
    comment = '-m comment --comment "otgd:ethusb2" -j MASQUERADE'
    run(
        "iptables-legacy-restore",
        "--counters",
        "--noflush",
        stdin=f"*nat\n-D {rule} {comment}\n[7:700] -A {rule} {comment}\nCOMMIT\n",
    )
    put(iptables, *gadget(1), *gadget(3))
    assert f"[7:700] -A {rule}" in legacy_rules()


def test_tables_that_are_not_needed_are_not_loaded(iptables: IptablesFirewall) -> None:
    names = Path("/proc/net/ip_tables_names")
    iptables.observe()
    assert names.read_text(encoding="ascii").split() == []
    put(iptables, masquerade(1))
    assert names.read_text(encoding="ascii").split() == ["nat"]


@pytest.mark.usefixtures("iptables")
def test_only_tables_that_change_are_committed() -> None:
    script = (
        "from tests.contract.test_firewall import *\n"
        "firewall = IptablesFirewall()\n"
        "put(firewall, *GOLDEN_RULES)\n"
        "print(firewall.observe() == GOLDEN_RULES)\n"
        "put(firewall, *GOLDEN_RULES)\n"
        "firewall.apply(remove=[masquerade(1)], add=())\n"
    )
    said, traced = straced(script, calls="setsockopt")
    assert said == "True\n"
    assert re.findall(r'IPT_SO_SET_REPLACE, "(\w+)', traced) == ["raw", "mangle", "nat", "nat"]


def straced(script: str, *, calls: str) -> tuple[str, str]:
    """Run Python in a process of its own and return what it printed and the calls it made."""
    need(shutil.which("strace"), "strace")
    command = ("strace", "-f", "-qq", "-e", f"trace={calls}", sys.executable, "-c", script)
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return done.stdout, done.stderr


@pytest.mark.parametrize(
    "bad",
    [
        pytest.param(
            Masquerade(gadget="z", subnet=subnet(8), uplink="a234567890123456"), id="long"
        ),
        pytest.param(Masquerade(gadget="z", subnet=subnet(8), uplink="wwan+"), id="pattern"),
        pytest.param(Masquerade(gadget="z", subnet=subnet(8), uplink="!eth0"), id="negation"),
    ],
)
def test_a_transaction_with_an_impossible_rule_changes_nothing(
    iptables: IptablesFirewall, bad: Masquerade
) -> None:
    put(iptables, *gadget(1))
    before = legacy_rules()
    with pytest.raises(PermanentError, match=re.escape(bad.uplink)):
        iptables.apply(remove=gadget(1), add=[*gadget(2), bad])
    assert legacy_rules() == before
    assert iptables.observe() == gadget(1)


def test_a_held_lock_is_transient_and_never_waited_for(
    iptables: IptablesFirewall,
) -> None:
    with LOCK_FILE.open("w") as holder:
        fcntl.flock(holder, fcntl.LOCK_EX)
        with pytest.raises(TransientError, match="another program is changing iptables"):
            put(iptables, *gadget(1))
        assert iptables.observe() == frozenset()
    put(iptables, *gadget(1))
    assert iptables.observe() == gadget(1)


def test_the_lock_is_free_after_a_transaction_and_after_a_failure(
    iptables: IptablesFirewall,
) -> None:
    put(iptables, *gadget(1))
    with pytest.raises(PermanentError):
        put(iptables, Masquerade(gadget="z", subnet=subnet(8), uplink="+"))
    with LOCK_FILE.open("w") as probe:
        fcntl.flock(probe, fcntl.LOCK_EX | fcntl.LOCK_NB)


def test_a_lock_file_that_cannot_be_made_is_named(
    iptables: IptablesFirewall, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XTABLES_LOCKFILE", "/proc/nowhere/xtables.lock")
    with pytest.raises(PermanentError, match=r"/proc/nowhere/xtables\.lock: No such file"):
        put(iptables, *gadget(1))


@pytest.mark.parametrize("lock", ["/run/xtables.lock", "/run/other.lock"], ids=["locked", "not"])
def test_foreign_changes_beside_ours_are_not_lost(iptables: IptablesFirewall, lock: str) -> None:
    """The lock keeps us apart, and where another takes none, the kernel refuses the later one."""
    script = (
        "for i in $(seq 150); do"
        " until iptables-legacy -w -t nat -A POSTROUTING -s 192.0.2.$i -j ACCEPT; do :; done;"
        " done 2>/dev/null"
    )
    with subprocess.Popen(["sh", "-c", script], env=os.environ | {"XTABLES_LOCKFILE": lock}) as it:
        turns = 0
        while it.poll() is None:
            with suppress(TransientError):
                iptables.apply(remove=gadget(turns % 2), add=gadget(1 - turns % 2))
                turns += 1
    assert turns > 0
    assert legacy_rules().count("-s 192.0.2.") == 150


def test_a_kernel_without_legacy_tables_is_told(
    iptables: IptablesFirewall, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("otgd.adapters.iptables._TABLES_IN_USE", Path("/proc/no/such/file"))
    with pytest.raises(PermanentError, match="no legacy iptables; use the nftables backend"):
        iptables.observe()


def test_lack_of_privilege_is_told_with_the_capability(iptables: IptablesFirewall) -> None:
    script = (
        "from otgd.adapters.iptables import IptablesFirewall\n"
        "from otgd.errors import PermanentError\n"
        "import os\n"
        "os.setresuid(65534, 65534, 65534)\n"
        "for verb in (lambda f: f.observe(), lambda f: f.apply(remove=(), add=())):\n"
        "    try:\n"
        "        verb(IptablesFirewall())\n"
        "    except PermanentError as err:\n"
        "        print(err)\n"
    )
    put(iptables, *gadget(1))
    LOCK_FILE.chmod(0o666)
    said = run(sys.executable, "-c", script).splitlines()
    assert said == [
        "read legacy iptables: needs CAP_NET_ADMIN and CAP_NET_RAW",
        "change legacy iptables: needs CAP_NET_ADMIN and CAP_NET_RAW",
    ]


def test_missing_libraries_are_told_at_first_use_with_the_package() -> None:
    script = (
        "import ctypes\n"
        "from otgd.adapters.iptables import IptablesFirewall\n"
        "from otgd.errors import PermanentError\n"
        "load = ctypes.CDLL\n"
        "def gone(name, *args, **kwargs):\n"
        "    if 'xtables' in str(name):\n"
        "        raise OSError(f'{name}: cannot open shared object file')\n"
        "    return load(name, *args, **kwargs)\n"
        "ctypes.CDLL = gone\n"
        "firewall = IptablesFirewall()\n"
        "try:\n"
        "    firewall.observe()\n"
        "except PermanentError as err:\n"
        "    print(err)\n"
        "ctypes.CDLL = load\n"
        "import sys\n"
        "print('iptc' in sys.modules)\n"
    )
    said = run(sys.executable, "-c", script).splitlines()
    assert said == [
        "load libxtables.so.12: libxtables.so.12: cannot open shared object file; install iptables",
        "False",
    ]


@pytest.mark.usefixtures("iptables")
def test_no_process_is_started_by_import_or_use() -> None:
    script = (
        "import os\n"
        "before = dict(os.environ)\n"
        "from otgd.adapters.iptables import IptablesFirewall\n"
        "from otgd.model import Quarantine\n"
        "firewall = IptablesFirewall()\n"
        "firewall.apply(remove=(), add=[Quarantine(ifname='usb0')])\n"
        "assert firewall.observe()\n"
        "assert dict(os.environ) == before\n"
    )
    _, traced = straced(script, calls="execve,fork,vfork,clone,clone3")
    assert traced.count("execve(") == 1
    assert not re.search(r"(fork|clone3?)\(", traced)


def open_files() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


def test_nothing_leaks_over_many_plugs(iptables: IptablesFirewall) -> None:
    put(iptables, *gadget(1))
    iptables.apply(remove=gadget(1), add=())
    before = open_files()
    for _ in range(50):
        put(iptables, *gadget(1))
        iptables.apply(remove=gadget(1), add=())
    assert open_files() == before


def golden(name: str, text: str) -> str:
    path = GOLDEN / name
    if RENEW_GOLDEN:
        path.write_text(text, encoding="utf-8")
    return path.read_text(encoding="utf-8")


def test_legacy_rules_are_the_golden_ones(iptables: IptablesFirewall) -> None:
    put(iptables, *GOLDEN_RULES)
    text = re.sub(r" ?\[\d+:\d+\]( (?=-))?", "", legacy_rules())
    assert text == golden("iptables-legacy.rules", text)


# --- nftables ------------------------------------------------------------------------------------

NFT_STRAYS = {
    "element-without-owner": "add element inet otgd masqueraded { 10.9.0.0/24 . eth0 }",
    "second-source": 'add element inet otgd sources { ethusb1 . 10.99.0.0/16 comment "ethusb1" }',
    "range-of-sources": "add element inet otgd sources"
    ' { ethusb1 . 10.99.0.1-10.99.0.6 comment "ethusb1" }',
    "forward-to-a-second-uplink": "add element inet otgd uplinks"
    ' { ethusb1 . wlan0 comment "ethusb1" : goto allow }',
    "isolation-lifted": "delete element inet otgd isolated { ethusb3 };"
    ' add element inet otgd open { ethusb3 comment "ethusb3" }',
    "isolation-gone": "delete element inet otgd isolated { ethusb3 }",
    "replies-gone": "delete element inet otgd uplinks { eth0 . ethusb1 }",
    "way-out-gone": "delete element inet otgd uplinks { ethusb1 . eth0 }",
    "refusal-gone": "delete element inet otgd uplinks { ethusb4 . eth0 }",
    "link-gone": "delete element inet otgd links { ethusb1 }",
    "guard-gone": "delete element inet otgd guarded { ethusb1 }",
    "source-gone": "delete element inet otgd sources { ethusb1 . 10.0.1.0/24 }",
    "masquerade-gone": "delete element inet otgd masqueraded { 10.0.1.0/24 . eth0 }",
    "owner-changed": "delete element inet otgd guarded { ethusb1 };"
    ' add element inet otgd guarded { ethusb1 comment "ethusb9" }',
    "all-elements-gone": "flush set inet otgd sources",
    "rule-added": "add rule inet otgd forward accept",
    "rule-inserted": "insert rule inet otgd peers accept",
    "rule-doubled": "add rule inet otgd nat ip saddr . oifname @masqueraded masquerade",
    "chain-flushed": "flush chain inet otgd peers",
    "chain-added": "add chain inet otgd mine { type filter hook input priority 0; policy drop; }",
    "set-added": "add set inet otgd mine { type ipv4_addr; }",
    "policy-changed": "add chain inet otgd forward { policy drop; }",
    "dormant": "add table inet otgd { flags dormant; }",
    "quarantine-half-gone": "delete chain netdev otgd egress_usb0",
    "quarantine-pierced": "add rule netdev otgd ingress_usb0 accept",
    "quarantine-policy-changed": "add chain netdev otgd ingress_usb0 { policy accept; }",
    "quarantine-gone": "delete table netdev otgd",
    "table-gone": "delete table inet otgd",
    "everything-flushed": "flush ruleset",
}


def nft_rules() -> str:
    return run("nft", "list", "ruleset")


def unordered(rules: str) -> list[str]:
    """Take a listing apart: a set lists its elements, and a ruleset its tables, by their age."""
    return sorted(part.strip() for part in re.split(r"elements =|[,{}\n]", rules))


@pytest.mark.parametrize("command", NFT_STRAYS.values(), ids=NFT_STRAYS.keys())
def test_a_foreign_hand_in_our_tables_is_seen_and_cured(
    nftables: NftablesFirewall, command: str
) -> None:
    put(nftables, *GOLDEN_RULES)
    right = nft_rules()
    run("nft", command)
    assert nftables.observe() != GOLDEN_RULES

    converge(nftables, GOLDEN_RULES)
    assert nftables.observe() == GOLDEN_RULES
    assert unordered(nft_rules()) == unordered(right)


@pytest.mark.parametrize("command", NFT_STRAYS.values(), ids=NFT_STRAYS.keys())
def test_tidy_leaves_to_a_pass_what_a_foreign_hand_did(
    nftables: NftablesFirewall, command: str
) -> None:
    put(nftables, *GOLDEN_RULES)
    run("nft", command)
    before = nft_rules()
    nftables.tidy()
    assert nft_rules() == before
    nftables.apply(remove=nftables.observe(), add=())
    nftables.tidy()
    assert nft_rules() == ""


@pytest.mark.parametrize("command", NFT_STRAYS.values(), ids=NFT_STRAYS.keys())
def test_without_rules_a_foreign_hand_leaves_nothing(
    nftables: NftablesFirewall, command: str
) -> None:
    put(nftables, *GOLDEN_RULES)
    run("nft", command)
    converge(nftables, ())
    assert NftablesFirewall().observe() == frozenset()
    assert "elements" not in nft_rules()
    assert "netdev" not in nft_rules()


def test_harm_to_one_gadget_shows_at_no_other(nftables: NftablesFirewall) -> None:
    put(nftables, *GOLDEN_RULES)
    run("nft", NFT_STRAYS["replies-gone"])
    rules = {rule for rule in nftables.observe() if not isinstance(rule, Stray)}
    assert rules == GOLDEN_RULES - {forward(1)}


@pytest.mark.parametrize("others", [set(), gadget(1)], ids=["only", "one-more"])
def test_a_plug_is_some_elements_and_no_rule(nftables: NftablesFirewall, others: set[Rule]) -> None:
    put(nftables, *gadget(1))
    converge(nftables, others)
    with subprocess.Popen(["nft", "monitor"], stdout=subprocess.PIPE, text=True) as monitor:
        assert monitor.stdout
        told: list[str] = []
        probe = 0
        while not told:  # it listens once it tells of a change
            probe += 1
            run("nft", f"add table ip probe{probe}")
            if select.select([monitor.stdout], [], [], 0.2)[0]:
                told.append(monitor.stdout.readline())
        put(nftables, *gadget(2))
        run("nft", "add table ip done")
        for line in monitor.stdout:
            told.append(line)
            if "table ip done" in line:
                break
        monitor.terminate()
    ours = [line for line in told if " otgd " in line]
    assert {line.split()[4] for line in ours} >= {"guarded", "links", "open", "uplinks"}
    assert all(line.startswith("add element inet otgd") for line in ours)
    assert all('"ethusb2"' in line for line in ours)


FOREIGN_NFT = """\
table inet firewalld {
	comment "otgd"
	set links {
		type ifname
		elements = { "ethusb1" comment "ethusb1" }
	}

	chain forward {
		type filter hook forward priority filter; policy drop;
		counter packets 7 bytes 700 comment "otgd"
		iifname @links accept
	}
}
table ip otgd-not-quite {
	chain x {
	}
}
"""


def test_foreign_tables_and_their_counters_stay_byte_for_byte(nftables: NftablesFirewall) -> None:
    run("nft", "-f", "-", stdin=FOREIGN_NFT.replace("otgd-not-quite", "otgd"))
    before = nft_rules()
    put(nftables, *GOLDEN_RULES)
    assert nft_rules().startswith(before)
    nftables.apply(remove=GOLDEN_RULES, add=())
    nftables.tidy()
    assert nft_rules() == before


@pytest.mark.parametrize("name", ['qu"ote', "eth*", "back\\slash", "x" * 16])
def test_a_name_that_nftables_cannot_write_changes_nothing(
    nftables: NftablesFirewall, name: str
) -> None:
    put(nftables, *gadget(1))
    before = nft_rules()
    bad = SourceGuard(gadget="z", ifname=name, subnet=subnet(8))
    with pytest.raises(PermanentError):
        nftables.apply(remove=gadget(1), add=[*gadget(2), bad])
    assert nft_rules() == before


def test_one_link_cannot_be_two_gadgets(nftables: NftablesFirewall) -> None:
    twins = [SourceGuard(gadget=name, ifname="usb0", subnet=subnet(1)) for name in ("a", "b")]
    with pytest.raises(PermanentError, match="two gadgets with one link"):
        put(nftables, *twins)
    assert nft_rules() == ""


@pytest.mark.usefixtures("nftables")
def test_lack_of_privilege_for_nftables_is_told_with_the_capability() -> None:
    script = (
        "from tests.contract.test_firewall import *\n"
        "os.setresuid(65534, 65534, 65534)\n"
        "for verb in (lambda f: f.observe(), lambda f: put(f, *gadget(1))):\n"
        "    try:\n"
        "        verb(NftablesFirewall())\n"
        "    except PermanentError as err:\n"
        "        print(err)\n"
    )
    assert run(sys.executable, "-c", script).splitlines() == [
        "read nftables: needs CAP_NET_ADMIN",
        "read nftables: needs CAP_NET_ADMIN",
    ]


def test_a_missing_library_is_told_at_first_use(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "nftables", None)
    firewall = NftablesFirewall()
    with pytest.raises(PermanentError, match="install python3-nftables"):
        firewall.observe()


def test_nothing_is_printed(nftables: NftablesFirewall, capfd: pytest.CaptureFixture[str]) -> None:
    put(nftables, *GOLDEN_RULES)
    nftables.observe()
    with pytest.raises(PermanentError):
        put(nftables, SourceGuard(gadget="z", ifname="x" * 16, subnet=subnet(8)))
    assert capfd.readouterr() == ("", "")


def test_nftables_rules_are_the_golden_ones(nftables: NftablesFirewall) -> None:
    put(nftables, *GOLDEN_RULES)
    assert nft_rules() == golden("nftables.rules", nft_rules())


@pytest.mark.usefixtures("netns")
def test_nftables_lists_its_tables_again_only_when_somebody_else_was_at_work(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    firewall = NftablesFirewall()
    listed: list[str] = []
    run_commands = firewall._run  # noqa: SLF001 - what it asks libnftables is this test's subject

    def noting(commands: str) -> tuple[str, str]:
        listed.extend([commands] if commands.startswith("list") else [])
        return run_commands(commands)

    monkeypatch.setattr(firewall, "_run", noting)
    firewall.apply(remove=(), add=[guard(1)])
    firewall.observe()
    listed.clear()

    firewall.apply(remove=(), add=[masquerade(1)])
    seen = firewall.observe()
    firewall.apply(remove=[masquerade(1)], add=())

    assert seen == {guard(1), masquerade(1)}
    assert firewall.observe() == {guard(1)}
    assert listed == []

    run("nft", "add element inet otgd links { evil0 }")
    assert any(isinstance(rule, Stray) for rule in firewall.observe())
    assert listed


def test_a_table_is_made_in_two_transactions_and_never_left_as_a_half(
    nftables: NftablesFirewall, monkeypatch: pytest.MonkeyPatch
) -> None:
    library = importlib.import_module("nftables").Nftables
    real = library.cmd

    def refuse_hooks(self: object, commands: str) -> tuple[int, str, str]:
        fault = (1, "", "Error: Too many links")
        return fault if " hook " in commands else real(self, commands)

    with monkeypatch.context() as patch:
        patch.setattr(library, "cmd", refuse_hooks)
        with pytest.raises(PermanentError, match="Too many links"):
            put(nftables, *gadget(1))
    assert nft_rules() == ""

    put(nftables, *gadget(1))
    assert nftables.observe() == gadget(1)
    assert NftablesFirewall().observe() == gadget(1)
