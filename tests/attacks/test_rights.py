"""Attacks on what somebody may do: policies that say more than they seem to, rights that are taken from elsewhere, origins
that are believed, addresses that a server is made to call."""

import base64
import hashlib
import json
import ssl
import time
from collections.abc import Iterator, Mapping
from urllib.parse import quote

import pytest

from gateway.s3.operations import BEYOND_MODEL, OPERATIONS
from gateway.s3.policy.actions import KIND_OF
from tests import signing
from tests.attacks.attacker import OTHER_ACCESS_KEY, VICTIM, Attacker
from tests.attacks.test_documents import form
from tests.clients.wire import Answer


def policy(*statements: Mapping[str, object]) -> bytes:
    return json.dumps({"Version": "2012-10-17", "Statement": list(statements)}).encode()


def put(attacker: Attacker, query: str, document: bytes) -> Answer:
    md5 = base64.b64encode(hashlib.md5(document, usedforsecurity=False).digest()).decode()
    return attacker.ask("PUT", f"{attacker.bucket}?{query}", {"content-md5": md5}, body=document)


@pytest.fixture
def unblocked(attacker: Attacker) -> Iterator[Attacker]:
    """Whose bucket takes public policies."""
    assert attacker.ask("DELETE", f"{attacker.bucket}?publicAccessBlock").status == 204
    yield attacker
    attacker.ask("DELETE", f"{attacker.bucket}?policy")


def arn(attacker: Attacker, key: str = "*") -> str:
    return f"arn:aws:s3:::{attacker.bucket[1:]}/{key}"


EVERYONE: dict[str, object] = {"Effect": "Allow", "Principal": "*", "Action": "s3:GetObject"}


def test_22_a_deny_wins_wherever_it_stands(unblocked: Attacker) -> None:
    allow = {**EVERYONE, "Resource": arn(unblocked)}
    deny = {"Effect": "Deny", "Principal": "*", "Action": "s3:GetObject", "Resource": arn(unblocked, "victim")}
    assert put(unblocked, "policy", policy(allow)).status == 204
    assert unblocked.anonymous("GET", unblocked.victim).body == VICTIM
    for statements in ((allow, deny), (deny, allow), (allow, deny, allow)):
        assert put(unblocked, "policy", policy(*statements)).status == 204
        for answer in (unblocked.anonymous("GET", unblocked.victim), unblocked.as_other("GET", unblocked.victim),
                       unblocked.as_limited("GET", unblocked.victim), unblocked.ask("GET", unblocked.victim)):
            unblocked.refused(answer, "AccessDenied", 403)


def test_22_an_exception_is_no_permission(unblocked: Attacker) -> None:
    """A Deny with NotAction, NotResource or NotPrincipal leaves something out; what it leaves out nobody has allowed."""
    for deny in ({"NotAction": "s3:GetObject", "Resource": arn(unblocked), "Principal": "*"},
                 {"Action": "s3:GetObject", "NotResource": arn(unblocked, "victim"), "Principal": "*"},
                 {"Action": "s3:GetObject", "Resource": arn(unblocked), "NotPrincipal": {"AWS": "222222222222"}}):
        assert put(unblocked, "policy", policy({"Effect": "Deny", **deny})).status == 204
        for answer in (unblocked.anonymous("GET", unblocked.victim), unblocked.as_other("GET", unblocked.victim)):
            unblocked.refused(answer, "AccessDenied", 403)
        assert unblocked.ask("DELETE", f"{unblocked.bucket}?policy").status == 204


