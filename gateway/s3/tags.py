"""Tags: the rules for keys and values, and the URL-encoded form of the ``x-amz-tagging`` header (S3_SEMANTICS §16)."""

import re
from collections.abc import Sequence
from urllib.parse import unquote_to_bytes

from gateway.s3.errors import S3Error

OBJECT_TAGS_MAX = 10
BUCKET_TAGS_MAX = 50
KEY_MAX = 128
VALUE_MAX = 256
"""AWS's limits; lengths are in characters."""

_ALLOWED = re.compile(r"[\w \u00a0\u1680\u2000-\u200a\u2028\u2029\u202f\u205f\u3000+\-=.:/@]*")
"""Letters and digits of any script, separators (no controls), and ``+ - = . _ : / @``."""

_OF_SYSTEM = ("System tags cannot be added/updated by requester", "Your TagKey cannot be prefixed with aws:")
"""Of a bucket, of an object: AWS has two wordings."""

_MALFORMED = (
    "The header 'x-amz-tagging' shall be encoded as UTF-8 then URLEncoded URL query parameters "
    "without tag name duplicates."
)


def parse_header(value: str) -> tuple[tuple[str, str], ...]:
    """``x-amz-tagging``: ``k=v&k2=v2``, URL-encoded. S3Error InvalidArgument, InvalidTag, BadRequest for too many."""
    tags = []
    for item in value.split("&"):
        if item:
            key, _, text = item.partition("=")
            tags.append((_decoded(key, value), _decoded(text, value)))
    if len({key for key, _ in tags}) != len(tags) or any(not key for key, _ in tags):
        raise S3Error("InvalidArgument", _MALFORMED, ArgumentName="x-amz-tagging", ArgumentValue=value)
    check(tags, OBJECT_TAGS_MAX)
    return tuple(tags)


def _decoded(text: str, header: str) -> str:
    try:
        return unquote_to_bytes(text.replace("+", " ").encode("latin-1")).decode()
    except ValueError:
        raise S3Error(
            "InvalidArgument", _MALFORMED, ArgumentName="x-amz-tagging", ArgumentValue=header
        ) from None


def check(tags: Sequence[tuple[str, str]], limit: int) -> None:
    """S3Error InvalidTag for a tag that S3 doesn't allow or that comes twice, BadRequest for more than `limit` tags: AWS has
    been seen to look at every tag first, and then how many they are."""
    seen = set()
    for key, value in tags:
        if key in seen:
            raise S3Error("InvalidTag", "Cannot provide multiple Tags with the same key", TagKey=key)
        if key.startswith("aws:"):
            raise S3Error("InvalidTag", _OF_SYSTEM[limit == OBJECT_TAGS_MAX], TagKey=key)
        if not 1 <= len(key) <= KEY_MAX or not _ALLOWED.fullmatch(key):
            raise S3Error("InvalidTag", "The TagKey you have provided is invalid", TagKey=key)
        if len(value) > VALUE_MAX or not _ALLOWED.fullmatch(value):
            raise S3Error("InvalidTag", "The TagValue you have provided is invalid", TagKey=key, TagValue=value)
        seen.add(key)
    if len(tags) > limit:
        what = "Object" if limit == OBJECT_TAGS_MAX else "Bucket"
        raise S3Error("BadRequest", f"{what} tags cannot be greater than {limit}")
