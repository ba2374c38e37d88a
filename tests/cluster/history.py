"""Clients that write while things break and remember what they were told, to be compared with what is there later.

Each request ends in one of three ways: *acknowledged* (2xx: it must have happened), *refused* (503 or 4xx: it must not
have happened), *unknown* (5xx, or no answer: either is right). For each key a client so knows the values that may be
there: exactly one after an acknowledged write, one more after each unknown one.
"""

import contextlib
import hashlib
import http.client
import random
import threading
import time
import xml.etree.ElementTree as Xml
from collections import Counter
from dataclasses import dataclass, field
from urllib.parse import quote

from tests.bench.signer import Signer
from tests.servers import ACCESS_KEY, SECRET_KEY, StaddleProcess

BUCKET = "history"
KEYS_A_CLIENT = 40
SIZES = (0, 1, 700, 4096, 4096, 4096, 70_000, 300_000, 1_500_000)
"""Small ones go into segments, the largest into files of their own."""

ANSWER_TIMEOUT_S = 60.0
"""Longer than the 30 s after which the server gives up on a commit: hanging up earlier would hide a late one."""

RECONNECT_S = 0.02

Value = str | None
"""What a key holds: the SHA-256 of its bytes, or None when it is absent."""


class NotSent(Exception):
    """Nobody listens: the request never left."""


class Unanswered(Exception):
    """The connection broke with the answer outstanding."""


