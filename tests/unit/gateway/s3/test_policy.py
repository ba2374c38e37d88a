"""The policy engine: AWS's documented examples, every operator's truth table, what is refused when it is put."""

import json
import re
import time
from typing import Any

import pytest

from gateway.http.body import NO_BODY
from gateway.s3.errors import S3Error
from gateway.s3.operations import OPERATION
from gateway.s3.policy.actions import needed
from gateway.s3.policy.context import CONTINUES, How, of_request, of_upload, said_of_upload
from gateway.s3.policy.evaluation import Ask, Caller, Verdict, evaluate
from gateway.s3.policy.patterns import pattern
from gateway.s3.policy.public import is_public
from gateway.s3.policy.read import MANAGED, bucket_policy, of_identity, user_policy
from gateway.s3.request import S3Request

ROOT = Caller("111122223333", "root", "root-id")
ANN = Caller("111122223333", "ann", "ann-id", limited=True)
OTHER = Caller("444455556666", "bob", "bob-id")
OTHERS_USER = Caller("444455556666", "carl", "carl-id", limited=True)
NOBODY = Caller()
BUCKET = "amzn-s3-demo-bucket"


def policy(*statements: dict[str, Any], version: str | None = "2012-10-17", of_user: bool = False) -> Any:
    filled = [{"Effect": "Allow", **({} if of_user or "NotPrincipal" in each else {"Principal": "*"}),
               **({} if "NotAction" in each else {"Action": "s3:GetObject"}),
               **({} if "NotResource" in each else {"Resource": f"arn:aws:s3:::{BUCKET}/*"}), **each} for each in statements]
    document = json.dumps({**({"Version": version} if version else {}), "Statement": filled}).encode()
    return user_policy(document) if of_user else bucket_policy(document, BUCKET)


def verdict(
    read: Any, caller: Caller = NOBODY, action: str = "s3:GetObject", key: str = "key", own_account: bool = False, **context: Any,
) -> str:
    keys = {name.replace("__", ":", 1).replace("___", "/").replace("_", "-"): (value,) if isinstance(value, str) else tuple(value)
            for name, value in context.items()}
    resource = f"arn:aws:s3:::{BUCKET}" + (f"/{key}" if key else "")
    found: Verdict = evaluate(read, Ask(caller, action, resource, keys), own_account=own_account)
    return "deny" if found.denied else "allow" if found.allowed else "nothing"


def holds(condition: dict[str, Any], **context: Any) -> bool:
    return verdict(policy({"Condition": condition}), **context) == "allow"


# Principals

@pytest.mark.parametrize(("principal", "allowed"), [
    ("*", [NOBODY, ROOT, ANN, OTHER, OTHERS_USER]), ({"AWS": "*"}, [NOBODY, ROOT, ANN, OTHER, OTHERS_USER]),
    ({"AWS": "444455556666"}, [OTHER, OTHERS_USER]), ({"AWS": "arn:aws:iam::444455556666:root"}, [OTHER, OTHERS_USER]),
    ({"AWS": ["arn:aws:iam::444455556666:user/bob"]}, [OTHER]), ({"AWS": "arn:aws:iam::444455556666:user/team/bob"}, [OTHER]),
    ({"CanonicalUser": "carl-id"}, [OTHERS_USER]), ({"Service": "logging.s3.amazonaws.com"}, []),
    ({"AWS": "arn:aws:iam::444455556666:role/bob"}, []), ({"Federated": "cognito-identity.amazonaws.com"}, []),
    ({"AWS": ["444455556666", "111122223333"]}, [ROOT, ANN, OTHER, OTHERS_USER]),
])
def test_principals(principal: Any, allowed: list[Caller]) -> None:
    read = policy({"Principal": principal})
    assert [caller for caller in (NOBODY, ROOT, ANN, OTHER, OTHERS_USER) if verdict(read, caller) == "allow"] == allowed


