"""Somebody who means harm, against a whole server: he sends any bytes, and what he gets back is looked at closely.

`Attacker.refused` holds what every refusal must be: the right code and status, in XML, with the request's id, and with
nothing in it that a stranger should not know. `Attacker.unharmed` is asked after each attack: the server still answers,
the bucket holds what it held, and the log has neither a traceback nor a secret.
"""

import hashlib
import socket
import time
from collections.abc import Iterable

import pytest

from tests import signing
from tests.clients.shell import Target
from tests.clients.wire import Answer, Wire
from tests.servers import ACCESS_KEY, REGION, ROOT, SECRET_KEY, StaddleProcess

OTHER_ACCESS_KEY = "OTHERPERSONSACCESSKEY"
OTHER_SECRET_KEY = "other/person+s/secret/of/forty/chars/123"

LIMITED_ACCESS_KEY = "LIMITEDPERSONSACCESSKEY"
LIMITED_SECRET_KEY = "limited/person+s/secret/of/forty/chars/1"
"""A user of the attacked account, who may read in buckets whose names begin with "a-", and nothing else."""

HANG_S = 5.0
"""No attack may keep a client waiting for longer."""

VICTIM = b"what the victim stored"

both_schemes = pytest.mark.parametrize("scheme", ["http", "https"])
"""For attacks whose way through the server depends on TLS: who reads the body, and in which pieces."""


class Attacker:
    """Knows a key of his own, whose bucket `bucket` (a path) holds one object, `victim`."""

    def __init__(self, server: StaddleProcess, bucket: str) -> None:
        self.server = server
        self.bucket = bucket
        self.target = target(server)
        self.wire = Wire(self.target)
        self.keys = self.wire.keys
        self.stored = {"victim"}
        """Keys that a test rightly put there."""
        self._log_start = server.log_path.stat().st_size

    @property
    def victim(self) -> str:
        return f"{self.bucket}/victim"

    def prepare(self) -> None:
        assert self.wire.ask("PUT", self.bucket).status == 200
        assert self.wire.ask("PUT", self.victim, body=VICTIM).status == 200

    def prepare_again(self) -> None:
        """After a test that rightly removed the victim."""
        assert self.wire.ask("PUT", self.victim, body=VICTIM).status == 200

    def forget_log(self) -> None:
        """What the log says up to here is as it should be."""
        self._log_start = self.server.log_path.stat().st_size

    # Sending

    def ask(self, method: str, path: str, headers: dict[str, str] | None = None, **how: object) -> Answer:
        """Properly signed."""
        began = time.monotonic()
        answer = self.wire.ask(method, path, headers, **how)  # type: ignore[arg-type]
        assert time.monotonic() - began < HANG_S
        return answer

    def send(self, method: str, path: str, headers: dict[str, str], body: bytes = b"") -> Answer:
        """With exactly these headers, on a connection of its own."""
        wire = Wire(self.target)
        began = time.monotonic()
        try:
            answer = wire.send(method, path, headers, body)
        finally:
            wire.close()
        assert time.monotonic() - began < HANG_S
        return answer

    def anonymous(self, method: str, path: str, headers: dict[str, str] | None = None, body: bytes = b"") -> Answer:
        sent = {"host": self.target.netloc, **(headers or {})}
        if method in ("PUT", "POST"):
            sent.setdefault("content-length", str(len(body)))
        return self.send(method, path, sent, body)

    def as_other(self, method: str, path: str, headers: dict[str, str] | None = None, body: bytes = b"") -> Answer:
        """Properly signed by somebody of another account."""
        return self._as(signing.Keys(access_key=OTHER_ACCESS_KEY, secret_key=OTHER_SECRET_KEY, region=REGION), method, path,
                        headers, body)

    def as_limited(self, method: str, path: str, headers: dict[str, str] | None = None, body: bytes = b"") -> Answer:
        """Properly signed by a user of the attacked account who may only read."""
        return self._as(signing.Keys(access_key=LIMITED_ACCESS_KEY, secret_key=LIMITED_SECRET_KEY, region=REGION), method, path,
                        headers, body)

    def _as(self, keys: signing.Keys, method: str, path: str, headers: dict[str, str] | None, body: bytes) -> Answer:
        signed = signing.sign_request(
            method, self.target.url + path, headers, keys=keys, now_s=time.time(), payload=hashlib.sha256(body).hexdigest())
        return self.send(method, path, {**signed, "content-length": str(len(body))}, body)

    def raw(self, data: bytes, *, half_close: bool = False) -> bytes:
        """Whatever comes back for these bytes until the server closes, or is silent for a second (a fifth of one after
        it has begun: over TLS it leaves closing to us)."""
        wire = Wire(self.target)
        connection = wire._connect()
        connection.settimeout(1.0)
        received = b""
        try:
            connection.sendall(data)
            if half_close:
                connection.shutdown(socket.SHUT_WR)
            while piece := connection.recv(65_536):
                received += piece
                connection.settimeout(0.2)
        except (TimeoutError, ConnectionError):
            pass
        finally:
            connection.close()
        return received

    # Judging

    def refused(self, answer: Answer, code: str | Iterable[str], status: int) -> Answer:
        codes = {code} if isinstance(code, str) else set(code)
        assert answer.status == status, answer
        assert answer.element("Code") in codes, answer.text
        self.decent(answer)
        return answer

    def decent(self, answer: Answer) -> None:
        """What every error answer is."""
        assert answer.headers["content-type"] == "application/xml"
        assert answer.element("RequestId") == answer.headers["x-amz-request-id"]
        assert answer.element("HostId") == answer.headers["x-amz-id-2"]
        for secret in (SECRET_KEY, OTHER_SECRET_KEY, LIMITED_SECRET_KEY, "Traceback", str(self.server.folder), str(ROOT), ".py"):
            assert secret not in answer.text

    def unharmed(self) -> None:
        self.wire.close()
        answer = self.ask("GET", self.victim)
        assert (answer.status, answer.body) == (200, VICTIM)
        listed = self.ask("GET", f"{self.bucket}?list-type=2")
        assert set(listed.elements("Key")) == self.stored
        uploads = self.ask("GET", f"{self.bucket}?uploads")
        assert "<Upload>" not in uploads.text
        self.wire.close()
        with self.server.log_path.open("rb") as log:
            log.seek(self._log_start)
            said = log.read().decode(errors="replace")
        assert "Traceback" not in said, said
        assert "internal error" not in said, said
        for secret in (SECRET_KEY, OTHER_SECRET_KEY, LIMITED_SECRET_KEY):
            assert secret not in said


def target(server: StaddleProcess) -> Target:
    certificate = server.certificate.certificate if server.certificate else None
    return Target(url=server.endpoint, access_key=ACCESS_KEY, secret_key=SECRET_KEY, region=REGION, ca=certificate)
