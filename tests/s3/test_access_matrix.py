"""Every operation of the table against every kind of caller: nothing is allowed that no statement allows.

Callers     anonymous; another account; the same account with policies that allow something else; the same account with a
            policy; the same account without policies (which has all its rights)
Situations  nothing allows it; exactly what the operation needs is allowed; all of it but one action is allowed

The requests are made from the operation table, so an operation that is added is in here too. Each asks a bucket of its own.
"""

import base64
import dataclasses
import hashlib
import http.client
import json
import re
import time
from collections.abc import Iterator
from typing import NamedTuple
from urllib.parse import urlsplit

import pytest
from botocore.client import BaseClient

from gateway.identities import Identity
from gateway.ops.context import Settings
from gateway.s3.operations import BEYOND_MODEL, OPERATIONS, Operation
from gateway.s3.policy.actions import KIND_OF, needed
from tests.s3.conftest import MAIN, OTHER, client
from tests.s3.in_process import InProcess
from tests.signing import Keys, sign_request

ELSEWHERE = json.dumps({"Version": "2012-10-17", "Statement": {
    "Effect": "Allow", "Action": "s3:*", "Resource": ["arn:aws:s3:::elsewhere", "arn:aws:s3:::elsewhere/*"]}})
LIMITED = dataclasses.replace(MAIN, name="limited", user_id="limited-id", access_key="LIMITEDACCESSKEY", policies=(ELSEWHERE,))

BODIES = {
    "DeleteObjects": b"<Delete><Object><Key>key</Key></Object></Delete>",
    "PutObjectTagging": b"<Tagging><TagSet><Tag><Key>a</Key><Value>b</Value></Tag></TagSet></Tagging>",
    "PutObjectRetention":
        b"<Retention><Mode>GOVERNANCE</Mode><RetainUntilDate>2099-01-01T00:00:00Z</RetainUntilDate></Retention>",
    "PutObjectLegalHold": b"<LegalHold><Status>ON</Status></LegalHold>",
}
UPLOADS: dict[str, str] = {}
"""Of each bucket: without one, nobody would get as far as its parts."""

VALUES = {"list-type": "2", "partNumber": "1", "uploadId": "UPLOAD", "id": "x", "annotationName": "a"}
ROWS = [row for row in (*OPERATIONS, *BEYOND_MODEL) if not row.same_as and row.action and row.name != "PostObject"]
"""Forms and preflights have no credentials in their headers; test_posting.py and the test at the end have them."""


class Wanted(NamedTuple):
    """One request: the row, and what it says beside it."""

    row: Operation
    versioned: bool = False
    headers: tuple[tuple[str, str], ...] = ()

    @property
    def named(self) -> str:
        return self.row.name + ("-version" if self.versioned else "") + "".join(f"-{name}" for name, _ in self.headers)

    def query(self) -> dict[str, str]:
        found = {name: VALUES.get(name, "") for name in self.row.query}
        return {**found, "versionId": "null"} if self.versioned else found

    def actions(self) -> tuple[str, ...]:
        found = needed(self.row, self.query(), dict(self.headers))
        if self.row.name == "RenameObject":
            return (*found, "s3:GetObject", "s3:DeleteObject")
        return (*found, "s3:GetObject") if "x-amz-copy-source" in self.row.headers else found


BESIDE = (("x-amz-tagging", "a=b"), ("x-amz-acl", "private"), ("x-amz-object-lock-legal-hold", "ON"))

WANTED = [
    *(Wanted(row) for row in ROWS), *(Wanted(row, True) for row in ROWS if row.version_action),
    *(Wanted(row, headers=(header,)) for row in ROWS for header in BESIDE
      if row.name in ("PutObject", "CreateMultipartUpload", "CopyObject")),
    *(Wanted(row, headers=(("if-match", '"x"'),)) for row in ROWS if row.name in ("PutObject", "DeleteObject")),
    *(Wanted(row, headers=(("x-amz-bypass-governance-retention", "true"),)) for row in ROWS
      if row.name in ("DeleteObject", "PutObjectRetention")),
]


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[InProcess]:
    settings = Settings(block_public_access=False)
    with InProcess(tmp_path_factory.mktemp("matrix"), [MAIN, OTHER, LIMITED], settings=settings) as running:
        yield running


@pytest.fixture(scope="module")
def s3(server: InProcess) -> BaseClient:
    return client(server.endpoint)


