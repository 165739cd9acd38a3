"""The way through other programs' FORWARD chain, written by either flavour of the real iptables."""

from __future__ import annotations

import fcntl
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from otgd.adapters.docker_user import SYSTEM_PATH, IptablesPassage
from otgd.adapters.nf_tables import NftTrigger
from otgd.errors import PermanentError, TransientError
from otgd.model import Passage
from tests.conftest import need
from tests.lab.namespaces import run

if TYPE_CHECKING:
    from collections.abc import Iterator

FLAVOURS = ("nft", "legacy")
DOCKER = """\
*filter
:FORWARD DROP [0:0]
:DOCKER-USER - [0:0]
-A FORWARD -j DOCKER-USER
-A FORWARD -i docker0 -j ACCEPT
-A DOCKER-USER -s 192.0.2.1/32 -j DROP
-A DOCKER-USER -j RETURN
COMMIT
"""


class Host:
    """A host whose ``iptables`` is of one flavour, and the passage on it.

    Attributes:
        now: what the passage's clock shows.
    """

    def __init__(self, flavour: str, directory: Path) -> None:
        self.flavour = flavour
        self.now = 0.0
        program = directory / "iptables"
        program.symlink_to(f"/usr/sbin/xtables-{flavour}-multi")
        need(program.exists(), "both flavours of iptables (package iptables)")
        self.path = f"{directory}:{SYSTEM_PATH}"
        self.passage = self.another()

    def another(self) -> IptablesPassage:
        """Return a passage that has not looked yet, as after a restart."""
        changes = NftTrigger(("ip", "filter")) if self.flavour == "nft" else None
        return IptablesPassage(
            changes=changes, max_age_s=10.0, path=self.path, clock=lambda: self.now
        )

    def iptables(self, *arguments: str) -> str:
        """Run the host's iptables."""
        return run("env", f"PATH={self.path}", "iptables", *arguments)

    def restore(self, rules: str) -> None:
        """Load rules as ``iptables-save`` prints them."""
        run(f"iptables-{self.flavour}-restore", stdin=rules)

    def rules(self, chain: str) -> list[str]:
        """Return a chain's rules, the policy left out."""
        listed = self.iptables("-S", chain).splitlines()
        return [rule for rule in listed if rule.startswith("-A")]

    def ours(self) -> list[str]:
        """Return the chains that hold a rule of ours."""
        rules = self.iptables("-S").splitlines()
        return [rule.split()[1] for rule in rules if "--comment otgd" in rule]

    def look(self) -> Passage:
        """Look after the memory's end, so that legacy tables are read again."""
        self.now += 10.0
        return self.passage.look()


@pytest.fixture(params=FLAVOURS)
def host(request: pytest.FixtureRequest, netns: None, tmp_path: Path) -> Iterator[Host]:  # noqa: ARG001
    built = Host(str(request.param), tmp_path)
    yield built
    built.passage.close()


@contextmanager
def locked_tables() -> Iterator[None]:
    with Path("/run/xtables.lock").open("a") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def test_untouched_host_is_open(host: Host) -> None:
    assert host.look() is Passage.OPEN
    host.iptables("-P", "FORWARD", "ACCEPT")
    assert host.look() is Passage.OPEN


def test_drop_closes_and_our_rule_grants(host: Host) -> None:
    host.iptables("-P", "FORWARD", "DROP")
    assert host.look() is Passage.CLOSED
    host.passage.open()
    assert host.look() is Passage.GRANTED
    assert host.ours() == ["FORWARD"]


def test_any_foreign_rule_may_drop(host: Host) -> None:
    host.iptables("-A", "FORWARD", "-s", "192.0.2.0/24", "-j", "DROP")
    assert host.look() is Passage.CLOSED


def test_our_rule_is_spare_where_nothing_is_in_the_way(host: Host) -> None:
    host.iptables("-P", "FORWARD", "DROP")
    host.passage.open()
    host.iptables("-P", "FORWARD", "ACCEPT")
    assert host.look() is Passage.SPARE


def test_with_docker_it_comes_before_return(host: Host) -> None:
    host.restore(DOCKER)
    assert host.look() is Passage.CLOSED
    host.passage.open()
    assert host.look() is Passage.GRANTED
    assert host.ours() == ["DOCKER-USER"]
    first, *rest = host.rules("DOCKER-USER")
    assert first.endswith("-j ACCEPT")
    assert rest == ["-A DOCKER-USER -s 192.0.2.1/32 -j DROP", "-A DOCKER-USER -j RETURN"]


def test_chain_that_nothing_leads_to_grants_nothing(host: Host) -> None:
    host.restore(DOCKER)
    host.passage.open()
    host.iptables("-F", "FORWARD")  # the policy is still DROP
    assert host.look() is Passage.CLOSED
    host.passage.open()
    assert host.look() is Passage.GRANTED
    assert sorted(host.ours()) == ["DOCKER-USER", "FORWARD"]


