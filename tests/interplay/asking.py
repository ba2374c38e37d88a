"""Runs the rows of the table against a whole server: who the callers are, what the bodies are, and how answers are judged."""

import base64
import hashlib
import html
import http.server
import itertools
import json
import threading
import time
from collections.abc import Mapping
from urllib.parse import urlsplit

from gateway.folders import ROOT_ACCOUNT, ROOT_USER_ID
from gateway.s3.policy.actions import KIND_OF
from tests import signing
from tests.clients.wire import Answer, Wire
from tests.interplay.table import Row, Step
from tests.servers import ACCESS_KEY, REGION, SECRET_KEY, free_port

OTHER_ID = "other-person"

_READER = {"Effect": "Allow", "Action": ["s3:Get*", "s3:List*"], "Resource": "*"}
_WRITER = {"Effect": "Allow", "Action": "s3:PutObject", "Resource": "*"}
_KEEPER = [{"Effect": "Allow", "Action": "s3:*", "Resource": "*"},
           {"Effect": "Deny", "Action": "s3:BypassGovernanceRetention", "Resource": "*"}]

USERS = {
    "other": ("222222222222", OTHER_ID, None), "reader": (ROOT_ACCOUNT, "reader-id", _READER),
    "writer": (ROOT_ACCOUNT, "writer-id", _WRITER), "keeper": (ROOT_ACCOUNT, "keeper-id", _KEEPER),
}


def configuration(webhook: str) -> str:
    """A webhook called here, and the identities."""
    tables = [f'webhook_allow = ["127.0.0.1"]\n[webhooks.here]\nurl = "{webhook}"\n']
    for name, (account, user_id, statements) in USERS.items():
        policy = json.dumps({"Version": "2012-10-17", "Statement": statements})
        limits = "" if statements is None else f"policies = ['{policy}']"
        tables.append(f'[[identity]]\nname = "{name}"\naccount = "{account}"\nuser_id = "{user_id}"\n'
                      f'display_name = "{name.title()}"\naccess_key = "{_access_key(name)}"\n'
                      f'secret_key = "{name}/secret"\n{limits}\n')
    return "\n".join(tables)


def _access_key(name: str) -> str:
    return f"KEYOF{name.upper()}"


_KEYS = {name: signing.Keys(access_key=_access_key(name), secret_key=f"{name}/secret", region=REGION) for name in USERS}
_KEYS["owner"] = signing.Keys(access_key=ACCESS_KEY, secret_key=SECRET_KEY, region=REGION)

UNTIL_S, LOOK_S = 30.0, 0.05
"""How long a step that begins with `until` may take, and how often it asks."""

_numbers = itertools.count(1)

VERSIONING = b"<VersioningConfiguration><Status>%s</Status></VersioningConfiguration>"


class Inbox:
    """A webhook's receiver: names of events by bucket and key."""

    def __init__(self) -> None:
        self.events: dict[tuple[str, str], list[str]] = {}
        inbox = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                said = json.loads(self.rfile.read(int(self.headers["content-length"])))
                for record in said.get("Records", ()):
                    about = record["s3"]
                    at = (about["bucket"]["name"], about["object"]["key"])
                    inbox.events.setdefault(at, []).append(record["eventName"])
                self.send_response(200)
                self.send_header("content-length", "0")
                self.end_headers()

            def log_message(self, *_: object) -> None:
                pass

        self._server = http.server.ThreadingHTTPServer(("127.0.0.1", free_port()), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_port}/"
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()


