"""OpenDAL: writers in parts, ranges, copies, lists, links."""

import os

import boto3
import opendal

BUCKET = os.environ["BUCKET"]
boto3.client("s3").create_bucket(Bucket=BUCKET)
s3 = opendal.Operator("s3", bucket=BUCKET, endpoint=os.environ["AWS_ENDPOINT_URL"], root="/base/",
                      region=os.environ["AWS_DEFAULT_REGION"])

big = os.urandom(13 << 20)
s3.write("big", big, chunk=5 << 20)
assert bytes(s3.read("big")) == big
with s3.open("streamed", "wb", chunk=5 << 20) as file:
    for start in range(0, len(big), 1 << 20):
        file.write(big[start:start + (1 << 20)])
with s3.open("streamed", "rb") as file:
    file.seek(7 << 20)
    assert bytes(file.read(100)) == big[7 << 20:(7 << 20) + 100]
s3.write("a b/ü+&%.txt", b"text", content_type="text/plain")
found = s3.stat("a b/ü+&%.txt")
assert (found.content_length, found.content_type) == (4, "text/plain")
s3.create_dir("folder/")
s3.copy("a b/ü+&%.txt", "folder/copy")
assert {entry.path for entry in s3.scan("")} >= {"big", "streamed", "a b/ü+&%.txt", "folder/copy"}
assert {entry.path for entry in s3.list("")} >= {"big", "streamed", "a b/", "folder/"}
s3.delete("folder/copy")
assert not s3.exists("folder/copy")
assert s3.exists("big")
s3.remove_all("")
assert not list(s3.scan(""))
