"""Images to guests without a registry: only the layers that a guest lacks go over its cable."""

from __future__ import annotations

import tempfile
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from otgd.errors import PermanentError
from otgd.swarm.archive import copy, known_layers, read_archive, size_bytes
from otgd.swarm.cluster import Outcome, guest_engine
from otgd.swarm.platforms import Platform, of_machine, runs_on

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from otgd.model import GadgetSpec
    from otgd.swarm.archive import Archive
    from otgd.swarm.engine import Engine
    from otgd.swarm.ssh import Policy

    Progress = Callable[[str, int, int], None]
    """Told a gadget's name, and how many bytes of how many have been sent."""

SPOOL = Path("/var/tmp")  # noqa: S108 - a private file in it; /tmp may be memory


@dataclass(frozen=True, slots=True, kw_only=True)
class Parcel:
    """An image to send.

    Attributes:
        id: what engines know it by, a digest.
        file: the whole archive's.
    """

    name: str
    id: str
    platform: Platform
    archive: Archive
    file: str


@contextmanager
def packed(hub: Engine, name: str) -> Iterator[Parcel]:
    """Take an image out of the host's engine, once for all guests.

    Raises:
        PermanentError: the host does not have it.
    """
    found = hub.image(name)
    if found is None:
        raise PermanentError(f"this host has no image {name}; type: docker pull {name}")
    with tempfile.NamedTemporaryFile(prefix="otgctl-", dir=SPOOL) as spool:
        hub.save(name, spool)
        spool.flush()
        spool.seek(0)
        yield Parcel(
            name=name,
            id=found["Id"],
            platform=Platform(
                architecture=found["Architecture"], variant=found.get("Variant") or ""
            ),
            archive=read_archive(spool),
            file=spool.name,
        )


def push(
    parcel: Parcel, spec: GadgetSpec, policy: Policy, progress: Progress, *, force: bool
) -> Outcome:
    """Send an image to one guest.

    Args:
        parcel: the image.
        spec: whose guest.
        policy: how to log in there.
        progress: told how far it is.
        force: send it although it is for another architecture.
    """
    with guest_engine(spec, policy) as engine:
        machine = of_machine(engine.facts().machine)
        if not force and not runs_on(parcel.platform, machine):
            return Outcome(gadget=spec.name, good=False, text=_mismatch(parcel, machine))
        there = engine.image(parcel.name)
        if there is not None and there["Id"] == parcel.id:
            return Outcome(gadget=spec.name, good=True, text=f"has {parcel.name} already")
        known = known_layers([diff_id for diff_id, _ in parcel.archive.layers], engine.layers())
        try:
            sent = _send(parcel, known, engine, spec, progress)
        except PermanentError:
            if not known:
                raise
            # An engine with containerd's image store wants to see all of them.
            known, sent = 0, _send(parcel, 0, engine, spec, progress)
    layers = len(parcel.archive.layers)
    text = f"got {parcel.name}: {layers - known} of {layers} layers, {_mb(sent)}"
    return Outcome(gadget=spec.name, good=True, text=text)


def _send(parcel: Parcel, known: int, engine: Engine, spec: GadgetSpec, progress: Progress) -> int:
    """Send what is above the lowest *known* layers; return how many bytes that was."""
    pieces = parcel.archive.without(known)
    total = size_bytes(pieces)
    with Path(parcel.file).open("rb") as file:
        engine.load(_counted(copy(file, pieces), spec.name, total, progress))
    return total


def _counted(
    chunks: Iterable[bytes], gadget: str, total: int, progress: Progress
) -> Iterator[bytes]:
    done = 0
    for chunk in chunks:
        yield chunk
        done += len(chunk)
        progress(gadget, done, total)


def _mismatch(parcel: Parcel, machine: Platform) -> str:
    unsaid = parcel.platform.architecture == "arm" and not parcel.platform.variant
    told = " (it names no variant, which means v7)" if unsaid else ""
    return (
        f"{parcel.name} is for {parcel.platform}{told}, the guest is {machine}; type: "
        f"docker pull --platform linux/{machine} {parcel.name}"
        + (", or say --force if you know better" if unsaid else "")
    )


def _mb(size: int) -> str:
    return f"{size / 1e6:.1f} MB"
