"""Whether a policy is public, as S3's public access block and policy status understand it. Pure.

Public: a statement allows something to everyone, and no condition narrows it down to fixed callers. Wildcards and
variables in such a condition narrow nothing down. Source: AWS, "Blocking public access: the meaning of public".
"""

from gateway.s3.policy.conditions import Condition, network
from gateway.s3.policy.evaluation import Policy, Statement

NARROWING = frozenset(
    f"aws:{key}" for key in (
        "sourceip", "sourcearn", "sourcevpc", "sourcevpce", "sourceowner", "sourceaccount", "userid", "principalorgid",
        "principalorgpaths", "principalarn", "principalaccount", "sourceorgid", "sourceorgpaths")
) | frozenset({"s3:x-amz-server-side-encryption-aws-kms-key-id", "s3:dataaccesspointarn", "s3:dataaccesspointaccount"})

_POSITIVE = frozenset({"StringEquals", "StringEqualsIgnoreCase", "StringLike", "ArnEquals", "ArnLike", "IpAddress"})

IPV4_BITS_MIN, IPV6_BITS_MIN = 8, 32
"""A network wider than this is as good as everybody."""


def is_public(policy: Policy) -> bool:
    return any(public_statement(statement) for statement in policy.statements)


def public_statement(statement: Statement) -> bool:
    principals = statement.principals
    if not statement.allows or principals is None or not (principals.everyone or statement.but_principals):
        return False
    return not any(_narrows(condition) for condition in statement.conditions)


def _narrows(condition: Condition) -> bool:
    if condition.key not in NARROWING or condition.operator.name not in _POSITIVE:
        return False
    if condition.if_exists or condition.set_form == "ForAllValues":
        return False                      # it holds for those who don't have the key at all
    if condition.operator.name == "IpAddress":
        return all(_small(value.text) for value in condition.values)
    return all(value.fixed for value in condition.values)


def _small(text: str) -> bool:
    found = network(text)
    return found is not None and found.prefixlen >= (IPV4_BITS_MIN if found.version == 4 else IPV6_BITS_MIN)
