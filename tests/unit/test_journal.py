"""The journal's native protocol against a socket that plays journald; stderr without one."""

from __future__ import annotations

import io
import os
import socket
import struct
import sys
import tempfile
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from otgd.adapters.journal import BACKLOG, JournalLog, StderrLog, stderr_is_journal
from otgd.events import Event, Kind

if TYPE_CHECKING:
    from collections.abc import Iterator


class Journald:
    """Reads datagrams of the native protocol, when told to."""

    def __init__(self, path: Path, *, buffer_bytes: int = 1 << 20) -> None:
        self.path = path
        path.unlink(missing_ok=True)
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK)
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, buffer_bytes)
        self._socket.bind(str(path))

    def read(self) -> list[dict[str, str]]:
        """Return the entries that have come, oldest first."""
        entries = []
        while True:
            try:
                entries.append(parse(self._socket.recv(1 << 17)))
            except BlockingIOError:
                return entries

    def close(self) -> None:
        self._socket.close()


def parse(message: bytes) -> dict[str, str]:
    """Read one entry as systemd.io/JOURNAL_NATIVE_PROTOCOL defines it."""
    fields = {}
    while message:
        line, _, message = message.partition(b"\n")
        key, equals, value = line.partition(b"=")
        if not equals:
            (length,) = struct.unpack_from("<Q", message)
            value, message = message[8 : 8 + length], message[8 + length :]
            assert message[:1] == b"\n"
            message = message[1:]
        fields[key.decode()] = value.decode()
    return fields


@pytest.fixture
def path() -> Iterator[Path]:
    with tempfile.TemporaryDirectory() as directory:  # sun_path has 108 bytes
        yield Path(directory) / "socket"


@pytest.fixture
def journald(path: Path) -> Iterator[Journald]:
    with closing(Journald(path)) as listening:
        yield listening


def event(text: str = "ethusb1: configured", **fields: str) -> Event:
    return Event(kind=Kind.GADGET_CONFIGURED, message=text, fields=fields)


def messages(entries: list[dict[str, str]]) -> list[str]:
    return [entry["MESSAGE"] for entry in entries]


def test_an_event_has_its_fields_and_no_empty_ones(journald: Journald) -> None:
    with closing(JournalLog(path=str(journald.path))) as log:
        log.write(event(INTERFACE="ethusb1", OTGD_PORT=""))
    assert journald.read() == [
        {
            "MESSAGE": "ethusb1: configured",
            "MESSAGE_ID": Kind.GADGET_CONFIGURED.message_id,
            "PRIORITY": "6",
            "SYSLOG_IDENTIFIER": "otgd",
            "INTERFACE": "ethusb1",
        }
    ]


@pytest.mark.parametrize(
    "text",
    ["two\nlines", "a\nPRIORITY=0", "", "ünïcode ☃", "\x00\x1b"],
    ids=["lines", "injection", "empty", "unicode", "control"],
)
def test_every_text_arrives_whole(journald: Journald, text: str) -> None:
    with closing(JournalLog(path=str(journald.path))) as log:
        log.write(event("message", OTGD_REASON=text))
    (entry,) = journald.read()
    assert entry.get("OTGD_REASON", "") == text
    assert entry["PRIORITY"] == "6"


def test_a_name_that_is_not_unicode_is_told_in_escapes(journald: Journald) -> None:
    with closing(JournalLog(path=str(journald.path))) as log:
        log.write(event(os.fsdecode(b"/etc/\xff.toml")))
    assert messages(journald.read()) == ["/etc/\\udcff.toml"]


def test_what_is_less_grave_than_the_level_is_not_told(journald: Journald) -> None:
    with closing(JournalLog(path=str(journald.path), level="warning")) as log:
        log.write(event())
        log.write(Event(kind=Kind.UNKNOWN_LINK, message="told"))
        log.level = "info"
        log.write(event("told too"))
    assert messages(journald.read()) == ["told", "told too"]


def test_a_stalled_journald_is_never_waited_for_and_gets_all_in_order_later(path: Path) -> None:
    texts = [f"event {n}" for n in range(500)]
    with (
        closing(Journald(path, buffer_bytes=4096)) as journald,
        closing(JournalLog(path=str(path))) as log,
    ):
        for text in texts:
            # A blocking send would hang here: nobody reads, and the test's timeout would strike.
            log.write(event(text))
        first = journald.read()
        assert 0 < len(first) < len(texts)
        entries = first
        while len(entries) < len(texts):
            log.flush()
            news = journald.read()
            assert news
            entries += news
    assert messages(entries) == texts


