"""Logging configuration of a bucket, and what objects of logs are called. Pure. Source: AWS, PutBucketLogging and "Logging
requests with server access logging".

*Target*: the bucket and prefix that the records of another bucket (or of itself) go to.
"""

import time
from typing import NamedTuple

import msgspec

from gateway.s3 import acl
from gateway.s3.acl import People
from gateway.s3.errors import S3Error
from gateway.s3.xml.pieces import OwnerOf, document
from gateway.s3.xml.read import SMALL_BYTES_MAX, Element, fields_of, malformed, parse, text_of
from gateway.s3.xml.text import escape

SERVICE = "logging.s3.amazonaws.com"
"""What bucket policies call whoever delivers the logs."""

PERMISSIONS = frozenset({"FULL_CONTROL", "READ", "WRITE"})
EVENT_TIME, DELIVERY_TIME = "EventTime", "DeliveryTime"

DAY_S = 86_400


class Logging(msgspec.Struct, frozen=True, kw_only=True, array_like=True):
    """`grants` are for the objects of the log. `partitioned`: EventTime, DeliveryTime, "" (which is as DeliveryTime), or None
    for the simple form of names; `shown`: whether the form was said at all."""

    bucket: str
    prefix: str
    grants: tuple[tuple[str, str], ...] = ()
    partitioned: str | None = None
    shown: bool = False


_STATUS = frozenset({"LoggingEnabled"})
_ENABLED = frozenset({"TargetBucket", "TargetPrefix", "TargetGrants", "TargetObjectKeyFormat"})
_FORMATS = frozenset({"SimplePrefix", "PartitionedPrefix"})


def read(body: bytes, people: People) -> Logging | None:
    """A BucketLoggingStatus; None for an empty one, which turns logging off. S3Error MalformedXML, InvalidArgument."""
    fields = fields_of(parse(body, "BucketLoggingStatus", SMALL_BYTES_MAX), _STATUS)
    if "LoggingEnabled" not in fields:
        return None
    enabled = fields_of(fields["LoggingEnabled"], _ENABLED)
    bucket, prefix = text_of(enabled, "TargetBucket"), text_of(enabled, "TargetPrefix")
    if not bucket or prefix is None:
        malformed()
    partitioned = _partitioned(enabled["TargetObjectKeyFormat"]) if "TargetObjectKeyFormat" in enabled else None
    return Logging(bucket=bucket, prefix=prefix, partitioned=partitioned, shown="TargetObjectKeyFormat" in enabled,
                   grants=_grants(enabled["TargetGrants"], people) if "TargetGrants" in enabled else ())


def _grants(element: Element, people: People) -> tuple[tuple[str, str], ...]:
    try:
        grants = acl.read_grants(element, people)
    except S3Error as error:
        if error.code != "MalformedACLError":
            raise
        malformed()
    if any(permission not in PERMISSIONS for _, permission in grants):
        malformed()
    return grants


def _partitioned(element: Element) -> str | None:
    formats = fields_of(element, _FORMATS)
    if len(formats) != 1:
        malformed()
    if "SimplePrefix" in formats:
        fields_of(formats["SimplePrefix"], frozenset())
        return None
    source = text_of(fields_of(formats["PartitionedPrefix"], frozenset({"PartitionDateSource"})), "PartitionDateSource")
    if source is None:
        return ""
    if source not in (EVENT_TIME, DELIVERY_TIME):
        malformed()
    return source


def write(logging: Logging | None, owner_of: OwnerOf) -> bytes:
    """The BucketLoggingStatus."""
    if logging is None:
        return document("BucketLoggingStatus", "")
    inner = (f"<TargetBucket>{escape(logging.bucket)}</TargetBucket>"
             f"<TargetPrefix>{escape(logging.prefix)}</TargetPrefix>")
    if logging.grants:
        inner += f"<TargetGrants>{acl.written_grants(logging.grants, owner_of)}</TargetGrants>"
    if logging.shown:
        inner += f"<TargetObjectKeyFormat>{_format(logging.partitioned)}</TargetObjectKeyFormat>"
    return document("BucketLoggingStatus", f"<LoggingEnabled>{inner}</LoggingEnabled>")


def _format(partitioned: str | None) -> str:
    if partitioned is None:
        return "<SimplePrefix></SimplePrefix>"
    source = f"<PartitionDateSource>{partitioned}</PartitionDateSource>" if partitioned else ""
    return f"<PartitionedPrefix>{source}</PartitionedPrefix>"


class Source(NamedTuple):
    """The bucket whose records they are."""

    bucket: str
    account: str
    region: str


def object_key(logging: Logging, source: Source, *, delivered_s: int, day: int, unique: str) -> str:
    """What the object of one batch is called. `day`: of its records, days since 1970; they all have the same where names are
    of the time of the events."""
    if logging.partitioned is None:
        return f"{logging.prefix}{_time(delivered_s)}-{unique}"
    at_s = day * DAY_S if logging.partitioned == EVENT_TIME else delivered_s
    folders = time.strftime("%Y/%m/%d", time.gmtime(at_s))
    return f"{logging.prefix}{source.account}/{source.region}/{source.bucket}/{folders}/{_time(at_s)}-{unique}"


def _time(at_s: int) -> str:
    return time.strftime("%Y-%m-%d-%H-%M-%S", time.gmtime(at_s))
