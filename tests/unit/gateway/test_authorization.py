"""The decision, over all combinations of what counts: each rule by itself, and that nothing else lets anybody in."""

import itertools
import json

import pytest

from consensus.core.ids import BucketId, VersionId
from consensus.core.model import Attributes, Bucket, ObjectVersion
from gateway.authorization import Case, decide, owner_account
from gateway.bucket_access import ALL_BLOCKED, ENFORCED, NO_BLOCK, WRITER, Block, Rules, defaults
from gateway.identities import Identity, IdentityStore
from gateway.s3.acl import ALL_USERS, AUTHENTICATED_USERS, owned_by
from gateway.s3.policy.actions import KIND_OF, OF_EXISTING_OBJECTS, SPELLING
from gateway.s3.policy.evaluation import Caller, Policy
from gateway.s3.policy.public import is_public
from gateway.s3.policy.read import bucket_policy, user_policy

BUCKET = Bucket(id=BucketId(1), name="bucket", account="1", owner="owner", created_ms=0, region="")
OWNER, USER = Caller("1", "root", "owner"), Caller("1", "user", "user", limited=True)
OTHER, OTHERS_USER, NOBODY = Caller("2", "root", "other"), Caller("2", "carl", "carl", limited=True), Caller()
CALLERS = (OWNER, USER, OTHER, OTHERS_USER, NOBODY)


def user(effect: str, action: str = "s3:*") -> tuple[str, Policy]:
    return "p", user_policy(json.dumps({"Statement": {"Effect": effect, "Action": action, "Resource": "*"}}).encode())


def of_bucket(effect: str, principal: object, action: str = "s3:*") -> Policy:
    return bucket_policy(json.dumps({"Statement": {
        "Effect": effect, "Principal": principal, "Action": action,
        "Resource": ["arn:aws:s3:::bucket", "arn:aws:s3:::bucket/*"]}}).encode(), "bucket")


def rules(policy: Policy | None = None, ownership: str = ENFORCED, block: Block = NO_BLOCK, acl: object = None) -> Rules:
    return Rules(ownership, block, None, policy, policy is not None and is_public(policy), acl)  # type: ignore[arg-type]


def version(owner: str = "owner", acl: object = None) -> ObjectVersion:
    return ObjectVersion(key="key", version_id=VersionId("null"), order=1, modified_ms=0, owner=owner,
                         attributes=Attributes(acl=acl))  # type: ignore[arg-type]


def case(caller: Caller, said: Rules, *policies: tuple[str, Policy], of: ObjectVersion | None = None, owner: str = "1") -> Case:
    return Case(caller, policies, {}, BUCKET, "bucket", said, "key", of, owner if of is not None else "")


def who(said: Rules, action: str, *policies: tuple[str, Policy], of: ObjectVersion | None = None, owner: str = "1") -> set[str]:
    """Names of those who may; limited callers have these policies."""
    return {caller.name or "nobody" if caller.account != "2" or caller.limited else "other" for caller in CALLERS
            if decide(case(caller, said, *(policies if caller.limited else ()), of=of, owner=owner), action).allowed}


ABOUT_BUCKETS = [SPELLING[action] for action, kind in KIND_OF.items() if kind != "account" and action != "s3:createbucket"]


@pytest.mark.parametrize("action", ABOUT_BUCKETS)
def test_by_default_only_the_owning_account_with_all_rights_gets_in(action: str) -> None:
    for said in (rules(), rules(ownership=WRITER), rules(block=ALL_BLOCKED), defaults("ObjectWriter", False)):
        assert who(said, action) == {"root"}
        assert who(said, action, user("Allow", "s3:CreateBucket")) == {"root"}
        assert who(said, action, of=version()) == {"root"}


@pytest.mark.parametrize("action", ABOUT_BUCKETS)
def test_a_statement_opens_just_its_action(action: str) -> None:
    other = next(each for each in ABOUT_BUCKETS if each != action and KIND_OF[each.lower()] == KIND_OF[action.lower()])
    everyone = {"root", "user", "other", "nobody"}
    assert who(rules(of_bucket("Allow", "*", action)), action) == everyone
    assert who(rules(of_bucket("Allow", "*", action)), action, user("Allow")) == everyone | {"carl"}
    assert who(rules(of_bucket("Allow", "*", action)), other) == {"root"}
    assert who(rules(of_bucket("Allow", "*", action), block=Block(restrict=True)), action) == {"root", "user"}
    assert who(rules(of_bucket("Allow", {"AWS": "2"}, action)), action) == {"root", "other"}
    assert who(rules(), action, user("Allow", action)) == {"root", "user"}
    always = {"root"} if action in ("s3:GetBucketPolicy", "s3:PutBucketPolicy", "s3:DeleteBucketPolicy") else set()
    assert who(rules(of_bucket("Deny", "*", action)), action, user("Allow")) == always
    assert who(rules(of_bucket("Allow", "*", action)), action, user("Deny", action)) == everyone - {"user"}