def test_an_account_leaves_it_to_itself_which_of_its_users_may() -> None:
    read = policy({"Principal": {"AWS": "111122223333"}})
    assert verdict(read, ANN, own_account=True) == "nothing"
    assert verdict(read, ROOT, own_account=True) == "allow"
    assert verdict(policy({"Principal": {"AWS": "arn:aws:iam::111122223333:user/ann"}}), ANN, own_account=True) == "allow"
    assert verdict(policy({"Principal": "*"}), ANN, own_account=True) == "allow"
    assert verdict(policy({"Effect": "Deny", "Principal": {"AWS": "111122223333"}}), ANN, own_account=True) == "deny"


def test_not_principal() -> None:
    """AWS, "NotPrincipal": who is denied is everybody else, and that includes the users of an account that is named."""
    read = policy({"Effect": "Deny", "NotPrincipal": {"AWS": ["arn:aws:iam::444455556666:user/bob", "444455556666"]}})
    assert {caller.name: verdict(read, caller) for caller in (NOBODY, ROOT, OTHER, OTHERS_USER)} == {
        "": "deny", "root": "deny", "bob": "nothing", "carl": "deny"}


# Actions and resources

@pytest.mark.parametrize(("statement", "action", "key", "wanted"), [
    ({"Action": "s3:*"}, "s3:PutObject", "a", True), ({"Action": "*"}, "s3:PutObject", "a", True),
    ({"Action": "S3:getobject"}, "s3:GetObject", "a", True), ({"Action": "s3:Get*"}, "s3:PutObject", "a", False),
    ({"Action": "s3:GetObject?cl"}, "s3:GetObjectAcl", "a", True), ({"NotAction": "s3:Put*"}, "s3:GetObject", "a", True),
    ({"NotAction": ["s3:Put*", "s3:GetObject"]}, "s3:GetObject", "a", False),
    ({"Resource": f"arn:aws:s3:::{BUCKET}/home/*"}, "s3:GetObject", "home/a/b", True),
    ({"Resource": f"arn:aws:s3:::{BUCKET}/home/*"}, "s3:GetObject", "home", False),
    ({"Resource": f"arn:aws:s3:::{BUCKET}/*.jp?g"}, "s3:GetObject", "a/b.jpeg", True),
    ({"Resource": f"arn:aws:s3:::{BUCKET}/*.jp?g"}, "s3:GetObject", "a/b.jpg", False),
    ({"Resource": f"arn:aws:s3:::{BUCKET}/a\nb"}, "s3:GetObject", "a\nb", True),
    ({"NotResource": f"arn:aws:s3:::{BUCKET}/private/*"}, "s3:GetObject", "public", True),
    ({"Resource": f"arn:aws:s3:::{BUCKET}/a:::b"}, "s3:GetObject", "a:::b", True),
    ({"NotResource": f"arn:aws:s3:::{BUCKET}/private/*"}, "s3:GetObject", "private/x", False),
    ({"Action": "s3:*", "Resource": f"arn:aws:s3:::{BUCKET}/*"}, "s3:ListBucket", "", False),
    ({"Action": "s3:ListBucket", "Resource": f"arn:aws:s3:::{BUCKET}"}, "s3:ListBucket", "", True),
    ({"Action": "s3:*", "Resource": f"arn:aws:s3:::{BUCKET}*"}, "s3:GetObject", "a", True),
])
def test_actions_and_resources(statement: dict[str, Any], action: str, key: str, wanted: bool) -> None:
    assert (verdict(policy(statement), action=action, key=key) == "allow") is wanted


def test_a_deny_wins_wherever_it_stands() -> None:
    deny = {"Effect": "Deny", "Resource": f"arn:aws:s3:::{BUCKET}/secret"}
    for read in (policy({}, deny), policy(deny, {})):
        assert (verdict(read), verdict(read, key="secret"), verdict(read, action="s3:PutObject")) == ("allow", "deny", "nothing")


# Variables

HOME = f"arn:aws:s3:::{BUCKET}/home/${{aws:username}}/*"


