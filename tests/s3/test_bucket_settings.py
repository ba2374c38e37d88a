"""What owners set for buckets: tags and CORS, with the preflight and what answers to other origins say."""

import http.client
import time
from typing import Any
from urllib.parse import urlsplit

import pytest
from botocore.client import BaseClient

from tests.s3.errors import refused
from tests.s3.in_process import InProcess

PAGE = "https://page.example"
RULES = {"CORSRules": [
    {"ID": "one", "AllowedOrigins": ["https://*.example"], "AllowedMethods": ["GET", "PUT"],
     "AllowedHeaders": ["x-amz-*", "Content-Type"], "ExposeHeaders": ["ETag"], "MaxAgeSeconds": 60},
    {"AllowedOrigins": ["*"], "AllowedMethods": ["HEAD", "GET"]},
]}


def ask(server: InProcess, method: str, path: str, **headers: str) -> http.client.HTTPResponse:
    at = urlsplit(server.endpoint)
    connection = http.client.HTTPConnection(at.hostname or "", at.port)
    connection.request(method, path, headers={name.replace("_", "-"): value for name, value in headers.items()})
    answer = connection.getresponse()
    answer.read()
    connection.close()
    return answer


def test_tags_of_a_bucket(s3: BaseClient, bucket: str) -> None:
    with refused("NoSuchTagSet", 404):
        s3.get_bucket_tagging(Bucket=bucket)
    tags = {"TagSet": [{"Key": "team", "Value": "größte"}, {"Key": "empty", "Value": ""}]}
    s3.put_bucket_tagging(Bucket=bucket, Tagging=tags)
    assert s3.get_bucket_tagging(Bucket=bucket)["TagSet"] == tags["TagSet"]
    with refused("BadRequest", 400):
        s3.put_bucket_tagging(Bucket=bucket, Tagging={"TagSet": [{"Key": f"{n}", "Value": ""} for n in range(51)]})
    assert s3.get_bucket_tagging(Bucket=bucket)["TagSet"] == tags["TagSet"]
    s3.put_bucket_tagging(Bucket=bucket, Tagging={"TagSet": []})
    with refused("NoSuchTagSet", 404):
        s3.get_bucket_tagging(Bucket=bucket)
    s3.delete_bucket_tagging(Bucket=bucket)
    s3.delete_bucket_tagging(Bucket=bucket)
    with refused("NoSuchTagSet", 404):
        s3.get_bucket_tagging(Bucket=bucket)


def test_settings_go_with_the_bucket(s3: BaseClient, bucket: str) -> None:
    s3.put_bucket_tagging(Bucket=bucket, Tagging={"TagSet": [{"Key": "k", "Value": "v"}]})
    s3.delete_bucket(Bucket=bucket)
    s3.create_bucket(Bucket=bucket)
    with refused("NoSuchTagSet", 404):
        s3.get_bucket_tagging(Bucket=bucket)


def test_cors_is_kept_as_it_was_given(s3: BaseClient, bucket: str) -> None:
    with refused("NoSuchCORSConfiguration", 404):
        s3.get_bucket_cors(Bucket=bucket)
    s3.put_bucket_cors(Bucket=bucket, CORSConfiguration=RULES)
    assert s3.get_bucket_cors(Bucket=bucket)["CORSRules"] == RULES["CORSRules"]
    s3.delete_bucket_cors(Bucket=bucket)
    with refused("NoSuchCORSConfiguration", 404):
        s3.get_bucket_cors(Bucket=bucket)


@pytest.mark.parametrize(("rule", "code"), [
    ({"AllowedOrigins": ["*"], "AllowedMethods": ["PATCH"]}, "InvalidRequest"),
    ({"AllowedOrigins": ["a*b*"], "AllowedMethods": ["GET"]}, "InvalidRequest"),
    ({"AllowedOrigins": ["*"], "AllowedMethods": ["GET"], "ExposeHeaders": ["x-*"]}, "InvalidRequest"),
    ({"AllowedOrigins": [], "AllowedMethods": ["GET"]}, "MalformedXML"),
    ({"AllowedOrigins": ["*"], "AllowedMethods": []}, "MalformedXML"),
])
def test_rules_that_s3_does_not_allow(s3: BaseClient, bucket: str, rule: dict[str, Any], code: str) -> None:
    with refused(code, 400):
        s3.put_bucket_cors(Bucket=bucket, CORSConfiguration={"CORSRules": [rule]})


