"""The one decision of a request: may this caller do this action here? (docs/ACCESS.md tells it in prose.)

    user policies + bucket policy + access lists, under object ownership and public access block -> Decision

A *case* is everything that is known about one request and what it is about; `decide` is a pure function of a case and an
action. Whatever is not allowed by something is denied. Why it was, only logs and admins learn (`staddle explain`).

The rules, in order:
1. A Deny of any policy that applies ends it. Only the bucket policy itself can always be read, replaced and removed by
   identities that have all rights of the owning account: nobody locks himself out for good.
2. An identity without policies of its own has all rights of its account; one with policies has what they allow.
3. Who has the right by himself, in the account that owns the resource, may. For another account both sides must allow it.
4. An object that another account owns (only where access lists are on) is its owner's: a bucket policy can deny it, but only
   the object's owner and its list can allow it.
5. Access lists count unless the bucket's owner owns everything.
"""

from collections.abc import Iterable
from typing import NamedTuple

from consensus.core.model import Bucket, ObjectVersion
from gateway.bucket_access import Rules
from gateway.identities import IdentityStore
from gateway.s3 import acl as lists
from gateway.s3.policy.actions import KIND_OF, OF_EXISTING_OBJECTS
from gateway.s3.policy.evaluation import NOTHING, Ask, Caller, Context, Policy, Verdict, evaluate


class Case(NamedTuple):
    """`version` is None where there is none, or where the action isn't about one that exists. `bucket` None: the account's
    own matters (CreateBucket, ListBuckets)."""

    caller: Caller
    policies: tuple[tuple[str, Policy], ...]     # of the caller: name, policy
    context: Context
    bucket: Bucket | None = None
    bucket_name: str = ""
    rules: Rules | None = None
    key: str = ""
    version: ObjectVersion | None = None
    owner_account: str = ""                      # of the version
    creates: bool = False                        # the operation makes the object that its actions are about
    initiator: str = ""                          # canonical id of who began the upload that the action is about


class Decision(NamedTuple):
    allowed: bool
    why: str


LOCKED_OUT_NEVER = frozenset({"s3:GetBucketPolicy", "s3:PutBucketPolicy", "s3:DeleteBucketPolicy"})

_BUCKET_LIST: dict[str, frozenset[str]] = {
    "READ": frozenset({"s3:ListBucket", "s3:ListBucketVersions", "s3:ListBucketMultipartUploads"}),
    "WRITE": frozenset({"s3:PutObject", "s3:DeleteObject", "s3:AbortMultipartUpload", "s3:ListMultipartUploadParts"}),
    "READ_ACP": frozenset({"s3:GetBucketAcl"}),
    "WRITE_ACP": frozenset({"s3:PutBucketAcl"}),
}
_OBJECT_LIST: dict[str, frozenset[str]] = {
    "READ": frozenset({"s3:GetObject", "s3:GetObjectVersion", "s3:GetObjectTorrent", "s3:GetObjectVersionTorrent"}),
    "READ_ACP": frozenset({"s3:GetObjectAcl", "s3:GetObjectVersionAcl"}),
    "WRITE_ACP": frozenset({"s3:PutObjectAcl", "s3:PutObjectVersionAcl"}),
}
_OF_UPLOADS = frozenset({"s3:AbortMultipartUpload", "s3:ListMultipartUploadParts"})
"""An access list lets everybody who may write have and abort his own uploads; those of others a policy may allow."""

_BESIDE_CREATION = frozenset({"s3:PutObjectAcl", "s3:PutObjectTagging"})
"""What a creation asks for about its own object: who may write into the bucket by its list may say that too."""


def owner_account(identities: IdentityStore, bucket: Bucket, owner: str) -> str:
    """Of a version's owner (a canonical id). "" for one who is nobody (any more): then the bucket's account decides."""
    if owner == bucket.owner:
        return bucket.account
    identity = identities.by_user_id(owner)
    return "" if identity is None else identity.account


def caller_of(identities: IdentityStore, account: str, name: str, user_id: str, *, limited: bool) -> Caller:
    return Caller(account, name, user_id, limited, identities.ids_of(account))


def resource_of(action: str, bucket: str, key: str) -> str:
    """The ARN that an action is about."""
    kind = KIND_OF[action.lower()]
    if kind == "account":
        return "arn:aws:s3:::*"
    return f"arn:aws:s3:::{bucket}/{key}" if kind == "object" else f"arn:aws:s3:::{bucket}"


def decide(case: Case, action: str) -> Decision:
    caller, bucket = case.caller, case.bucket
    ask = Ask(caller, action, resource_of(action, case.bucket_name, case.key), case.context)
    own_name, own_verdict = _by_user_policies(case.policies, ask)
    if own_verdict.denied is not None:
        return Decision(False, f"{own_name}: {own_verdict.denied.called} denies it")
    by_itself = not caller.anonymous and (not caller.limited or own_verdict.allowed is not None)
    how = f"{own_name}: {own_verdict.allowed.called} allows it" if own_verdict.allowed is not None else (
        "the identity has no policies, so it has all rights of its account")
    if bucket is None or case.rules is None:
        if by_itself:
            return Decision(True, how)
        return Decision(False, _nothing(case))
    own = not caller.anonymous and caller.account == bucket.account
    if own and not caller.limited and action in LOCKED_OUT_NEVER:
        return Decision(True, "the owning account always reaches the bucket policy")
    verdict = NOTHING if case.rules.policy is None else evaluate(case.rules.policy, ask, own_account=own)
    if verdict.denied is not None:
        return Decision(False, f"bucket policy: {verdict.denied.called} denies it")
    allowed = (_by_owner(case, action, by_itself, how) or _by_initiator(case, action, by_itself, how)
               or _by_bucket(case, action, verdict, by_itself, how, own) or _by_list(case, action, by_itself))
    return Decision(True, allowed) if allowed else Decision(False, _nothing(case, verdict, own))