def test_variables() -> None:
    read = policy({"Resource": HOME})
    assert verdict(read, key="home/ann/x", aws__username="ann") == "allow"
    assert verdict(read, key="home/bob/x", aws__username="ann") == "nothing"
    assert verdict(read, key="home/ann/x") == "nothing", "no name, no home"
    assert verdict(read, key="home/bob/x", aws__username="*") == "nothing", "a value is never a wildcard"
    assert verdict(policy({"Resource": HOME}, version="2008-10-17"), key="home/ann/x", aws__username="ann") == "nothing"
    assert verdict(policy({"Resource": HOME}, version=None), key="home/${aws:username}/x") == "allow"
    fallback = policy({"Resource": HOME.replace("username", "username, 'guest'")})
    assert verdict(fallback, key="home/guest/x") == "allow"
    literal = policy({"Resource": f"arn:aws:s3:::{BUCKET}/${{*}}${{?}}${{$}}"})
    assert (verdict(literal, key="*?$"), verdict(literal, key="ab$")) == ("allow", "nothing")
    assert holds({"StringEquals": {"aws:UserAgent": "${aws:username}/1"}}, aws__username="ann", aws__useragent="ann/1")


# Conditions: value in the request, value in the policy

@pytest.mark.parametrize(("operator", "value", "wanted", "fits"), [
    ("String{}Equals", "a", "a", True), ("String{}Equals", "A", "a", False), ("String{}Equals", "ab", "a*", False),
    ("String{}EqualsIgnoreCase", "A", "a", True), ("String{}EqualsIgnoreCase", "b", "a", False),
    ("String{}Like", "abc", "a*c", True), ("String{}Like", "abc", "a?c", True), ("String{}Like", "Abc", "a*", False),
    ("Numeric{}Equals", "10", "10.0", True), ("Numeric{}Equals", "10", "11", False),
    ("Date{}Equals", "2026-01-01T00:00:00.000Z", "2026-01-01T00:00:00Z", True),
    ("Date{}Equals", "2026-01-01T00:00:00.000Z", "2026-01-02T00:00:00Z", False),
    ("Arn{}Equals", "arn:aws:iam::1:user/a", "arn:aws:iam::1:user/*", True),
    ("Arn{}Like", "arn:aws:iam::1:user/a", "arn:aws:iam::*:user/a", True),
    ("Arn{}Like", "arn:aws:iam::1:user/a", "arn:*:user/a", False),
    ("{}IpAddress", "203.0.113.7", "203.0.113.0/24", True), ("{}IpAddress", "203.0.114.7", "203.0.113.0/24", False),
    ("{}IpAddress", "::ffff:203.0.113.7", "203.0.113.0/24", True), ("{}IpAddress", "2001:db8::1", "2001:db8::/32", True),
    ("{}IpAddress", "203.0.113.7", "203.0.113.7", True),
])
def test_operators_and_their_negations(operator: str, value: str, wanted: str, fits: bool) -> None:
    key = {"S": "aws:UserAgent", "N": "s3:signatureAge", "D": "aws:CurrentTime", "A": "aws:PrincipalArn"}.get(
        operator[0], "aws:SourceIp")
    given = {key.lower().replace(":", "__"): value}
    positive, negative = operator.format(""), operator.format("Not")
    assert holds({positive: {key: wanted}}, **given) is fits
    assert holds({negative: {key: wanted}}, **given) is not fits
    assert holds({positive: {key: ["192.0.2.1" if "Ip" in operator else wanted, wanted]}}, **given) is fits, "any of them"
    assert holds({positive: {key: wanted}}) is False, "what is not there fits nothing"
    assert holds({negative: {key: wanted}}) is True, "and is not equal to anything"
    assert holds({f"{positive}IfExists": {key: wanted}}) is True
    assert holds({f"{positive}IfExists": {key: wanted}}, **given) is fits


@pytest.mark.parametrize(("operator", "value", "fits"), [
    ("NumericLessThan", "9", True), ("NumericLessThan", "10", False), ("NumericLessThanEquals", "10", True),
    ("NumericGreaterThan", "11", True), ("NumericGreaterThan", "10", False), ("NumericGreaterThanEquals", "10", True),
    ("NumericGreaterThan", "ten", False), ("NumericLessThan", "ten", False), ("NumericLessThan", "NaN", False),
    ("DateLessThan", "1970-01-01T00:00:09Z", True), ("DateGreaterThan", "1970-01-01T00:00:11Z", True),
    ("DateGreaterThanEquals", "1970-01-01T00:00:10Z", True), ("DateLessThanEquals", "1970-01-01T00:00:11Z", False),
    ("Bool", "true", False), ("BinaryEquals", "MTA=", False),
])
def test_order(operator: str, value: str, fits: bool) -> None:
    wanted = {"B": "MTA="}.get(operator[0], "10") if operator != "Bool" else "false"
    key = "aws:CurrentTime" if operator.startswith("Date") else "s3:signatureAge"
    if operator == "BinaryEquals":
        value, fits = "MTA=", True
    assert holds({operator: {key: wanted}}, **{key.lower().replace(":", "__"): value}) is fits