def test_22_what_is_not_understood_is_refused_when_it_is_put(unblocked: Attacker) -> None:
    good = {**EVERYONE, "Resource": arn(unblocked)}
    for what, bad in {
        "unknown element": {**good, "Conditions": {}}, "effect in lower case": {**good, "Effect": "allow"},
        "unknown operator": {**good, "Condition": {"StringIs": {"aws:username": "x"}}},
        "unknown key": {**good, "Condition": {"StringEquals": {"aws:shoe-size": "x"}}},
        "unknown action": {**good, "Action": "s3:TakeObject"}, "another bucket": {**good, "Resource": "arn:aws:s3:::victim/*"},
        "a longer name": {**good, "Resource": f"arn:aws:s3:::{unblocked.bucket[1:]}2/*"},
        "nobody": {**good, "Principal": {"AWS": "arn:aws:iam::999999999999:root"}},
        "a bucket's action on objects": {**good, "Action": "s3:ListBucket"},
        "twice": None,
    }.items():
        text = policy(bad) if bad is not None else policy(good).replace(b'"Effect"', b'"Effect": "Deny", "Effect"')
        unblocked.refused(put(unblocked, "policy", text), "MalformedPolicy", 400)
        assert unblocked.ask("GET", f"{unblocked.bucket}?policy").status == 404, what


def test_22_a_name_is_no_prefix(unblocked: Attacker) -> None:
    """What is allowed for one bucket or key is not for those whose names go on."""
    longer = f"{unblocked.bucket}2"
    assert unblocked.ask("PUT", longer).status == 200
    assert unblocked.ask("PUT", f"{longer}/victim", body=b"x").status == 200
    assert put(unblocked, "policy", policy({**EVERYONE, "Resource": arn(unblocked, "vic")})).status == 204
    unblocked.refused(unblocked.anonymous("GET", unblocked.victim), "AccessDenied", 403)
    assert put(unblocked, "policy", policy({**EVERYONE, "Resource": arn(unblocked)})).status == 204
    unblocked.refused(unblocked.anonymous("GET", f"{longer}/victim"), "AccessDenied", 403)
    for path in (f"{unblocked.bucket}/../{longer[1:]}/victim", f"{unblocked.bucket}/%2e%2e/{longer[1:]}/victim"):
        assert unblocked.anonymous("GET", path).status in (400, 403, 404)
    unblocked.ask("DELETE", f"{longer}/victim")
    assert unblocked.ask("DELETE", longer).status == 204


def test_22_values_of_the_request_are_no_patterns(unblocked: Attacker) -> None:
    """A wildcard stands in a policy, not in what a request says; a policy variable takes a name as it is."""
    only = {**EVERYONE, "Resource": arn(unblocked), "Condition": {"StringLike": {"aws:Referer": "https://ours.test/*"}}}
    assert put(unblocked, "policy", policy(only)).status == 204
    for referer in ("*", "https://*", "?ttps://ours.test/", "https://ours.test.evil.test/", "x https://ours.test/", ""):
        unblocked.refused(unblocked.anonymous("GET", unblocked.victim, {"referer": referer}), "AccessDenied", 403)
    assert unblocked.anonymous("GET", unblocked.victim, {"referer": "https://ours.test/page"}).body == VICTIM
    variable = {**EVERYONE, "Resource": arn(unblocked, "${aws:Referer}")}
    assert put(unblocked, "policy", policy(variable)).status == 204
    unblocked.refused(unblocked.anonymous("GET", unblocked.victim, {"referer": "*"}), "AccessDenied", 403)
    unblocked.refused(unblocked.anonymous("GET", unblocked.victim, {"referer": "vi*"}), "AccessDenied", 403)
    assert unblocked.anonymous("GET", unblocked.victim, {"referer": "victim"}).body == VICTIM


