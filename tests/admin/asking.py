"""Requests to the admin API, signed by the tests' own signer, so that each part of them can be wrong on purpose."""

import hashlib
import json
import time
from typing import Any, NamedTuple
from urllib.parse import quote, urlencode

from tests.servers import ACCESS_KEY, SECRET_KEY, StaddleProcess
from tests.signing import Keys, presign, sign_request, sign_request_v2

ROOT = Keys(access_key=ACCESS_KEY, secret_key=SECRET_KEY)
PREFIX = "/-/admin/"


class Answered(NamedTuple):
    status: int
    body: bytes
    headers: dict[str, str]

    @property
    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def code(self) -> str:
        return str(self.json["code"])

    @property
    def lines(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.body.splitlines()]


def send(server: StaddleProcess, method: str, target: str, headers: dict[str, str], body: bytes = b"") -> Answered:
    """As it is: `target` is path and query."""
    connection = server.connect()
    try:
        connection.request(method, target, body=body or None, headers=headers)
        answer = connection.getresponse()
        return Answered(answer.status, answer.read(), {name.lower(): value for name, value in answer.getheaders()})
    finally:
        connection.close()


def ask(server: StaddleProcess, method: str, path: str, fields: dict[str, Any] | None = None, *, keys: Keys = ROOT,
        way: str = "signed", prefix: str = PREFIX) -> Answered:
    """`way`: signed, or one of those that are refused."""
    target, body = f"{prefix}{path}", b""
    if method == "GET" and fields:
        target += f"?{urlencode(fields, quote_via=quote)}"
    elif method == "POST":
        body = json.dumps(fields or {}).encode()
    url, now_s = server.endpoint + target, time.time()
    payload = hashlib.sha256(body).hexdigest()
    match way:
        case "unsigned":
            return send(server, method, target, {}, body)
        case "presigned":
            return send(server, method, presign(method, url, keys=keys, now_s=now_s)[len(server.endpoint):], {}, body)
        case "version 2":
            return send(server, method, target, sign_request_v2(method, url, keys=keys, now_s=now_s), body)
        case "presigned with digest":
            digest = {"x-amz-content-sha256": payload}
            link = presign(method, url, digest, keys=keys, now_s=now_s, payload=payload)
            return send(server, method, link[len(server.endpoint):], digest, body)
        case "version 2 with digest":
            headers = sign_request_v2(method, url, {"x-amz-content-sha256": payload}, keys=keys, now_s=now_s)
            return send(server, method, target, headers, body)
        case "unsigned payload":
            payload = "UNSIGNED-PAYLOAD"
        case "another body":
            payload = hashlib.sha256(body + b" ").hexdigest()
        case "old":
            now_s -= 16 * 60
    headers = sign_request(method, url, keys=keys, now_s=now_s, payload=payload)
    if way == "changed query":
        target += "&more=1" if "?" in target else "?more=1"
    return send(server, method, target, headers, body)


def done(server: StaddleProcess, method: str, path: str, **fields: Any) -> Any:
    """What the root key is answered; it must succeed."""
    answered = ask(server, method, path, fields)
    assert answered.status == 200, answered
    return answered.json
