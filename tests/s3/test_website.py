"""Buckets as websites: the configuration with its checks, and what browsers get at the website endpoint."""

import http.client
import json
from collections.abc import Callable, Iterator
from typing import Any
from urllib.parse import urlsplit

import pytest
from botocore.client import BaseClient

from tests.s3.errors import refused
from tests.s3.in_process import InProcess

Answer = tuple[int, dict[str, str], str]
"""Status, headers by lower-case name, body."""

PLAIN = {"IndexDocument": {"Suffix": "index.html"}}
FULL: dict[str, Any] = {
    **PLAIN, "ErrorDocument": {"Key": "errors/404.html"},
    "RoutingRules": [
        {"Condition": {"KeyPrefixEquals": "old/"}, "Redirect": {"ReplaceKeyPrefixWith": "new/"}},
        {"Condition": {"KeyPrefixEquals": "app/", "HttpErrorCodeReturnedEquals": "404"},
         "Redirect": {"Protocol": "https", "HostName": "o.example", "ReplaceKeyPrefixWith": "#!/", "HttpRedirectCode": "307"}},
        {"Condition": {"KeyPrefixEquals": "gone"}, "Redirect": {"ReplaceKeyWith": "sorry page.html", "HttpRedirectCode": "302"}},
    ],
}


@pytest.fixture
def site(s3: BaseClient, bucket: str) -> str:
    """A bucket that everybody may read and list, with a few pages."""
    _open_up(s3, bucket, ("s3:GetObject", f"arn:aws:s3:::{bucket}/*"), ("s3:ListBucket", f"arn:aws:s3:::{bucket}"))
    s3.put_bucket_website(Bucket=bucket, WebsiteConfiguration=PLAIN)
    for key in ("index.html", "dir/index.html", "errors/404.html", "page"):
        s3.put_object(Bucket=bucket, Key=key, Body=f"<p>{key}".encode(), ContentType="text/html")
    return bucket


def _open_up(s3: BaseClient, bucket: str, *rights: tuple[str, str]) -> None:
    s3.delete_public_access_block(Bucket=bucket)
    s3.put_public_access_block(Bucket=bucket, PublicAccessBlockConfiguration={"BlockPublicPolicy": False})
    s3.put_bucket_policy(Bucket=bucket, Policy=json.dumps({"Version": "2012-10-17", "Statement": [
        {"Effect": "Allow", "Principal": "*", "Action": action, "Resource": resource} for action, resource in rights]}))


@pytest.fixture
def browse(server: InProcess) -> Iterator[Callable[..., Answer]]:
    at = urlsplit(server.endpoint)
    connection = http.client.HTTPConnection(at.hostname or "", at.port)

    def get(bucket: str, path: str, method: str = "GET", host: str = "", **headers: str) -> Answer:
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        connection.request(method, path, headers={"Host": host or f"{bucket}.s3-website.localhost:{at.port}", **named})
        answer = connection.getresponse()
        text = answer.read().decode()
        return answer.status, {name.lower(): value for name, value in answer.getheaders()}, text

    yield get
    connection.close()


# Configuration


@pytest.mark.parametrize("configuration", [
    PLAIN, FULL, {"RedirectAllRequestsTo": {"HostName": "www.example.com"}},
    {"RedirectAllRequestsTo": {"HostName": "www.example.com", "Protocol": "https"}},
])
def test_it_is_kept_as_it_was_given(s3: BaseClient, bucket: str, configuration: dict[str, Any]) -> None:
    s3.put_bucket_website(Bucket=bucket, WebsiteConfiguration=configuration)
    shown = s3.get_bucket_website(Bucket=bucket)
    del shown["ResponseMetadata"]
    assert shown == configuration
    assert s3.delete_bucket_website(Bucket=bucket)["ResponseMetadata"]["HTTPStatusCode"] == 204
    with refused("NoSuchWebsiteConfiguration", 404) as said:
        s3.get_bucket_website(Bucket=bucket)
    assert said["BucketName"] == bucket


def _rule(redirect: dict[str, str], **condition: str) -> dict[str, Any]:
    return {**PLAIN, "RoutingRules": [{"Condition": condition, "Redirect": redirect} if condition else {"Redirect": redirect}]}