def _by_user_policies(policies: tuple[tuple[str, Policy], ...], ask: Ask) -> tuple[str, Verdict]:
    """The verdict of all together, and the name of the policy that it comes from."""
    found = "", NOTHING
    for name, policy in policies:
        verdict = evaluate(policy, ask)
        if verdict.denied is not None:
            return f"user policy {name!r}", verdict
        if verdict.allowed is not None:
            found = f"user policy {name!r}", verdict
    return found


def _foreign(case: Case, action: str) -> bool:
    """Whether it is about an object that another account owns."""
    assert case.bucket is not None
    assert case.rules is not None
    return (case.version is not None and not case.rules.acls_off and action in OF_EXISTING_OBJECTS
            and case.owner_account not in ("", case.bucket.account))


def _by_owner(case: Case, action: str, by_itself: bool, how: str) -> str:
    """An object that isn't the bucket owner's: its owner may do everything with it."""
    if by_itself and _foreign(case, action) and case.caller.account == case.owner_account:
        return f"the object belongs to the caller's account, and {how}"
    return ""


def _by_initiator(case: Case, action: str, by_itself: bool, how: str) -> str:
    """An upload that the caller has begun: whoever owns the bucket."""
    if by_itself and action in _OF_UPLOADS and _began(case):
        return f"the caller's account began the upload, and {how}"
    return ""


def _began(case: Case) -> bool:
    return bool(case.initiator) and case.caller.is_one_of(frozenset({case.initiator}))


def _by_bucket(case: Case, action: str, verdict: Verdict, by_itself: bool, how: str, own: bool) -> str:
    assert case.rules is not None
    if _foreign(case, action):
        return ""
    if own and by_itself:
        return f"the bucket belongs to the caller's account, and {how}"
    if verdict.allowed is None or (not own and case.rules.public and case.rules.blocked.restrict):
        return ""
    if own or by_itself or case.caller.anonymous:
        return f"bucket policy: {verdict.allowed.called} allows it"
    return ""


def _by_list(case: Case, action: str, by_itself: bool) -> str:
    assert case.bucket is not None
    assert case.rules is not None
    if case.rules.acls_off:
        return ""
    of_object = KIND_OF[action.lower()] == "object"
    if case.version is not None and of_object and action in OF_EXISTING_OBJECTS:
        what, owner, acl = "the object's access list", case.version.owner, case.version.attributes.acl
        wanted = _permission(action, _OBJECT_LIST)
    else:
        what, owner, acl = "the bucket's access list", case.bucket.owner, case.rules.acl
        wanted = "WRITE" if case.creates and action in _BESIDE_CREATION else _permission(action, _BUCKET_LIST)
    if wanted is None or (action in _OF_UPLOADS and not _began(case)):
        return ""
    for grantee, permission in lists.owned_by(owner) if acl is None else acl:
        if permission in (wanted, lists.FULL_CONTROL) and _is(grantee, case, by_itself):
            return f"{what} grants {permission} to {grantee}"
    return ""


def _permission(action: str, of: dict[str, frozenset[str]]) -> str | None:
    return next((permission for permission, actions in of.items() if action in actions), None)


def _is(grantee: str, case: Case, by_itself: bool) -> bool:
    assert case.rules is not None
    if grantee in lists.PUBLIC:
        return not case.rules.blocked.ignore_acls and (grantee == lists.ALL_USERS or not case.caller.anonymous)
    return by_itself and case.caller.is_one_of(frozenset({grantee.removeprefix("id:")}))


def _nothing(case: Case, verdict: Verdict = NOTHING, own: bool = False) -> str:
    """Why nothing allows it, for those who may know."""
    if verdict.allowed is not None:
        if not own and case.rules is not None and case.rules.public and case.rules.blocked.restrict:
            return (f"bucket policy: {verdict.allowed.called} would allow it, but the policy is public and the public access "
                    "block restricts it to the owning account")
        return f"bucket policy: {verdict.allowed.called} would allow it, but no policy of the caller's own account does"
    if case.caller.anonymous:
        return "no statement and no grant allows it to everyone"
    if case.caller.limited:
        return "no statement of the user's policies allows it, nor does the bucket"
    return "the bucket belongs to another account, which has not allowed it"


def first_refusal(case: Case, actions: Iterable[str]) -> Decision | None:
    """The first of them that is denied; None if all are allowed."""
    for action in actions:
        decision = decide(case, action)
        if not decision.allowed:
            return Decision(False, f"{action}: {decision.why}")
    return None


