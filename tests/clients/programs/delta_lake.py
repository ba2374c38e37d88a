"""Delta Lake (delta-rs): commits that must not overwrite each other, by `If-None-Match: *`; history and clean-up."""

import os
import threading

import boto3
import pyarrow as pa
from deltalake import DeltaTable, write_deltalake

BUCKET = os.environ["BUCKET"]
boto3.client("s3").create_bucket(Bucket=BUCKET)
where = f"s3://{BUCKET}/table"
options = {"AWS_ENDPOINT_URL": os.environ["AWS_ENDPOINT_URL"], "AWS_ALLOW_HTTP": "true", "conditional_put": "etag"}


def append(first: int) -> None:
    rows = pa.table({"n": list(range(first, first + 1000)), "text": ["ü"] * 1000})
    write_deltalake(where, rows, mode="append", storage_options=options)


append(0)
writers = [threading.Thread(target=append, args=(number * 1000,)) for number in range(1, 6)]
for writer in writers:
    writer.start()
for writer in writers:
    writer.join()
table = DeltaTable(where, storage_options=options)
assert table.version() == 5, table.version()
numbers = table.to_pyarrow_table(columns=["n"])["n"].to_pylist()
assert sorted(numbers) == list(range(6000)), len(numbers)
assert DeltaTable(where, version=0, storage_options=options).to_pyarrow_table().num_rows == 1000
table.optimize.compact()
table.vacuum(retention_hours=0, enforce_retention_duration=False, dry_run=False)
compacted = DeltaTable(where, storage_options=options)
assert compacted.version() > 5
assert sorted(compacted.to_pyarrow_table(columns=["n"])["n"].to_pylist()) == list(range(6000))