@pytest.mark.parametrize(("configuration", "code", "message"), [
    ({}, "InvalidArgument", "A value for IndexDocument Suffix must be provided if RedirectAllRequestsTo is empty"),
    ({"IndexDocument": {"Suffix": "a/b"}}, "InvalidArgument", "The IndexDocument Suffix is not well formed"),
    ({"IndexDocument": {"Suffix": ""}}, "InvalidArgument", "The IndexDocument Suffix is not well formed"),
    ({**PLAIN, "RedirectAllRequestsTo": {"HostName": "x.example"}}, "InvalidArgument",
     "RedirectAllRequestsTo cannot be provided in conjunction with other Routing Rules."),
    ({"RedirectAllRequestsTo": {"HostName": "x.example", "Protocol": "ftp"}}, "InvalidRequest",
     "Invalid protocol, protocol can be http or https. If not defined the protocol will be selected automatically."),
    (_rule({"ReplaceKeyWith": "a", "ReplaceKeyPrefixWith": "b"}), "InvalidRequest",
     "You can only define ReplaceKeyPrefix or ReplaceKey but not both."),
    (_rule({"HttpRedirectCode": "300"}), "InvalidRequest",
     "The provided HTTP redirect code (300) is not valid. Valid codes are 3XX except 300."),
    (_rule({"HttpRedirectCode": "many"}), "MalformedXML", "The XML you provided"),
    (_rule({"HostName": "x"}, HttpErrorCodeReturnedEquals="200"), "InvalidRequest",
     "The provided HTTP error code (200) is not valid. Valid codes are 4XX or 5XX."),
    ({**PLAIN, "RoutingRules": []}, "MalformedXML", "The XML you provided"),
    ({**PLAIN, "RoutingRules": [{"Condition": {}, "Redirect": {"HostName": "x"}}]}, "InvalidRequest", "Condition cannot be"),
    ({**PLAIN, "RoutingRules": [{"Redirect": {"HostName": "x"}}] * 51}, "InvalidRequest",
     "51 routing rules provided, the number of routing rules in a website configuration is limited to 50."),
])
def test_what_aws_refuses(s3: BaseClient, bucket: str, configuration: dict[str, Any], code: str, message: str) -> None:
    with refused(code, 400) as said:
        s3.put_bucket_website(Bucket=bucket, WebsiteConfiguration=configuration)
    assert said["Message"].startswith(message)


# Pages


def test_pages_and_folders(site: str, browse: Callable[..., Answer]) -> None:
    assert browse(site, "/")[::2] == (200, "<p>index.html")
    assert browse(site, "/dir/")[::2] == (200, "<p>dir/index.html")
    assert browse(site, "/page?with=query&versions")[::2] == (200, "<p>page")
    status, headers, body = browse(site, "/dir")
    assert (status, headers["location"], headers["x-amz-error-code"]) == (302, "/dir/", "Found")
    assert "<h1>302 Found</h1>" in body
    status, headers, body = browse(site, "/page", "HEAD")
    assert (status, headers["content-type"], headers["content-length"], body) == (200, "text/html", "7", "")
    assert browse(site, "/page", If_None_Match=headers["etag"])[0] == 304
    assert browse(site, "/page", Range="bytes=3-")[::2] == (206, "page")


def test_an_error_is_a_page_in_awss_form(site: str, browse: Callable[..., Answer]) -> None:
    status, headers, body = browse(site, "/no%3Cb%3E")
    assert (status, headers["content-type"], headers["x-amz-error-code"]) == (404, "text/html; charset=utf-8", "NoSuchKey")
    assert headers["x-amz-error-message"] == "The specified key does not exist."
    assert headers["x-amz-error-detail-key"] == "no<b>"
    ids = headers["x-amz-request-id"], headers["x-amz-id-2"]
    assert body == (
        "<html>\n<head><title>404 Not Found</title></head>\n<body>\n<h1>404 Not Found</h1>\n<ul>\n<li>Code: NoSuchKey</li>\n"
        "<li>Message: The specified key does not exist.</li>\n<li>Key: no&lt;b&gt;</li>\n"
        f"<li>RequestId: {ids[0]}</li>\n<li>HostId: {ids[1]}</li>\n</ul>\n<hr/>\n</body>\n</html>\n")
    status, headers, body = browse(site, "/none", "HEAD")
    assert (status, headers["x-amz-error-code"], body) == (404, "NoSuchKey", "")
    assert browse(site, "/none/")[1]["x-amz-error-detail-key"] == "none/index.html"


def test_the_error_document_has_the_errors_status(s3: BaseClient, site: str, browse: Callable[..., Answer]) -> None:
    s3.put_bucket_website(Bucket=site, WebsiteConfiguration=FULL)
    status, headers, body = browse(site, "/none", Range="bytes=0-1")
    assert (status, body, headers["x-amz-error-code"]) == (404, "<p>errors/404.html", "NoSuchKey")
    s3.delete_object(Bucket=site, Key="errors/404.html")
    status, _, body = browse(site, "/none")
    assert status == 404
    assert body.endswith(
        "</ul>\n<h3>An Error Occurred While Attempting to Retrieve a Custom Error Document</h3>\n<ul>\n<li>Code: NoSuchKey</li>\n"
        "<li>Message: The specified key does not exist.</li>\n<li>Key: errors/404.html</li>\n</ul>\n<hr/>\n</body>\n</html>\n")


def test_only_what_everybody_may_read_is_shown(s3: BaseClient, site: str, browse: Callable[..., Answer]) -> None:
    _open_up(s3, site, ("s3:GetObject", f"arn:aws:s3:::{site}/dir/*"))
    status, headers, body = browse(site, "/page")
    assert (status, headers["x-amz-error-code"]) == (403, "AccessDenied")
    assert "<h1>403 Forbidden</h1>\n<ul>\n<li>Code: AccessDenied</li>\n<li>Message: Access Denied</li>\n<li>RequestId" in body
    assert browse(site, "/none")[0] == 403
    assert browse(site, "/dir")[0] == 302
    s3.put_object(Bucket=site, Key="dir", Body=b"")
    assert browse(site, "/dir")[0] == 403


