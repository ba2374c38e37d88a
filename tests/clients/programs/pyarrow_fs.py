"""pyarrow (AWS SDK for C++): a partitioned Parquet dataset, streams in parts, folders, moves."""

import os
from urllib.parse import urlsplit

import pyarrow as pa
import pyarrow.dataset as ds
from pyarrow import fs

BUCKET, CA = os.environ["BUCKET"], os.environ.get("AWS_CA_BUNDLE")
where = urlsplit(os.environ["AWS_ENDPOINT_URL"])
s3 = fs.S3FileSystem(endpoint_override=where.netloc, scheme=where.scheme, region=os.environ["AWS_DEFAULT_REGION"],
                     allow_bucket_creation=True, allow_bucket_deletion=True, **({"tls_ca_file_path": CA} if CA else {}))

s3.create_dir(BUCKET)
table = pa.table({"year": [2024, 2025] * 50_000, "value": list(range(100_000)), "text": ["ä"] * 100_000})
ds.write_dataset(table, f"{BUCKET}/set", filesystem=s3, format="parquet", partitioning=["year"],
                 partitioning_flavor="hive")
back = ds.dataset(f"{BUCKET}/set", filesystem=s3, format="parquet", partitioning="hive")
assert back.count_rows() == 100_000
assert back.to_table(filter=ds.field("year") == 2025).num_rows == 50_000
assert sum(back.to_table(columns=["value"])["value"].to_pylist()) == sum(range(100_000))

data = os.urandom(21 << 20)
with s3.open_output_stream(f"{BUCKET}/stream") as out:
    for start in range(0, len(data), 1 << 20):
        out.write(data[start:start + (1 << 20)])
with s3.open_input_file(f"{BUCKET}/stream") as file:
    file.seek(10 << 20)
    assert file.read(100) == data[10 << 20:(10 << 20) + 100]
    file.seek(0)
    assert file.read() == data
s3.create_dir(f"{BUCKET}/folder/sub", recursive=True)
assert s3.get_file_info(f"{BUCKET}/folder/sub").type == fs.FileType.Directory
assert s3.get_file_info(f"{BUCKET}/nothing").type == fs.FileType.NotFound
with s3.open_output_stream(f"{BUCKET}/folder/empty"):
    pass
assert s3.get_file_info(f"{BUCKET}/folder/empty").size == 0
s3.move(f"{BUCKET}/stream", f"{BUCKET}/folder/moved")
s3.copy_file(f"{BUCKET}/folder/moved", f"{BUCKET}/folder/copied")
names = {info.base_name for info in s3.get_file_info(fs.FileSelector(f"{BUCKET}/folder"))}
assert names == {"sub", "empty", "moved", "copied"}, names
s3.delete_dir(BUCKET)
assert s3.get_file_info(BUCKET).type == fs.FileType.NotFound