@pytest.mark.parametrize(("given", "wanted", "fits"), [
    (None, "true", True), (None, "false", False), ("x", "true", False), ("x", "false", True),
])
def test_null(given: str | None, wanted: str, fits: bool) -> None:
    assert holds({"Null": {"aws:UserAgent": wanted}}, **({"aws__useragent": given} if given else {})) is fits


@pytest.mark.parametrize(("form", "given", "fits"), [
    ("ForAllValues:StringEquals", ("a", "b"), True), ("ForAllValues:StringEquals", ("a", "c"), False),
    ("ForAllValues:StringEquals", (), True), ("ForAnyValue:StringEquals", ("a", "c"), True),
    ("ForAnyValue:StringEquals", ("c", "d"), False), ("ForAnyValue:StringEquals", (), False),
    ("ForAllValues:StringNotEquals", ("c", "d"), True), ("ForAllValues:StringNotEquals", ("a", "d"), False),
    ("ForAnyValue:StringNotEquals", ("a", "d"), True), ("ForAnyValue:StringNotEquals", ("a", "b"), False),
    ("ForAnyValue:StringNotEquals", (), False), ("ForAnyValue:StringEqualsIfExists", (), True),
    ("forallvalues:stringlike", ("a", "b"), True),
])
def test_sets(form: str, given: tuple[str, ...], fits: bool) -> None:
    context = {"s3__requestobjecttagkeys": given} if given else {}
    assert holds({form: {"s3:RequestObjectTagKeys": ["a", "b"]}}, **context) is fits


def test_all_conditions_must_hold() -> None:
    both = {"StringEquals": {"aws:UserAgent": "a", "aws:Referer": "r"}, "Bool": {"aws:SecureTransport": True}}
    given = {"aws__useragent": "a", "aws__referer": "r", "aws__securetransport": "true"}
    assert holds(both, **given)
    for name in given:
        assert not holds(both, **{**given, name: "false"})


# AWS's examples

def test_restricting_to_addresses() -> None:
    """AWS, "Bucket policy examples": managing access based on specific IP addresses."""
    read = policy({"Effect": "Deny", "Action": "s3:*", "Condition": {"NotIpAddress": {"aws:SourceIp": "192.0.2.0/24"}}})
    assert verdict(read, aws__sourceip="192.0.2.5") == "nothing"
    assert verdict(read, aws__sourceip="203.0.113.5") == "deny"


def test_only_over_tls() -> None:
    read = policy({"Effect": "Deny", "Action": "s3:*", "Condition": {"Bool": {"aws:SecureTransport": "false"}}})
    assert (verdict(read, aws__securetransport="false"), verdict(read, aws__securetransport="true")) == ("deny", "nothing")


def test_full_control_must_be_given_to_the_owner() -> None:
    """AWS, "Granting cross-account permissions to upload objects while ensuring that the bucket owner has full control"."""
    read = policy({"Action": "s3:PutObject", "Principal": {"AWS": "444455556666"},
                   "Condition": {"StringEquals": {"s3:x-amz-acl": "bucket-owner-full-control"}}})
    assert verdict(read, OTHER, "s3:PutObject") == "nothing"
    assert verdict(read, OTHER, "s3:PutObject", **{"s3__x_amz_acl": "bucket-owner-full-control"}) == "allow"


