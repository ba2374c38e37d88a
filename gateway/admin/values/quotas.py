"""Quotas of buckets and accounts, and what they hold, as an operator sees them."""

from typing import Annotated

import msgspec

from gateway.admin.values.common import PAGE, After, Answer, Limit, Request, about

Most = Annotated[int, msgspec.Meta(ge=0, le=1 << 61)] | None
BucketName = Annotated[str, about("Name of the bucket. Give one of bucket, account and user.")]
AccountId = Annotated[str, about("Id of the account, whose buckets count together.")]
UserName = Annotated[str, about("A user, whose account is meant.")]


class Held(Answer, frozen=True, kw_only=True):
    """What a bucket (`kind` "bucket") or all buckets of an account ("account") hold and may hold. `objects`: versions that are no
    delete markers; `bytes`: theirs; `upload_bytes`: of parts of uploads in progress, which count too. `objects_max` and
    `bytes_max`: the quota, null for none."""

    kind: str
    name: str
    objects: int
    bytes: int
    upload_bytes: int
    objects_max: int | None = None
    bytes_max: int | None = None


class OneHolder(Request, frozen=True, kw_only=True):
    bucket: BucketName = ""
    account: AccountId = ""
    user: UserName = ""


class SetQuota(Request, frozen=True, kw_only=True):
    bucket: BucketName = ""
    account: AccountId = ""
    user: UserName = ""
    objects: Annotated[Most, about("The most objects: versions that are no delete markers. Null: any number.")] = None
    bytes: Annotated[Most, about("The most bytes, those of parts of uploads in progress too. Null: any number.")] = None


class ListQuotas(Request, frozen=True, kw_only=True):
    of: Annotated[str, about("\"bucket\" or \"account\".")] = "bucket"
    after: After = ""
    limit: Limit = PAGE


class QuotaList(Answer, frozen=True, kw_only=True):
    quotas: list[Held]
    next: str
