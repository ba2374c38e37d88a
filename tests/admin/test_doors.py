"""Nobody but an admin gets through any door: the table of endpoints is walked with everything that must be refused."""

import hashlib
import json
import time

import msgspec
import pytest

from gateway.admin.api import BODY_BYTES_MAX
from gateway.admin.endpoints import ENDPOINTS
from gateway.admin.values import Request
from tests.admin.asking import PREFIX, ROOT, ask, done, send
from tests.servers import StaddleProcess
from tests.signing import Keys, sign_request

ROWS = [(row.method, row.path) for row in ENDPOINTS]

REFUSED_WAYS = ("unsigned", "presigned", "presigned with digest", "version 2", "version 2 with digest", "unsigned payload", "old",
                "changed query")


@pytest.mark.parametrize("way", REFUSED_WAYS)
def test_the_root_key_is_refused_everywhere_when_it_signs_wrongly(server: StaddleProcess, way: str) -> None:
    answers = {row: ask(server, *row, way=way) for row in ROWS}
    assert {row: answer.status for row, answer in answers.items()} == dict.fromkeys(ROWS, 403)
    assert all(answer.json.keys() == {"code", "message", "request_id"} for answer in answers.values())


def test_the_wrong_the_unknown_the_disabled_and_those_who_are_no_admins_are_refused_everywhere(
    server: StaddleProcess, stranger: Keys, former: Keys,
) -> None:
    others = {
        "SignatureDoesNotMatch": Keys(access_key=ROOT.access_key, secret_key="wrong"),
        "InvalidAccessKeyId": Keys(access_key="NOBODYSACCESSKEY", secret_key="any"),
        "AccessDenied": stranger,
    }
    for code, keys in others.items():
        found = {row: (answer.status, answer.code) for row in ROWS for answer in [ask(server, *row, keys=keys)]}
        assert found == dict.fromkeys(ROWS, (403, code))
    found = {row: (answer.status, answer.code) for row in ROWS for answer in [ask(server, *row, keys=former)]}
    assert found == dict.fromkeys(ROWS, (403, "InvalidAccessKeyId"))


def test_an_admin_gets_through_every_door(server: StaddleProcess) -> None:
    """Else the two tests above would pass with a server that refuses everybody."""
    for row in ENDPOINTS:
        wanted = [field for field in row.asked.__struct_fields__ if field in _required(row.asked)]
        if wanted:
            answer = ask(server, row.method, row.path)
            assert (answer.status, answer.code) == (400, "InvalidArgument"), (row, answer)
            assert any(field in answer.json["message"] for field in wanted), answer
        elif row.method == "GET":
            assert ask(server, row.method, row.path).status == 200, row


def test_paths_that_are_not_there_look_the_same_to_strangers(server: StaddleProcess, stranger: Keys) -> None:
    for path in ("", "nothing", "user/list/", "user//list", "../admin/user/list", "user/%6cist", "user/list%00", "%2e%2e/x"):
        assert ask(server, "GET", path, way="unsigned").status == 403, path
        assert ask(server, "GET", path, keys=stranger).status == 403, path
        assert ask(server, "GET", path).status == 404, path
    for method in ("PUT", "DELETE", "PATCH", "OPTIONS"):
        assert ask(server, method, "user/list", way="unsigned").status == 403, method
        assert ask(server, method, "user/list").status == 405, method
    for prefix in ("/-//admin/", "/-/Admin/", "/-/admin;x/", "/-/./admin/"):
        assert ask(server, "GET", "user/list", way="unsigned", prefix=prefix).status in (403, 404), prefix
        assert b"users" not in ask(server, "GET", "user/list", way="unsigned", prefix=prefix).body


def test_a_body_that_was_not_the_one_signed_is_refused(server: StaddleProcess) -> None:
    for method, path in ROWS:
        if method == "POST":
            answer = ask(server, method, path, {"name": "victim"}, way="another body")
            assert (answer.status, answer.code) == (400, "XAmzContentSHA256Mismatch"), path


