"""Policies, parsed: what a statement says, and whether it speaks of a request. Pure; one engine for all kinds of policy.

Policy      statements of a bucket (each names principals) or of a user (none does)
Caller      who asks, as principals see it
Ask         one caller, one action, one resource, and the condition keys of the request
Verdict     the statements that decided: a Deny wins over every Allow, and without an Allow nothing is allowed

How verdicts of several policies and of access lists come together is for gateway/authorization.py. Documents are read by
policy/read.py. Source: AWS, "Policy evaluation logic" and "IAM JSON policy elements reference".
"""

from collections.abc import Mapping
from typing import NamedTuple

from gateway.s3.policy.conditions import Condition
from gateway.s3.policy.patterns import Pattern

Context = Mapping[str, tuple[str, ...]]
"""Condition keys in lower case, with their values. A key that the request doesn't have is not there."""


class Caller(NamedTuple):
    """`limited`: has policies of its own, and only what they allow; else all that its account may do (as AWS's root).
    `ids`: the canonical ids of its account, besides its own."""

    account: str = ""
    name: str = ""
    user_id: str = ""
    limited: bool = False
    ids: frozenset[str] = frozenset()
    service: str = ""            # of S3 itself, and then nobody's account: logging.s3.amazonaws.com

    @property
    def anonymous(self) -> bool:
        return not self.account

    def is_one_of(self, canonical: frozenset[str]) -> bool:
        """Whether one of these canonical ids is its account's."""
        return not self.anonymous and (self.user_id in canonical or not self.ids.isdisjoint(canonical))

    @property
    def arn(self) -> str:
        return f"arn:aws:iam::{self.account}:{self.name if self.name == 'root' else f'user/{self.name}'}"


class Ask(NamedTuple):
    caller: Caller
    action: str          # as in the operation table: "s3:GetObject"
    resource: str        # ARN
    context: Context


class Principals(NamedTuple):
    """Whom a statement names. Federated users are known words that no caller here answers to."""

    everyone: bool = False
    accounts: frozenset[str] = frozenset()     # by account id, or the ARN of its root
    users: frozenset[tuple[str, str]] = frozenset()   # (account, name)
    canonical: frozenset[str] = frozenset()
    services: frozenset[str] = frozenset()

    def name(self, caller: Caller, *, directly: bool = False) -> bool:
        """`directly`: not just its account, of which it is a part with less rights."""
        if self.everyone:
            return True
        if caller.anonymous:
            return caller.service in self.services
        if (caller.account, caller.name) in self.users:
            return True
        account = caller.account in self.accounts or caller.is_one_of(self.canonical)
        return account and not (directly and caller.limited)


class Statement(NamedTuple):
    number: int                              # counted from 1
    sid: str
    allows: bool
    principals: Principals | None            # None in a user's policy
    but_principals: bool                     # NotPrincipal: all others
    actions: tuple[Pattern, ...]
    but_actions: bool
    resources: tuple[Pattern, ...]
    but_resources: bool
    conditions: tuple[Condition, ...]

    @property
    def called(self) -> str:
        return f"statement {self.number}{f' ({self.sid})' if self.sid else ''}"

    def speaks_of(self, ask: Ask) -> bool:
        """Whether action, resource and all conditions fit. Principals are looked at elsewhere."""
        action, context = ask.action.lower(), ask.context
        if any(pattern.matches(action, context) for pattern in self.actions) is self.but_actions:
            return False
        if any(pattern.matches(ask.resource, context) for pattern in self.resources) is self.but_resources:
            return False
        return all(condition.holds(context) for condition in self.conditions)

    def names(self, caller: Caller, *, directly: bool) -> bool:
        """Whether it is about this caller. A NotPrincipal that names an account leaves out what has all its rights."""
        if self.principals is None:
            return True
        if self.but_principals:
            return not self.principals.name(caller, directly=True)
        return self.principals.name(caller, directly=directly)


class Policy(NamedTuple):
    statements: tuple[Statement, ...]
    id: str = ""


class Verdict(NamedTuple):
    denied: Statement | None = None
    allowed: Statement | None = None


NOTHING = Verdict()


def evaluate(policy: Policy, ask: Ask, *, own_account: bool = False) -> Verdict:
    """`own_account`: the policy is of a bucket of the caller's own account. There, an Allow for the account as a whole leaves it
    to the account which of its users may; a Deny for it is for all of them."""
    allowed = None
    for statement in policy.statements:
        if statement.allows and allowed is not None:
            continue
        if statement.names(ask.caller, directly=own_account and statement.allows) and statement.speaks_of(ask):
            if not statement.allows:
                return Verdict(denied=statement)
            allowed = statement
    return Verdict(allowed=allowed)
