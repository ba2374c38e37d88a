"""Listings of objects, v1 and v2: parameters parsed, one page read, one document written (S3_SEMANTICS §13).

A page costs what it returns: the query seeks, groups by delimiter as it goes, and stops at the limit.
"""

from collections.abc import Mapping

from consensus.core.model import Page
from gateway.ops import tokens
from gateway.ops.context import Context
from gateway.ops.objects import restoring
from gateway.ops.replies import xml
from gateway.s3 import restore
from gateway.s3.errors import S3Error
from gateway.s3.reply import Reply
from gateway.s3.request import S3Request
from gateway.s3.signing.hoisting import effective_headers
from gateway.s3.xml import listings as xml_listings

KEYS_MAX = 1000
"""S3's greatest page; larger wishes are cut to it, and the answer says so."""

_EMPTY = Page((), (), None)


async def list_objects(ctx: Context, request: S3Request) -> Reply:
    """Version 1: the marker is a key, and the next one is only told when a delimiter was given."""
    bucket = await ctx.bucket(request)
    query = request.query
    limit = whole_number(query, "max-keys", default=KEYS_MAX, most=KEYS_MAX)
    prefix, delimiter, marker = query.get("prefix", ""), query.get("delimiter", ""), query.get("marker", "")
    encoded = url_encoded(query)
    tells = restore.is_listed(effective_headers(request))
    page = _EMPTY if limit == 0 else await ctx.metadata.list_objects(bucket.id, prefix, delimiter, marker, limit)
    restored = await restoring.listed(ctx, bucket, page.objects, request.now_ms) if tells else {}
    return xml(xml_listings.list_objects_v1(
        bucket=bucket.name, prefix=prefix, delimiter=delimiter, marker=marker, max_keys=limit, encoded=encoded,
        objects=page.objects, common_prefixes=page.common_prefixes, truncated=page.next_after is not None,
        next_marker=page.next_after if delimiter else None, owner=await ctx.owner_in(bucket), restored=restored,
    ), [("x-amz-bucket-region", ctx.settings.region)])


async def list_objects_v2(ctx: Context, request: S3Request) -> Reply:
    """Version 2: the continuation token is opaque and wins over start-after."""
    bucket = await ctx.bucket(request)
    query = request.query
    limit = whole_number(query, "max-keys", default=KEYS_MAX, most=KEYS_MAX)
    prefix, delimiter, start_after = query.get("prefix", ""), query.get("delimiter", ""), query.get("start-after", "")
    encoded = url_encoded(query)
    tells = restore.is_listed(effective_headers(request))
    token = query.get("continuation-token")
    after = start_after if token is None else tokens.parse(token)
    page = _EMPTY if limit == 0 else await ctx.metadata.list_objects(bucket.id, prefix, delimiter, after, limit)
    restored = await restoring.listed(ctx, bucket, page.objects, request.now_ms) if tells else {}
    return xml(xml_listings.list_objects_v2(
        bucket=bucket.name, prefix=prefix, delimiter=delimiter, start_after=start_after, max_keys=limit,
        encoded=encoded, objects=page.objects, common_prefixes=page.common_prefixes, continuation_token=token,
        next_token=None if page.next_after is None else tokens.make(page.next_after),
        owner=await ctx.owner_in(bucket) if query.get("fetch-owner") == "true" else None, restored=restored,
    ), [("x-amz-bucket-region", ctx.settings.region)])


NUMBER_MAX = 2**31 - 1
"""What AWS takes for a number in a query."""


def whole_number(query: Mapping[str, str], name: str, *, default: int, most: int) -> int:
    """A limit from the query, cut to `most`. S3Error InvalidArgument: AWS tells what is no number from what is negative."""
    text = query.get(name)
    if not text:
        return default
    number = parsed_number(text)
    if number is None:
        raise S3Error("InvalidArgument", f"Provided {name} not an integer or within integer range", ArgumentName=name,
                      ArgumentValue=text)
    if number < 0:
        raise S3Error("InvalidArgument", f"Argument {name} must be an integer between 0 and {NUMBER_MAX}", ArgumentName=name,
                      ArgumentValue=text)
    return min(number, most)


def parsed_number(text: str) -> int | None:
    """None for what is none of 32 bits. int() would take blanks, underscores and other scripts' digits too."""
    digits = text.removeprefix("-")
    if not (digits.isascii() and digits.isdigit()) or len(digits) > len(str(NUMBER_MAX)):
        return None
    return int(text) if abs(int(text)) <= NUMBER_MAX else None


def url_encoded(query: Mapping[str, str]) -> bool:
    """Whether keys in the answer are to be URL-encoded. S3Error InvalidArgument for any other encoding."""
    encoding = query.get("encoding-type")
    if encoding is None:
        return False
    if encoding != "url":
        raise S3Error("InvalidArgument", "Invalid Encoding Method specified in Request",
                      ArgumentName="encoding-type", ArgumentValue=encoding)
    return True

