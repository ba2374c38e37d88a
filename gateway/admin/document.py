"""docs/ADMIN_API.md, printed from the table of endpoints and the structs of what they are asked and answer."""

import types
from typing import Annotated, Any, Union, get_args, get_origin, get_type_hints

import msgspec

from gateway.admin.endpoints import ENDPOINTS
from gateway.admin.errors import STATUS
from gateway.admin.table import PREFIX, Download, Endpoint
from gateway.admin.values import Answer
from gateway.s3.errors import CODES

INTRO = """
Everything that the command line does with a running server goes over this interface, and any program may use it.

* Requests go to the S3 endpoint, below `/-/admin/`. Most paths are those of the command line (`staddle user create` is
  `POST /-/admin/user/create`).
* They are signed with **AWS signature version 4 in headers** (service `s3`, the server's region), with `x-amz-content-sha256`
  being the SHA-256 of the body, by the key of an **admin**: the root key, or a user with `admin`. Presigned links, version 2 and
  unsigned bodies are refused, and so is everybody else: 403, whatever the path. Each request is logged with who made it.
* `GET` takes its fields from the query (spaces as `%20`), `POST` from a JSON object of at most 1 MiB. A field that is not
  known is an error.
* Answers are JSON objects; new fields may be added to them. Times are ISO 8601 in UTC, sizes are bytes.
* Errors are `{"code", "message", "request_id"}` with a status of 400 or above. The message says what to do.
* **Long work** answers JSON lines (`application/x-ndjson`): `{"progress": {...}}` now and then, at last `{"result": {...}}` or
  `{"error": {...}}`. Without that last line the answer is not whole. It is given up when the client leaves.

```python
import hashlib, json, urllib.request
from botocore.auth import S3SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials

request = AWSRequest("POST", "http://127.0.0.1:9000/-/admin/user/create", data=json.dumps({"name": "backup"}))
S3SigV4Auth(Credentials(access_key, secret_key), "s3", "us-east-1").add_auth(request)
answer = urllib.request.urlopen(urllib.request.Request(request.url, request.body, dict(request.headers), method="POST"))
print(json.load(answer))
```
"""

ANY = ("AccessDenied", "InvalidAccessKeyId", "SignatureDoesNotMatch", "RequestTimeTooSkewed", "AuthorizationHeaderMalformed",
       "XAmzContentSHA256Mismatch", "InvalidArgument", "InvalidJSON", "RequestTooLarge", "NoSuchEndpoint", "MethodNotAllowed",
       "SlowDown", "Unavailable", "NoSpace", "UnknownOutcome", "Damaged", "Misconfigured", "InternalError")
"""Errors that any endpoint may answer."""


def documentation(note: str) -> str:
    lines = ["# Admin API", note, INTRO.strip(), "", "## Errors of all endpoints", "",
             ", ".join(f"`{code}` ({_status(code)})" for code in ANY), ""]
    lines += ["## Endpoints", ""]
    answers: dict[str, Any] = {}
    for row in ENDPOINTS:
        lines += _endpoint(row)
        if row.answer is not Download:
            _collect(row.answer, answers)
    lines += ["## What is answered", ""]
    for name in sorted(answers):
        lines += _answer(answers[name])
    return "\n".join(lines)


def _endpoint(row: Endpoint) -> list[str]:
    lines = [f"### `{row.method} {PREFIX}{row.path}`", "", row.summary, ""]
    fields = msgspec.structs.fields(row.asked)
    hints = get_type_hints(row.asked, include_extras=True)
    if fields:
        lines += ["| field | | default | |", "|---|---|---|---|"]
        lines += [f"| `{field.name}` | {_kind(hints[field.name])} | {_default(field)} | {_about(hints[field.name])} |"
                  for field in fields]
        lines.append("")
    answer = "the bytes" if row.answer is Download else f"[{row.answer.__name__}](#{row.answer.__name__.lower()})"
    lines.append(f"Answer: {answer}{', as the result of long work' if row.streams else ''}."
                 + (f" Errors: {', '.join(f'`{code}` ({_status(code)})' for code in row.errors)}." if row.errors else ""))
    return [*lines, ""]


def _answer(kind: Any) -> list[str]:
    hints = get_type_hints(kind, include_extras=True)
    about = " ".join((kind.__doc__ or "").split())
    fields = ", ".join(f"`{name}` {_kind(hints[name])}" for name in kind.__struct_fields__) or "no fields"
    return [f"### {kind.__name__}", "", *([about, ""] if kind.__doc__ else []), fields, ""]


def _collect(kind: Any, found: dict[str, Any]) -> None:
    """The struct and those inside it."""
    if get_origin(kind) is Annotated or get_origin(kind) in (list, dict, tuple, Union, types.UnionType):
        for inner in get_args(kind):
            _collect(inner, found)
    elif isinstance(kind, type) and issubclass(kind, Answer) and kind.__name__ not in found:
        found[kind.__name__] = kind
        for hint in get_type_hints(kind).values():
            _collect(hint, found)


def _kind(hint: Any) -> str:
    if get_origin(hint) is Annotated:
        return _kind(get_args(hint)[0])
    if get_origin(hint) in (Union, types.UnionType):
        return " or ".join(dict.fromkeys(_kind(inner) for inner in get_args(hint) if inner is not type(None)))
    if get_origin(hint) in (list, tuple):
        return f"list of {_kind(get_args(hint)[0])}"
    if get_origin(hint) is dict:
        return "object"
    if isinstance(hint, type) and issubclass(hint, Answer):
        return f"[{hint.__name__}](#{hint.__name__.lower()})"
    return {str: "text", int: "number", float: "number", bool: "true or false", object: "any"}.get(hint, str(hint))


def _default(field: msgspec.structs.FieldInfo) -> str:
    if field.required:
        return "required"
    if field.default is None or field.default == "":
        return ""
    return str(field.default).lower()


def _about(hint: Any) -> str:
    if get_origin(hint) is not Annotated:
        return ""
    return " ".join(meta.description for meta in get_args(hint)[1:] if isinstance(meta, msgspec.Meta) and meta.description)


def _status(code: str) -> int:
    if code in STATUS:
        return STATUS[code]
    return CODES[code][0]
