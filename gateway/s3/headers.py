"""Headers that are stored with an object and given back, and headers that must not be dropped in silence.

Values are latin-1 text, so every byte survives. No value with a control character gets in or out: what came through the
query of a presigned URL could otherwise break a response apart. A header that asks for something Staddle does not do
(encryption, access lists) is refused: the client would believe it was done.
"""

import re
from collections.abc import Collection, Mapping
from typing import NamedTuple, NoReturn, Protocol

from gateway.s3 import restore, tags
from gateway.s3.acl import CANNED, SAYS_NOTHING
from gateway.s3.errors import S3Error
from gateway.s3.locks import BYPASS, HEADERS, Lock, as_headers, from_headers

Pairs = tuple[tuple[str, str], ...]
HeaderPairs = list[tuple[str, str]]

METADATA_BYTES_MAX = 2048
"""AWS's limit for the sum of names (without prefix) and values."""

DEFAULT_TYPE = "binary/octet-stream"
STORAGE_CLASSES = (
    "REDUCED_REDUNDANCY", "STANDARD_IA", "ONEZONE_IA", "INTELLIGENT_TIERING", "GLACIER_IR", "GLACIER", "DEEP_ARCHIVE",
)
"""AWS's names besides STANDARD, accepted unless the settings name others. All are labels: the bytes lie where they lay, and
read at once."""

_KEY = "x-amz-server-side-encryption-customer-key"
_KEY_MD5 = f"{_KEY}-md5"
_KEY_ALGORITHM = "x-amz-server-side-encryption-customer-algorithm"

_AMZ = "x-amz-"
_META = "x-amz-meta-"
_LOCK = "x-amz-object-lock-"
_SYSTEM = frozenset({"cache-control", "content-disposition", "content-encoding", "content-language", "expires"})
_OVERRIDES = {
    f"response-{name}": name
    for name in ("content-type", "content-language", "expires", "cache-control", "content-disposition",
                 "content-encoding")
}
_CONTROL = re.compile(r"[\x00-\x08\x0a-\x1f\x7f]")

REDIRECT = "x-amz-website-redirect-location"
WRITE_OFFSET = "x-amz-write-offset-bytes"

_UNKNOWN_HERE = (
    "x-amz-server-side-encryption", "x-amz-copy-source-server-side-encryption", "x-amz-object-lock-",
    WRITE_OFFSET, "x-amz-object-annotation-directive",
)
"""Beginnings of headers that ask for what may not be done here."""

_SUSPECT = (*_UNKNOWN_HERE, "x-amz-grant-", "x-amz-acl")
"""The same where an access list has no place: a part of an upload has none."""


class Stored(NamedTuple):
    """What a client said about an object: the fields of the metadata's Attributes."""

    content_type: str
    headers: Pairs            # cache-control … expires, x-amz-website-redirect-location; as sent
    metadata: Pairs           # names without x-amz-meta-
    tags: Pairs
    storage_class: str
    lock: Lock | None = None
    restored_ms: int = 0      # no client says this one, nor the next
    hold_off: bool = False


class Attributes(Protocol):
    @property
    def content_type(self) -> str: ...
    @property
    def headers(self) -> Pairs: ...
    @property
    def metadata(self) -> Pairs: ...
    @property
    def tags(self) -> Pairs: ...
    @property
    def storage_class(self) -> str: ...
    @property
    def restored_ms(self) -> int: ...
    @property
    def lock(self) -> tuple[str, int, bool] | None: ...
    @property
    def hold_off(self) -> bool: ...


# In


