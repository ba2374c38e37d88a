"""The real disk writes everything or raises, and the faulty one models a power cut."""

import errno
import os
from pathlib import Path

import pytest

from consensus.disk import APPEND, CREATE, UPDATE, Disk, make_folder, replace_file
from tests.unit.consensus.crash import FaultyDisk, Stopped


def test_short_writes_are_completed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    disk = Disk()
    fd = disk.open(str(tmp_path / "f"), APPEND)
    write, pwrite, writev = os.write, os.pwrite, os.writev
    monkeypatch.setattr(os, "write", lambda fd, data: write(fd, data[:3]))
    monkeypatch.setattr(os, "writev", lambda fd, buffers: writev(fd, [buffers[0], buffers[1][:1]]))
    disk.write(fd, b"0123456789", "w")
    disk.writev(fd, [b"abc", bytearray(b"defgh"), memoryview(b"ijkl")], "w")
    disk.close(fd)
    assert (tmp_path / "f").read_bytes() == b"0123456789abcdefghijkl"
    monkeypatch.setattr(os, "pwrite", lambda fd, data, offset: pwrite(fd, data[:2], offset))
    fd = disk.open(str(tmp_path / "f"), UPDATE)
    disk.pwrite(fd, b"XYZXYZ", 1, "w")
    disk.close(fd)
    assert (tmp_path / "f").read_bytes().startswith(b"0XYZXYZ789")


def test_a_write_that_gets_nowhere_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    disk = Disk()
    fd = disk.open(str(tmp_path / "f"), APPEND)
    monkeypatch.setattr(os, "write", lambda fd, data: 0)
    with pytest.raises(OSError, match="nothing") as caught:
        disk.write(fd, b"x", "w")
    assert caught.value.errno == errno.ENOSPC


def test_create_refuses_an_existing_file(tmp_path: Path) -> None:
    (tmp_path / "f").write_bytes(b"")
    with pytest.raises(FileExistsError):
        Disk().open(str(tmp_path / "f"), CREATE)


@pytest.mark.parametrize("broken", [False, True], ids=["as it is", "control: syncs swallowed"])
def test_a_replaced_file_is_old_or_new_after_a_power_cut_at_every_step(tmp_path: Path, broken: bool) -> None:
    root, cut = tmp_path / "root", tmp_path / "cut"
    found = set()
    for number in range(20):
        root.mkdir(exist_ok=True)
        (root / "f").write_bytes(b"old")
        disk = FaultyDisk(str(root))
        disk.stop_at, disk.broken_sync = number, broken
        done = False
        try:
            replace_file(disk, str(root / "f"), b"new" * 2000, "r")
            done = True
        except Stopped:
            pass
        for seed in range(20):
            disk.power_cut(seed, str(cut))
            content = (cut / "f").read_bytes()
            found.add(content)
            if done and not broken:
                assert content == b"new" * 2000
        for path in root.iterdir():
            path.unlink()
        if done:
            break
    assert done
    assert (found == {b"old", b"new" * 2000}) is not broken


def test_a_folder_is_durable_even_if_an_earlier_run_stopped_after_making_it(tmp_path: Path) -> None:
    disk = FaultyDisk(str(tmp_path / "root"))
    (tmp_path / "root").mkdir()
    disk.stop_at = 1
    with pytest.raises(Stopped):
        make_folder(disk, str(tmp_path / "root" / "new"), "m")
    disk.stop_at = None
    make_folder(disk, str(tmp_path / "root" / "new"), "m")
    for seed in range(5):
        disk.power_cut(seed, str(tmp_path / "cut"))
        assert (tmp_path / "cut" / "new").is_dir()


def test_names_without_a_folder_sync_may_be_missing_and_come_in_any_order(tmp_path: Path) -> None:
    disk = FaultyDisk(str(tmp_path / "root"))
    (tmp_path / "root").mkdir()
    for name in ("a", "b"):
        fd = disk.open(str(tmp_path / "root" / name), CREATE)
        disk.write(fd, b"x" * 5000, "w")
        disk.fdatasync(fd, "s")
        disk.close(fd)
    states = set()
    for seed in range(40):
        disk.power_cut(seed, str(tmp_path / "cut"))
        states.add(tuple(sorted(os.listdir(tmp_path / "cut"))))
    assert states == {(), ("a",), ("b",), ("a", "b")}


def test_a_failed_sync_loses_bytes_although_the_next_succeeds(tmp_path: Path) -> None:
    disk = FaultyDisk(str(tmp_path / "root"))
    (tmp_path / "root").mkdir()
    fd = disk.open(str(tmp_path / "root" / "f"), CREATE)
    disk.fsync_dir(str(tmp_path / "root"), "d")
    disk.write(fd, b"x" * 100, "w")
    disk.fail_step = "s"
    with pytest.raises(OSError, match="injected"):
        disk.fdatasync(fd, "s")
    disk.fdatasync(fd, "s")
    assert (tmp_path / "root" / "f").read_bytes() == b"x" * 100
    contents = set()
    for seed in range(20):
        disk.power_cut(seed, str(tmp_path / "cut"))
        contents.add((tmp_path / "cut" / "f").read_bytes())
    assert b"" in contents
