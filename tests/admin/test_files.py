"""Files that commands write: whole or as they were, and nothing beside them is touched."""

import os
import stat
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.admin.running import Staddle, staddle

__all__ = ["staddle"]


@pytest.fixture
def stored(staddle: Staddle, s3: Any) -> str:
    staddle("bucket", "create", "written")
    s3.put_object(Bucket="written", Key="k", Body=b"stored")
    return "s3://written/k"


@pytest.fixture
def backup(staddle: Staddle) -> Iterator[str]:
    staddle.done("backup", "create", "written")
    yield "written"
    staddle.done("backup", "delete", "written", "--yes")


def mode(file: Path) -> int:
    return stat.S_IMODE(file.stat().st_mode)


def test_nothing_beside_the_target_is_touched(staddle: Staddle, stored: str, backup: str, tmp_path: Path) -> None:
    """Neither what is called TARGET.part nor what a link of that name leads to."""
    precious, linked = tmp_path / "precious", tmp_path / "saved.part"
    precious.write_bytes(b"precious")
    linked.symlink_to(precious)
    (tmp_path / "got.part").write_bytes(b"precious too")
    staddle.done("object", "get", stored, str(tmp_path / "got"))
    staddle.done("backup", "download", backup, str(tmp_path / "saved"))
    staddle.done("backup", "create", "written-too", "--file", str(tmp_path / "saved"))
    staddle.done("backup", "delete", "written-too", "--yes")
    assert "no object" in staddle.refused("object", "get", stored + "none", str(tmp_path / "got"))
    assert (tmp_path / "got").read_bytes() == b"stored"
    assert precious.read_bytes() == b"precious"
    assert linked.is_symlink()
    assert (tmp_path / "got.part").read_bytes() == b"precious too"
    assert sorted(os.listdir(tmp_path)) == ["got", "got.part", "precious", "saved", "saved.part"]


def test_only_their_owner_may_read_backups(staddle: Staddle, stored: str, backup: str, tmp_path: Path) -> None:
    before = os.umask(0o027)
    try:
        staddle.done("object", "get", stored, str(tmp_path / "got"))
        staddle.done("backup", "download", backup, str(tmp_path / "saved"))
    finally:
        os.umask(before)
    assert mode(tmp_path / "got") == 0o640
    assert mode(tmp_path / "saved") == 0o600


def test_a_link_is_replaced_and_what_it_leads_to_stays(staddle: Staddle, stored: str, tmp_path: Path) -> None:
    (tmp_path / "precious").write_bytes(b"precious")
    (tmp_path / "got").symlink_to("precious")
    staddle.done("object", "get", stored, str(tmp_path / "got"))
    assert (tmp_path / "precious").read_bytes() == b"precious"
    assert (tmp_path / "got").read_bytes() == b"stored"


def test_a_name_of_an_open_file_is_not_replaced(staddle: Staddle, backup: str, tmp_path: Path) -> None:
    with (tmp_path / "open").open("wb") as file:
        name = f"/dev/fd/{file.fileno()}"
        assert "own name" in staddle.refused("backup", "download", backup, name, status=2)
    assert (tmp_path / "open").read_bytes() == b""


@pytest.mark.parametrize("kind", ["object", "backup"])
def test_what_is_no_file_is_written_as_it_is(staddle: Staddle, stored: str, backup: str, tmp_path: Path, kind: str) -> None:
    fifo, came = tmp_path / "fifo", list[bytes]()
    os.mkfifo(fifo)
    command = ("object", "get", stored) if kind == "object" else ("backup", "download", backup)
    reader = threading.Thread(target=lambda: came.append(fifo.read_bytes()), daemon=True)
    reader.start()
    staddle.done(*command, str(fifo))
    reader.join(20)
    assert came[0] == b"stored" if kind == "object" else came[0].startswith(b'{"format":')
    assert stat.S_ISFIFO(fifo.stat().st_mode)
    staddle.done(*command, "/dev/null")
    assert stat.S_ISCHR(os.stat("/dev/null").st_mode)
    assert os.listdir(tmp_path) == ["fifo"]