def test_home_folders() -> None:
    """AWS, "Allows IAM users access to their S3 home directory"."""
    read = policy(
        {"Action": "s3:ListBucket", "Resource": f"arn:aws:s3:::{BUCKET}",
         "Condition": {"StringLike": {"s3:prefix": ["", "home/", "home/${aws:username}/*"]}}},
        {"Action": "s3:*", "Resource": f"arn:aws:s3:::{BUCKET}/home/${{aws:username}}/*"}, of_user=True)
    for prefix, allowed in (("", "allow"), ("home/", "allow"), ("home/ann/x", "allow"), ("home/bob/", "nothing")):
        assert verdict(read, ANN, "s3:ListBucket", "", s3__prefix=prefix, aws__username="ann") == allowed
    assert verdict(read, ANN, "s3:PutObject", "home/ann/x", aws__username="ann") == "allow"


# What is refused

STATEMENT = {"Effect": "Allow", "Principal": "*", "Action": "s3:GetObject", "Resource": f"arn:aws:s3:::{BUCKET}/*"}


def without(name: str) -> dict[str, Any]:
    return {key: value for key, value in STATEMENT.items() if key != name}


@pytest.mark.parametrize(("document", "message"), [
    (b"x", "first byte must be"), (b'{"Statement": [', "valid JSON"), (b'{"Statement": [], "Statement": []}', "valid JSON"),
    (b"{" * 10_000, "valid JSON"), (b"\xff{}", "first byte"), (b'{"a\xff": 1}', "valid JSON"),
    ({"Version": "2012-10-17"}, "Missing required field Statement"), ({"Statement": []}, "Statement cannot be empty"),
    ({"Version": "2020-01-01", "Statement": STATEMENT}, "valid version string"),
    ({"Statement": STATEMENT, "Extra": 1}, "Unknown field Extra"),
    ({"Statement": {**STATEMENT, "Efect": 1}}, "Unknown field Efect"),
    ({"Statement": without("Effect")}, "Missing required field Effect"),
    ({"Statement": {**STATEMENT, "Effect": "allow"}}, "Invalid effect : allow"),
    ({"Statement": without("Principal")}, "Missing required field Principal"),
    ({"Statement": {**STATEMENT, "NotPrincipal": "*"}}, "both Principal and NotPrincipal"),
    ({"Statement": {**STATEMENT, "Principal": {"AWS": "arn:aws:s3:::x"}}}, "Invalid principal in policy"),
    ({"Statement": {**STATEMENT, "Principal": {"Robot": "x"}}}, "Invalid principal in policy"),
    ({"Statement": {**STATEMENT, "Principal": {"AWS": []}}}, "Invalid principal in policy"),
    ({"Statement": {**STATEMENT, "Principal": {"AWS": "arn:aws:iam::1:user/*"}}}, "Invalid principal in policy"),
    ({"Statement": without("Action")}, "Statement is missing required element"),
    ({"Statement": {**STATEMENT, "Action": []}}, "Action cannot be empty"),
    ({"Statement": {**STATEMENT, "Action": "s3:GetObjects"}}, "Policy has invalid action"),
    ({"Statement": {**STATEMENT, "Action": "ec2:RunInstances"}}, "Policy has invalid action"),
    ({"Statement": {**STATEMENT, "Action": 7}}, "Policy has invalid action"),
    ({"Statement": without("Resource")}, "Statement is missing required element"),
    ({"Statement": {**STATEMENT, "Resource": "*"}}, "Policy has invalid resource"),
    ({"Statement": {**STATEMENT, "Resource": "arn:aws:s3:::another/*"}}, "Policy has invalid resource"),
    ({"Statement": {**STATEMENT, "Resource": f"arn:aws-cn:s3:::{BUCKET}/*"}}, "Policy has invalid resource"),
    ({"Statement": {**STATEMENT, "Resource": f"arn:aws:s3:::{BUCKET}x/*"}}, "Policy has invalid resource"),
    ({"Statement": {**STATEMENT, "Resource": f"arn:aws:s3:::{BUCKET}"}}, "Action does not apply to any resource(s)"),
    ({"Statement": {**STATEMENT, "Action": "s3:ListBucket"}}, "Action does not apply to any resource(s)"),
    ({"Statement": {**STATEMENT, "Action": "s3:ListAllMyBuckets"}}, "Action does not apply to any resource(s)"),
    ({"Statement": {**STATEMENT, "Condition": {"StringLikes": {"aws:Referer": "x"}}}}, "Invalid Condition type : StringLikes"),
    ({"Statement": {**STATEMENT, "Condition": {"NullIfExists": {"aws:Referer": "true"}}}}, "Invalid Condition type"),
    ({"Statement": {**STATEMENT, "Condition": {"ForSome:StringLike": {"aws:Referer": "x"}}}}, "Invalid Condition type"),
    ({"Statement": {**STATEMENT, "Condition": {"StringLike": {"aws:Refererr": "x"}}}}, "invalid condition key"),
    ({"Statement": {**STATEMENT, "Condition": {"StringLike": {"s3:ExistingObjectTag/": "x"}}}}, "invalid condition key"),
    ({"Statement": {**STATEMENT, "Condition": {"StringLike": {}}}}, "invalid condition"),
    ({"Statement": {**STATEMENT, "Condition": {"StringLike": {"aws:Referer": []}}}}, "invalid value"),
    ({"Statement": {**STATEMENT, "Condition": {"NumericEquals": {"s3:signatureAge": "ten"}}}}, "invalid value"),
    ({"Statement": {**STATEMENT, "Condition": {"IpAddress": {"aws:SourceIp": "1.2.3.4/40"}}}}, "invalid value"),
    ({"Statement": {**STATEMENT, "Condition": {"Bool": {"aws:SecureTransport": "maybe"}}}}, "invalid value"),
    ({"Statement": {**STATEMENT, "Condition": {"DateLessThan": {"aws:CurrentTime": "soon"}}}}, "invalid value"),
    ({"Statement": {**STATEMENT, "Condition": {"StringEquals": {"s3:prefix": "x"}}}}, "Conditions do not apply"),
    ({"Statement": [{**STATEMENT, "Sid": "a"}, {**STATEMENT, "Sid": "a"}]}, "must be unique"),
    ({"Statement": ["x"]}, "valid JSON"),
    ({"Version": "2012-10-17", "Statement": {**STATEMENT, "Resource": f"arn:aws:s3:::{BUCKET}/${{a b}}"}}, "policy variable"),
])
def test_what_is_not_understood_is_refused(document: Any, message: str) -> None:
    with pytest.raises(S3Error) as refused:
        bucket_policy(document if isinstance(document, bytes) else json.dumps(document).encode(), BUCKET)
    assert refused.value.code == "MalformedPolicy"
    assert message in refused.value.message