class Asker:
    """One connection to the server."""

    def __init__(self, wire: Wire, inbox: Inbox) -> None:
        self._wire, self._inbox = wire, inbox

    def run(self, row: Row) -> None:
        """All steps of a row in a bucket of its own."""
        number = next(_numbers)
        known = {name: f"interplay-{number}-{name}" for name in ("bucket", "second", "foreign")}
        known |= {"account": ROOT_ACCOUNT, "owner_id": ROOT_USER_ID, "other_id": OTHER_ID, "region": REGION,
                  "in_an_hour": _iso(3600), "in_two_hours": _iso(7200)}
        self._prepare(row, known)
        for step in row.steps:
            self._step(row, step, known)

    def _prepare(self, row: Row, known: Mapping[str, str]) -> None:
        headers = {"x-amz-bucket-object-lock-enabled": "true"} if "locked" in row.bucket else {}
        if "acls" in row.bucket:
            headers["x-amz-object-ownership"] = "ObjectWriter"
        self._must("owner", "PUT", f"/{known['bucket']}", headers)
        if row.bucket & {"acls", "unblocked"}:
            self._must("owner", "DELETE", f"/{known['bucket']}?publicAccessBlock", {})
        if "versioned" in row.bucket or "suspended" in row.bucket:
            status = b"Enabled" if "versioned" in row.bucket else b"Suspended"
            self._must("owner", "PUT", f"/{known['bucket']}?versioning", {}, VERSIONING % status)
        if "second" in row.bucket:
            self._must("owner", "PUT", f"/{known['second']}", {})
        if "foreign" in row.bucket:
            self._must("other", "PUT", f"/{known['foreign']}", {})

    def _must(self, who: str, method: str, path: str, headers: dict[str, str], body: bytes = b"") -> None:
        answer = self._ask(who, method, path, headers, body)
        assert answer.status in (200, 204), answer

    def _step(self, row: Row, step: Step, known: dict[str, str]) -> None:
        sent = {name: _filled(value, known) for name, value in step.sent}
        body, headers = _body(sent, known["bucket"])
        path = _path(_filled(step.target, known), known)
        deadline = time.monotonic() + UNTIL_S
        while True:
            answer = self._ask(step.who, step.method, path, dict(headers), body)
            wrong = _wrong(step, answer, known)
            if not wrong or not step.until or time.monotonic() > deadline:
                break
            time.sleep(LOOK_S)
        assert not wrong, f"{row.place}: {step.text}\n{wrong}\n{answer.status} {answer.headers}\n{answer.body[:3000]!r}"
        for what, name in step.kept:
            value = _value(what, answer)
            assert value is not None, f"{row.place}: {step.text}: no {what} in {answer}"
            known[name] = value

    def _ask(self, who: str, method: str, path: str, headers: dict[str, str], body: bytes = b"") -> Answer:
        if method == "EVENTS":
            _, bucket, key = path.split("/", 2)
            return Answer(status=200, headers={}, body=", ".join(self._inbox.events.get((bucket, key), ("nothing",))).encode())
        url = self._wire.url(path)
        match who:
            case "nobody":
                signed = {"host": self._wire.target.netloc, **headers}
            case "link":
                link = urlsplit(signing.presign(method, url, keys=_KEYS["owner"], now_s=time.time()))
                path, signed = f"{link.path}?{link.query}", {"host": self._wire.target.netloc, **headers}
            case _:
                signed = signing.sign_request(method, url, headers, keys=_KEYS[who], now_s=time.time(),
                                              payload=hashlib.sha256(body).hexdigest())
        if body or method in ("PUT", "POST"):
            signed["content-length"] = str(len(body))
        return self._wire.send(method, path, signed, body)


def _iso(seconds: float) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(time.time() + seconds))


def _filled(text: str, known: Mapping[str, str]) -> str:
    for name, value in known.items():
        text = text.replace(f"{{{name}}}", value)
    return text


def _path(target: str, known: Mapping[str, str]) -> str:
    if target.startswith("/"):
        return target
    if target.startswith("@"):
        name, _, rest = target[1:].partition("/")
        name, query, after = name.partition("?")
        return f"/{known[name]}{query}{after}" if query else f"/{known[name]}/{rest}"
    return f"/{known['bucket']}{target}" if target.startswith("?") else f"/{known['bucket']}/{target}"


