"""Images' archives: what is in them, and what of it has to be sent."""

from __future__ import annotations

import hashlib
import io
import json
import tarfile

import pytest

from otgd.errors import PermanentError
from otgd.swarm.archive import copy, known_layers, make_archive, read_archive, size_bytes
from otgd.swarm.platforms import Platform


def saved(*layers: bytes, names: tuple[str, ...] = ()) -> io.BytesIO:
    """Write an archive as ``docker save`` does; layers of one content are one member."""
    names = names or tuple(f"blobs/sha256/{hashlib.sha256(each).hexdigest()}" for each in layers)
    diff_ids = [f"sha256:{hashlib.sha256(each).hexdigest()}" for each in layers]
    members = dict(zip(names, layers, strict=True))
    members["config"] = json.dumps({"rootfs": {"diff_ids": diff_ids}}).encode()
    manifest = [{"Config": "config", "RepoTags": ["a:1"], "Layers": list(names)}]
    members["manifest.json"] = json.dumps(manifest).encode()
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w", format=tarfile.PAX_FORMAT) as tar:
        for name, content in members.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(content)
            entry.pax_headers = {"mtime": "1.5"}  # a header before the header
            tar.addfile(entry, io.BytesIO(content))
    file.seek(0)
    return file


def members(chunks: bytes) -> dict[str, bytes]:
    with tarfile.open(fileobj=io.BytesIO(chunks)) as tar:
        return {m.name: f.read() for m in tar if (f := tar.extractfile(m)) is not None}


def test_all_of_it_is_sent_to_who_has_nothing() -> None:
    file = saved(b"a" * 1000, b"b" * 70_000)
    archive = read_archive(file)
    sent = b"".join(copy(file, archive.without(0)))
    assert members(sent) == members(file.getvalue())
    assert len(sent) == size_bytes(archive.without(0))


def test_known_layers_are_left_out() -> None:
    file = saved(b"a" * 1000, b"b" * 70_000, b"c" * 3)
    archive = read_archive(file)
    sent = members(b"".join(copy(file, archive.without(2))))
    assert {len(content) for name, content in sent.items() if "blobs" in name} == {3}
    assert "manifest.json" in sent


def test_layer_that_comes_again_above_is_sent() -> None:
    file = saved(b"a" * 10, b"b" * 20, b"a" * 10)
    archive = read_archive(file)
    kept = [piece.name for piece in archive.without(2)]
    assert archive.layers[0][1] in kept
    assert archive.layers[1][1] not in kept


def test_link_to_a_layer_of_the_same_content_has_what_it_links_to() -> None:
    file = saved(
        b"a" * 10, b"b" * 20, b"a" * 10, names=("1/layer.tar", "2/layer.tar", "3/layer.tar")
    )
    kept = [piece.name for piece in read_archive(file).without(2)]
    assert "1/layer.tar" in kept
    assert "2/layer.tar" not in kept


def test_layers_count_from_the_bottom_only() -> None:
    ours = ["a", "b", "c"]
    assert known_layers(ours, []) == 0
    assert known_layers(ours, [["b", "c"], ["x"]]) == 0
    assert known_layers(ours, [["a"], ["a", "b", "x"]]) == 2
    assert known_layers(ours, [["a", "b", "c", "d"]]) == 3


@pytest.mark.parametrize(
    "content", [b"no archive", b"", saved(b"a").getvalue()[:700]], ids=["text", "empty", "cut"]
)
def test_something_else_is_refused(content: bytes) -> None:
    with pytest.raises(PermanentError, match="not docker save's"):
        read_archive(io.BytesIO(content))


def test_made_archive_is_one_that_can_be_read() -> None:
    made = make_archive(
        "x:1", {"bin/a": (0o755, b"A")}, Platform(architecture="arm", variant="v6"), {"Cmd": ["a"]}
    )
    again = make_archive(
        "x:1", {"bin/a": (0o755, b"A")}, Platform(architecture="arm", variant="v6"), {"Cmd": ["a"]}
    )
    assert made == again
    archive = read_archive(io.BytesIO(made))
    ((diff_id, name),) = archive.layers
    inside = members(made)
    assert diff_id == f"sha256:{hashlib.sha256(inside[name]).hexdigest()}"
    config = json.loads(inside[json.loads(inside["manifest.json"])[0]["Config"]])
    assert (config["architecture"], config["variant"]) == ("arm", "v6")
    with tarfile.open(fileobj=io.BytesIO(inside[name])) as layer:
        assert [(m.name, m.mode, m.isdir()) for m in layer] == [
            ("bin", 0o755, True),
            ("bin/a", 0o755, False),
        ]
