"""One connection that signs and sends requests, and says in which of three ways each ended: with an answer, unsent
(nobody listens), or unanswered (it may have been carried out)."""

import http.client

from tests.bench.signer import Signer
from tests.servers import ACCESS_KEY, SECRET_KEY, StaddleProcess

BUCKET = "things"
"""For tests that need one bucket and don't care about its name."""

ANSWER_TIMEOUT_S = 60.0
"""Longer than the 30 s after which the server gives up on a commit: hanging up earlier would hide a late one."""


class NotSent(Exception):
    """Nobody listens: the request never left."""


class Unanswered(Exception):
    """The connection broke with the answer outstanding."""


class Talker:
    """One keep-alive connection that signs and sends requests."""

    def __init__(self, server: StaddleProcess) -> None:
        self._server = server
        self._signer = Signer(host="{}:{}".format(*server.address), access_key=ACCESS_KEY, secret_key=SECRET_KEY)
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


def make_bucket(server: StaddleProcess) -> None:
    status, answer = ask(server, "PUT", f"/{BUCKET}")
    assert status == 200, answer