def test_too_many_events_for_a_stalled_journald_are_counted(path: Path) -> None:
    with (
        closing(Journald(path)) as journald,
        closing(JournalLog(path=str(path))) as log,
    ):
        path.rename(path.with_name("away"))
        for n in range(BACKLOG + 7):
            log.write(event(f"event {n}"))
        path.with_name("away").rename(path)
        entries: list[dict[str, str]] = []
        while len(entries) < BACKLOG + 1:
            log.flush()
            news = journald.read()
            assert news
            entries += news
        log.flush()
        assert journald.read() == []
    assert entries[0] == {
        "MESSAGE": "7 events lost while journald did not read",
        "PRIORITY": "4",
        "SYSLOG_IDENTIFIER": "otgd",
    }
    assert messages(entries[1:]) == [f"event {n}" for n in range(7, BACKLOG + 7)]


@pytest.mark.parametrize("leave_socket", [True, False], ids=["refused", "no such file"])
def test_a_restarted_journald_is_found_again(path: Path, *, leave_socket: bool) -> None:
    with closing(JournalLog(path=str(path))) as log:
        with closing(Journald(path)) as journald:
            log.write(event("before"))
            assert messages(journald.read()) == ["before"]
        if not leave_socket:
            path.unlink()
        log.write(event("meanwhile"))
        with closing(Journald(path)) as journald:
            log.write(event("after"))
            assert messages(journald.read()) == ["meanwhile", "after"]


def test_an_event_too_long_for_a_datagram_holds_up_no_other(journald: Journald) -> None:
    with closing(JournalLog(path=str(journald.path))) as log:
        log.write(event("x" * (1 << 23)))
        log.write(event("after"))
    assert messages(journald.read()) == ["after"]


# --- stderr --------------------------------------------------------------------------------------


def test_stderr_gets_one_line_for_each_event() -> None:
    stream = io.StringIO()
    log = StderrLog(stream=stream)
    log.write(event())
    log.write(Event(kind=Kind.PASS_CRASHED, message="one\ntwo"))
    log.write(Event(kind=Kind.STEP_APPLIED, message="debug"))
    log.flush()
    assert stream.getvalue() == "otgd: ethusb1: configured\notgd: err: one two\n"


def test_a_stderr_that_nobody_reads_ends_nothing() -> None:
    reader, writer = os.pipe()
    os.close(reader)
    with open(writer, "w", buffering=1, errors="strict") as stream:  # noqa: PTH123 - a descriptor
        StderrLog(stream=stream).write(event("ends in EPIPE"))
        stream_fd = os.open(os.devnull, os.O_WRONLY)
        os.dup2(stream_fd, writer)  # so that closing can flush
        os.close(stream_fd)


def test_a_closed_stderr_ends_nothing() -> None:
    stream = io.StringIO()
    stream.close()
    StderrLog(stream=stream).write(event())


@pytest.mark.parametrize(
    ("environ", "is_journal"),
    [
        ({}, False),
        ({"JOURNAL_STREAM": "{device}:{inode}"}, True),
        ({"JOURNAL_STREAM": "{device}:1"}, False),
        ({"JOURNAL_STREAM": "odd"}, False),
    ],
    ids=["none", "ours", "another's", "odd"],
)
def test_stderr_is_the_journal_when_systemd_says_so(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, environ: dict[str, str], *, is_journal: bool
) -> None:
    with (tmp_path / "stream").open("w") as stream:
        stat = os.fstat(stream.fileno())
        monkeypatch.setattr(sys, "stderr", stream)
        given = {k: v.format(device=stat.st_dev, inode=stat.st_ino) for k, v in environ.items()}
        assert stderr_is_journal(given) is is_journal


@pytest.mark.parametrize("stream", [None, io.StringIO()], ids=["none at all", "no descriptor"])
def test_without_a_stderr_it_is_not_the_journal(
    monkeypatch: pytest.MonkeyPatch, stream: io.StringIO | None
) -> None:
    monkeypatch.setattr(sys, "stderr", stream)
    assert not stderr_is_journal({"JOURNAL_STREAM": "1:1"})