def stored(
    headers: Mapping[str, str], now_ms: int = 0, storage_classes: Collection[str] = STORAGE_CLASSES,
) -> Stored:
    """What a PutObject, CreateMultipartUpload or a copy with REPLACE stores. S3Error MetadataTooLarge, InvalidTag,
    InvalidStorageClass, InvalidRedirectLocation, and all of `refuse_unsupported`."""
    system: list[tuple[str, str]] = []
    metadata: list[tuple[str, str]] = []
    size, locked = 0, False
    for name, value in headers.items():
        if name in _SYSTEM:
            if name == "content-encoding":
                value = _without_aws_chunked(value)
            if value:
                system.append((name, _checked(name, value)))
        elif not name.startswith(_AMZ):
            continue
        elif name.startswith(_META):
            metadata.append((name[len(_META) :], _checked(name, value)))
            size += len(name) - len(_META) + len(value)
        elif name.startswith(_LOCK):
            if name not in HEADERS:
                _not_implemented(name)      # holds until an event: who asks for one relies on it
            locked = True
        elif name.startswith(_UNKNOWN_HERE):
            _refuse(name, headers)
    if size > METADATA_BYTES_MAX:
        raise S3Error("MetadataTooLarge", Size=size, MaxSizeAllowed=METADATA_BYTES_MAX)
    redirect = redirect_location(headers)
    if redirect is not None:
        system.append((REDIRECT, redirect))
    return Stored(
        _checked("content-type", headers.get("content-type", "")) or DEFAULT_TYPE,
        tuple(system), tuple(metadata), tagging(headers), storage_class(headers, storage_classes),
        from_headers(headers, now_ms) if locked else None,
    )


def storage_class(headers: Mapping[str, str], known: Collection[str] = STORAGE_CLASSES) -> str:
    """S3Error InvalidStorageClass for an unknown one."""
    wanted = headers.get("x-amz-storage-class") or "STANDARD"
    if wanted != "STANDARD" and wanted not in known:
        raise S3Error("InvalidStorageClass", StorageClassRequested=wanted)
    return wanted


def tagging(headers: Mapping[str, str]) -> Pairs:
    """The tags of ``x-amz-tagging``."""
    value = headers.get("x-amz-tagging")
    return tags.parse_header(value) if value else ()


def redirect_location(headers: Mapping[str, str]) -> str | None:
    """S3Error InvalidRedirectLocation unless it leads to a path or to http(s)."""
    value = headers.get(REDIRECT)
    if value is None:
        return None
    if not value.startswith(("/", "http://", "https://")):
        raise S3Error("InvalidRedirectLocation")
    if len(value) > METADATA_BYTES_MAX:
        raise S3Error("InvalidRedirectLocation", "The length of website redirect location cannot exceed 2,048 characters.")
    return _checked(REDIRECT, value)


def replaces(headers: Mapping[str, str], what: str) -> bool:
    """Whether a copy takes its `what` ("metadata" or "tagging") from the request rather than from the source."""
    value = headers.get(f"x-amz-{what}-directive", "COPY")
    if value not in ("COPY", "REPLACE"):
        raise S3Error(
            "InvalidArgument",
            f"Unknown {what} directive.",
            ArgumentName=f"x-amz-{what}-directive",
            ArgumentValue=value,
        )
    return value == "REPLACE"


def _without_aws_chunked(encoding: str) -> str:
    """``aws-chunked`` describes the transfer, not the object."""
    if "aws-chunked" not in encoding.lower():
        return encoding
    kept = [token.strip() for token in encoding.split(",") if token.strip().lower() != "aws-chunked"]
    return ",".join(token for token in kept if token)


def _checked(name: str, value: str) -> str:
    if not value.isprintable() and _CONTROL.search(value):
        raise S3Error("InvalidArgument", "Header values cannot hold control characters.", ArgumentName=name)
    return value


# Refused


def refuse_unsupported(headers: Mapping[str, str]) -> None:
    """S3Error for headers of a write that ask for more than is done here. The codes are those of AWS where such a
    bucket exists there (no locks, ACLs disabled), NotImplemented elsewhere."""
    for name in headers:
        if name.startswith(_SUSPECT):
            _refuse(name, headers)


def refuse_unsupported_bucket(headers: Mapping[str, str]) -> None:
    """The same for CreateBucket."""
    for name in headers:
        if name.startswith(_UNKNOWN_HERE):
            _refuse(name, headers)
    ownership = headers.get("x-amz-object-ownership", "BucketOwnerEnforced")
    if ownership not in ("BucketOwnerEnforced", "BucketOwnerPreferred", "ObjectWriter"):
        raise S3Error(
            "InvalidArgument",
            f"Invalid x-amz-object-ownership header: {ownership}",
            ArgumentName="x-amz-object-ownership",
        )
    if headers.get("x-amz-bucket-namespace", "global") != "global":
        _not_implemented("x-amz-bucket-namespace")


