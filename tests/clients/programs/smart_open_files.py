"""smart_open: files that are written and read as streams, an empty one, a compressed one, seeks."""

import os

import boto3
import smart_open

BUCKET = os.environ["BUCKET"]
client = boto3.client("s3")
client.create_bucket(Bucket=BUCKET)
with_client = {"transport_params": {"client": client}}

big = os.urandom(13 << 20)
with smart_open.open(f"s3://{BUCKET}/big", "wb", transport_params={"client": client, "min_part_size": 5 << 20}) as out:
    for start in range(0, len(big), 1 << 20):
        out.write(big[start:start + (1 << 20)])
with smart_open.open(f"s3://{BUCKET}/big", "rb", **with_client) as file:
    file.seek(6 << 20)
    assert file.read(1000) == big[6 << 20:(6 << 20) + 1000]
    file.seek(0)
    assert file.read() == big
with smart_open.open(f"s3://{BUCKET}/empty", "wb", **with_client):
    pass
with smart_open.open(f"s3://{BUCKET}/empty", "rb", **with_client) as file:
    assert file.read() == b""
with smart_open.open(f"s3://{BUCKET}/lines.txt.gz", "w", encoding="utf-8", **with_client) as out:
    out.writelines(f"line {number} ü\n" for number in range(10_000))
with smart_open.open(f"s3://{BUCKET}/lines.txt.gz", encoding="utf-8", **with_client) as file:
    assert sum(1 for line in file if line.endswith("ü\n")) == 10_000
assert not client.list_multipart_uploads(Bucket=BUCKET).get("Uploads")