def test_policies_of_users() -> None:
    with pytest.raises(S3Error, match="principal"):
        user_policy(json.dumps({"Statement": STATEMENT}).encode())
    read = user_policy(json.dumps({"Statement": {
        "Effect": "Allow", "Action": ["s3:Get*", "ec2:*"], "Resource": "*"}}).encode())
    assert verdict(read, ANN) == "allow"
    for bad in ("s3:Nothing", "nothing", ""):
        with pytest.raises(S3Error, match="invalid action"):
            user_policy(json.dumps({"Statement": {"Effect": "Allow", "Action": bad, "Resource": "*"}}).encode())
    for name in MANAGED:
        assert of_identity(name)[0] == name
    assert of_identity("readers:" + MANAGED["AmazonS3ReadOnlyAccess"])[0] == "readers"


# Public or not

@pytest.mark.parametrize(("statement", "public"), [
    ({}, True), ({"Principal": {"AWS": "*"}}, True), ({"Principal": {"AWS": "1"}}, False), ({"Effect": "Deny"}, False),
    ({"NotPrincipal": {"AWS": "1"}}, True),
    ({"Condition": {"IpAddress": {"aws:SourceIp": "10.0.0.0/8"}}}, False),
    ({"Condition": {"IpAddress": {"aws:SourceIp": "0.0.0.0/1"}}}, True),
    ({"Condition": {"IpAddress": {"aws:SourceIp": ["10.0.0.1", "0.0.0.0/0"]}}}, True),
    ({"Condition": {"NotIpAddress": {"aws:SourceIp": "10.0.0.0/8"}}}, True),
    ({"Condition": {"StringEquals": {"aws:SourceVpc": "vpc-1"}}}, False),
    ({"Condition": {"StringLike": {"aws:SourceVpc": "vpc-*"}}}, True),
    ({"Condition": {"StringEqualsIfExists": {"aws:SourceVpc": "vpc-1"}}}, True),
    ({"Condition": {"StringNotEquals": {"aws:SourceVpc": "vpc-1"}}}, True),
    ({"Condition": {"StringEquals": {"aws:Referer": "https://example.com/"}}}, True),
    ({"Condition": {"Bool": {"aws:SecureTransport": "true"}}}, True),
])
def test_public(statement: dict[str, Any], public: bool) -> None:
    assert is_public(policy(statement)) is public