def _body(sent: dict[str, str], bucket: str) -> tuple[bytes, dict[str, str]]:
    """The body that the items give, and the headers."""
    body = b""
    headers = dict(sent)
    for name, value in sent.items():
        match name:
            case "body":
                body = value.encode()
            case "mebibytes":
                body = b"x" * (int(value) << 20)
            case "xml":
                body = value.encode()
            case "tags":
                tags = (pair.split("=") for pair in value.split("&"))
                inner = "".join(f"<Tag><Key>{key}</Key><Value>{text}</Value></Tag>" for key, text in tags)
                body = f"<Tagging><TagSet>{inner}</TagSet></Tagging>".encode()
            case "delete":
                body = f"<Delete>{''.join(map(_deleted, value.split()))}</Delete>".encode()
            case "parts":
                pairs = (part.split("=", 1) for part in value.split())
                inner = "".join(f"<Part><PartNumber>{number}</PartNumber><ETag>{etag}</ETag></Part>" for number, etag in pairs)
                body = f"<CompleteMultipartUpload>{inner}</CompleteMultipartUpload>".encode()
            case "statement":
                body = json.dumps({"Version": "2012-10-17", "Statement": [
                    _statement(text.strip(), bucket) for text in value.split(";")]}).encode()
            case _:
                continue
        del headers[name]
        headers["content-md5"] = base64.b64encode(hashlib.md5(body, usedforsecurity=False).digest()).decode()
    return body, headers


def _deleted(word: str) -> str:
    key, _, version = word.partition("?versionId=")
    return f"<Object><Key>{key}</Key>{f'<VersionId>{version}</VersionId>' if version else ''}</Object>"


def _statement(text: str, bucket: str) -> dict[str, object]:
    """``Allow other GetObject,PutObject [k*] [if Operator key value]``: on the bucket or its objects, as each action is about."""
    before, _, condition = text.partition(" if ")
    effect, who, actions, *keys = before.split()
    names = [f"s3:{name}" for name in actions.split(",")]
    about = {KIND_OF.get(name.lower(), "object") for name in names}
    resources = [f"arn:aws:s3:::{bucket}"] if "bucket" in about or "*" in actions else []
    if "object" in about or "*" in actions:
        resources += [f"arn:aws:s3:::{bucket}/{key}" for key in keys or ["*"]]
    principal: object = "*" if who == "everyone" else {"CanonicalUser": OTHER_ID} if who == "other" else {
        "AWS": f"arn:aws:iam::{who.replace('.', ':user/')}" if "." in who else who}
    found: dict[str, object] = {"Effect": effect, "Principal": principal, "Action": names, "Resource": resources}
    if condition:
        operator, key, value = condition.split(" ", 2)
        found["Condition"] = {operator: {key: value}}
    return found


def _value(what: str, answer: Answer) -> str | None:
    if what == "body":
        return answer.text
    if what == "message":
        text = answer.element("Message")
        return None if text is None else html.unescape(text)
    if what.startswith("<"):
        return answer.element(what.strip("<>"))
    return answer.headers.get(what)


def _wrong(step: Step, answer: Answer, known: Mapping[str, str]) -> str:
    """What isn't as it should be; "" if all is."""
    if not step.checked:
        return "" if answer.status in (200, 204, 206) and b"<Error>" not in answer.body else "it should have succeeded"
    if answer.status != step.status:
        return f"the status is not {step.status}"
    if step.method != "HEAD" and step.code and answer.element("Code") != step.code:
        return f"the code is not {step.code}"
    for what, value in step.wanted:
        wanted = _filled(value, known)
        if what.endswith(">*"):
            if answer.elements(what.strip("<>*")) != wanted.split(", "):
                return f"{what} is {answer.elements(what.strip('<>*'))}, not {wanted.split(', ')}"
            continue
        found = _value(what, answer)
        if found is None if wanted == "*" else found != (None if wanted == "none" else wanted):
            return f"{what} is {found!r}, not {wanted!r}"
    return ""
