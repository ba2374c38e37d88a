"""The condition keys of a request: what it says, who sent it, how, and when. Pure.

A key that the request doesn't have is left out, never empty: operators tell the two apart. Headers come as they are in
force (a presigned URL's query counts). Source: AWS, "Amazon S3 condition keys", "AWS global condition context keys".
"""

from collections.abc import Iterable, Mapping
from typing import NamedTuple

from gateway.s3.errors import S3Error
from gateway.s3.locks import HOLD, MODE, UNTIL
from gateway.s3.names import parse_copy_source
from gateway.s3.policy.evaluation import Caller
from gateway.s3.request import S3Request
from gateway.s3.tags import parse_header
from gateway.s3.times import DAY_MS, iso8601, parse_iso8601

_LISTINGS = frozenset({"ListObjects", "ListObjectsV2", "ListObjectVersions", "ListMultipartUploads"})
_LISTING_PARAMETERS = ("prefix", "delimiter", "max-keys")
_ACL = (
    "x-amz-acl", "x-amz-grant-read", "x-amz-grant-write", "x-amz-grant-read-acp", "x-amz-grant-write-acp",
    "x-amz-grant-full-control",
)
_OF_NEW_OBJECTS = ("x-amz-metadata-directive", "x-amz-storage-class", "x-amz-website-redirect-location")
_ENCRYPTION = (
    "x-amz-server-side-encryption", "x-amz-server-side-encryption-aws-kms-key-id",
    "x-amz-server-side-encryption-customer-algorithm",
)
_HEADERS = ("x-amz-content-sha256", "if-match", "if-none-match")
_TAGS = "x-amz-tagging"
_CREATES = frozenset({"PutObject", "CopyObject", "CompleteMultipartUpload", "PostObject"})
_WRITES = frozenset({"PutObject", "CopyObject", "CreateMultipartUpload", "PostObject"})
_LISTS = _WRITES | {"PutObjectAcl", "PutBucketAcl", "CreateBucket"}
"""Operations that do what headers say of a new object, and of access lists. With others, policies don't hear these headers: who
sends one must not get what is meant for those who mean it."""
_BEGINS = frozenset({"CreateMultipartUpload", "UploadPart", "UploadPartCopy"})
CONTINUES = frozenset({"UploadPart", "UploadPartCopy", "CompleteMultipartUpload"})
"""Operations on an object of which CreateMultipartUpload has said everything: what a policy asks for is found there
(`of_upload`), for these requests have no place for it. AWS has one action for all of them, s3:PutObject, so a policy can't
except them."""
_SAID = frozenset({*_OF_NEW_OBJECTS, *_ACL, *_ENCRYPTION, MODE, UNTIL, HOLD, _TAGS})

TLS_VERSION = "1.2"
"""The least that is spoken here: what a connection counts as that doesn't say which one it speaks."""


class How(NamedTuple):
    """How the request was signed: `kind` REST-HEADER, REST-QUERY-STRING or POST; "" for not at all."""

    kind: str = ""
    version: str = ""
    age_ms: int | None = None


