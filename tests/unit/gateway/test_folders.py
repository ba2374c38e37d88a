"""Data folders: made once, named once, and the same node again with a new disk."""

import re
import shutil
import stat
from pathlib import Path

import pytest

from gateway.folders import FolderError, cluster_secret, name_nodes, node_id, prepare, root_identity


@pytest.fixture
def data(tmp_path: Path) -> tuple[Path, ...]:
    folders = (tmp_path / "first", tmp_path / "second")
    prepare(folders)
    assert name_nodes(folders[0], folders) == []
    return folders


def test_an_empty_folder_in_the_place_of_a_lost_disk_is_the_same_node(data: tuple[Path, ...]) -> None:
    before = node_id(data[1])
    shutil.rmtree(data[1])
    prepare(data)
    assert name_nodes(data[0], data) == []
    assert node_id(data[1]) == before


def test_a_moved_folder_keeps_its_name_and_its_new_place_is_remembered(data: tuple[Path, ...], tmp_path: Path) -> None:
    before, moved = node_id(data[1]), tmp_path / "moved"
    data[1].rename(moved)
    assert name_nodes(data[0], (data[0], moved)) == []
    assert node_id(moved) == before
    shutil.rmtree(moved)
    prepare((data[0], moved))
    name_nodes(data[0], (data[0], moved))
    assert node_id(moved) == before


def test_a_folder_that_is_left_away_is_named(data: tuple[Path, ...]) -> None:
    (sentence,) = name_nodes(data[0], data[:1])
    assert str(data[1]) in sentence
    assert node_id(data[1]) in sentence


def test_a_copied_folder_is_refused(data: tuple[Path, ...], tmp_path: Path) -> None:
    shutil.copytree(data[1], tmp_path / "copy")
    with pytest.raises(FolderError, match="copy of the other"):
        name_nodes(data[0], (*data, tmp_path / "copy"))


def test_secrets_are_made_once_and_are_private(data: tuple[Path, ...]) -> None:
    secret, (root, made) = cluster_secret(data[0]), root_identity(data[0], None, None)
    assert made
    assert (cluster_secret(data[0]), root_identity(data[0], None, None)) == (secret, (root, False))
    for name in ("secret", "root-key"):
        assert stat.S_IMODE((data[0] / name).stat().st_mode) == 0o600


@pytest.mark.parametrize("name", ["nodes", "root-key", "secret", "node-id"])
@pytest.mark.parametrize("content", [b"\xff\xfe", b"no = "], ids=["no text", "nothing that fits"])
def test_a_file_that_cannot_be_read_is_named(data: tuple[Path, ...], name: str, content: bytes) -> None:
    name_nodes(data[0], data)
    (data[0] / name).write_bytes(content)
    with pytest.raises(FolderError, match=re.escape(str(data[0] / name))):
        (name_nodes(data[0], data), cluster_secret(data[0]), root_identity(data[0], None, None))


def test_half_a_root_key_is_refused(data: tuple[Path, ...]) -> None:
    with pytest.raises(FolderError, match="belong together"):
        root_identity(data[0], "KEY", None)


@pytest.mark.parametrize("left", [(), ("CURRENT",), ("CURRENT", "snapshots/9.sqlite", "snapshots/9.json")])
def test_lost_metadata_is_not_taken_for_a_new_store(data: tuple[Path, ...], left: tuple[str, ...]) -> None:
    """What is left is not enough to go on from: a store without metadata would give up all its chunks."""
    for name in left:
        (data[0] / "meta" / name).parent.mkdir(exist_ok=True)
        (data[0] / "meta" / name).write_text("1\n")
    prepare(data)                     # no storage node has been here
    (data[1] / "chunks").mkdir()
    (data[1] / "chunks" / "incarnation").write_bytes(b"i" * 16)
    with pytest.raises(FolderError, match="is gone, but"):
        prepare(data)
    for present in ("journal/00000001.log", "meta.1.sqlite"):
        (data[0] / "meta" / present).parent.mkdir(exist_ok=True)
        (data[0] / "meta" / present).write_bytes(b"x")
        prepare(data)
        (data[0] / "meta" / present).unlink()
