"""The real otgctl, run in the lab's host beside the daemon."""

from __future__ import annotations

import json
import os
import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from tests.lab.daemon import REPOSITORY

if TYPE_CHECKING:
    from pathlib import Path

    from tests.lab.namespaces import Namespace


@dataclass(frozen=True, slots=True, kw_only=True)
class Said:
    """What one run of otgctl said."""

    code: int
    out: str
    err: str

    @property
    def lines(self) -> list[str]:
        """Return what it printed, by line."""
        return self.out.splitlines()

    @property
    def document(self) -> Any:  # noqa: ANN401 - JSON
        """Return what it printed as JSON."""
        return json.loads(self.out)


class Otgctl:
    """Runs otgctl with the config and the runtime directory in *directory*."""

    def __init__(self, host: Namespace, directory: Path) -> None:
        self._host = host
        self._directory = directory

    def command(self, *arguments: str) -> tuple[str, ...]:
        """Return the command line."""
        places = ("-c", f"{self._directory}/otgd.toml", "--runtime-dir", f"{self._directory}/run")
        path = f"PYTHONPATH={REPOSITORY}"
        return ("env", path, sys.executable, "-m", "otgd.cli", *places, *arguments)

    def __call__(self, *arguments: str, user: int = 0) -> Said:
        """Run it as *user* and return what it said."""
        # Another user may not write coverage's data, and coverage would say so on stderr.
        clean = [f"--unset={key}" for key in os.environ if user and key.startswith("COV")]
        command = ("env", *clean, *self.command(*arguments))
        as_user = ("setpriv", f"--reuid={user}", "--clear-groups", *command)
        complaints = self._directory / f"otgctl.{user}.err"
        script = 'exec 2>"$0"; "$@"; echo "exit $?"'
        out = self._host.run_inside("sh", "-c", script, str(complaints), *as_user)
        text, _, code = out.rpartition("exit ")
        return Said(code=int(code), out=text, err=complaints.read_text())
