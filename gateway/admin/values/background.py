"""Work that one gateway does for all, and lifecycles, which are such work."""

from gateway.admin.values.common import Answer, Page


class DutyInfo(Answer, frozen=True, kw_only=True):
    """`holder` is a process: machine/gateway-1. `held`: its lease lasts. `since`: without a break."""

    name: str
    holder: str
    held: bool
    since: str
    expires: str


class DutyList(Answer, frozen=True, kw_only=True):
    duties: list[DutyInfo]


class LifecyclePage(Page, frozen=True, kw_only=True):
    """`after` is a page's `next`."""


class LifecycleInfo(Answer, frozen=True, kw_only=True):
    """A bucket with a lifecycle. Its last scan, or the one under way: `state` is "waiting" (there was none yet with these
    rules), "scanning", "done" or "trouble"; what it has looked at and done; `left` are steps that found another version, a
    protected one, or other rules. `at`: the key where it goes on."""

    bucket: str
    rules: int
    state: str
    began: str
    ended: str
    at: str
    looked: int
    expired: int
    removed: int
    markers: int
    moved: int
    aborted: int
    left: int
    trouble: str


class LifecycleList(Answer, frozen=True, kw_only=True):
    buckets: list[LifecycleInfo]
    next: str
