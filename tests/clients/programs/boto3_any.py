"""boto3, old and new alike: managed transfers, pages, conditions, links, forms, bulk deletes."""

import hashlib
import io
import os
import ssl
import urllib.request
import uuid

import boto3
from boto3.s3.transfer import TransferConfig
from botocore.exceptions import ClientError

BUCKET, CA = os.environ["BUCKET"], os.environ.get("AWS_CA_BUNDLE")

# boto3 before 1.28 does not read AWS_ENDPOINT_URL.
s3 = boto3.client("s3", endpoint_url=os.environ["AWS_ENDPOINT_URL"])
trust = ssl.create_default_context(cafile=CA) if CA else None


def browse(method: str, url: str, body: bytes | None = None, content_type: str = "") -> bytes:
    """What a browser would do: no keys, no SDK."""
    request = urllib.request.Request(url, data=body, method=method)
    request.add_header("Content-Type", content_type)
    with urllib.request.urlopen(request, context=trust, timeout=20) as answer:
        return answer.read()


def code_of(call, **arguments) -> str:
    try:
        call(**arguments)
    except ClientError as error:
        return error.response["Error"]["Code"]
    return "no error"


s3.create_bucket(Bucket=BUCKET)

big = os.urandom(int(os.environ.get("BIG_BYTES", 20 << 20)))
with open("big", "wb") as file:
    file.write(big)
s3.upload_file("big", BUCKET, "folder/big", ExtraArgs={"Metadata": {"Origin": "here"}, "ContentType": "x/y"})
s3.download_file(BUCKET, "folder/big", "back")
with open("back", "rb") as file:
    assert file.read() == big
head = s3.head_object(Bucket=BUCKET, Key="folder/big")
assert (head["ContentLength"], head["Metadata"], head["ContentType"]) == (len(big), {"origin": "here"}, "x/y"), head
s3.copy({"Bucket": BUCKET, "Key": "folder/big"}, BUCKET, "copied", Config=TransferConfig(multipart_threshold=5 << 20))
assert s3.get_object(Bucket=BUCKET, Key="copied")["Body"].read() == big

stream = io.BytesIO()
s3.upload_fileobj(io.BytesIO(b"x" * 100), BUCKET, "small")
s3.download_fileobj(BUCKET, "small", stream)
assert stream.getvalue() == b"x" * 100
etag = s3.head_object(Bucket=BUCKET, Key="small")["ETag"]
assert etag == f'"{hashlib.md5(b"x" * 100).hexdigest()}"'
assert s3.get_object(Bucket=BUCKET, Key="small", IfMatch=etag)["ContentLength"] == 100
assert code_of(s3.get_object, Bucket=BUCKET, Key="small", IfNoneMatch=etag) == "304"
assert code_of(s3.get_object, Bucket=BUCKET, Key="small", IfMatch='"0"') == "PreconditionFailed"
assert s3.get_object(Bucket=BUCKET, Key="small", Range="bytes=-3")["ContentRange"] == "bytes 97-99/100"
assert code_of(s3.get_object, Bucket=BUCKET, Key="none") == "NoSuchKey"
assert code_of(s3.create_bucket, Bucket=BUCKET) in ("no error", "BucketAlreadyOwnedByYou")
assert code_of(s3.delete_bucket, Bucket=BUCKET) == "BucketNotEmpty"

link = s3.generate_presigned_url("put_object", Params={"Bucket": BUCKET, "Key": "by link ä+"}, ExpiresIn=60)
browse("PUT", link, b"linked")
link = s3.generate_presigned_url("get_object", Params={"Bucket": BUCKET, "Key": "by link ä+"}, ExpiresIn=60)
assert browse("GET", link) == b"linked"
form = s3.generate_presigned_post(BUCKET, "forms/${filename}", ExpiresIn=60)
boundary = uuid.uuid4().hex
lines = [f'--{boundary}\r\nContent-Disposition: form-data; name="{name}"\r\n\r\n{value}\r\n'
         for name, value in form["fields"].items()]
lines.append(f'--{boundary}\r\nContent-Disposition: form-data; name="file"; filename="a.txt"\r\n\r\nposted\r\n--{boundary}--\r\n')
browse("POST", form["url"], "".join(lines).encode(), f"multipart/form-data; boundary={boundary}")
assert s3.get_object(Bucket=BUCKET, Key="forms/a.txt")["Body"].read() == b"posted"

keys = [f"many/{number:02} ü&<" for number in range(25)]
for key in keys:
    s3.put_object(Bucket=BUCKET, Key=key, Body=key.encode())
for listing in ("list_objects", "list_objects_v2"):
    pages = s3.get_paginator(listing).paginate(Bucket=BUCKET, Prefix="many/", PaginationConfig={"PageSize": 10})
    assert [item["Key"] for page in pages for item in page["Contents"]] == keys
s3.put_object_tagging(Bucket=BUCKET, Key="small", Tagging={"TagSet": [{"Key": "a", "Value": "b c"}]})
assert s3.get_object_tagging(Bucket=BUCKET, Key="small")["TagSet"] == [{"Key": "a", "Value": "b c"}]
s3.put_bucket_cors(Bucket=BUCKET, CORSConfiguration={"CORSRules": [{"AllowedMethods": ["GET"], "AllowedOrigins": ["*"]}]})
assert s3.get_bucket_cors(Bucket=BUCKET)["CORSRules"][0]["AllowedOrigins"] == ["*"]
s3.get_waiter("object_exists").wait(Bucket=BUCKET, Key="small")

left = [item["Key"] for item in s3.list_objects_v2(Bucket=BUCKET)["Contents"]]
gone = s3.delete_objects(Bucket=BUCKET, Delete={"Objects": [{"Key": key} for key in left]})
assert len(gone["Deleted"]) == len(left), gone
s3.delete_bucket(Bucket=BUCKET)
assert code_of(s3.list_objects_v2, Bucket=BUCKET) == "NoSuchBucket"
print("boto3", boto3.__version__)
