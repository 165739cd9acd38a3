"""Which otgd otgctl talks about: a config file, a runtime directory, and what lies in them."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import click
from click.shell_completion import CompletionItem

from otgd.adapters.state_file import StateFile
from otgd.errors import OtgdError, PermanentError
from otgd.status import VERSION

if TYPE_CHECKING:
    from pathlib import Path

    from otgd.model import Config

    _NameType = click.ParamType[str]
else:
    _NameType = click.ParamType  # no generic class in click 8.1, Debian trixie's


TOLD_ALWAYS = frozenset(
    {"otgd_version", "pid", "uplink", "forwarding", "firewall", "gadgets", "unknown", "last_pass"}
)
"""What state.json holds whatever the config says."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Installation:
    """One otgd, running or not."""

    config_file: Path
    runtime_dir: Path

    @property
    def state_file(self) -> StateFile:
        """The runtime directory's state and lock."""
        return StateFile(self.runtime_dir)

    @property
    def runs(self) -> bool:
        """Whether a daemon keeps this network now."""
        return self.state_file.is_locked()

    def config(self) -> Config:
        """Read the config.

        Raises:
            ConfigError: it is refused.
        """
        from otgd.config import load_config

        return load_config(self.config_file)

    def told_state(self) -> dict[str, Any] | None:
        """Return what the running daemon says; None if none runs, or it has said nothing yet.

        A state file without a daemon is what a killed one left, and no longer true.

        Raises:
            PermanentError: the state cannot be read, is of another release, or lacks a part.
        """
        if not self.runs:
            return None
        anew = "sudo systemctl restart otgd writes it anew"
        try:
            state = self.state_file.read()
        except PermanentError as err:
            raise PermanentError(f"{err}; {anew}") from err
        if state is not None and state.get("version") != VERSION:
            version = state.get("version", "none")
            raise PermanentError(
                f"read {self.state_file.path}: its version is {version}, not {VERSION}: otgd and"
                f" otgctl are of different releases; {anew}"
            )
        if state is not None and (lacking := TOLD_ALWAYS - state.keys()):
            raise PermanentError(
                f"read {self.state_file.path}: it lacks {', '.join(sorted(lacking))}; {anew}"
            )
        return state

    def settled(self, config: Config) -> Config:
        """Return *config* with the packet filter that the running daemon took for "auto".

        To choose anew might give another one: the daemon keeps to its choice, whatever other
        firewall starts later. Without a daemon that tells, *config* is returned as it is.
        """
        from otgd.model import Backend

        if config.settings.backend is not Backend.AUTO:
            return config
        try:
            told = self.told_state()
        except OtgdError:
            return config
        if told is None:
            return config
        backend = Backend(told["firewall"]["backend"])
        return replace(config, settings=replace(config.settings, backend=backend))


class GadgetName(_NameType):
    """A gadget's name; the shell completes it from the config."""

    name = "name"

    def shell_complete(
        self,
        ctx: click.Context,
        param: click.Parameter,  # noqa: ARG002 - click's signature
        incomplete: str,
    ) -> list[CompletionItem]:
        """Return the names that begin like *incomplete*; none where the config has none to tell."""
        options = ctx.find_root().params
        place = Installation(config_file=options["config"], runtime_dir=options["runtime_dir"])
        try:
            gadgets = place.config().desired.gadgets
        except OtgdError:
            return []
        return [CompletionItem(g.name) for g in gadgets if g.name.startswith(incomplete)]