# What requests need

@pytest.mark.parametrize(("name", "query", "headers", "wanted"), [
    ("GetObject", {}, {}, "GetObject"), ("GetObject", {"versionId": "v"}, {}, "GetObjectVersion"),
    ("PutObject", {}, {"x-amz-tagging": "a=b", "x-amz-grant-read": "id=x"}, "PutObject PutObjectTagging PutObjectAcl"),
    ("PutObject", {}, {"x-amz-object-lock-mode": "GOVERNANCE", "x-amz-object-lock-legal-hold": "ON"},
     "PutObject PutObjectRetention PutObjectLegalHold"),
    ("PutObject", {}, {"x-amz-acl": "private"}, "PutObject PutObjectAcl"),
    ("PutObject", {}, {"x-amz-acl": "bucket-owner-full-control"}, "PutObject"),
    ("PutObject", {}, {"x-amz-acl": "bucket-owner-read", "x-amz-grant-read": "id=owner-id"}, "PutObject"),
    ("CopyObject", {}, {"x-amz-grant-full-control": 'id="owner-id"', "x-amz-grant-read": "id=owner-id"}, "PutObject"),
    ("PutObject", {}, {"x-amz-grant-full-control": "id=owner-id, id=x"}, "PutObject PutObjectAcl"),
    ("PutObject", {}, {"x-amz-grant-full-control": ""}, "PutObject"),
    ("PutObject", {}, {"if-match": "x"}, "PutObject GetObject"),
    ("DeleteObject", {"versionId": "v"}, {"x-amz-bypass-governance-retention": "True"},
     "DeleteObjectVersion BypassGovernanceRetention"),
    ("DeleteObject", {}, {"x-amz-bypass-governance-retention": "false"}, "DeleteObject"),
    ("GetObjectAttributes", {}, {}, "GetObjectAttributes GetObject"), ("HeadBucket", {}, {}, "ListBucket"),
    ("CreateBucket", {}, {"x-amz-bucket-object-lock-enabled": "true", "x-amz-acl": "private"},
     "CreateBucket PutBucketAcl PutBucketObjectLockConfiguration PutBucketVersioning"),
])
def test_actions_of_requests(name: str, query: dict[str, str], headers: dict[str, str], wanted: str) -> None:
    assert needed(OPERATION[name], query, headers, "owner-id") == tuple(f"s3:{each}" for each in wanted.split())


@pytest.mark.parametrize(("header", "key"), [
    ("/bucket/secret/a", "bucket/secret/a"), ("bucket/secret/a", "bucket/secret/a"), ("bucket/s%65cret/a", "bucket/secret/a"),
    ("%2Fbucket%2Fsecret%2fa", "bucket/secret/a"), ("bucket/a+b%20c", "bucket/a+b c"), ("bucket/%C3%A4", "bucket/\u00e4"),
    ("bucket/a%3Fb?versionId=v%31", "bucket/a?b?versionId=v1"), ("bucket/%zz", "bucket/%zz"),
])
def test_a_source_is_what_is_read_however_it_is_spelt(header: str, key: str) -> None:
    assert keys_of("CopyObject", {"x-amz-copy-source": header})["s3:x-amz-copy-source"] == (key,)


def keys_of(operation: str, headers: dict[str, str]) -> dict[str, tuple[str, ...]]:
    request = S3Request(id="", method="PUT", raw_path=b"/b/k", raw_query=b"", headers=headers, query={}, bucket="b", key="k",
                        host_style=False, secure=False, remote="", now_ms=0, body=NO_BODY)
    return of_request(request, operation, headers, NOBODY, How(), region="", resource_account="")