def test_23_nobody_gives_himself_rights(attacker: Attacker) -> None:
    """A user of the account who may read has no way to a key, a policy, a list or a setting that would let him do more."""
    for method, path in (
        ("PUT", f"{attacker.bucket}?policy"), ("DELETE", f"{attacker.bucket}?policy"), ("PUT", f"{attacker.bucket}?acl"),
        ("PUT", f"{attacker.bucket}?ownershipControls"), ("DELETE", f"{attacker.bucket}?publicAccessBlock"),
        ("PUT", f"{attacker.victim}?acl"), ("PUT", "/a-new-bucket-of-his"), ("PUT", f"{attacker.bucket}?logging"),
        ("PUT", f"{attacker.bucket}?notification"), ("PUT", f"{attacker.bucket}?replication"),
        ("PUT", f"{attacker.bucket}?website"), ("PUT", f"{attacker.bucket}?lifecycle"), ("PUT", f"{attacker.bucket}?object-lock"),
    ):
        attacker.refused(attacker.as_limited(method, path), "AccessDenied", 403)
    for path in ("user/create", "user/policy/set", "user/policy/remove", "key/create", "key/rotate", "user/change"):
        assert attacker.as_limited("POST", f"/-/admin/{path}", body=b'{"name": "limited", "user": "limited"}').status == 403
    for action in ("CreateAccessKey", "PutUserPolicy", "AttachUserPolicy", "CreateUser", "AssumeRole", "GetSessionToken",
                   "AddUserToGroup", "CreatePolicyVersion", "UpdateAssumeRolePolicy", "GetFederationToken"):
        body = f"Action={action}&UserName=limited&Version=2010-05-08".encode()
        answer = attacker.as_limited("POST", "/", {"content-type": "application/x-www-form-urlencoded"}, body)
        assert answer.status in (403, 405, 501), (action, answer)
        attacker.decent(answer)
    assert attacker.as_limited("GET", attacker.victim).body == VICTIM


def test_24_every_route_has_an_action_of_its_own() -> None:
    """Reading is never judged by a right to write, nor the other way round; test_access_matrix.py tries all of them."""
    for row in (*OPERATIONS, *BEYOND_MODEL):
        if row.name == "Preflight" or row.method == "OPTIONS":
            continue
        assert row.action or row.same_as, f"{row.name} needs no action"
        if not row.action:
            continue
        assert row.action.lower() in KIND_OF
        verb = row.action.removeprefix("s3:")
        if row.method in ("GET", "HEAD"):
            assert verb.startswith(("Get", "List", "CreateSession")), f"{row.name} is judged by {row.action}"
        else:
            assert not verb.startswith(("Get", "List")) or row.name.startswith(("Select", "Get", "List")), row.name


def test_18_targets_that_are_addresses(attacker: Attacker) -> None:
    """A bucket's configuration makes the server call nobody whom its operator has not named."""
    addresses = ("http://169.254.169.254/latest/meta-data/", "http://127.0.0.1:9000/", "https://localhost/", "file:///etc/passwd",
                 "gopher://127.0.0.1:6379/_", "arn:aws:sqs:us-east-1:000000000000:169.254.169.254", "arn:aws:sns:us-east-1:1:x")
    for address in addresses:
        events = (f"<NotificationConfiguration><QueueConfiguration><Queue>{address}</Queue><Event>s3:ObjectCreated:*</Event>"
                  "</QueueConfiguration></NotificationConfiguration>").encode()
        answer = put(attacker, "notification", events)
        assert answer.status in (400, 501), (address, answer)
        attacker.decent(answer)
        logging = (f"<BucketLoggingStatus><LoggingEnabled><TargetBucket>{address}</TargetBucket><TargetPrefix/></LoggingEnabled>"
                   "</BucketLoggingStatus>").encode()
        answer = put(attacker, "logging", logging)
        assert answer.status in (400, 501), (address, answer)
        attacker.decent(answer)
        copies = ("<ReplicationConfiguration><Role>arn:aws:iam::1:role/x</Role><Rule><Status>Enabled</Status><Prefix/>"
                  f"<Destination><Bucket>{address}</Bucket></Destination></Rule></ReplicationConfiguration>").encode()
        answer = put(attacker, "replication", copies)
        assert answer.status in (400, 501), (address, answer)
        attacker.decent(answer)