def test_preflight(server: InProcess, s3: BaseClient, bucket: str) -> None:
    wish = {"Origin": PAGE, "Access_Control_Request_Method": "PUT", "Access_Control_Request_Headers": "X-Amz-Date, content-type"}
    assert ask(server, "OPTIONS", f"/{bucket}/key", **wish).status == 403
    s3.put_bucket_cors(Bucket=bucket, CORSConfiguration=RULES)
    answer = ask(server, "OPTIONS", f"/{bucket}/key", **wish)
    assert answer.status == 200
    assert answer.headers["access-control-allow-origin"] == PAGE
    assert answer.headers["access-control-allow-methods"] == "GET, PUT"
    assert answer.headers["access-control-allow-headers"] == "x-amz-date, content-type"
    assert answer.headers["access-control-expose-headers"] == "ETag"
    assert answer.headers["access-control-max-age"] == "60"
    assert answer.headers["access-control-allow-credentials"] == "true"
    assert "Origin" in answer.headers["vary"]
    assert ask(server, "OPTIONS", f"/{bucket}", **{**wish, "Access_Control_Request_Headers": "x-other"}).status == 403
    assert ask(server, "OPTIONS", f"/{bucket}", **{**wish, "Origin": "https://page.other"}).status == 403
    assert ask(server, "OPTIONS", f"/{bucket}/key", Access_Control_Request_Method="PUT").status == 400
    assert ask(server, "OPTIONS", f"/{bucket}/key", Origin=PAGE).status == 400
    assert ask(server, "OPTIONS", "/no-such-bucket/key", **wish).status == 403


@pytest.mark.parametrize(("rules", "path", "message", "resource"), [
    (None, "{bucket}/key", "CORSResponse: CORS is not enabled for this bucket.", "BUCKET"),
    (None, "no-such-bucket/key", "CORSResponse: Bucket not found", "BUCKET"),
    (RULES, "{bucket}/key", "CORSResponse: This CORS request is not allowed. This is usually because the evalution", "OBJECT"),
    (RULES, "{bucket}", "CORSResponse: This CORS request is not allowed.", "BUCKET"),
])
def test_what_a_preflight_is_told(
    server: InProcess, s3: BaseClient, bucket: str, rules: Any, path: str, message: str, resource: str,
) -> None:
    if rules is not None:
        s3.put_bucket_cors(Bucket=bucket, CORSConfiguration=rules)
    at = urlsplit(server.endpoint)
    connection = http.client.HTTPConnection(at.hostname or "", at.port)
    connection.request("OPTIONS", f"/{path.format(bucket=bucket)}",
                       headers={"Origin": PAGE, "Access-Control-Request-Method": "DELETE"})
    text = connection.getresponse().read().decode()
    connection.close()
    assert "<Code>AccessForbidden</Code><Message>" + message in text
    assert f"<Method>DELETE</Method><ResourceType>{resource}</ResourceType>" in text


def test_answers_to_another_origin(server: InProcess, s3: BaseClient, bucket: str) -> None:
    s3.put_object(Bucket=bucket, Key="key", Body=b"x")
    link = urlsplit(s3.generate_presigned_url("get_object", Params={"Bucket": bucket, "Key": "key"}))
    path = f"{link.path}?{link.query}"
    assert ask(server, "GET", path, Origin=PAGE).headers["access-control-allow-origin"] is None
    s3.put_bucket_cors(Bucket=bucket, CORSConfiguration=RULES)
    good = ask(server, "GET", path, Origin=PAGE)
    assert (good.status, good.headers["access-control-allow-origin"]) == (200, PAGE)
    other = ask(server, "GET", path, Origin="https://page.other")
    assert (other.status, other.headers["access-control-allow-origin"]) == (200, "*")
    assert other.headers["access-control-allow-credentials"] is None
    refusal = ask(server, "GET", f"/{bucket}/key", Origin=PAGE)
    assert (refusal.status, refusal.headers["access-control-allow-origin"]) == (403, PAGE)
    assert ask(server, "GET", path).headers["access-control-allow-origin"] is None
    assert ask(server, "DELETE", f"/{bucket}/key", Origin=PAGE).headers["access-control-allow-origin"] is None


def test_many_patterns_and_many_names_cost_little(server: InProcess, s3: BaseClient, bucket: str) -> None:
    """Strangers may send preflights; so what one costs must not be for them to choose."""
    rule = {"AllowedOrigins": ["*"], "AllowedMethods": ["GET"], "AllowedHeaders": [*(f"{n}*" for n in range(1400)), "*"]}
    s3.put_bucket_cors(Bucket=bucket, CORSConfiguration={"CORSRules": [rule]})
    wish = {"Origin": PAGE, "Access_Control_Request_Method": "GET"}
    began = time.process_time()
    for count, status in ((100, 200), (101, 403)):
        names = ",".join(f"x{n}" for n in range(count))
        assert ask(server, "OPTIONS", f"/{bucket}/key", **wish, Access_Control_Request_Headers=names).status == status
    assert time.process_time() - began < 2
