"""Quotas on the page of metrics: what is limited, and what is used of it; nothing of what has no limit."""

from consensus.accounts import Holding
from consensus.core.model import Quota
from gateway.metrics.families import QUOTA, QUOTA_USED
from gateway.metrics.gather import Gathered
from gateway.metrics.page import samples


def test_what_is_limited_is_shown_with_what_is_used() -> None:
    held = [("bucket", Holding("b", 1, 3, 100, 20, Quota(None, 500))), ("account", Holding("1", 2, 4, 0, 0, Quota(7, None)))]
    page = list(samples(Gathered({}, None, None, None, {}, {}, quotas=held), "1"))
    assert [(labels, value) for family, labels, value in page if family is QUOTA] == [
        (("bucket", "b", "bytes"), 500), (("account", "1", "objects"), 7)]
    assert [(labels, value) for family, labels, value in page if family is QUOTA_USED] == [
        (("bucket", "b", "bytes"), 120), (("account", "1", "objects"), 4)]
