"""Image archives, as ``docker save`` writes and ``docker load`` reads them; no engine needed.

``docker load`` looks into its store before it looks into the archive: layers that it has, from the
bottom up, need not be in there (moby, image/tarexport/load.go; measured with 20.10 and 26.1). So
only the others go over the cable.
"""

from __future__ import annotations

import hashlib
import io
import json
import tarfile
from dataclasses import dataclass
from typing import IO, TYPE_CHECKING, Any

from otgd.errors import PermanentError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from otgd.swarm.platforms import Platform

BLOCK_BYTES = 512
"""tar(5)."""

CHUNK_BYTES = 1 << 18


@dataclass(frozen=True, slots=True, kw_only=True)
class Piece:
    """A member of the archive with its headers: where it begins, and how long it is, in bytes."""

    name: str
    start: int
    length: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Archive:
    """What is in an archive of one image.

    Attributes:
        pieces: all members, in order.
        layers: of each layer, from the bottom up, its diff id and its member's name.
    """

    pieces: tuple[Piece, ...]
    layers: tuple[tuple[str, str], ...]

    def without(self, known: int) -> tuple[Piece, ...]:
        """Return what to send to an engine that has the lowest *known* layers."""
        needed = {name for _, name in self.layers[known:]}
        needed_ids = {diff_id for diff_id, _ in self.layers[known:]}
        spare = {
            name
            for diff_id, name in self.layers[:known]
            # One member may be a link to another of the same content.
            if name not in needed and diff_id not in needed_ids
        }
        return tuple(piece for piece in self.pieces if piece.name not in spare)


def read_archive(file: IO[bytes]) -> Archive:
    """Find out what is in an archive of one image.

    Raises:
        PermanentError: it is no such archive.
    """
    try:
        with tarfile.open(fileobj=file, mode="r:") as tar:
            members = tar.getmembers()
            manifest = _load(tar, "manifest.json")[0]
            diff_ids = _load(tar, manifest["Config"])["rootfs"]["diff_ids"]
            names = manifest["Layers"]
    except (tarfile.TarError, KeyError, IndexError, ValueError, TypeError) as err:
        raise PermanentError(f"read the image's archive: it is not docker save's ({err})") from err
    starts = [member.offset for member in members]
    ends = [*starts[1:], _end(members[-1])]
    pieces = tuple(
        Piece(name=member.name, start=start, length=end - start)
        for member, start, end in zip(members, starts, ends, strict=True)
    )
    return Archive(pieces=pieces, layers=tuple(zip(diff_ids, names, strict=True)))


def _load(tar: tarfile.TarFile, name: str) -> Any:  # noqa: ANN401 - JSON
    member = tar.extractfile(name)
    if member is None:
        raise KeyError(name)
    return json.load(member)


def _end(member: tarfile.TarInfo) -> int:
    size = member.size if member.isfile() else 0
    return member.offset_data + -(-size // BLOCK_BYTES) * BLOCK_BYTES


def known_layers(diff_ids: Sequence[str], stores: Sequence[Sequence[str]]) -> int:
    """Count how many layers, from the bottom, one of the images in *stores* has as well."""
    best = 0
    for other in stores:
        same = 0
        for ours, theirs in zip(diff_ids, other, strict=False):
            if ours != theirs:
                break
            same += 1
        best = max(best, same)
    return best


def copy(file: IO[bytes], pieces: Sequence[Piece]) -> Iterator[bytes]:
    """Yield an archive of these pieces of the archive in *file*."""
    for piece in pieces:
        left = piece.length
        file.seek(piece.start)
        while left:
            chunk = file.read(min(left, CHUNK_BYTES))
            if not chunk:
                raise PermanentError("read the image's archive: it ends too early")
            left -= len(chunk)
            yield chunk
    yield bytes(2 * BLOCK_BYTES)


def size_bytes(pieces: Sequence[Piece]) -> int:
    """Return how long the archive of these pieces is."""
    return sum(piece.length for piece in pieces) + 2 * BLOCK_BYTES


# --- making one ----------------------------------------------------------------------------------


def make_archive(
    tag: str, files: Mapping[str, tuple[int, bytes]], platform: Platform, config: Mapping[str, Any]
) -> bytes:
    """Make an archive of an image of one layer; the same input makes the same image.

    Args:
        tag: its name.
        files: mode and content of each file, by its path without a leading slash.
        platform: whose programs are in it.
        config: the image's, for example ``{"Cmd": [...]}``.
    """
    layer = _tar(files)
    described: dict[str, Any] = {
        "architecture": platform.architecture,
        "os": "linux",
        "created": "1970-01-01T00:00:00Z",
        "config": dict(config),
        "rootfs": {"type": "layers", "diff_ids": [_digest(layer)]},
        "history": [{"created": "1970-01-01T00:00:00Z", "created_by": "otgctl swarm"}],
    }
    if platform.variant:
        described["variant"] = platform.variant
    document = json.dumps(described, sort_keys=True).encode()
    name = _digest(document).removeprefix("sha256:") + ".json"
    manifest = [{"Config": name, "RepoTags": [tag], "Layers": ["layer.tar"]}]
    return _tar(
        {
            "layer.tar": (0o644, layer),
            name: (0o644, document),
            "manifest.json": (0o644, json.dumps(manifest).encode()),
        }
    )


def _digest(content: bytes) -> str:
    return f"sha256:{hashlib.sha256(content).hexdigest()}"


def _tar(files: Mapping[str, tuple[int, bytes]]) -> bytes:
    """Write an archive; directories come before what is in them."""
    target = io.BytesIO()
    made: set[str] = set()
    with tarfile.open(fileobj=target, mode="w", format=tarfile.USTAR_FORMAT) as tar:
        for path, (mode, content) in files.items():
            parts = path.split("/")[:-1]
            for depth in range(1, len(parts) + 1):
                directory = "/".join(parts[:depth])
                if directory not in made:
                    made.add(directory)
                    entry = tarfile.TarInfo(directory)
                    entry.type, entry.mode = tarfile.DIRTYPE, 0o755
                    tar.addfile(entry)
            entry = tarfile.TarInfo(path)
            entry.mode, entry.size = mode, len(content)
            tar.addfile(entry, io.BytesIO(content))
    return target.getvalue()