OF_OBJECTS = {
    "x-amz-tagging": "a=b", "x-amz-object-lock-mode": "COMPLIANCE", "x-amz-object-lock-retain-until-date": "2030-01-01T00:00:00Z",
    "x-amz-object-lock-legal-hold": "ON", "x-amz-storage-class": "GLACIER", "x-amz-acl": "private", "x-amz-grant-read": "id=x",
    "x-amz-website-redirect-location": "/x", "x-amz-metadata-directive": "COPY", "x-amz-object-ownership": "ObjectWriter",
}


@pytest.mark.parametrize(("operation", "directive", "heard"), [
    ("PutObject", "", "tags lock class acl"), ("PostObject", "", "tags lock class acl"),
    ("CreateMultipartUpload", "", "tags lock class acl"), ("CopyObject", "REPLACE", "tags lock class acl"),
    ("CopyObject", "COPY", "lock class acl"), ("CopyObject", "", "lock class acl"), ("PutObjectAcl", "", "acl"),
    ("PutBucketAcl", "", "acl"), ("CreateBucket", "", "acl ownership"), ("PutBucketOwnershipControls", "", ""),
    ("PutObjectTagging", "", ""), ("PutObjectRetention", "", ""),
    ("PutObjectLegalHold", "", ""), ("RenameObject", "", ""), ("UploadPart", "", ""), ("CompleteMultipartUpload", "", ""),
])
def test_headers_that_do_nothing_are_not_heard(operation: str, directive: str, heard: str) -> None:
    """Else a policy would take them for what it asks for."""
    found = keys_of(operation, {**OF_OBJECTS, **({"x-amz-tagging-directive": directive} if directive else {})})
    known = {"ownership": {"s3:x-amz-object-ownership"}, "tags": {"s3:requestobjecttag/a", "s3:requestobjecttagkeys"},
             "acl": {"s3:x-amz-acl", "s3:x-amz-grant-read"},
             "class": {"s3:x-amz-storage-class", "s3:x-amz-website-redirect-location", "s3:x-amz-metadata-directive"},
             "lock": {"s3:object-lock-mode", "s3:object-lock-retain-until-date", "s3:object-lock-remaining-retention-days",
                      "s3:object-lock-legal-hold"}}
    for what, keys in known.items():
        assert found.keys() & keys == (keys if what in heard.split() else set()), what


def test_an_upload_is_judged_by_what_it_was_begun_with() -> None:
    headers = {**OF_OBJECTS, "x-amz-server-side-encryption": "AES256", "content-type": "text/plain", "x-amz-meta-a": "b"}
    said = said_of_upload(headers)
    assert not {"content-type", "x-amz-meta-a", "x-amz-object-ownership"} & dict(said).keys(), "nobody asks for those"
    begun = keys_of("CreateMultipartUpload", headers)
    found = of_upload(said, 0)
    assert found == {key: value for key, value in begun.items() if key in found}, "word for word"
    assert not {key for key in begun if key.startswith(("s3:x-amz-", "s3:object-lock", "s3:requestobjecttag"))} - found.keys()
    for operation in CONTINUES:
        assert not keys_of(operation, headers).keys() & found.keys(), "their own headers say nothing"


# Patterns

def test_patterns_agree_with_their_definition() -> None:
    texts = ["", "a", "b", "ab", "ba", "aab", "abab", "a\nb", "a*b", "bbabab"]
    for text in ("", "*", "a*", "*b", "a*b", "*a*b*", "?", "a?b", "**", "*?*", "a*b*ab", "?*?", "*ab"):
        slow = re.compile("".join({"*": ".*", "?": "."}.get(each, re.escape(each)) for each in text), re.DOTALL)
        for each in texts:
            assert pattern(text).matches(each, {}) == bool(slow.fullmatch(each)), (text, each)


def test_no_pattern_takes_long() -> None:
    """Backtracking would take longer than the universe has existed."""
    hard = pattern("*a" * 200 + "b")
    began = time.process_time()
    assert not hard.matches("a" * 1024, {})
    assert time.process_time() - began < 0.5
