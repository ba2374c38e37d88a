"""Buckets as an operator sees them, and what they hold."""

from typing import Annotated

import msgspec

from gateway.admin.values.common import PAGE, After, Answer, Limit, Request, about

Copies = Annotated[Annotated[int, msgspec.Meta(ge=0, le=9)] | None, about(
    "Copies wanted of each chunk, 1 to 9; 0 for the setting of the cluster. Absent: stays.")]
Replication = Annotated[str | None, about(
    "When a write is acknowledged: \"sync\" with a majority of the copies, \"async\" with one, \"all\" with every one; \"\" for "
    "the setting of the cluster. Absent: stays.")]


class BucketInfo(Answer, frozen=True, kw_only=True):
    """`objects` and `bytes` count current objects and older versions. `copies` and `replication`: null for the settings of the
    cluster."""

    name: str
    account: str
    owner: str
    created: str
    region: str
    versioning: str
    objects: int
    bytes: int
    copies: int | None = None
    replication: str | None = None


class BucketList(Answer, frozen=True, kw_only=True):
    buckets: list[BucketInfo]
    next: str


class ListBuckets(Request, frozen=True, kw_only=True):
    account: Annotated[str, about("Of this account only; empty for all.")] = ""
    prefix: str = ""
    after: After = ""
    limit: Limit = PAGE


class OneBucket(Request, frozen=True, kw_only=True):
    name: Annotated[str, about("Name of the bucket.")]


class CreateBucket(Request, frozen=True, kw_only=True):
    name: Annotated[str, about("Name of the bucket, by S3's rules.")]
    user: Annotated[str, about("The user who will own it; empty for whoever asks.")] = ""
    copies: Copies = None
    replication: Replication = None


class SetBucket(Request, frozen=True, kw_only=True):
    name: Annotated[str, about("Name of the bucket.")]
    copies: Copies = None
    replication: Replication = None


class BucketStat(Answer, frozen=True, kw_only=True):
    """`uploads`: multipart uploads under way, counted up to 1,000."""

    bucket: BucketInfo
    uploads: int


class Usage(Answer, frozen=True, kw_only=True):
    buckets: int
    objects: int
    bytes: int
    accounts: list["AccountUsage"]


class AccountUsage(Answer, frozen=True, kw_only=True):
    """`upload_bytes`: of parts of uploads in progress. `objects_max` and `bytes_max`: the account's quota, null for none."""

    account: str
    buckets: int
    objects: int
    bytes: int
    upload_bytes: int = 0
    objects_max: int | None = None
    bytes_max: int | None = None
