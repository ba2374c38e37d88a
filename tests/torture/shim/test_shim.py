"""The shim sees every change, and a cut leaves what the rules of `image` say: tried on small programs of the C library's
calls, and compared with the real folder."""

import errno
import os
import random
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.torture.shim import whole
from tests.torture.shim.image import PAGE, Disk, Inode, found
from tests.torture.shim.log import Op, Rule, ShimLog, compiler

pytestmark = pytest.mark.skipif(compiler() is None, reason="the shim is written in C, and there is no compiler")

PRELUDE = """
import os, sqlite3, shutil
def new(name, data=b"", sync=True):
    fd = os.open(name, os.O_CREAT | os.O_RDWR | os.O_TRUNC, 0o600)
    os.write(fd, data)
    if sync: os.fsync(fd)
    return fd
def sync(folder="."):
    fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    os.fsync(fd)
    os.close(fd)
"""


class Case:
    """A watched folder in which programs run."""

    def __init__(self, folder: Path) -> None:
        self.root = folder / "root"
        self.root.mkdir()
        self.folder, self.images = folder, 0
        self.watch()

    def watch(self, **options: bool) -> None:
        self.before = found(self.root)
        self.log = ShimLog(self.root, **options)

    def run(self, program: str) -> None:
        subprocess.run([sys.executable, "-c", PRELUDE + program], check=True, cwd=self.root,
                       env=os.environ | self.log.environment)

    def left(self, seed: int | None = None, cut: int | None = None) -> dict[str, bytes]:
        """The files that a cut leaves."""
        self.images += 1
        target = self.folder / f"image{self.images}"
        chance = None if seed is None else random.Random(seed)
        Disk(self.log, found_again(self.before), cut).lay_out(target, chance)
        return {str(path.relative_to(target)): path.read_bytes() for path in sorted(target.rglob("*")) if path.is_file()}


def found_again(inode: Inode) -> Inode:
    """The state before, unchanged by an earlier replay."""
    copy = Inode(inode.number, inode.is_folder, inode.size, inode.durable_size)
    copy.names = {name: found_again(inner) for name, inner in inode.names.items()}
    copy.live = dict(copy.names)
    return copy


@pytest.fixture
def case(tmp_path: Path) -> Iterator[Case]:
    made = Case(tmp_path)
    yield made
    made.log.close()


def test_bytes_and_names_need_their_own_syncs(case: Case) -> None:
    case.run("new('both', b'x'); sync(); new('bytes', b'x'); new('neither', b'x', sync=False)")
    assert case.left() == {"both": b"x"}
    case.run("sync()")
    assert case.left() == {"both": b"x", "bytes": b"x", "neither": b""}


def test_what_is_written_after_a_sync_is_lost(case: Case) -> None:
    case.run("fd = new('a', b'1' * 5000); sync(); os.pwrite(fd, b'2', 4500); os.pwrite(fd, b'3' * 9000, 4900)")
    assert case.left() == {"a": b"1" * 5000}
    case.run("fd = os.open('a', os.O_RDWR); os.ftruncate(fd, 10)")
    assert case.left() == {"a": b"1" * 5000}
    case.run("fd = os.open('a', os.O_RDWR | os.O_TRUNC); os.write(fd, b'4')")
    assert case.left() == {"a": b"1" * 5000}
    case.run("fd = os.open('a', os.O_RDWR); os.fdatasync(fd)")
    assert case.left() == {"a": b"4"}


def test_a_file_that_lost_its_name_comes_back(case: Case) -> None:
    case.run("new('a', b'old'); new('b', b'new'); os.mkdir('d'); sync(); sync('d')")
    case.run("os.unlink('a')")
    assert case.left() == {"a": b"old", "b": b"new"}
    case.run("sync(); new('a', b'old'); sync(); os.rename('b', 'a')")
    assert case.left() == {"a": b"old", "b": b"new"}
    case.run("sync(); os.rename('a', 'd/c')")
    assert case.left() == {"a": b"new"}
    case.run("sync('d')")
    assert case.left() == {"a": b"new", "d/c": b"new"}
    case.run("sync()")
    assert case.left() == {"d/c": b"new"}


def test_a_rename_to_another_folder_is_never_half_lost(case: Case) -> None:
    case.run("new('a', b'x'); os.mkdir('d'); sync(); os.rename('a', 'd/a'); sync()")
    assert case.left() == {"d/a": b"x"}


def test_a_folder_needs_a_sync_of_the_one_around_it(case: Case) -> None:
    case.run("os.mkdir('d'); new('d/a', b'x'); sync('d')")
    assert case.left() == {}
    case.run("sync()")
    assert case.left() == {"d/a": b"x"}


def test_a_failed_sync_loses_what_was_written_for_good(case: Case) -> None:
    case.run("fd = new('a', b'1' * 20000); sync()")
    case.log.add(Rule(pattern="a", ops=Op.SYNC))
    case.run(f"""
fd = os.open('a', os.O_RDWR)
os.pwrite(fd, b'2' * 8192, 4096)
try: os.fdatasync(fd)
except OSError as error: assert error.errno == {errno.EIO}
else: raise AssertionError
os.fdatasync(fd)
assert os.pread(fd, 20000, 0) == b'1' * 4096 + b'2' * 8192 + b'1' * 7712""")
    assert case.left() == {"a": b"1" * 20000}
    for seed in range(4):
        assert case.left(seed) == {"a": b"1" * 20000}
    case.run("fd = os.open('a', os.O_RDWR); os.pwrite(fd, b'3', 4096); os.fdatasync(fd)")
    assert case.left() == {"a": b"1" * 4096 + b"3" + b"2" * 4095 + b"1" * 11808}, "the whole page is written"


