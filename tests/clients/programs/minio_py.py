"""minio-py: bucket life, odd keys, parts of unknown length, composing, links, forms, bulk deletes, tags, versions."""

import io
import os
from datetime import UTC, datetime, timedelta
from urllib.parse import urlsplit

import urllib3
from minio import Minio
from minio.commonconfig import ENABLED, ComposeSource, CopySource, Tags
from minio.datatypes import PostPolicy
from minio.deleteobjects import DeleteObject
from minio.error import S3Error
from minio.versioningconfig import VersioningConfig

BUCKET, CA = os.environ["BUCKET"], os.environ.get("AWS_CA_BUNDLE")
where = urlsplit(os.environ["AWS_ENDPOINT_URL"])
pool = urllib3.PoolManager(ca_certs=CA) if CA else urllib3.PoolManager()
s3 = Minio(where.netloc, access_key=os.environ["AWS_ACCESS_KEY_ID"], secret_key=os.environ["AWS_SECRET_ACCESS_KEY"],
           secure=where.scheme == "https", http_client=pool)


def read(key: str, **options) -> bytes:
    answer = s3.get_object(BUCKET, key, **options)
    try:
        return answer.read()
    finally:
        answer.close()
        answer.release_conn()


assert not s3.bucket_exists(BUCKET)
s3.make_bucket(BUCKET)
assert s3.bucket_exists(BUCKET)
big = os.urandom(12 << 20)
s3.put_object(BUCKET, "unknown length", io.BytesIO(big), -1, part_size=5 << 20, metadata={"colour": "blue"})
assert read("unknown length") == big
assert read("unknown length", offset=5 << 20, length=10) == big[5 << 20:(5 << 20) + 10]
assert s3.stat_object(BUCKET, "unknown length").metadata["x-amz-meta-colour"] == "blue"
for key in ("a b", "ü/+&%25", "a//b", "tab\tand 'quotes\""):
    s3.put_object(BUCKET, f"odd/{key}", io.BytesIO(key.encode()), len(key.encode()))
    assert read(f"odd/{key}") == key.encode()
assert sorted(item.object_name for item in s3.list_objects(BUCKET, "odd/", recursive=True)) == sorted(
    f"odd/{key}" for key in ("a b", "ü/+&%25", "a//b", "tab\tand 'quotes\""))
assert [item.object_name for item in s3.list_objects(BUCKET) if item.is_dir] == ["odd/"]
s3.compose_object(BUCKET, "twice", [ComposeSource(BUCKET, "unknown length"), ComposeSource(BUCKET, "odd/a b")])
assert read("twice") == big + b"a b"
s3.copy_object(BUCKET, "copied", CopySource(BUCKET, "odd/ü/+&%25"))
assert read("copied") == "ü/+&%25".encode()
tags = Tags.new_object_tags()
tags["project"] = "one two"
s3.set_object_tags(BUCKET, "copied", tags)
assert s3.get_object_tags(BUCKET, "copied") == {"project": "one two"}

link = s3.presigned_put_object(BUCKET, "linked", expires=timedelta(minutes=1))
assert pool.request("PUT", link, body=b"by link").status == 200
assert pool.request("GET", s3.presigned_get_object(BUCKET, "linked")).data == b"by link"
policy = PostPolicy(BUCKET, datetime.now(UTC) + timedelta(minutes=1))
policy.add_starts_with_condition("key", "forms/")
policy.add_content_length_range_condition(1, 100)
fields = s3.presigned_post_policy(policy)
fields.update(key="forms/posted", file=("name.txt", b"posted"))
assert pool.request("POST", f"{where.geturl()}/{BUCKET}", fields=fields).status == 204
assert read("forms/posted") == b"posted"

s3.set_bucket_versioning(BUCKET, VersioningConfig(ENABLED))
first = s3.put_object(BUCKET, "v", io.BytesIO(b"1"), 1).version_id
s3.put_object(BUCKET, "v", io.BytesIO(b"2"), 1)
s3.remove_object(BUCKET, "v")
try:
    read("v")
    raise AssertionError("a deleted key was read")
except S3Error as error:
    code = error.code
assert code == "NoSuchKey"
assert read("v", version_id=first) == b"1"
everything = [DeleteObject(item.object_name, item.version_id)
              for item in s3.list_objects(BUCKET, recursive=True, include_version=True)]
assert list(s3.remove_objects(BUCKET, everything)) == []
s3.remove_bucket(BUCKET)
