"""How commands reach a running server: requests to the admin API, signed with version 4, and their answers.

Every failure becomes a CommandError here: a sentence for people that says what is wrong and what to do next. botocore
takes 0.15 s to import, so the first request does it.
"""

import email.utils
import os
import re
import socket
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NoReturn, Protocol, TypeVar
from urllib.parse import quote, urlencode, urlsplit

import msgspec

from gateway.cli.keys import CommandError, find_keys

TIMEOUT_S = 60.0
"""Without a byte from the server. Long work says something every few seconds."""

DEFAULT_ENDPOINT = "http://127.0.0.1:9000"
PREFIX = "/-/admin/"
REGION = re.compile(r"(?!-)[A-Za-z0-9-]{1,63}(?<!-)")

Value = TypeVar("Value")


class Paged(Protocol):
    """An answer that is one page of a list. `next`: what the next one comes after, "" of the last."""

    @property
    def next(self) -> str: ...


PageOf = TypeVar("PageOf", bound=Paged)


class Connection:
    """Made for each command; connects when it is first asked for something."""

    def __init__(
        self, *, endpoint: str, data: Path | None, ca_bundle: Path | None, environ: Mapping[str, str] = os.environ,
    ) -> None:
        """Raises CommandError for an endpoint that is none, and for keys that are not there."""
        self.endpoint = endpoint.rstrip("/")
        if not _is_address(self.endpoint):
            raise CommandError(f"--endpoint {endpoint!r} is not an address such as {DEFAULT_ENDPOINT}.", status=2)
        if ca_bundle is not None and not ca_bundle.is_file():
            raise CommandError(f"--ca-bundle {ca_bundle} is not a file.", status=2)
        self.keys = find_keys(data, environ)
        self.ca_bundle = ca_bundle
        self.region = environ.get("AWS_REGION") or environ.get("AWS_DEFAULT_REGION") or "us-east-1"
        if not REGION.fullmatch(self.region):           # it becomes part of headers and addresses
            raise CommandError(
                f"AWS_REGION or AWS_DEFAULT_REGION is {self.region!r}, which is no region such as us-east-1.", status=2)
        self._session: Any = None

    # The admin API

    def get(self, path: str, kind: type[Value], **fields: object) -> Value:
        """Ask for something. Fields that are None or empty are left out. Raises CommandError."""
        return self._decode(self._ask("GET", path, fields).content, kind)

    def pages(self, path: str, kind: type[PageOf], **fields: object) -> Iterator[PageOf]:
        """Ask for a list, page by page. Raises CommandError."""
        after = ""
        while True:
            page = self.get(path, kind, after=after, **fields)
            yield page
            after = page.next
            if not after:
                return

    def post(self, path: str, kind: type[Value], **fields: object) -> Value:
        """Change something. Fields that are None are left out; an empty one is a value. Raises CommandError."""
        return self._decode(self._ask("POST", path, fields).content, kind)

    def lines(self, path: str, **fields: object) -> Iterator[dict[str, Any]]:
        """Long work: what it says until its result, the last one with `result`. Raises CommandError."""
        answer = self._ask("POST", path, fields, stream=True)
        line: dict[str, Any] = {}
        for raw in self._raw_lines(answer):
            try:
                line = msgspec.json.decode(raw, type=dict[str, Any])
                if not line.keys() & {"progress", "result"}:
                    error = line["error"]
                    raise CommandError(f"{error['message']} (request {error['request_id']})", code=error["code"])
            except (msgspec.DecodeError, UnicodeDecodeError, KeyError, TypeError):
                raise self._other_server(answer) from None
            yield line
        if "result" not in line:
            raise CommandError("the server ended the answer before it was whole. Was it stopped? Its log tells; then ask again.")

    def download(self, path: str, **fields: object) -> tuple[int, Iterator[bytes]]:
        """Bytes: how many, and the pieces. Raises CommandError."""
        answer = self._ask("GET", path, fields, stream=True)
        length = int(answer.headers.get("content-length", "0"))
        return length, self._pieces(answer, length)

    def _pieces(self, answer: Any, length: int) -> Iterator[bytes]:
        came = 0
        for piece in self._raw(answer):
            came += len(piece)
            yield piece
        if came != length:
            raise CommandError(f"the server sent {came} bytes of {length}: its log tells why.")

    def _raw_lines(self, answer: Any) -> Iterator[bytes]:
        rest = b""
        for piece in self._raw(answer):
            *lines, rest = (rest + piece).split(b"\n")
            yield from filter(None, lines)

    def _raw(self, answer: Any) -> Iterator[bytes]:
        from urllib3.exceptions import HTTPError

        try:
            yield from answer.raw.stream(1 << 20)
        except HTTPError as error:
            raise CommandError(
                f"the connection to {self.endpoint} was lost in the middle of the answer ({error}). Ask again.") from None

    def _ask(self, method: str, path: str, fields: dict[str, object], *, stream: bool = False) -> Any:
        """The answer with status 200. A server of another region says which: then it is signed again for that one."""
        from botocore.auth import S3SigV4Auth
        from botocore.awsrequest import AWSRequest
        from botocore.credentials import Credentials
        from botocore.httpsession import URLLib3Session

        given = {name: value for name, value in fields.items() if value is not None and (value != "" or method == "POST")}
        try:
            query = "" if method == "POST" or not given else "?" + urlencode(
                {name: _text(value) for name, value in given.items()}, quote_via=quote)     # S3 takes "+" for itself
            body = msgspec.json.encode(given) if method == "POST" else b""
        except UnicodeEncodeError:
            raise CommandError("names are UTF-8; one that was given is not.", status=2) from None
        if self._session is None:
            self._session = URLLib3Session(timeout=TIMEOUT_S, verify=str(self.ca_bundle) if self.ca_bundle else True)
        for _ in range(2):
            request = AWSRequest(method, f"{self.endpoint}{PREFIX}{path}{query}", {"content-type": "application/json"}, body,
                                 stream_output=stream)
            S3SigV4Auth(Credentials(self.keys.access_key, self.keys.secret_key), "s3", self.region).add_auth(request)
            answer = self._send(request.prepare())
            region = answer.headers.get("x-amz-bucket-region")
            if answer.status_code == 200 or region in (None, self.region):
                break
            self.region = region
        if answer.status_code != 200:
            self._refused(answer)
        return answer

    def _send(self, request: Any) -> Any:
        from botocore.exceptions import ConnectionError, HTTPClientError

        try:
            return self._session.send(request)
        except (ConnectionError, HTTPClientError) as error:
            raise self.no_answer(error) from None

    def no_answer(self, error: Exception) -> CommandError:
        """Of what botocore raises when there is no HTTP answer."""
        from botocore import exceptions

        match error:
            case exceptions.SSLError():
                return self._not_trusted(str(error))
            case exceptions.ConnectTimeoutError() | exceptions.ReadTimeoutError():
                return CommandError(
                    f"{self.endpoint} does not answer (waited {TIMEOUT_S:g} s). Is it the right address? A firewall?")
            case exceptions.EndpointConnectionError():
                return CommandError(self._unreachable(), code="Unreachable")
            case exceptions.ConnectionClosedError():
                hint = " Does it want https://?" if self.endpoint.startswith("http://") else " Its log tells more."
                return CommandError(f"{self.endpoint} closed the connection without an answer.{hint}")
            case _:
                return CommandError(f"no answer from {self.endpoint}: {error}")

    def _unreachable(self) -> str:
        host = urlsplit(self.endpoint).hostname or ""
        try:
            socket.getaddrinfo(host, None)
        except OSError:
            return f"the host {host!r} has no address. Is it spelt right in --endpoint or STADDLE_ENDPOINT?"
        return (f"no server answers at {self.endpoint}. Start one with `staddle serve`, or say where it is with --endpoint URL "
                "or STADDLE_ENDPOINT.")

    def _not_trusted(self, reason: str) -> CommandError:
        if "WRONG_VERSION_NUMBER" in reason or "record layer failure" in reason:
            return CommandError(f"{self.endpoint} does not speak TLS: try http:// instead of https://.")
        return CommandError(f"the certificate of {self.endpoint} is not trusted: give the file with its authority's certificate "
                            f"as --ca-bundle FILE. ({reason.rpartition('] ')[2].partition(' (_ssl')[0]})")

    def _refused(self, answer: Any) -> NoReturn:
        """The error of the admin API, in words that say what to do."""
        try:
            error = msgspec.json.decode(answer.content, type=dict[str, str])
            code, message, request_id = error["code"], error["message"], error["request_id"]
        except (msgspec.DecodeError, KeyError):
            raise self._other_server(answer) from None
        raise CommandError(self.advice(code, answer) or f"{message} (request {request_id})", code=code)

    def _other_server(self, answer: Any) -> CommandError:
        server = answer.headers.get("server", "unknown")
        return CommandError(
            f"{self.endpoint} answers {answer.status_code}, but not as the admin API of a Staddle server would "
            f"(Server: {server}). Is it the right address?")

    def advice(self, code: str, answer: Any) -> str:
        """For what has to do with who asks, and with when."""
        key, source = self.keys.access_key, self.keys.source
        if code == "InvalidAccessKeyId":
            return (f"the server at {self.endpoint} does not know the access key {key} (from {source}), or it has been disabled. "
                    "Use another, or the root key: --data DIR.")
        if code == "SignatureDoesNotMatch":
            return (f"the secret key (from {source}) is not the one of the access key {key}. Is it whole, without spaces "
                    "around it?")
        if code == "AccessDenied":
            return (f"the access key {key} (from {source}) is not an admin's. Use the root key (--data DIR), or have an "
                    "admin run `staddle user change NAME --admin`.")
        if code == "InvalidBucketName":
            return ("a bucket's name is 3 to 63 of a-z, 0-9, '-' and '.', begins and ends with a letter or digit, and does not "
                    "look like an IP address.")
        if code == "RequestTimeTooSkewed":
            apart = self._skew(answer) if answer is not None else "more than 15 minutes apart from"
            return f"this machine's clock is {apart} the server's: requests must be within 15 minutes. Set it right."
        return ""

    @staticmethod
    def _skew(answer: Any) -> str:
        there = email.utils.parsedate_to_datetime(answer.headers.get("date", "")).timestamp()
        minutes = round((time.time() - there) / 60)
        return f"{abs(minutes)} minutes {'ahead of' if minutes > 0 else 'behind'}"

    @staticmethod
    def not_understood(error: msgspec.DecodeError) -> CommandError:
        return CommandError(f"the server's answer is not understood: {error}. Are server and command line the same version?")

    def _decode(self, body: bytes, kind: type[Value]) -> Value:
        try:
            return msgspec.json.decode(body, type=kind)
        except msgspec.DecodeError as error:
            raise self.not_understood(error) from None


def _is_address(endpoint: str) -> bool:
    try:
        parts = urlsplit(endpoint)
        return parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0 and not (parts.path or parts.query)
    except ValueError:              # of brackets or a port
        return False


def _text(value: object) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)
