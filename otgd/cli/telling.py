"""Who tells how things are: the running daemon, or the kernel itself where none runs."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from otgd.cli.installation import Installation


@dataclass(frozen=True, slots=True, kw_only=True)
class Told:
    """How things are.

    Attributes:
        state: in state.json's layout, and ``running``.
        source: a sentence that says who told.
    """

    state: dict[str, Any]
    source: str


def tell(installation: Installation) -> Told:
    """Return the daemon's state, or what the kernel holds.

    Raises:
        OtgdError: the state cannot be read, the config is refused, or the kernel cannot be seen.
    """
    told = installation.told_state()
    if told is not None:
        source = f"otgd {told['otgd_version']} runs (pid {told['pid']})"
        return Told(state={**told, "running": True}, source=source)
    from otgd.cli.kernel_view import look, state_of

    view = look(installation, installation.config())
    runs = installation.runs
    source = (
        "otgd has not told its state yet; this is what the kernel holds"
        if runs
        else "otgd is stopped; nothing is kept up to date. This is what the kernel holds"
    )
    if view.hidden:
        source += f" ({view.hidden})"
    return Told(state={**state_of(view), "running": runs}, source=source)
