"""The client of Mountpoint for Amazon S3 (Rust over AWS's common runtime), as the S3 connector for PyTorch brings it."""

import os

import boto3
from s3torchconnectorclient._mountpoint_s3_client import MountpointS3Client, S3Exception

BUCKET = os.environ["BUCKET"]
boto3.client("s3").create_bucket(Bucket=BUCKET)
s3 = MountpointS3Client(region=os.environ["AWS_DEFAULT_REGION"], endpoint=os.environ["AWS_ENDPOINT_URL"],
                        force_path_style=True, part_size=8 << 20, user_agent_prefix="a program")

big = os.urandom(19 << 20)
for key, data in (("big", big), ("small", b"x"), ("empty", b""), ("a b/ü+&%", b"odd")):
    stream = s3.put_object(BUCKET, key)
    stream.write(data)
    stream.close()
    assert b"".join(s3.get_object(BUCKET, key)) == data
    assert s3.head_object(BUCKET, key).size == len(data)
listed = {item.key: item.size for page in s3.list_objects(BUCKET, max_keys=2) for item in page.object_info}
assert listed == {"big": len(big), "small": 1, "empty": 0, "a b/ü+&%": 3}, listed
assert [prefix for page in s3.list_objects(BUCKET, delimiter="/") for prefix in page.common_prefixes] == ["a b/"]
s3.copy_object(BUCKET, "small", BUCKET, "copied")
assert b"".join(s3.get_object(BUCKET, "copied")) == b"x"
s3.delete_object(BUCKET, "small")
try:
    s3.head_object(BUCKET, "small")
    raise AssertionError("a deleted key was found")
except S3Exception:
    pass