def test_31_an_address_is_the_connections(unblocked: Attacker) -> None:
    """Whoever says that he comes from somewhere else still comes from where he is."""
    there = {**EVERYONE, "Resource": arn(unblocked), "Condition": {"IpAddress": {"aws:SourceIp": "203.0.113.0/24"}}}
    assert put(unblocked, "policy", policy(there)).status == 204
    for name in ("x-forwarded-for", "x-real-ip", "forwarded", "true-client-ip", "cf-connecting-ip", "x-client-ip", "via"):
        value = "for=203.0.113.5" if name == "forwarded" else "203.0.113.5"
        unblocked.refused(unblocked.anonymous("GET", unblocked.victim, {name: value}), "AccessDenied", 403)
    here = {**there, "Condition": {"IpAddress": {"aws:SourceIp": "127.0.0.1/32"}}}
    assert put(unblocked, "policy", policy(here)).status == 204
    assert unblocked.anonymous("GET", unblocked.victim).body == VICTIM


def test_38_headers_from_a_cors_rule_and_from_metadata(attacker: Attacker) -> None:
    for value in ("ETag\r\nx-injected: 1", "ETag&#13;&#10;x-injected: 1", "a&#10;b", "a b"):
        document = ("<CORSConfiguration><CORSRule><AllowedOrigin>*</AllowedOrigin><AllowedMethod>GET</AllowedMethod>"
                    f"<ExposeHeader>{value}</ExposeHeader></CORSRule></CORSConfiguration>").encode()
        answer = put(attacker, "cors", document)
        if answer.status == 200:
            answer = attacker.ask("GET", attacker.victim, {"origin": "https://a.test"})
            assert "x-injected" not in answer.headers
            assert "\n" not in answer.headers.get("access-control-expose-headers", "")
        else:
            attacker.decent(answer)
    attacker.ask("DELETE", f"{attacker.bucket}?cors")
    for odd in (b"a\x0bb", b"a\x00b", b"a\x7fb"):
        request = (f"PUT {attacker.bucket}/planted HTTP/1.1\r\nHost: {attacker.target.netloc}\r\nx-amz-meta-a: ").encode()
        answer_bytes = attacker.raw(request + odd + b"\r\nContent-Length: 0\r\n\r\n")
        assert answer_bytes.startswith((b"HTTP/1.1 400 ", b"HTTP/1.1 403 ")), answer_bytes


def test_39_an_origin_is_not_reflected_where_all_are_meant(attacker: Attacker) -> None:
    """Credentials only for an origin that the rule names; another one gets no header at all."""
    def rule(origin: str) -> bytes:
        return (f"<CORSConfiguration><CORSRule><AllowedOrigin>{origin}</AllowedOrigin><AllowedMethod>GET</AllowedMethod>"
                "</CORSRule></CORSConfiguration>").encode()

    assert put(attacker, "cors", rule("*")).status == 200
    answer = attacker.ask("GET", attacker.victim, {"origin": "https://evil.test"})
    assert answer.headers["access-control-allow-origin"] == "*"
    assert "access-control-allow-credentials" not in answer.headers
    assert put(attacker, "cors", rule("https://*.good.test")).status == 200
    for origin in ("https://evil.test", "https://good.test.evil.test", "https://x.good.test.evil.test", "null", "https://good.test",
                   "http://x.good.test", "https://x.good.test\t", "*", "https://*.good.testx"):
        answer = attacker.ask("GET", attacker.victim, {"origin": origin})
        if origin.strip() != "https://x.good.test":
            assert not [name for name in answer.headers if name.startswith("access-control-")], origin
    assert attacker.ask("GET", attacker.victim, {"origin": "https://x.good.test"}).headers[
        "access-control-allow-origin"] == "https://x.good.test"
    attacker.ask("DELETE", f"{attacker.bucket}?cors")


