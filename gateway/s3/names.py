"""Names: which buckets and keys may exist, and how a request's target, a copy source and a listing spell them.

A path is split into bucket and key as raw bytes and percent-decoded exactly once: no normalisation, no merging of
slashes, ``+`` is a plus. Keys are UTF-8, 1 to 1024 bytes, and compare as bytes.
"""

import functools
import re
import string
from typing import NamedTuple
from urllib.parse import quote, quote_from_bytes, unquote_to_bytes

from gateway.s3.errors import S3Error

MAX_KEY_BYTES = 1024
"""AWS's limit for the UTF-8 form of a key."""

HOSTS_REMEMBERED = 1024
"""Host headers whose bucket is remembered; bounded because clients choose them."""

_BUCKET_FORM = re.compile(r"[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]", re.ASCII)
_IPV4_FORM = re.compile(r"[0-9]+\.[0-9]+\.[0-9]+\.[0-9]+")
_BROKEN_ESCAPE = re.compile(rb"%(?![0-9A-Fa-f]{2})")
_RESERVED_PREFIXES = ("xn--", "sthree-", "amzn-s3-demo-")
_RESERVED_SUFFIXES = ("-s3alias", "--ol-s3", ".mrap", "--x-s3", "--table-s3")
_UNRESERVED = (string.ascii_letters + string.digits + "-._~").encode()
_UNRESERVED_AND_SLASH = _UNRESERVED + b"/"


class Target(NamedTuple):
    """What a request addresses: the service (both empty), a bucket (key empty) or an object."""

    bucket: str
    key: str
    host_style: bool


class CopySource(NamedTuple):
    bucket: str
    key: str
    version_id: str | None


def is_bucket_name(name: str) -> bool:
    """Whether S3 allows a bucket of this name (user guide, bucket naming rules)."""
    return (
        _BUCKET_FORM.fullmatch(name) is not None
        and ".." not in name
        and not name.startswith(_RESERVED_PREFIXES)
        and not name.endswith(_RESERVED_SUFFIXES)
        and _IPV4_FORM.fullmatch(name) is None
    )


def check_bucket_name(name: str) -> None:
    """S3Error InvalidBucketName unless a bucket may be called this."""
    if not is_bucket_name(name):
        raise S3Error("InvalidBucketName", BucketName=name)


def check_key(key: str) -> None:
    """S3Error KeyTooLongError for a key of more than 1024 bytes."""
    if len(key) > MAX_KEY_BYTES or (not key.isascii() and len(key.encode()) > MAX_KEY_BYTES):
        raise S3Error("KeyTooLongError", Size=len(key.encode()), MaxSizeAllowed=MAX_KEY_BYTES)


def target(host: str, domains: tuple[str, ...], raw_path: bytes) -> Target:
    """Bucket and key of a request. `host` is the Host header (a port is ignored), `domains` are lower-case names whose
    subdomains are buckets, `raw_path` is the path as sent, without the query.

    S3Error InvalidURI for a path that is not well-formed UTF-8 in well-formed escapes; InvalidBucketName for ``//…``.
    """
    if not raw_path.startswith(b"/"):
        raise S3Error("InvalidURI", URI=raw_path.decode("utf-8", "replace"))
    bucket = bucket_of_host(host, domains) if domains else ""
    if bucket:
        return Target(bucket, _decode(raw_path[1:]), True)
    raw_bucket, slash, raw_key = raw_path[1:].partition(b"/")
    if not raw_bucket:
        if slash:
            raise S3Error("InvalidBucketName", BucketName="")
        return Target("", "", False)
    return Target(_decode(raw_bucket), _decode(raw_key), False)


def in_site(bucket: str, raw_path: bytes) -> Target:
    """The same where the bucket is known already: all of the path is the key. S3Error InvalidURI."""
    if not raw_path.startswith(b"/"):
        raise S3Error("InvalidURI", URI=raw_path.decode("utf-8", "replace"))
    return Target(bucket, _decode(raw_path[1:]), True)


