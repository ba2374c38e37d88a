"""The kinds of work that wait in the queue. Each is done in pages by `consensus.apply.drain`."""

CONTENT = 1
"""a: a content that nothing refers to."""

UPLOAD = 2
"""a: an upload that is completed or aborted, whose parts go."""

BUCKET = 3
"""a: a bucket that is deleted, whose uploads go."""

SESSION = 4
"""a: a session that has ended, whose results and staged contents go."""

REVIEW = 5
"""b: the digest after which chunk rows are still to be looked through, since the nodes have changed."""

HELD = 6
"""b: the id (8 bytes) of the content after which held ones are still to be looked through, since backups have changed."""

RAISE = 7
"""a: a bucket that wants more copies now, b: the place in it from where on its versions are still to be told (copies.py)."""

MARK = 8
"""a: a content, b: how many copies its chunks are to have, and the place in it from where on they aren't told yet."""

COUNT = 9
"""a: number of the counting of how many copies are wanted of each chunk, b: where it is. There is at most one."""

OWNED = (
    (UPLOAD, "part", "upload", "upload", "ord"),
    (BUCKET, "upload", "bucket", "bucket", "id"),
    (SESSION, "staged", "session", "session", "id"),
    (SESSION, "result", "session", "session", "id"),
)
"""Which work takes away rows whose owner has gone: the kind, the rows' table and its column that names the owner, the
owner's table and key."""
