"""What S3's XML answers are made of: the document, optional elements, owners, checksums.

Values come from the layers below; the protocols say which attributes are used, since this package imports none of them.
"""

from collections.abc import Callable
from typing import NamedTuple, Protocol

from gateway.s3.operations import XMLNS
from gateway.s3.xml.text import escape, escape_readable

HEAD = '<?xml version="1.0" encoding="UTF-8"?>\n'

XSI = "http://www.w3.org/2001/XMLSchema-instance"

BLOCK_FIELDS = ("BlockPublicAcls", "IgnorePublicAcls", "BlockPublicPolicy", "RestrictPublicBuckets")
"""The switches of a PublicAccessBlockConfiguration, in the order of its schema."""


class Owner(NamedTuple):
    """Who owns something, or began an upload: the canonical id and the name shown."""

    id: str
    display_name: str


OwnerOf = Callable[[str], Owner]
"""Canonical id -> owner."""


class Checksum(Protocol):
    @property
    def algorithm(self) -> str: ...
    @property
    def value(self) -> str: ...
    @property
    def kind(self) -> str: ...


class Part(Protocol):
    @property
    def number(self) -> int: ...
    @property
    def size(self) -> int: ...
    @property
    def etag(self) -> str: ...
    @property
    def modified_ms(self) -> int: ...
    @property
    def checksum(self) -> Checksum | None: ...


def document(root: str, inner: str) -> bytes:
    return f'{HEAD}<{root} xmlns="{XMLNS}">{inner}</{root}>'.encode()


def optional(name: str, value: str | int | None, spell: Callable[[str], str] = escape) -> str:
    return "" if value is None else f"<{name}>{spell(str(value))}</{name}>"


def owner_element(owner: Owner, element: str = "Owner") -> str:
    return f"<{element}>{who(owner)}</{element}>"


def who(owner: Owner) -> str:
    """An id, and the name to show of those who have one."""
    return f"<ID>{escape(owner.id)}</ID>{optional('DisplayName', owner.display_name or None, escape_readable)}"


def checksum_element(checksum: Checksum | None, *, bare: bool = False) -> str:
    if checksum is None:
        return ""
    value = checksum.value.partition("-")[0] if bare else checksum.value  # base64 has no hyphen
    return f"<Checksum{checksum.algorithm}>{value}</Checksum{checksum.algorithm}>"


def checksum_type(checksum: Checksum | None) -> str:
    return "" if checksum is None else f"<ChecksumType>{checksum.kind}</ChecksumType>"


def echoed_key(key: str) -> str:
    """The key that the request itself named. Nobody needs it, but all must be able to parse the document around it."""
    return f"<Key>{escape_readable(key)}</Key>"


def upload_head(bucket: str, key: str, upload_id: str) -> str:
    return f"<Bucket>{bucket}</Bucket>{echoed_key(key)}<UploadId>{upload_id}</UploadId>"


def word(value: bool) -> str:
    return "true" if value else "false"