@functools.lru_cache(maxsize=HOSTS_REMEMBERED)
def bucket_of_host(host: str, domains: tuple[str, ...]) -> str:
    """The bucket named by a Host header, or "" when it names none of `domains`' subdomains."""
    name = host.lower()
    before, colon, port = name.rpartition(":")
    if colon and (port.isdigit() or not port):
        name = before
    name = name.removesuffix(".")
    if name in domains:
        return ""
    matching = [domain for domain in domains if name.endswith("." + domain)]
    return name[: -len(max(matching, key=len)) - 1] if matching else ""


def _decode(raw: bytes) -> str:
    """Percent-decoded once, as UTF-8. S3Error InvalidURI otherwise."""
    try:
        return _decode_strictly(raw) if b"%" in raw else raw.decode()
    except ValueError:
        raise S3Error("InvalidURI", URI=raw.decode("utf-8", "replace")) from None


def _decode_strictly(raw: bytes) -> str:
    if _BROKEN_ESCAPE.search(raw):
        raise ValueError("broken percent escape")
    return unquote_to_bytes(raw).decode()


def uri_encode(raw: bytes, keep_slash: bool = False) -> str:
    """Percent-encoding as SigV4 wants it: all but ``A-Z a-z 0-9 - . _ ~`` (and ``/`` if kept), upper-case hex."""
    if not raw.translate(None, _UNRESERVED_AND_SLASH if keep_slash else _UNRESERVED):
        return raw.decode("ascii")
    return quote_from_bytes(raw, safe="/" if keep_slash else "")


def listing_encode(text: str) -> str:
    """A key, prefix, delimiter or marker under ``encoding-type=url``: slashes stay readable, space is ``%20``."""
    return quote(text, safe="/")


def parse_copy_source(value: str) -> CopySource:
    """``[/]bucket/key[?versionId=v]``, each part percent-encoded; `value` is the header's latin-1 text.

    The version is split off before decoding (a key may hold ``%3F``); the bucket after it, since some clients encode
    that slash too. S3Error InvalidArgument for a source that can't be.
    """
    path, question, version = value.partition("?versionId=")
    if not question:
        path, question, version = value.partition("?versionid=")
    try:
        name = _decode_strictly(path.encode("latin-1"))
        version = _decode_strictly(version.partition("&")[0].encode("latin-1"))
    except ValueError:
        raise _bad_source("Invalid copy source encoding", value) from None
    bucket, _, key = name.removeprefix("/").partition("/")
    if not is_bucket_name(bucket):
        raise _bad_source("Invalid copy source bucket name", value)
    if not key or len(key.encode()) > MAX_KEY_BYTES:
        raise _bad_source("Invalid copy source object key", value)
    if question and not version:
        raise _bad_source("Version id cannot be the empty string", value)
    return CopySource(bucket, key, version if question else None)


def parse_rename_source(value: str | None, bucket: str) -> str:
    """The key of ``[/]bucket/key``, or of ``key`` alone (both are seen), percent-encoded; `value` is the header's latin-1 text.

    S3Error InvalidRequest for another bucket, InvalidArgument for what can't be a key.
    """
    if value is None:
        raise S3Error("InvalidRequest", "Missing required header for this request: x-amz-rename-source")
    try:
        name = _decode_strictly(value.encode("latin-1"))
    except ValueError:
        raise _bad_source("Invalid rename source encoding", value, "x-amz-rename-source") from None
    first, slash, rest = name.removeprefix("/").partition("/")
    if name.startswith("/") and first != bucket:
        raise S3Error("InvalidRequest", "An object can only be renamed within its bucket.")
    key = rest if slash and first == bucket else name
    if not key or len(key.encode()) > MAX_KEY_BYTES:
        raise _bad_source("Invalid rename source object key", value, "x-amz-rename-source")
    return key


def _bad_source(message: str, value: str, header: str = "x-amz-copy-source") -> S3Error:
    return S3Error("InvalidArgument", message, ArgumentName=header, ArgumentValue=value)