@pytest.mark.parametrize("action", sorted(OF_EXISTING_OBJECTS))
def test_an_object_of_another_account_is_that_accounts(action: str) -> None:
    theirs = version("other")
    public = rules(of_bucket("Allow", "*"), ownership=WRITER)
    assert who(public, action, user("Allow"), of=theirs, owner="2") == {"other", "carl"}, "a bucket policy can't give it away"
    assert who(rules(of_bucket("Deny", "*"), ownership=WRITER), action, user("Allow"), of=theirs, owner="2") == set()
    assert "root" in who(rules(), action, of=theirs, owner="2"), "where lists are off, all is the bucket owner's"
    granted = version("other", (*owned_by("other"), ("id:owner", "FULL_CONTROL")))
    of_lists = {"s3:GetObject", "s3:GetObjectVersion", "s3:GetObjectTorrent", "s3:GetObjectVersionTorrent", "s3:GetObjectAcl",
                "s3:GetObjectVersionAcl", "s3:PutObjectAcl", "s3:PutObjectVersionAcl"}
    assert ("root" in who(rules(ownership=WRITER), action, of=granted, owner="2")) is (action in of_lists)


def test_lists_grant_what_they_say_and_nothing_more() -> None:
    reads = {"s3:GetObject", "s3:GetObjectVersion", "s3:GetObjectTorrent", "s3:GetObjectVersionTorrent"}
    lists = {"s3:ListBucket", "s3:ListBucketVersions", "s3:ListBucketMultipartUploads"}
    writes = {"s3:PutObject", "s3:DeleteObject"}         # and what was begun by oneself: the next test
    for permission, of_object, of_a_bucket in (
            ("READ", reads, lists), ("WRITE", set(), writes), ("READ_ACP", {"s3:GetObjectAcl", "s3:GetObjectVersionAcl"},
            {"s3:GetBucketAcl"}), ("WRITE_ACP", {"s3:PutObjectAcl", "s3:PutObjectVersionAcl"}, {"s3:PutBucketAcl"})):
        public = ((ALL_USERS, permission),)
        on = rules(ownership=WRITER)
        assert {action for action in ABOUT_BUCKETS if "nobody" in who(on, action, of=version(acl=public))} == of_object
        assert {action for action in ABOUT_BUCKETS if "nobody" in who(rules(ownership=WRITER, acl=public), action)} == of_a_bucket
        known = ((AUTHENTICATED_USERS, permission),)
        for action, block in itertools.product(ABOUT_BUCKETS, (NO_BLOCK, Block(ignore_acls=True))):
            found = who(rules(ownership=WRITER, acl=known, block=block), action)
            assert found == ({"root", "user", "other", "carl"} if action in of_a_bucket and block == NO_BLOCK else {"root"})
            assert who(rules(ownership=ENFORCED, acl=public), action, of=version(acl=public)) == {"root"}


@pytest.mark.parametrize("action", ["s3:AbortMultipartUpload", "s3:ListMultipartUploadParts"])
def test_an_upload_is_its_initiators_and_the_bucket_owners(action: str) -> None:
    def may(said: Rules, initiator: str, *policies: tuple[str, Policy]) -> set[str]:
        return {caller.name or "nobody" if caller.account != "2" or caller.limited else "other" for caller in CALLERS if decide(
            case(caller, said, *(policies if caller.limited else ()))._replace(initiator=initiator), action).allowed}

    writers = rules(ownership=WRITER, acl=((ALL_USERS, "WRITE"),))
    assert may(writers, "owner") == {"root"}, "who may write may not abort what others upload"
    assert may(writers, "other") == {"root", "other"}
    assert may(rules(), "other") == {"root", "other"}, "also where only a policy lets them write"
    assert may(rules(), "carl") == {"root"}, "whose policies don't allow it may not"
    assert may(rules(), "carl", user("Allow", action)) == {"root", "user", "carl"}
    assert may(rules(of_bucket("Deny", "*", action)), "other") == set()
    assert may(rules(of_bucket("Allow", {"AWS": "2"}, action)), "owner") == {"root", "other"}
    assert may(writers, "") == {"root"}


def test_a_grant_to_an_account_is_for_those_whom_their_policies_let() -> None:
    said = rules(ownership=WRITER, acl=(("id:carl", "READ"),))
    assert who(said, "s3:ListBucket") == {"root"}
    assert who(said, "s3:ListBucket", user("Allow", "s3:ListBucket")) == {"root", "user", "carl"}
    assert who(rules(of_bucket("Deny", {"AWS": "2"}), WRITER, acl=((ALL_USERS, "READ"),)), "s3:ListBucket") == {
        "root", "user", "nobody"}


def test_owners_that_are_nobody_any_more() -> None:
    known = IdentityStore([Identity(name="o", account="2", user_id="other", access_key="A", secret_key="s")])
    assert [owner_account(known, BUCKET, owner) for owner in ("owner", "other", "gone")] == ["1", "2", ""]
    assert "root" in who(rules(ownership=WRITER), "s3:GetObject", of=version("gone"), owner="")


def test_why_is_said() -> None:
    said = rules(of_bucket("Allow", "*"), block=Block(restrict=True))
    assert "restricts it to the owning account" in decide(case(NOBODY, said), "s3:GetObject").why
    assert "own account" in decide(case(OTHERS_USER, rules(of_bucket("Allow", {"AWS": "2"}))), "s3:GetObject").why
    assert "another account" in decide(case(OTHER, rules()), "s3:GetObject").why