class Talker:
    """One keep-alive connection that signs and sends requests."""

    def __init__(self, server: StaddleProcess) -> None:
        self._server = server
        self._signer = Signer(host=f"127.0.0.1:{server.port}", access_key=ACCESS_KEY, secret_key=SECRET_KEY)
        self._connection: http.client.HTTPConnection | None = None

    def __enter__(self) -> "Talker":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def ask(self, method: str, path: str, query: str = "", body: bytes = b"", headers: tuple[tuple[str, str], ...] = (),
            digest: str | None = None) -> tuple[int, bytes, dict[str, str]]:
        """Status, body and headers. `digest` is the body's SHA-256 where it is known. Raises NotSent or Unanswered."""
        request = self._signer.request(method, path, query=query, body=body, headers=headers, payload=digest)
        if self._connection is None:
            self._connection = self._server.connect(ANSWER_TIMEOUT_S)
            try:
                self._connection.connect()
            except OSError as error:
                self._connection = None
                raise NotSent(str(error)) from error
        connection = self._connection
        try:
            connection.sock.sendall(request)
            answer = http.client.HTTPResponse(connection.sock, method=method)
            answer.begin()
            data = answer.read()
        except (OSError, http.client.HTTPException) as error:
            self.close()
            raise Unanswered(repr(error)) from error
        if answer.will_close:
            self.close()
        return answer.status, data, {name.lower(): value for name, value in answer.headers.items()}

    def close(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None


def ask(server: StaddleProcess, method: str, path: str, body: bytes = b"") -> tuple[int, bytes]:
    """Status and body of one request over a connection of its own."""
    with Talker(server) as talker:
        status, answer, _ = talker.ask(method, path, body=body)
    return status, answer


@dataclass
class Client:
    """Writes its own keys, one request at a time, until told to stop."""

    server: StaddleProcess
    name: str
    seed: int
    possible: dict[str, set[Value]] = field(default_factory=dict)
    outcomes: Counter[str] = field(default_factory=Counter)
    refusals: Counter[str] = field(default_factory=Counter)
    wrong: list[str] = field(default_factory=list)
    stopping: threading.Event = field(default_factory=threading.Event)

    def __post_init__(self) -> None:
        self._choose = random.Random(self.seed)
        self._talker = Talker(self.server)

    def run(self) -> None:
        """Until `stopping` is set. Anything unexpected goes to `wrong`."""
        while not self.stopping.is_set():
            key = f"{self.name}/{self._choose.randrange(KEYS_A_CLIENT):03}"
            kind = self._choose.choices(("put", "delete", "multipart", "get"), (60, 15, 5, 20))[0]
            try:
                getattr(self, f"_{kind}")(key)
            except NotSent:
                self.outcomes["not sent"] += 1
                time.sleep(RECONNECT_S)
        self._talker.close()

    def _put(self, key: str) -> None:
        body = self._body()
        self._write("PUT", key, self._value(body), body=body)

    def _delete(self, key: str) -> None:
        self._write("DELETE", key, None)

    def _get(self, key: str) -> None:
        possible = self.possible.get(key, {None})
        with contextlib.suppress(Unanswered):
            status, body, _ = self._talker.ask("GET", f"/{BUCKET}/{key}")
            if status < 500:
                value = self._value(body) if status == 200 else None
                if value not in possible:
                    self.wrong.append(f"GET {key} answered {status} {value}, possible were {possible}")

    def _multipart(self, key: str) -> None:
        body = self._body() or b"-"
        path = f"/{BUCKET}/{key}"
        try:
            status, answer, _ = self._talker.ask("POST", path, "uploads=")
            if status != 200:
                return
            upload = quote(Xml.fromstring(answer).findtext("{*}UploadId") or "", safe="")
            status, _, headers = self._talker.ask("PUT", path, f"partNumber=1&uploadId={upload}", body)
            if status != 200:
                return
        except Unanswered:
            return                    # an upload that nobody completes never shows
        listed = (f"<CompleteMultipartUpload><Part><PartNumber>1</PartNumber><ETag>{headers['etag']}</ETag></Part>"
                  "</CompleteMultipartUpload>").encode()
        self._write("POST", key, self._value(body), query=f"uploadId={upload}", body=listed)

    def _write(self, method: str, key: str, value: Value, *, query: str = "", body: bytes = b"") -> None:
        before = self.possible.get(key, {None})
        # Until the answer is here, both may be: the main thread may look at any moment.
        self.possible[key] = before | {value}
        try:
            status, answer, _ = self._talker.ask(method, f"/{BUCKET}/{key}", query, body)
        except NotSent:
            self.possible[key] = before
            raise
        except Unanswered:
            self.outcomes["unknown"] += 1
            return
        if 200 <= status < 300 and b"<Error>" not in answer:
            self.outcomes["acknowledged"] += 1
            self.possible[key] = {value}
        elif status == 503 or 400 <= status < 500:
            self.outcomes["refused"] += 1
            self.refusals[f"{method}, {len(body)} bytes: {status} {answer[:300].decode(errors='replace')}"] += 1
            self.possible[key] = before
            if status != 503:
                self.wrong.append(f"{method} {key} was refused with {status}: {answer[:300]!r}")
        else:
            self.outcomes["unknown"] += 1

    def _body(self) -> bytes:
        size = self._choose.choice(SIZES)
        return self._choose.randbytes(size)

    @staticmethod
    def _value(body: bytes) -> Value:
        return hashlib.sha256(body).hexdigest()


class Clients:
    """Several clients in threads, and the comparison of what they know with what is there."""

    def __init__(self, server: StaddleProcess, count: int, seed: int) -> None:
        self._server = server
        self.clients = [Client(server, f"c{number}", seed * 1000 + number) for number in range(count)]
        self._threads: list[threading.Thread] = []

    def start(self) -> None:
        for client in self.clients:
            client.stopping.clear()
        self._threads = [threading.Thread(target=client.run, daemon=True) for client in self.clients]
        for thread in self._threads:
            thread.start()

    def stop(self) -> None:
        """Returns once every client has the answer to its last request."""
        for client in self.clients:
            client.stopping.set()
        for thread in self._threads:
            thread.join(ANSWER_TIMEOUT_S)
            assert not thread.is_alive(), "a request has had no answer for a minute"

    @property
    def outcomes(self) -> Counter[str]:
        return sum((client.outcomes for client in self.clients), Counter())

    def check(self) -> list[str]:
        """Violations: keys that hold what they can't, listings that disagree with reads. From here on, what was seen is
        what is: an unknown write has had its time."""
        talker = Talker(self._server)
        wrong = [text for client in self.clients for text in client.wrong]
        for client in self.clients:
            listed = _listed(talker, client.name)
            for key in [*client.possible, *(listed - client.possible.keys())]:
                possible = client.possible.get(key, {None})
                status, body, _ = talker.ask("GET", f"/{BUCKET}/{key}")
                seen = hashlib.sha256(body).hexdigest() if status == 200 else None
                if status not in (200, 404):
                    wrong.append(f"{key}: GET answers {status}: {body[:300]!r}")
                    continue
                if seen not in possible:
                    wrong.append(f"{key}: holds {seen}, possible are {sorted(map(str, possible))}")
                if (key in listed) != (seen is not None):
                    wrong.append(f"{key}: {'listed' if key in listed else 'not listed'}, but GET answers {status}")
                client.possible[key] = {seen}
            client.wrong.clear()
        talker.close()
        return wrong


def make_bucket(server: StaddleProcess) -> None:
    status, answer = ask(server, "PUT", f"/{BUCKET}")
    assert status == 200, answer


def _listed(talker: Talker, prefix: str) -> set[str]:
    """All keys below the prefix, page by page."""
    keys: set[str] = set()
    after = ""
    while True:
        query = f"list-type=2&max-keys=1000&prefix={quote(prefix + '/', safe='')}&start-after={quote(after, safe='')}"
        query = "&".join(sorted(query.split("&")))
        status, answer, _ = talker.ask("GET", f"/{BUCKET}", query)
        assert status == 200, answer
        page = [key.text or "" for key in Xml.fromstring(answer).iterfind("{*}Contents/{*}Key")]
        keys.update(page)
        if len(page) < 1000:
            return keys
        after = page[-1]
