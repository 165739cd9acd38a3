"""The program otgctl: its options, its list of commands, and the guard around them all.

Imports no command's module before that command runs: what ``otgctl status`` does not need, it does
not pay for.
"""

from __future__ import annotations

import os
import sys
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING

import click

from otgd import __version__
from otgd.cli.installation import Installation
from otgd.errors import ConfigError, OtgdError
from otgd.printable import printable

if TYPE_CHECKING:
    from collections.abc import Sequence

EX_FAILED = 1
EX_CONFIG = 78
"""sysexits.h, as the daemon does."""

EX_INTERRUPTED = 128 + 2
"""What the shell makes of a program that SIGINT ended."""

SECTIONS = {
    "See": {
        "status": "status:status",
        "show": "show:show",
        "monitor": "monitor:monitor",
        "top": "top:top",
        "wait": "wait:wait",
        "gadgets": "gadgets:gadgets",
        "doctor": "doctor:doctor",
    },
    "Prepare and change": {
        "check": "check:check",
        "plan": "plan:plan",
        "adopt": "adopt:adopt",
        "prepare": "prepare:prepare",
        "verify": "prepare:verify",
        "release": "release:release",
    },
    "Cluster": {
        "swarm": "swarm:swarm",
    },
    "Fit in with others": {
        "import": "importing.command:import_",
        "export": "export:export",
        "hosts": "neighbours:hosts",
        "ssh-config": "neighbours:ssh_config",
        "inventory": "neighbours:inventory",
        "metrics": "metrics:metrics",
        "schema": "schema:schema",
    },
}
"""Command → module of this package, and the command's name in it."""

EXAMPLES = """
\b
Examples:
  otgctl status                 every gadget, its state and why
  otgctl check ./otgd.toml      is this config fine? every problem with its line
  otgctl plan                   what otgd would do now; changes nothing
  sudo otgctl release           after systemctl stop otgd: undo all that is otgd's

\b
Exit codes: 0 fine, 1 failed, 2 wrong usage, 78 bad config.
"""


class LazyGroup(click.Group):
    """A group of commands whose modules are imported when they are asked for."""

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002 - click's signature
        """Return every command's name."""
        return [name for section in SECTIONS.values() for name in section]

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:  # noqa: ARG002
        """Import one command."""
        places = {name: place for section in SECTIONS.values() for name, place in section.items()}
        if cmd_name not in places:
            return None
        module, _, attribute = places[cmd_name].partition(":")
        command: click.Command = getattr(import_module(f"otgd.cli.{module}"), attribute)
        # The docstrings are raw, so click's mark for "leave these lines as they are" is spelt out.
        command.help = (command.help or "").replace("\\b", "\b")
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """List the commands by section."""
        for title, section in SECTIONS.items():
            commands = [(name, self.get_command(ctx, name)) for name in section]
            with formatter.section(title):
                formatter.write_dl(
                    [
                        (name, command.get_short_help_str(80))
                        for name, command in commands
                        if command
                    ]
                )


@click.command(
    cls=LazyGroup, epilog=EXAMPLES, context_settings={"help_option_names": ["-h", "--help"]}
)
@click.option(
    "-c",
    "--config",
    type=click.Path(path_type=Path),
    default=Path("/etc/otgd/otgd.toml"),
    show_default=True,
    help="The config file.",
)
@click.option(
    "--runtime-dir",
    type=click.Path(path_type=Path),
    envvar="OTGD_RUNTIME_DIR",
    default=Path("/run/otgd"),
    show_default="$OTGD_RUNTIME_DIR or /run/otgd",
    help="Where otgd keeps its state.",
)
@click.version_option(__version__, prog_name="otgctl", message="%(prog)s %(version)s")
@click.pass_context
def otgctl(ctx: click.Context, *, config: Path, runtime_dir: Path) -> None:
    """See, check and undo the network that otgd keeps for USB gadgets."""
    ctx.obj = Installation(config_file=config, runtime_dir=runtime_dir)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run otgctl; return the exit code. No traceback ever reaches the user."""
    _open_standard_streams()
    try:
        code = otgctl.main(args=arguments, prog_name="otgctl", standalone_mode=False)
        sys.stdout.flush()
    except click.ClickException as err:
        err.show()
        return err.exit_code
    except (click.Abort, KeyboardInterrupt):
        return EX_INTERRUPTED
    except ConfigError as err:
        return _fail(str(err), EX_CONFIG)
    except OtgdError as err:
        return _fail(f"otgctl: {err}")
    except BrokenPipeError:
        _drop_output()  # the reader has gone
        return EX_FAILED
    except OSError as err:
        where = f"{err.filename}: " if err.filename else ""
        code = _fail(f"otgctl: {where}{err.strerror or err}")
        _flush_or_drop_output()
        return code
    except Exception as err:  # noqa: BLE001 - the last boundary; a bug is told in one line, too
        return _fail(f"otgctl: this is a bug: {type(err).__name__}: {err} ({_place(err)})")
    return code if isinstance(code, int) else 0


def _open_standard_streams() -> None:
    """Give a program that was started with a closed standard stream one that leads nowhere.

    Else the next file that is opened would be that stream.
    """
    for number, name, mode in ((0, "stdin", "r"), (1, "stdout", "w"), (2, "stderr", "w")):
        if getattr(sys, name) is None:
            nowhere = os.open(os.devnull, os.O_RDWR)
            if nowhere != number:
                os.dup2(nowhere, number)
                os.close(nowhere)
            setattr(sys, name, os.fdopen(number, mode, closefd=False))


def _flush_or_drop_output() -> None:
    try:
        sys.stdout.flush()
    except OSError:
        _drop_output()


def _drop_output() -> None:
    """Lead what is still to be written nowhere: the interpreter's last flush shall not complain."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, sys.stdout.fileno())
    os.close(nowhere)


def _fail(message: str, code: int = EX_FAILED) -> int:
    print(printable(message, keep="\n"), file=sys.stderr)
    return code


def _place(err: Exception) -> str:
    """Return file and line where *err* was raised."""
    trace = err.__traceback__
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    if trace is None:
        return "nowhere"
    return f"{Path(trace.tb_frame.f_code.co_filename).name}:{trace.tb_lineno}"