@pytest.fixture(scope="module")
def connection(server: InProcess) -> Iterator[http.client.HTTPConnection]:
    at = urlsplit(server.endpoint)
    opened = http.client.HTTPConnection(at.hostname or "", at.port)
    yield opened
    opened.close()


@pytest.fixture
def place(s3: BaseClient, new_bucket_name: object) -> str:
    name: str = new_bucket_name()  # type: ignore[operator]
    s3.create_bucket(Bucket=name)
    s3.put_object(Bucket=name, Key="key", Body=b"x")
    s3.put_object(Bucket=name, Key="another", Body=b"y")
    UPLOADS[name] = s3.create_multipart_upload(Bucket=name, Key="key")["UploadId"]
    return name


def denied(server: InProcess, connection: http.client.HTTPConnection, bucket: str, wanted: Wanted, who: Identity | None) -> bool:
    """Whether it was AccessDenied: of the one key, where keys are judged one by one."""
    row = wanted.row
    path = {"service": "/", "bucket": f"/{bucket}", "object": f"/{bucket}/key"}[row.scope]
    query = "&".join(f"{name}={value}" if value else name for name, value in wanted.query().items())
    url = f"{server.endpoint}{path}" + (f"?{query}" if query else "").replace("UPLOAD", UPLOADS[bucket])
    headers = dict(wanted.headers)
    for name in row.headers:
        headers[name] = f"/{bucket}/key" if name == "x-amz-copy-source" else "x"
    if row.name == "RenameObject":
        headers["x-amz-rename-source"] = f"/{bucket}/another"
    body = BODIES.get(row.name, b"")
    if row.name == "DeleteObjects":
        headers["x-amz-checksum-sha256"] = base64.b64encode(hashlib.sha256(body).digest()).decode()
    if who is not None:
        headers = sign_request(row.method, url, headers, keys=Keys(access_key=who.access_key, secret_key=who.secret_key),
                               now_s=time.time(), payload=hashlib.sha256(body).hexdigest())
    connection.request(row.method, urlsplit(url)._replace(scheme="", netloc="").geturl(), body, headers)
    answer = connection.getresponse()
    said = answer.read()
    if row.method == "HEAD":
        return answer.status == 403
    code = re.search(rb"<Code>(\w+)</Code>", said)
    return code is not None and code[1] == b"AccessDenied"


def policy(bucket: str, actions: tuple[str, ...], *, who: Identity | None = None, of_user: bool = False) -> str:
    """A document that allows just these."""
    principal = "*" if who is None else {"AWS": f"arn:aws:iam::{who.account}:user/{who.name}"}
    statements = [{
        "Effect": "Allow", "Action": action, **({} if of_user else {"Principal": principal}),
        "Resource": "*" if KIND_OF[action.lower()] == "account" else
        f"arn:aws:s3:::{bucket}{'/*' if KIND_OF[action.lower()] == 'object' else ''}",
    } for action in actions]
    return json.dumps({"Version": "2012-10-17", "Statement": statements})


@pytest.mark.parametrize("wanted", WANTED, ids=lambda wanted: wanted.named)
def test_nothing_is_allowed_that_no_statement_allows(
    server: InProcess, s3: BaseClient, connection: http.client.HTTPConnection, place: str, wanted: Wanted,
) -> None:
    def is_denied(who: Identity | None) -> bool:
        return denied(server, connection, place, wanted, who)

    actions = wanted.actions()
    about_account = KIND_OF[actions[0].lower()] == "account" or wanted.row.name == "CreateBucket"
    for who in (None, LIMITED) if about_account else (None, OTHER, LIMITED):
        assert is_denied(who), "nothing allows it"
    if about_account:
        assert not is_denied(MAIN), "an identity without policies has all rights of its account"
        return
    s3.put_bucket_policy(Bucket=place, Policy=policy(place, actions, who=OTHER))
    assert is_denied(None), "it is for the other account"
    assert is_denied(LIMITED)
    for left_out in dict.fromkeys(actions):
        rest = tuple(action for action in actions if action != left_out)
        for who in (OTHER, None):
            s3.put_bucket_policy(Bucket=place, Policy=policy(place, rest or ("s3:GetBucketTagging",), who=who))
            if left_out != "s3:GetBucketTagging":
                assert is_denied(who), f"{left_out} is not allowed"
    s3.put_bucket_policy(Bucket=place, Policy=policy(place, actions, who=OTHER))
    assert not is_denied(OTHER), f"{actions} are all that it needs"
    assert not is_denied(MAIN), "an identity without policies has all rights of its account"
