"""Whether S3's deliverer of logs may put an object into a target bucket. Pure.

As on AWS: a bucket policy that allows `s3:PutObject` to the service ``logging.s3.amazonaws.com`` (under conditions on the
logged bucket, aws:SourceArn, and its account, aws:SourceAccount), or, where access lists are on, WRITE for the group
LogDelivery. A Deny that fits ends it.
"""

from consensus.core.model import Bucket
from gateway.bucket_access import Rules
from gateway.s3 import acl
from gateway.s3.bucket_log import SERVICE, Source
from gateway.s3.policy.evaluation import NOTHING, Ask, Caller, evaluate
from gateway.s3.times import iso8601


def may_deliver(rules: Rules, target: Bucket, source: Source, key: str, now_ms: int) -> bool:
    context = {
        "aws:sourcearn": (f"arn:aws:s3:::{source.bucket}",), "aws:sourceaccount": (source.account,),
        "aws:principalisawsservice": ("true",), "aws:principalservicename": (SERVICE,), "aws:viaawsservice": ("false",),
        "aws:securetransport": ("true",), "aws:currenttime": (iso8601(now_ms),), "aws:epochtime": (str(now_ms // 1000),),
        "aws:resourceaccount": (target.account,), "s3:resourceaccount": (target.account,),
    }
    ask = Ask(Caller(service=SERVICE), "s3:PutObject", f"arn:aws:s3:::{target.name}/{key}", context)
    verdict = NOTHING if rules.policy is None else evaluate(rules.policy, ask)
    if verdict.denied is not None:
        return False
    if verdict.allowed is not None:
        return True
    return not rules.acls_off and any(
        grantee == acl.LOG_DELIVERY and permission in ("WRITE", acl.FULL_CONTROL) for grantee, permission in rules.acl or ())