def refuse_unsupported_read(headers: Mapping[str, str]) -> None:
    """A key for an object that isn't encrypted: S3Error InvalidRequest, as on AWS."""
    if _KEY in headers or _KEY_MD5 in headers or _KEY_ALGORITHM in headers:
        raise S3Error("InvalidRequest", "The encryption parameters are not applicable to this object.")


def no_lock_to_bypass() -> S3Error:
    """Bypassing a lock where there is none: InvalidArgument whatever the value (recorded from AWS)."""
    return S3Error("InvalidArgument", f"{BYPASS} is only applicable to Object Lock enabled buckets.", ArgumentName=BYPASS)


def _refuse(name: str, headers: Mapping[str, str]) -> None:
    """One of the headers that begin with `_SUSPECT`."""
    if name == "x-amz-acl":
        _refuse_acl(headers[name])
    elif name.startswith("x-amz-object-lock-"):
        raise S3Error("InvalidRequest", "Bucket is missing ObjectLockConfiguration")
    elif name.startswith("x-amz-grant-"):
        if "x-amz-acl" in headers:
            raise S3Error("InvalidRequest", "Specifying both Canned ACLs and Header Grants is not allowed")
        raise S3Error("AccessControlListNotSupported")
    elif name == "x-amz-server-side-encryption" and headers[name] not in ("AES256", "aws:kms", "aws:kms:dsse"):
        raise S3Error(
            "InvalidArgument",
            "The encryption method specified is not supported",
            ArgumentName=name,
            ArgumentValue=headers[name],
        )
    else:
        _not_implemented(name)


def _refuse_acl(value: str) -> None:
    if value in SAYS_NOTHING:
        return
    if value in CANNED:
        raise S3Error("AccessControlListNotSupported")
    raise S3Error("InvalidArgument", "", ArgumentName="x-amz-acl", ArgumentValue=value)     # AWS has no message for it


def _not_implemented(header: str) -> NoReturn:
    raise S3Error("NotImplemented", Header=header)


# Out


def given_back(
    attributes: Attributes, query: Mapping[str, str], *, anonymous: bool = False, now_ms: int = 0,
) -> HeaderPairs:
    """The headers of a GET or HEAD that describe the object, with the overrides of a ``response-…`` query.

    S3Error InvalidRequest for an override without signature, InvalidArgument for one that would break the response.
    """
    given: HeaderPairs = [("content-type", attributes.content_type), *attributes.headers]
    if attributes.metadata:
        given += [(_META + name, value) for name, value in attributes.metadata]
    if attributes.storage_class != "STANDARD":
        given.append(("x-amz-storage-class", attributes.storage_class))
        if attributes.restored_ms > now_ms:
            given.append(restore.header(attributes.restored_ms))
    if attributes.lock is not None:
        given += as_headers(Lock(*attributes.lock), hold_off=attributes.hold_off)
    if attributes.tags:
        given.append(("x-amz-tagging-count", str(len(attributes.tags))))
    if query:
        overrides = _overrides(query, anonymous)
        if overrides:
            given = [(name, value) for name, value in given if name not in overrides]
            given += overrides.items()
    return given


def _overrides(query: Mapping[str, str], anonymous: bool) -> dict[str, str]:
    overrides: dict[str, str] = {}
    for parameter, value in query.items():
        name = _OVERRIDES.get(parameter)
        if name is None and parameter.startswith("response-"):
            raise S3Error(
                "InvalidArgument", f"{parameter} is not in the set of overridable response headers. Please refer to the S3 API "
                "documentation for a complete list of overridable response headers.",
                ArgumentName=parameter, ArgumentValue=value,
            )
        if name is not None and value:
            if anonymous:
                raise S3Error(
                    "InvalidRequest", "Request specific response headers cannot be used for anonymous GET requests."
                )
            # Response headers are latin-1 text; what isn't goes out as the bytes of its UTF-8 form.
            overrides[name] = _checked(parameter, value).encode().decode("latin-1")
    return overrides
