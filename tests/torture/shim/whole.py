"""Does the shim see everything? The folder that follows from the log alone, to be compared with the real one.

For a log with `keep_data` that began on an empty folder.
"""

from pathlib import Path

from tests.torture.shim.image import Disk, Inode
from tests.torture.shim.log import Kind, ShimLog

Tree = dict[str, bytes | None]
"""By path: a file's bytes; None: a folder."""


def told(log: ShimLog, before: Inode) -> Tree:
    assert not before.names, "the log began with files in the folder"
    return _told(Disk(log, before).root, "")


def _told(folder: Inode, path: str) -> Tree:
    tree: Tree = {}
    for name, inode in folder.live.items():
        tree[path + name] = None if inode.is_folder else _bytes(inode)
        if inode.is_folder:
            tree |= _told(inode, f"{path}{name}/")
    return tree


def _bytes(inode: Inode) -> bytes:
    data = bytearray()
    for record in inode.changes:
        if record.result < 0:
            continue
        if record.kind == Kind.WRITE:
            is_hole = not len(record.second)          # zeros in what is there, and the length stays
            end = min(record.a + record.b, len(data)) if is_hole else record.a + record.result
            data.extend(bytes(max(0, end - len(data))))
            data[record.a:end] = bytes(end - record.a) if is_hole else bytes(record.second[:record.result])
        elif record.kind == Kind.TRUNCATE:
            del data[record.a:]
            data.extend(bytes(record.a - len(data)))
        else:
            data.extend(bytes(max(0, record.a - len(data))))
    return bytes(data)


def real(root: Path) -> Tree:
    """Without what the shim does not follow: sockets and shared memory."""
    return {str(path.relative_to(root)): path.read_bytes() if path.is_file() else None
            for path in root.rglob("*") if (path.is_file() or path.is_dir()) and not path.name.endswith("-shm")}