def test_what_is_no_website(s3: BaseClient, bucket: str, browse: Callable[..., Answer]) -> None:
    status, headers, body = browse(bucket, "/key")
    assert (status, headers["x-amz-error-code"]) == (404, "NoSuchWebsiteConfiguration")
    assert f"<li>BucketName: {bucket}</li>" in body
    status, headers, _ = browse("bucket-not-there", "/key")
    assert (status, headers["x-amz-error-code"]) == (404, "NoSuchBucket")
    for method in ("PUT", "POST", "DELETE"):
        status, headers, body = browse(bucket, "/key", method)
        assert (status, headers["x-amz-error-code"]) == (405, "MethodNotAllowed")
        assert f"<li>Method: {method}</li>\n<li>ResourceType: OBJECT</li>" in body


def test_a_host_of_ones_own(s3: BaseClient, site: str, browse: Callable[..., Answer]) -> None:
    for name in ("example.org", "www.example.org"):
        s3.create_bucket(Bucket=name)
        _open_up(s3, name, ("s3:GetObject", f"arn:aws:s3:::{name}/*"))
        s3.put_bucket_website(Bucket=name, WebsiteConfiguration=PLAIN)
        s3.put_object(Bucket=name, Key="index.html", Body=name.encode())
        assert browse("", "/", host=name)[::2] == (200, name)
    assert browse("", "/", host="no.example.org")[0] == 404
    assert browse("", "/", host="noexample.org")[0] == 403
    assert browse(site, "/-/health/live")[0] == 404          # ours is not theirs


# Redirects


def test_redirects(s3: BaseClient, site: str, browse: Callable[..., Answer]) -> None:
    s3.put_bucket_website(Bucket=site, WebsiteConfiguration=FULL)
    host = f"{site}.s3-website.localhost"
    for path, status, location in (
        ("/old/a%20b?q=1", 301, f"http://{host}/new/a%20b?q=1"),
        ("/app/x", 307, "https://o.example/#!/x"),
        ("/gone", 302, f"http://{host}/sorry%20page.html"),
    ):
        said = browse(site, path, host=host)
        assert (said[0], said[1]["location"], said[2]) == (status, location, "")
    s3.put_object(Bucket=site, Key="app/x", Body=b"there")
    assert browse(site, "/app/x")[::2] == (200, "there")
    s3.put_bucket_website(Bucket=site, WebsiteConfiguration={"RedirectAllRequestsTo": {"HostName": "www.example.com"}})
    assert browse(site, "/a//%20b?c=d")[1]["location"] == "http://www.example.com/a//%20b?c=d"
    s3.put_bucket_website(Bucket=site, WebsiteConfiguration=_rule({"HttpRedirectCode": "399"}))
    assert browse(site, "/a")[0] == 399


def test_objects_that_say_where_they_have_gone(s3: BaseClient, site: str, browse: Callable[..., Answer]) -> None:
    for target in ("/page", "http://www.example.com/"):
        s3.put_object(Bucket=site, Key="moved", Body=b"x" * 300_000, WebsiteRedirectLocation=target)
        assert s3.head_object(Bucket=site, Key="moved")["WebsiteRedirectLocation"] == target
        status, headers, body = browse(site, "/moved")
        assert (status, headers["location"], body) == (301, target, "")
    s3.copy_object(Bucket=site, Key="copied", CopySource=f"{site}/moved")
    assert "WebsiteRedirectLocation" not in s3.head_object(Bucket=site, Key="copied")
    with refused("InvalidRedirectLocation", 400):
        s3.put_object(Bucket=site, Key="bad", WebsiteRedirectLocation="page")
    upload = s3.create_multipart_upload(Bucket=site, Key="parts", WebsiteRedirectLocation="/page")["UploadId"]
    part = s3.upload_part(Bucket=site, Key="parts", UploadId=upload, PartNumber=1, Body=b"x")
    s3.complete_multipart_upload(Bucket=site, Key="parts", UploadId=upload,
                                 MultipartUpload={"Parts": [{"PartNumber": 1, "ETag": part["ETag"]}]})
    assert browse(site, "/parts")[1]["location"] == "/page"


def test_other_origins(s3: BaseClient, site: str, browse: Callable[..., Answer]) -> None:
    wish = {"Origin": "https://page.example", "Access_Control_Request_Method": "GET"}
    status, headers, body = browse(site, "/page", "OPTIONS", **wish)
    assert (status, headers["x-amz-error-code"]) == (403, "AccessForbidden")
    assert "<h1>403 Forbidden</h1>" in body
    s3.put_bucket_cors(Bucket=site, CORSConfiguration={"CORSRules": [{"AllowedOrigins": ["*"], "AllowedMethods": ["GET"]}]})
    assert browse(site, "/page", "OPTIONS", **wish)[1]["access-control-allow-origin"] == "*"
    assert browse(site, "/page", **wish)[1]["access-control-allow-origin"] == "*"