def test_a_bucket_cannot_stand_in_front_of_the_api(server: StaddleProcess, stranger: Keys) -> None:
    assert ask(server, "PUT", "", keys=stranger, prefix="/-").status in (400, 403)


@pytest.mark.parametrize(("body", "status", "code"), [
    (b"{", 400, "InvalidJSON"), (b"[]", 400, "InvalidArgument"), (b'{"name": 1}', 400, "InvalidArgument"),
    (b'{"name": "x", "nonsense": 1}', 400, "InvalidArgument"), (b'{"name": "\xff"}', 400, "InvalidJSON"),
    (b"", 400, "InvalidArgument"),
    (b'{"name": "\\ud800"}', 400, "InvalidJSON"),
    (b'{"name": "' + b"x" * BODY_BYTES_MAX + b'"}', 413, "RequestTooLarge"),
    (b'{"name":' + b"[" * 100_000, 400, "InvalidArgument"),
])
def test_nonsense_is_refused_in_words(server: StaddleProcess, body: bytes, status: int, code: str) -> None:
    url = f"{server.endpoint}{PREFIX}bucket/delete"
    headers = sign_request("POST", url, keys=ROOT, now_s=time.time(), payload=hashlib.sha256(body).hexdigest())
    answer = send(server, "POST", f"{PREFIX}bucket/delete", headers, body)
    assert (answer.status, answer.code) == (status, code)


def test_who_did_what_is_logged_and_no_secret_is(server: StaddleProcess) -> None:
    done(server, "POST", "user/create", name="logged")
    made = done(server, "POST", "key/create", user="logged", secret_key="a secret that was brought along")
    assert made["secret_key"] == "a secret that was brought along"
    refused = ask(server, "POST", "user/delete", {"name": "logged"}, way="unsigned").json["request_id"]
    deadline = time.monotonic() + 10
    while True:                                       # what was done is logged after it was answered
        log = server.log_path.read_text()
        lines = [json.loads(line) for line in log.splitlines(keepends=True) if '"staddle.admin"' in line and line.endswith("\n")]
        ours = [line for line in lines if line["request_id"] == refused or "logged" in line["asked"].values()]
        if len(ours) >= 3 or time.monotonic() > deadline:
            break
    assert sorted((line["who"], line["outcome"], line["access_key"]) for line in ours) == [
        ("nobody", "AccessDenied", ""), *[("root", "done", ROOT.access_key)] * 2]
    assert "brought along" not in log
    assert ROOT.secret_key not in log


def _required(asked: type[Request]) -> set[str]:
    return {field.name for field in msgspec.structs.fields(asked) if field.required}


def test_who_is_removed_in_the_middle_of_a_request_does_not_finish_it(server: StaddleProcess) -> None:
    """The body may take its time; what it asks for is asked when it is whole."""
    done(server, "POST", "user/create", name="leaving", admin=True)
    made = done(server, "POST", "key/create", user="leaving")
    keys = Keys(access_key=made["access_key"], secret_key=made["secret_key"])
    body = b'{"name": "backdoor", "admin": true}'
    url = f"{server.endpoint}{PREFIX}user/create"
    headers = sign_request("POST", url, keys=keys, now_s=time.time(), payload=hashlib.sha256(body).hexdigest())
    connection = server.connect()
    try:
        connection.putrequest("POST", f"{PREFIX}user/create", skip_host=True, skip_accept_encoding=True)
        for name, value in {**headers, "content-length": str(len(body)), "expect": "100-continue"}.items():
            connection.putheader(name, value)
        connection.endheaders()
        # The server asks for the body: whoever sent the head is known to it, and still an admin.
        assert connection.sock.recv(100) == b"HTTP/1.1 100 Continue\r\n\r\n"
        connection.send(body[:10])
        done(server, "POST", "user/delete", name="leaving")
        connection.send(body[10:])
        answer = connection.getresponse()
        assert (answer.status, json.loads(answer.read())["code"]) == (403, "AccessDenied")
    finally:
        connection.close()
    assert ask(server, "GET", "user/show", {"name": "backdoor"}).status == 404