def test_13_a_form_that_names_another_bucket(attacker: Attacker) -> None:
    """A policy for one bucket, signed by who may write there, is good for no other, whatever field says which is meant."""
    other = f"{attacker.bucket}2"
    assert attacker.ask("PUT", other).status == 200
    day = time.strftime("%Y%m%d", time.gmtime())
    date = f"{day}T000000Z"
    scope = f"{attacker.keys.access_key}/{day}/us-east-1/s3/aws4_request"
    document = base64.b64encode(json.dumps({"expiration": "2099-01-01T00:00:00Z", "conditions": [
        {"bucket": other[1:]}, ["starts-with", "$key", ""], {"x-amz-credential": scope}, {"x-amz-date": date},
        {"x-amz-algorithm": "AWS4-HMAC-SHA256"}]}).encode()).decode()
    signature = signing._hex(signing.signing_key(attacker.keys, day), document)
    fields = {"key": "planted", "policy": document, "x-amz-algorithm": "AWS4-HMAC-SHA256", "x-amz-credential": scope,
              "x-amz-date": date, "x-amz-signature": signature}
    for more in ({}, {"bucket": other[1:]}, {"Bucket": other[1:]}):
        body, headers = form({**more, **fields}, b"x")
        answer = attacker.anonymous("POST", attacker.bucket, headers, body)
        attacker.refused(answer, "AccessDenied", 403)
    body, headers = form(fields, b"x")
    assert attacker.anonymous("POST", other, headers, body).status == 204
    attacker.ask("DELETE", f"{other}/planted")
    assert attacker.ask("DELETE", other).status == 204


def test_40_there_is_no_console(attacker: Attacker) -> None:
    """Nothing here renders a page from names or objects: there is no login to steal and no page to plant a script in."""
    for path in ("/-/console", "/-/console/", "/-/ui", "/-/login", "/-/static/app.js", "/console", "/login", "/minio/"):
        for answer in (attacker.anonymous("GET", path), attacker.anonymous("GET", f"{path}?next={quote('<script>')}")):
            assert answer.status in (403, 404)
            assert "html" not in answer.headers.get("content-type", "")
            assert "<script>" not in answer.text
            assert "set-cookie" not in answer.headers


def test_45_there_is_no_login_and_no_sts(attacker: Attacker) -> None:
    """Nothing hands out credentials for a password or a token; a wrong key is refused as an unknown one is, as quickly."""
    for action in ("AssumeRoleWithWebIdentity", "AssumeRoleWithLDAPIdentity", "AssumeRoleWithCustomToken", "AssumeRole"):
        body = f"Action={action}&Version=2011-06-15&WebIdentityToken=x&LDAPUsername=root&LDAPPassword=root".encode()
        answer = attacker.anonymous("POST", "/", {"content-type": "application/x-www-form-urlencoded"}, body)
        assert answer.status in (403, 405, 501)
        attacker.decent(answer)
        assert "SecretAccessKey" not in answer.text

    def took(access_key: str) -> float:
        keys = signing.Keys(access_key=access_key, secret_key="wrong")
        times = []
        for _ in range(15):
            signed = signing.sign_request("GET", attacker.target.url + attacker.victim, keys=keys, now_s=time.time())
            began = time.perf_counter()
            assert attacker.wire.send("GET", attacker.victim, signed).status == 403
            times.append(time.perf_counter() - began)
        return sorted(times)[len(times) // 2]

    assert abs(took(OTHER_ACCESS_KEY) - took("THEREISNOSUCHKEY")) < 0.02


@pytest.mark.parametrize("scheme", ["https"])
def test_the_version_of_tls_is_the_connections(attacker: Attacker, monkeypatch: pytest.MonkeyPatch) -> None:
    """A policy that wants 1.3 refuses those who come with 1.2, and them alone."""
    newest = {"Effect": "Deny", "Principal": "*", "Action": "s3:GetObject", "Resource": arn(attacker),
              "Condition": {"NumericLessThan": {"s3:TlsVersion": "1.3"}}}
    assert put(attacker, "policy", policy(newest)).status == 204
    assert attacker.ask("GET", attacker.victim).body == VICTIM
    default = ssl.create_default_context

    def old(*, cafile: str | None) -> ssl.SSLContext:
        context = default(cafile=cafile)
        context.maximum_version = ssl.TLSVersion.TLSv1_2
        return context

    with monkeypatch.context() as patched:
        patched.setattr(ssl, "create_default_context", old)
        attacker.wire.close()
        attacker.refused(attacker.ask("GET", attacker.victim), "AccessDenied", 403)
        assert attacker.ask("DELETE", f"{attacker.bucket}?policy").status == 204
        assert attacker.ask("GET", attacker.victim).body == VICTIM