def test_names_whose_sync_failed_are_lost(case: Case) -> None:
    case.log.add(Rule(pattern="", ops=Op.SYNC))
    case.run("""
new('a', b'x')
try: sync()
except OSError: pass
sync()
new('b', b'y'); sync()""")
    assert case.left() == {"b": b"y"}


def test_torn_pages_are_new_or_old_or_mixed(case: Case) -> None:
    case.run("fd = new('a', b'1' * 40960); sync(); os.pwrite(fd, b'2' * 20480, 0); os.unlink('a'); new('b', b'3')")
    names, pages = set(), set()
    for seed in range(40):
        left = case.left(seed)
        names.add(tuple(left))
        if "a" in left:
            assert len(left["a"]) == 40960
            assert left["a"][20480:] == b"1" * 20480
            pages |= {left["a"][at:at + PAGE] for at in range(0, 20480, PAGE)}
        assert left.get("b", b"3") == b"3"
    assert names == {(), ("a",), ("b",), ("a", "b")}
    assert {b"1" * PAGE, b"2" * PAGE, bytes(PAGE)} < pages


def test_a_cut_may_lie_in_the_past(case: Case) -> None:
    case.run("fd = new('a', b'1' * 9000); sync()")
    cut = case.log.position
    case.run("fd = os.open('a', os.O_RDWR); os.pwrite(fd, b'2' * 100, 4000); os.fsync(fd); new('b'); os.unlink('a'); sync()")
    assert case.left(cut=cut) == {"a": b"1" * 9000}
    assert case.left() == {"b": b""}


def test_rules_fail_writes_and_let_some_pass(case: Case) -> None:
    number = case.log.add(Rule(pattern="*.seg", ops=Op.WRITE, error=errno.ENOSPC, skip=1, count=2))
    case.run("""
fd = new('a.seg', b'1', sync=False); other = new('b', b'1')
refused = 0
for _ in range(3):
    try: os.write(fd, b'2')
    except OSError as error: refused += error.errno == 28
assert refused == 2, refused""")
    assert case.log.hits(number) == 2


EVERYTHING = """
fd = new('plain', b'1' * 100); os.writev(fd, [b'2', b'3' * 5000]); os.pwritev(fd, [b'4', b'5'], 50); os.ftruncate(fd, 4000)
os.posix_fallocate(fd, 0, 9000); os.lseek(fd, 20000, 0); os.write(fd, b'6')
os.mkdir('d'); os.mkdir('d/e'); os.rename('plain', 'd/e/moved'); os.link('d/e/moved', 'linked'); os.rename('d/e', 'e')
with open('text', 'w') as file: file.write('x' * 100000)
with open('text', 'a') as file: file.write('y' * 100)
with open('text', 'r+b') as file: file.seek(5); file.write(b'z'); file.truncate(70000)
os.truncate('text', 60000)
shutil.copyfile('text', 'copied'); shutil.copytree('e', 'tree'); shutil.rmtree('d')
folder = os.open('tree', os.O_RDONLY)
os.close(os.open('inside', os.O_CREAT | os.O_WRONLY, dir_fd=folder)); os.unlink('moved', dir_fd=folder)
db = sqlite3.connect('db', isolation_level=None)
db.execute('PRAGMA journal_mode=WAL'); db.execute('PRAGMA wal_autocheckpoint=20'); db.execute('CREATE TABLE t(a, b)')
for number in range(200): db.execute('INSERT INTO t VALUES(?, ?)', (number, bytes(500)))
db.execute('DELETE FROM t WHERE a % 3 = 0'); db.execute("VACUUM INTO 'vacuumed'"); db.execute('VACUUM')
"""


@pytest.mark.parametrize("end", ["os._exit(0)", "db.close()"])
def test_the_log_knows_the_folder_as_it_is(case: Case, end: str) -> None:
    case.log.close()
    case.watch(keep_data=True)
    case.run(EVERYTHING + end)
    assert whole.told(case.log, case.before) == whole.real(case.root)


def test_sqlite_survives_cuts_as_it_promises(case: Case) -> None:
    """In WAL with synchronous=FULL each commit that returned is there, whatever the cut; with NORMAL the file is whole."""
    for synchronous in ("FULL", "NORMAL"):
        name = synchronous.lower()
        case.run(f"""
db = sqlite3.connect('{name}', isolation_level=None)
db.execute('PRAGMA journal_mode=WAL'); db.execute('PRAGMA synchronous={synchronous}')
db.execute('PRAGMA wal_autocheckpoint=10'); db.execute('CREATE TABLE t(a, b)'); sync()
for number in range(100): db.execute('INSERT INTO t VALUES(?, ?)', (number, bytes(300)))
os._exit(0)""")
        for seed in [None, *range(6)]:
            case.left(seed)
            db = sqlite3.connect(case.folder / f"image{case.images}" / name)
            assert db.execute("PRAGMA integrity_check").fetchone() == ("ok",)
            count = db.execute("SELECT count(*) FROM t").fetchone()[0]
            assert count == 100 if synchronous == "FULL" else count <= 100 - (seed is None)
            db.close()
