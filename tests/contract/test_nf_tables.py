"""nf_tables as the kernel itself tells of them: which tables there are, and when one changes."""

from __future__ import annotations

import contextlib
import os
import resource
import socket
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from otgd.adapters.nf_tables import NftTrigger, list_tables
from otgd.errors import PermanentError, TransientError
from otgd.netlink.nfnetlink import FAMILIES
from tests.lab.descriptors import is_readable
from tests.lab.namespaces import run

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = pytest.mark.usefixtures("netns")

TABLE = """\
table inet watched {
    set gadgets { type ifname; }
    chain input { type filter hook input priority 0; }
}
"""
CHANGES = {
    "table": "add table inet watched",
    "chain": "add chain inet watched other",
    "rule": "add rule inet watched input counter",
    "set": "add set inet watched more { type ifname; }",
    "element": 'add element inet watched gadgets { "ethusb1" }',
    "chain flushed": "flush chain inet watched input",
    "table gone": "delete table inet watched",
    "everything gone": "flush ruleset",
}


def nft(commands: str) -> None:
    run("nft", "-f", "-", stdin=commands)


@pytest.fixture
def trigger() -> Iterator[NftTrigger]:
    nft(TABLE + "add rule inet watched input accept")
    listening = NftTrigger(("inet", "watched"), ("ip", "filter"))
    yield listening
    listening.close()


@pytest.mark.parametrize("change", list(CHANGES.values())[1:], ids=list(CHANGES)[1:])
def test_change_of_a_watched_table_is_an_event(trigger: NftTrigger, change: str) -> None:
    nft(change)
    assert trigger.drain() > 0
    assert trigger.drain() == 0


def test_new_table_is_an_event() -> None:
    trigger = NftTrigger(("inet", "watched"))
    nft(CHANGES["table"])
    assert trigger.drain() > 0
    trigger.close()


def test_change_by_the_iptables_command_is_an_event(trigger: NftTrigger) -> None:
    run("iptables-nft", "-P", "FORWARD", "DROP")
    assert trigger.drain() > 0
    run("iptables-nft", "-I", "FORWARD", "-j", "ACCEPT")
    assert trigger.drain() > 0


@pytest.mark.parametrize("table", ["ip watched", "inet watched2", "inet watche", "netdev watched"])
def test_other_tables_are_no_event(trigger: NftTrigger, table: str) -> None:
    nft(f"add table {table}; add chain {table} input")
    assert trigger.drain() == 0


def test_event_makes_the_descriptor_readable(trigger: NftTrigger) -> None:
    assert not is_readable(trigger.fileno())
    nft(CHANGES["chain"])
    assert is_readable(trigger.fileno())


def test_many_changes_in_one_transaction_are_seen(trigger: NftTrigger) -> None:
    foreign = "".join(f"add table inet foreign{n}\n" for n in range(300))
    nft(foreign + CHANGES["rule"] + "\n" + foreign.replace("foreign", "more"))
    assert trigger.drain() == 1


def test_overflow_counts_as_an_event_and_is_survived(trigger: NftTrigger) -> None:
    with socket.socket(fileno=os.dup(trigger.fileno())) as sock:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    nft("".join(f"add table inet foreign{n}\n" for n in range(100)))
    assert is_readable(trigger.fileno())
    assert trigger.drain() > 0
    assert not is_readable(trigger.fileno())
    assert trigger.overflows > 0
    overflows = trigger.overflows
    nft(CHANGES["rule"])
    assert trigger.drain() == 1
    assert trigger.overflows == overflows


def test_no_descriptor_left_is_transient() -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    used = len(list(Path("/proc/self/fd").iterdir()))
    with contextlib.ExitStack() as stack:
        stack.callback(resource.setrlimit, resource.RLIMIT_NOFILE, (soft, hard))
        resource.setrlimit(resource.RLIMIT_NOFILE, (used + 8, hard))
        with contextlib.suppress(OSError):
            while True:
                stack.callback(os.close, os.dup(0))
        with pytest.raises(TransientError, match="listen to nf_tables events: Too many open"):
            NftTrigger(("inet", "watched"))
        with pytest.raises(PermanentError, match="list nf_tables: Too many open files"):
            list_tables()


def test_tables_of_every_family_are_listed() -> None:
    assert list_tables() == frozenset()
    nft("".join(f"add table {family} some\n" for family in FAMILIES))
    assert list_tables() == {(family, "some") for family in FAMILIES}


def test_more_tables_than_one_datagram_holds_are_listed() -> None:
    nft("".join(f"add table inet table{n:04}\n" for n in range(2000)))
    assert list_tables() == {("inet", f"table{n:04}") for n in range(2000)}


def test_listing_loads_and_makes_nothing() -> None:
    list_tables()
    assert run("nft", "list", "ruleset") == ""