def of_request(
    request: S3Request, operation: str, headers: Mapping[str, str], caller: Caller, how: How, *, region: str,
    resource_account: str,
) -> dict[str, tuple[str, ...]]:
    found: dict[str, str | None] = {
        "aws:currenttime": iso8601(request.now_ms), "aws:epochtime": str(request.now_ms // 1000),
        "aws:securetransport": "true" if request.secure else "false", "aws:sourceip": request.remote or None,
        "aws:useragent": request.headers.get("user-agent"), "aws:referer": request.headers.get("referer"),
        "aws:requestedregion": region, "aws:resourceaccount": resource_account or None,
        "s3:resourceaccount": resource_account or None, "aws:viaawsservice": "false", "aws:principalisawsservice": "false",
        "s3:tlsversion": _tls(request), "s3:authtype": how.kind or None,
        "s3:signatureversion": how.version or None, "s3:signatureage": None if how.age_ms is None else str(max(0, how.age_ms)),
        "s3:versionid": request.query.get("versionId"),
        **of_caller(caller),
    }
    makes = operation in _WRITES
    for name in (*_HEADERS, *(() if operation in CONTINUES else _ENCRYPTION), *(_OF_NEW_OBJECTS if makes else ()),
                 *(_ACL if operation in _LISTS else ())):
        found[f"s3:{name}"] = headers.get(name)
    if operation == "CreateBucket":
        found["s3:x-amz-object-ownership"] = headers.get("x-amz-object-ownership")
    if operation in _LISTINGS:
        for name in _LISTING_PARAMETERS:
            found[f"s3:{name}"] = request.query.get(name if operation != "ListMultipartUploads" or name != "max-keys"
                                                    else "max-uploads")
    if "x-amz-copy-source" in headers:
        found["s3:x-amz-copy-source"] = _source(headers["x-amz-copy-source"])
    if operation in _CREATES or operation in _BEGINS:
        found["s3:objectcreationoperation"] = "true" if operation in _CREATES else "false"
    context: dict[str, tuple[str, ...]] = {key: (value,) for key, value in found.items() if value is not None}
    if makes:
        tags = operation != "CopyObject" or headers.get("x-amz-tagging-directive") == "REPLACE"
        context |= _of_lock_and_tags(headers, request.now_ms, tags=tags)
    return context


def said_of_upload(headers: Mapping[str, str]) -> tuple[tuple[str, str], ...]:
    """Of the headers that begin an upload, those that policies may ask for: they are kept with it for `of_upload`."""
    return tuple((name, value) for name, value in headers.items() if name in _SAID)


def of_upload(said: Iterable[tuple[str, str]], initiated_ms: int) -> dict[str, tuple[str, ...]]:
    """What CreateMultipartUpload has said, as it was then: a retention that was long enough stays so while parts arrive."""
    headers = dict(said)
    found = {f"s3:{name}": (headers[name],) for name in (*_OF_NEW_OBJECTS, *_ACL, *_ENCRYPTION) if name in headers}
    return found | _of_lock_and_tags(headers, initiated_ms, tags=True)


def _of_lock_and_tags(headers: Mapping[str, str], now_ms: int, *, tags: bool) -> dict[str, tuple[str, ...]]:
    found = of_lock(headers.get(MODE), parse_iso8601(headers.get(UNTIL, "")), headers.get(HOLD), now_ms)
    if tags and headers.get(_TAGS):
        found |= of_new_tags(parse_header(headers[_TAGS]))
    return found


def _source(text: str) -> str:
    """What is read, however it is spelt: a Deny for ``bucket/secret/*`` is for ``bucket/s%65cret/x`` too."""
    try:
        source = parse_copy_source(text)
    except S3Error:
        return text              # which is refused when it is to be read
    return f"{source.bucket}/{source.key}" + ("" if source.version_id is None else f"?versionId={source.version_id}")


def _tls(request: S3Request) -> str | None:
    if not request.secure:
        return None
    return request.tls.removeprefix("TLSv") or TLS_VERSION


def of_caller(caller: Caller) -> dict[str, str | None]:
    if caller.anonymous:
        return {"aws:principaltype": "Anonymous", "aws:userid": "anonymous"}
    return {
        "aws:principaltype": "User" if caller.limited else "Account", "aws:userid": caller.user_id,
        "aws:username": caller.name, "aws:principalarn": caller.arn, "aws:principalaccount": caller.account,
    }


def of_lock(mode: str | None, until_ms: int | None, hold: str | None, now_ms: int) -> dict[str, tuple[str, ...]]:
    """What a request wants of a version's lock."""
    found: dict[str, tuple[str, ...]] = {}
    if mode:
        found["s3:object-lock-mode"] = (mode,)
    if until_ms is not None:
        found["s3:object-lock-retain-until-date"] = (iso8601(until_ms),)
        found["s3:object-lock-remaining-retention-days"] = (str(-((now_ms - until_ms) // DAY_MS)),)
    if hold:
        found["s3:object-lock-legal-hold"] = (hold,)
    return found


def of_new_tags(tags: Iterable[tuple[str, str]]) -> dict[str, tuple[str, ...]]:
    """Tags that a request brings."""
    found: dict[str, tuple[str, ...]] = {f"s3:requestobjecttag/{name}": (value,) for name, value in tags}
    if found:
        found["s3:requestobjecttagkeys"] = tuple(key.partition("/")[2] for key in found)
    return found


def of_object(tags: Iterable[tuple[str, str]]) -> dict[str, tuple[str, ...]]:
    """Tags of the object that is there."""
    return {f"s3:existingobjecttag/{name}": (value,) for name, value in tags}
