"""Do memory-hungry work in a child process, so that what it imports never lives in this one.

The child is forked, not started anew: it begins with everything that is loaded already. Only for a
process with one thread (fork(2) copies no other), which the daemon is.
"""

from __future__ import annotations

import os
import pickle
import signal
from typing import TYPE_CHECKING, NoReturn, TypeVar

from otgd.errors import OtgdError

if TYPE_CHECKING:
    from collections.abc import Callable

Result = TypeVar("Result")
_CHUNK_BYTES = 1 << 16


def apart(work: Callable[[], Result]) -> Result:
    """Return what *work* returns in a child process; it has to be something that pickles.

    Raises:
        OtgdError: the child cannot be started, or did not come to its end.
    """
    return begin_apart(work)()


def begin_apart(work: Callable[[], Result]) -> Callable[[], Result]:
    """Let a child process begin with *work*; return what waits for its result, to be called once.

    Whoever ends without calling it leaves nothing behind but a child that finds no reader.

    Raises:
        OtgdError: the child cannot be started; or, from what is returned, did not come to its end.
    """
    reader, writer = os.pipe2(os.O_CLOEXEC)
    try:
        child = os.fork()
    except OSError as err:
        os.close(reader)
        os.close(writer)
        raise OtgdError(f"start a child process: {err.strerror}") from err
    if child == 0:
        os.close(reader)
        _work(work, writer)
    os.close(writer)

    def finish() -> Result:
        answer = _read(reader)
        os.close(reader)
        _, status = os.waitpid(child, 0)
        if status != 0:
            code = os.waitstatus_to_exitcode(status)
            raise OtgdError(f"a child process ended with {code} before its work was done")
        result: Result = pickle.loads(answer)  # noqa: S301 - from our own child, through a pipe
        return result

    return finish


def _work(work: Callable[[], Result], writer: int) -> NoReturn:
    """Do the work, answer, and leave without the parent's cleaning up.

    A defect's traceback goes to stderr, which is the journal; our parent tells that it happened.
    """
    status = 1
    try:
        signal.set_wakeup_fd(-1)
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            signal.signal(number, signal.SIG_DFL)
        with os.fdopen(writer, "wb") as answer:
            pickle.dump(work(), answer)
        status = 0
    except BrokenPipeError:
        pass  # nobody waits for it any more
    except BaseException:  # noqa: BLE001 - os._exit below would swallow it
        import traceback

        traceback.print_exc()
    finally:
        os._exit(status)


def _read(reader: int) -> bytes:
    chunks = []
    while chunk := os.read(reader, _CHUNK_BYTES):
        chunks.append(chunk)
    return b"".join(chunks)
