"""A script author with boto3 and keys that nobody thought of: all that one does with a key, for each of them."""

import itertools
import ssl
import urllib.request
from typing import Any
from urllib.parse import unquote

import boto3
import pytest
from botocore.config import Config

from tests.attacks.attacker import Attacker, both_schemes

KEYS = [
    "a", "a/", "a/b", "a//b", "/lead", "back\\slash", "\r\n", "\x01\x1f\x7f", "😀", "k" * 1024, "a+b", "a%2Fb", "?x=1", "&<>\"'",
    " lead", "a/../b",
]


def client(attacker: Attacker, **config: Any) -> Any:
    return boto3.client(
        "s3", endpoint_url=attacker.target.url, region_name=attacker.target.region,
        aws_access_key_id=attacker.target.access_key, aws_secret_access_key=attacker.target.secret_key,
        verify=str(attacker.target.ca) if attacker.target.ca else None,
        config=Config(retries={"total_max_attempts": 1}, s3={"addressing_style": "path"}, **config))


@both_schemes
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_all_that_one_does_with_a_key(attacker: Attacker) -> None:
    s3, bucket = client(attacker), attacker.bucket[1:]
    presigners = [client(attacker, signature_version=version) for version in ("s3v4", "s3")]
    trust = ssl.create_default_context(cafile=str(attacker.target.ca)) if attacker.target.secure else None
    for key in KEYS:
        body = key.encode()
        s3.put_object(Bucket=bucket, Key=key, Body=body)
        assert s3.get_object(Bucket=bucket, Key=key)["Body"].read() == body
        assert s3.head_object(Bucket=bucket, Key=key)["ContentLength"] == len(body)
        for presigner in presigners:
            link = presigner.generate_presigned_url("get_object", Params={"Bucket": bucket, "Key": key})
            with urllib.request.urlopen(link, context=trust) as answer:
                assert answer.read() == body, link
        for listing in (s3.list_objects_v2, s3.list_objects):
            assert key in [entry["Key"] for entry in listing(Bucket=bucket, Prefix=key)["Contents"]]
        upload = s3.create_multipart_upload(Bucket=bucket, Key=key)["UploadId"]
        (shown,) = s3.list_multipart_uploads(Bucket=bucket, EncodingType="url")["Uploads"]
        assert (unquote(shown["Key"]), shown["UploadId"]) == (key, upload)
        part = s3.upload_part_copy(Bucket=bucket, Key=key, UploadId=upload, PartNumber=1,
                                   CopySource={"Bucket": bucket, "Key": key})
        assert len(s3.list_parts(Bucket=bucket, Key=key, UploadId=upload)["Parts"]) == 1
        done = {"Parts": [{"PartNumber": 1, "ETag": part["CopyPartResult"]["ETag"]}]}
        s3.complete_multipart_upload(Bucket=bucket, Key=key, UploadId=upload, MultipartUpload=done)
        s3.copy_object(Bucket=bucket, Key=key, CopySource={"Bucket": bucket, "Key": key}, MetadataDirective="REPLACE")
        assert s3.get_object(Bucket=bucket, Key=key)["Body"].read() == body
    pages = s3.get_paginator("list_objects_v2").paginate(Bucket=bucket, PaginationConfig={"PageSize": 4})
    listed = [entry["Key"] for page in pages for entry in page["Contents"]]
    assert listed == sorted([*KEYS, "victim"], key=str.encode)
    pages = s3.get_paginator("list_objects").paginate(Bucket=bucket, Delimiter="/", PaginationConfig={"PageSize": 2})
    grouped = [[entry["Key"] for entry in page.get("Contents", [])]
               + [entry["Prefix"] for entry in page.get("CommonPrefixes", [])] for page in pages]
    expected = {key[: key.index("/") + 1] if "/" in key else key for key in [*KEYS, "victim"]}
    assert sorted(itertools.chain.from_iterable(grouped)) == sorted(expected)
    for key in KEYS:
        if key.isprintable() or key == "\r\n":         # other controls can't be in XML 1.0
            deleted = s3.delete_objects(Bucket=bucket, Delete={"Objects": [{"Key": key}]})
            assert [entry["Key"] for entry in deleted["Deleted"]] == [key]
        s3.delete_object(Bucket=bucket, Key=key)
    s3.close()
    for presigner in presigners:
        presigner.close()