def test_shut_takes_our_rule_from_wherever_it_is_and_nothing_else(host: Host) -> None:
    host.restore(DOCKER)
    before = host.iptables("-S")
    host.passage.open()
    host.iptables("-F", "FORWARD")
    host.passage.open()
    host.passage.shut()
    assert host.ours() == []
    host.passage.shut()  # of nothing is fine
    assert host.rules("DOCKER-USER") == [
        "-A DOCKER-USER -s 192.0.2.1/32 -j DROP",
        "-A DOCKER-USER -j RETURN",
    ]
    host.restore(DOCKER)
    assert host.iptables("-S") == before


def test_opened_twice_it_is_one_rule(host: Host) -> None:
    """Dockerd takes its jump away for a moment as it starts, and our rule seems to be gone."""
    host.iptables("-N", "DOCKER-USER")
    host.iptables("-I", "FORWARD", "-j", "DOCKER-USER")
    host.passage.open()
    host.iptables("-D", "FORWARD", "-j", "DOCKER-USER")
    assert host.look() is not Passage.GRANTED

    host.iptables("-I", "FORWARD", "-j", "DOCKER-USER")
    host.passage.open()
    assert host.ours() == ["DOCKER-USER"]


def test_rule_of_an_earlier_run_is_recognised(host: Host) -> None:
    host.iptables("-P", "FORWARD", "DROP")
    host.passage.open()
    again = host.another()
    assert again.look() is Passage.GRANTED
    again.close()


def test_listing_stays_readable_for_both_flavours_readers(host: Host) -> None:
    host.restore(DOCKER)
    host.passage.open()
    listed = run(f"iptables-{host.flavour}", "-S")
    assert listed == host.iptables("-S")
    saved = run(f"iptables-{host.flavour}-save", "-t", "filter")
    host.restore(saved)  # what Docker and administrators do with it
    assert run(f"iptables-{host.flavour}", "-S") == listed


def test_change_is_seen_as_soon_as_the_kernel_or_the_clock_allows(host: Host) -> None:
    assert host.passage.look() is Passage.OPEN
    host.iptables("-P", "FORWARD", "DROP")
    at_once = host.flavour == "nft"
    assert (host.passage.drain() > 0) is at_once
    assert host.passage.look() is (Passage.CLOSED if at_once else Passage.OPEN)
    assert host.look() is Passage.CLOSED


def test_unchanged_chains_are_not_read_again(host: Host) -> None:
    host.iptables("-P", "FORWARD", "DROP")
    assert host.passage.look() is Passage.CLOSED
    (Path(host.path.split(":")[0]) / "iptables").unlink()  # nobody could run it now
    host.path = ""
    assert host.passage.look() is Passage.CLOSED


def test_native_rule_in_the_table_is_a_clear_error(netns: None, tmp_path: Path) -> None:  # noqa: ARG001
    host = Host("nft", tmp_path)
    host.iptables("-P", "FORWARD", "DROP")
    run("nft", "add", "rule", "ip", "filter", "FORWARD", "ct", "state", "new", "counter")
    with pytest.raises(PermanentError, match=r"filter.*incompatible") as told:
        host.look()
    assert str(told.value).startswith("iptables -w 1 -S: ")
    with pytest.raises(PermanentError):
        host.passage.open()
    run("nft", "flush", "chain", "ip", "filter", "FORWARD")
    assert host.look() is Passage.CLOSED  # it recovers by itself
    host.passage.close()


def test_lock_that_stays_held_is_transient(netns: None, tmp_path: Path) -> None:  # noqa: ARG001
    host = Host("legacy", tmp_path)
    host.iptables("-P", "FORWARD", "DROP")
    with locked_tables():
        with pytest.raises(TransientError, match="lock"):
            host.look()
        with pytest.raises(TransientError, match="lock"):
            host.passage.open()
    assert host.look() is Passage.CLOSED


def test_lock_means_nothing_to_the_nft_flavour(netns: None, tmp_path: Path) -> None:  # noqa: ARG001
    host = Host("nft", tmp_path)
    host.iptables("-P", "FORWARD", "DROP")
    with locked_tables():
        host.passage.open()
        assert host.look() is Passage.GRANTED
    host.passage.close()


def test_without_the_command_nobody_can_have_closed_it(netns: None, tmp_path: Path) -> None:  # noqa: ARG001
    passage = IptablesPassage(changes=None, path=str(tmp_path))
    assert passage.look() is Passage.OPEN
    assert passage.fileno() == -1
    with pytest.raises(PermanentError, match="install package iptables"):
        passage.open()


def test_command_that_hangs_is_not_waited_for(
    netns: None,  # noqa: ARG001
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    program = tmp_path / "iptables"
    program.write_text("#!/bin/sh\nexec sleep 60\n")
    program.chmod(0o755)
    monkeypatch.setattr("otgd.adapters.docker_user.PATIENCE_S", 0.1)
    passage = IptablesPassage(changes=None, path=f"{tmp_path}:{SYSTEM_PATH}")
    with pytest.raises(TransientError, match="no answer"):
        passage.look()
