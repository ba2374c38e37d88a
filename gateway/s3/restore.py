"""RestoreObject: what a client asks for, and how an object says that it is restored (S3_SEMANTICS §8).

*Archived*: an object whose storage class is one that AWS reads only after a restore. Here its bytes lie where they lay: a
restore is done at once.
"""

from collections.abc import Mapping
from typing import NamedTuple

from gateway.s3.errors import S3Error
from gateway.s3.lifecycle.due import REAL
from gateway.s3.times import http_date
from gateway.s3.xml.read import SMALL_BYTES_MAX, fields_of, malformed, number_of, parse, text_of

TIERS = ("Standard", "Bulk", "Expedited")

DAYS_MAX = 2**31 - 1

OPTIONAL = "x-amz-optional-object-attributes"
"""What a listing is to tell besides. AWS has one such thing: RestoreStatus."""

_REQUEST = frozenset({"Days", "GlacierJobParameters", "Type", "Tier", "Description", "SelectParameters", "OutputLocation"})


class Restore(NamedTuple):
    days: int


def read(body: bytes) -> Restore:
    """S3Error MalformedXML, InvalidArgument, NotImplemented for a query in an archive."""
    fields = fields_of(parse(body, "RestoreRequest", SMALL_BYTES_MAX), _REQUEST)
    if text_of(fields, "Type") is not None or "SelectParameters" in fields or "OutputLocation" in fields:
        raise S3Error("NotImplemented", "Staddle does not implement SELECT in a restore.")
    tier = text_of(fields, "Tier")
    if "GlacierJobParameters" in fields:
        tier = text_of(fields_of(fields["GlacierJobParameters"], frozenset({"Tier"})), "Tier")
        if tier is None:
            malformed()
    days = text_of(fields, "Days")
    if days is None or (tier is not None and tier not in TIERS):
        malformed()
    count = number_of(days)
    if not 0 < count <= DAYS_MAX:
        raise S3Error("InvalidArgument", "restoration days should be at least 1", ArgumentName="Days", ArgumentValue=count)
    return Restore(count)


def until(now_ms: int, days: int) -> int:
    """The end of a restored copy: midnight after so many days."""
    return REAL.after(now_ms, days)


def header(restored_ms: int) -> tuple[str, str]:
    return "x-amz-restore", f'ongoing-request="false", expiry-date="{http_date(restored_ms)}"'


def is_listed(headers: Mapping[str, str]) -> bool:
    """Whether a listing is to tell until when objects are restored. S3Error InvalidArgument."""
    text = headers.get(OPTIONAL)
    if text is None:
        return False
    wanted = [name.strip() for name in text.split(",") if name.strip()]
    for name in wanted:
        if name != "RestoreStatus":
            raise S3Error("InvalidArgument", "Invalid attribute name specified.", ArgumentName=OPTIONAL, ArgumentValue=name)
    return bool(wanted)


def not_archived(storage_class: str) -> S3Error:
    return S3Error("InvalidObjectState", "Restore is not allowed for the object's current storage class",
                   StorageClass=storage_class)

