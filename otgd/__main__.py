"""otgd, the daemon: arguments and wiring."""

from __future__ import annotations

import argparse
import errno
import gc
import os
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

from otgd import __version__
from otgd.errors import ConfigError, OtgdError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from otgd.errors import Problem
    from otgd.model import Config
    from otgd.ports import EventLogPort, ServicePort

EX_FAILED = 1
EX_CONFIG = 78
"""sysexits.h; the unit does not restart after it (RestartPreventExitStatus=)."""

DEFAULT_CONFIG = Path("/etc/otgd/otgd.toml")
LOCK_PATIENCE_S = 1.0
"""How long to wait for the lock: otgctl tests it for an instant, a dying otgd holds it."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the service; return the exit code."""
    gc.disable()  # until the daemon is ready: what is imported is no garbage
    options = _parse(arguments)
    from otgd.adapters.service_manager import SystemdService

    service = SystemdService()
    try:
        return _serve(options, service)
    except ConfigError as err:
        for problem in err.problems:
            print(problem, file=sys.stderr)  # noqa: T201 - before there is a log
        service.notify(f"STATUS=config refused: {err.problems[0]}", f"ERRNO={errno.EINVAL}")
        return EX_CONFIG
    except OtgdError as err:
        print(f"otgd: {err}", file=sys.stderr)  # noqa: T201 - the last word
        service.notify(f"STATUS={err}", f"ERRNO={errno.EIO}")
        return EX_FAILED
    finally:
        gc.enable()


def _parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="otgd",
        description="Keep the network of USB gadgets true to one config file.",
        epilog="State: otgctl status. Events: journalctl -u otgd. Reload: systemctl reload otgd.",
    )
    parser.add_argument("--config", type=Path, default=DEFAULT_CONFIG, help="default: %(default)s")
    parser.add_argument(
        "--runtime-dir",
        type=Path,
        default=Path(os.environ.get("RUNTIME_DIRECTORY") or "/run/otgd"),
        help="where state.json goes; default: $RUNTIME_DIRECTORY or /run/otgd",
    )
    parser.add_argument("--version", action="version", version=f"otgd {__version__}")
    return parser.parse_args(arguments)


def _load(path: Path) -> Config:
    """Read the config.

    Raises:
        ConfigError: the config is refused.
    """
    return _begin_load(path)()


def _begin_load(path: Path) -> Callable[[], Config]:
    """Begin to read the config, in a child process; return what waits for it.

    A process of its own, because pydantic is 10 MiB that the service never needs again.
    """
    import otgd.model  # noqa: F401 - both processes need it: load it before they part
    from otgd.apart import begin_apart

    answer = begin_apart(lambda: _read_config(path))

    def finish() -> Config:
        outcome = answer()
        if isinstance(outcome, tuple):
            raise ConfigError(outcome)
        return outcome

    return finish


def _read_config(path: Path) -> Config | tuple[Problem, ...]:
    # None could do any good here, and pydantic reads every installed package's list to find one.
    os.environ["PYDANTIC_DISABLE_PLUGINS"] = "__all__"
    # Whether pydantic builds sound validators is its tests' business; since 2.11 it is the default.
    os.environ["PYDANTIC_SKIP_VALIDATING_CORE_SCHEMAS"] = "1"
    from otgd.config import load_config

    try:
        return load_config(path)
    except ConfigError as err:
        return err.problems


def _serve(options: argparse.Namespace, service: ServicePort) -> int:
    reading = _begin_load(options.config)
    # What any config needs is imported while it is being read.
    from otgd.adapters.journal import JournalLog, StderrLog, stderr_is_journal
    from otgd.adapters.names_file import NamesFile
    from otgd.adapters.state_file import StateFile
    from otgd.adapters.textfile import Textfile
    from otgd.daemon import Daemon
    from otgd.wiring import Kernel, import_adapters

    import_adapters()
    config = reading()
    state = StateFile(options.runtime_dir)
    patience = time.monotonic() + LOCK_PATIENCE_S
    while not state.lock():
        if time.monotonic() > patience:
            raise OtgdError(f"another otgd already runs with {options.runtime_dir}")
        time.sleep(0.02)
    level = config.settings.log_level
    log: EventLogPort = JournalLog(level=level) if stderr_is_journal() else StderrLog(level=level)
    keeps = os.environ.get("STATE_DIRECTORY")
    daemon = Daemon(
        config=config,
        load=lambda: _load(options.config),
        connect=Kernel,
        log=log,
        service=service,
        state=state,
        metrics=Textfile(),
        names=NamesFile(Path(keeps)) if keeps else None,
    )
    return daemon.run()


if __name__ == "__main__":
    sys.exit(main())
