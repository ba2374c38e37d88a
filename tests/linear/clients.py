"""Clients that write, read and list a few keys through several gateways at once, and write down what they were told.

Each client is a task with one connection to each gateway; it has one request under way at a time. Half of the requests
go to the same group of keys at the same moment, so that they meet. Every other client takes a gateway chosen anew each time
(what one acknowledged, its next request sees through another); the rest stay with one, so that some go on while others
wait for a gateway that does not answer.

    recorder = Recorder(addresses, seed=7)
    await recorder.run(seconds=60)
    verdict = checker.check(recorder.history)
"""

import asyncio
import hashlib
import itertools
import math
import random
import time
import xml.etree.ElementTree as Xml
from collections import Counter
from collections.abc import Sequence
from typing import NamedTuple

from tests.bench.signer import Signer
from tests.linear.history import EXPECTING, WRITES, Kind, Op, Outcome
from tests.servers import ACCESS_KEY, SECRET_KEY

BUCKET = "linear"
CLIENTS = 12
GROUPS = 5
KEYS_A_GROUP = 3
SLICE_S = 0.25
"""The favoured group changes so often."""

FAVOURED = 0.5
ANSWER_TIMEOUT_S = 10.0
"""Then a client hangs up, and does not know."""

CONNECT_TIMEOUT_S = 1.0
PAUSE_S = 0.05
"""After a request that was refused or got no connection, so that a gateway without metadata isn't asked in circles."""

BODY_BYTES_MAX = 3000
WEIGHTS = {Kind.PUT: 24, Kind.CREATE: 10, Kind.SWAP: 12, Kind.APPEND: 10, Kind.RENAME: 8, Kind.DELETE: 10, Kind.GET: 22,
           Kind.HEAD: 8, Kind.LIST: 12}
WRONG_ETAG = 0.2
"""The share of If-Match with an older ETag than the last that any client saw."""

BY_OFFSET = 0.5
"""The share of appends that are judged by nothing but their offset. No other value has its length then."""


class Made(NamedTuple):
    """What a value consists of: bytes of this length, of which the first `base`'s, if there is one, and then these."""

    size: int
    base: str
    added: str                    # MD5
    parts: int

    @property
    def etag(self) -> str:
        if not self.base:
            return self.added
        both = bytes.fromhex(self.base.partition("-")[0] + self.added)
        return f"{hashlib.md5(both).hexdigest()}-{self.parts}"


class Answer(NamedTuple):
    status: int
    headers: dict[str, str]
    body: bytes


class NoAnswer(Exception):
    """The request may have been carried out."""


class Connection:
    """To one gateway, opened when it is needed and after each failure anew."""

    def __init__(self, address: tuple[str, int]) -> None:
        self._address = address
        self._signer = Signer(host=f"{address[0]}:{address[1]}", access_key=ACCESS_KEY, secret_key=SECRET_KEY)
        self._streams: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None

    async def ask(self, method: str, path: str, query: str = "", body: bytes = b"",
                  headers: tuple[tuple[str, str], ...] = (), timeout_s: float = ANSWER_TIMEOUT_S) -> Answer:
        """Raises NoAnswer, or OSError when nothing was sent."""
        if self._streams is None:
            try:
                async with asyncio.timeout(CONNECT_TIMEOUT_S):
                    self._streams = await asyncio.open_connection(*self._address)
            except TimeoutError as error:
                raise OSError("no connection in time") from error
        reader, writer = self._streams
        try:
            async with asyncio.timeout(timeout_s):
                writer.write(self._signer.request(method, path, query=query, body=body, headers=headers))
                return await _read_answer(reader, method)
        except BaseException as error:
            self.close()
            if isinstance(error, OSError | TimeoutError | asyncio.IncompleteReadError | ValueError):
                raise NoAnswer(repr(error)) from error
            raise

    def close(self) -> None:
        if self._streams is not None:
            self._streams[1].close()
            self._streams = None


async def _read_answer(reader: asyncio.StreamReader, method: str) -> Answer:
    head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
    status = int(head[0].split(" ", 2)[1])
    headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in head[1:] if line)}
    if method == "HEAD" or status in (204, 304):
        return Answer(status, headers, b"")
    if headers.get("transfer-encoding") == "chunked":
        body = b""
        while size := int((await reader.readline()).split(b";")[0], 16):
            body += (await reader.readexactly(size + 2))[:-2]
        await reader.readline()
        return Answer(status, headers, body)
    return Answer(status, headers, await reader.readexactly(int(headers.get("content-length", "0"))))


class Recorder:
    """`history` has what was answered or is unknown, `counts` how requests ended, `wrong` answers that contradict
    themselves (a body that does not fit its ETag)."""

    def __init__(self, addresses: Sequence[tuple[str, int]], seed: int | str, *, clients: int = CLIENTS, groups: int = GROUPS,
                 bucket: str = BUCKET) -> None:
        self.addresses, self.seed, self.bucket = addresses, seed, bucket
        self.groups = [f"g{number}" for number in range(groups)]
        self.history: list[Op] = []
        self.counts: Counter[str] = Counter()
        self.refusals: Counter[str] = Counter()
        self.wrong: list[str] = []
        self.made: dict[str, Made] = {}
        """By ETag, from before it is sent."""
        self.sizes: Counter[int] = Counter()
        self.claimed: set[int] = set()
        """Lengths that are to stay those of one value."""
        self.latest: dict[str, list[str]] = {}
        """ETags of a key in the order in which clients heard of them, the last few."""
        self.stopping = asyncio.Event()
        self._clients = clients

    async def make_bucket(self, patience_s: float = 30.0) -> None:
        deadline = time.monotonic() + patience_s
        while True:
            connection = Connection(self.addresses[0])
            try:
                answer = await connection.ask("PUT", f"/{self.bucket}")
                if answer.status == 200:
                    return
                said = f"{answer.status}: {answer.body!r}"
            except (OSError, NoAnswer) as error:
                said = repr(error)
            finally:
                connection.close()
            assert time.monotonic() < deadline, said
            await asyncio.sleep(PAUSE_S)

    async def run(self, seconds: float) -> None:
        """Returns when each client has its last answer."""
        self.stopping.clear()
        clients = [Client(self, number) for number in range(self._clients)]
        async with asyncio.TaskGroup() as tasks:
            for client in clients:
                tasks.create_task(client.run())
            await asyncio.sleep(seconds)
            self.stopping.set()

    def favoured(self) -> str:
        return self.groups[int(time.monotonic() / SLICE_S) % len(self.groups)]

    def make(self, body: bytes, base: str = "") -> str | None:
        """The ETag of these bytes, or of these after those of another value. None if its length is another's alone."""
        before = self.made[base] if base else Made(0, "", "", 0)
        made = Made(before.size + len(body), base, hashlib.md5(body).hexdigest(), before.parts + 1)
        if made.size in self.claimed:
            return None
        self.made[made.etag] = made
        self.sizes[made.size] += 1
        return made.etag

    def fits(self, body: bytes, etag: str) -> bool:
        """Whether that is what was written under this ETag."""
        made = self.made.get(etag)
        while made is not None:
            start = self.made[made.base].size if made.base else 0
            if len(body) != made.size or hashlib.md5(body[start:]).hexdigest() != made.added:
                return False
            if not made.base:
                return True
            body, made = body[:start], self.made[made.base]
        return False

    def longest_silence_s(self, began: float, ended: float, kinds: frozenset[Kind] = WRITES) -> float:
        """The longest time in which nothing of these kinds was acknowledged to anybody."""
        ends = [op.end for op in self.history if op.kind in kinds and not math.isinf(op.end) and began <= op.end <= ended]
        moments = [began, *sorted(ends), ended]
        return max(after - before for before, after in itertools.pairwise(moments))


class Client:
    def __init__(self, recorder: Recorder, number: int) -> None:
        self._recorder, self._number = recorder, number
        self._choose = random.Random(f"{recorder.seed} {number}")
        self._connections = [Connection(address) for address in recorder.addresses]
        self._written = 0

    async def run(self) -> None:
        recorder, choose = self._recorder, self._choose
        kinds, weights = list(WEIGHTS), list(WEIGHTS.values())
        try:
            while not recorder.stopping.is_set():
                group = recorder.favoured() if choose.random() < FAVOURED else choose.choice(recorder.groups)
                key = f"{group}/k{choose.randrange(KEYS_A_GROUP)}"
                gateway = choose.randrange(len(self._connections)) if self._number % 2 else self._number // 2
                if not await self.once(choose.choices(kinds, weights)[0], key, gateway % len(self._connections)):
                    await asyncio.sleep(PAUSE_S)
        finally:
            self.close()

    def close(self) -> None:
        for connection in self._connections:
            connection.close()

    async def once(self, kind: Kind, key: str, gateway: int) -> bool:
        """Whether it was answered."""
        recorder = self._recorder
        path, query, body, headers, expected, to = f"/{recorder.bucket}/{key}", "", b"", (), None, ""
        method = {Kind.GET: "GET", Kind.LIST: "GET", Kind.HEAD: "HEAD", Kind.DELETE: "DELETE"}.get(kind, "PUT")
        if kind in EXPECTING:
            heard = recorder.latest.get(key)
            if not heard:
                return True
            expected = self._choose.choice(heard) if self._choose.random() < WRONG_ETAG else heard[-1]
            headers = (("if-match", f'"{expected}"'),)
        value = None
        if method == "PUT" and kind is not Kind.RENAME:
            body, value = self._body(base=expected or "" if kind is Kind.APPEND else "")
        if kind is Kind.CREATE:
            headers = (("if-none-match", "*"),)
        elif kind is Kind.APPEND:
            assert expected is not None
            headers = self._append_headers(expected)
        elif kind is Kind.RENAME:
            to = self._choose.choice([f"{key.partition('/')[0]}/k{other}" for other in range(KEYS_A_GROUP)
                                      if not key.endswith(f"/k{other}")])
            path, query = f"/{recorder.bucket}/{to}", "renameObject="
            headers = (("x-amz-rename-source", f"/{recorder.bucket}/{key}"), ("x-amz-rename-source-if-match", f'"{expected}"'))
        elif kind is Kind.LIST:
            key = key.partition("/")[0]
            path, query = f"/{recorder.bucket}", f"list-type=2&prefix={key}%2F"
        answer = None
        begin = time.monotonic()
        try:
            answer = await self._connections[gateway].ask(method, path, query, body, headers)
        except NoAnswer:
            recorder.counts["no answer"] += 1
        except OSError:
            recorder.counts["not sent"] += 1
            return False
        end = time.monotonic()

        def done(outcome: Outcome, **seen: object) -> None:
            recorder.history.append(Op(
                client=self._number, gateway=gateway, kind=kind, key=key, to=to, value=value, expected=expected, outcome=outcome,
                begin=begin, end=math.inf if outcome is Outcome.UNKNOWN else end, **seen))  # type: ignore[arg-type]

        if answer is None or (answer.status >= 500 and answer.status != 503):
            if answer is not None:
                recorder.counts[f"{answer.status}"] += 1
            if kind in WRITES:
                done(Outcome.UNKNOWN)
            return False
        recorder.counts[f"{answer.status}"] += 1
        if kind is Kind.RENAME and answer.status == 200:
            done(Outcome.OK)
            assert expected is not None
            self._heard(to, expected)
            return True
        return self._answered(kind, key, value, answer, done)

    def _body(self, base: str) -> tuple[bytes, str]:
        """Never the same twice, and its ETag; after those of `base`, if it is an append."""
        while True:
            self._written += 1
            body = f"{self._recorder.seed} {self._number} {self._written} ".encode()
            body += b"." * self._choose.randrange(BODY_BYTES_MAX)
            if value := self._recorder.make(body, base):
                return body, value

    def _append_headers(self, base: str) -> tuple[tuple[str, str], ...]:
        """Where it goes, and what must be there. The length says it alone if nothing else has it, nor ever will."""
        size = self._recorder.made[base].size
        at = ("x-amz-write-offset-bytes", str(size))
        if self._recorder.sizes[size] == 1 and self._choose.random() < BY_OFFSET:
            self._recorder.claimed.add(size)
            return (at,)
        return ("if-match", f'"{base}"'), at

    def _answered(self, kind: Kind, key: str, value: str | None, answer: Answer, done) -> bool:  # type: ignore[no-untyped-def]
        recorder, status, etag = self._recorder, answer.status, answer.headers.get("etag", "").strip('"')
        if kind is Kind.LIST and status == 200:
            listed = [(item.findtext("{*}Key") or "", (item.findtext("{*}ETag") or "").strip('"'))
                      for item in Xml.fromstring(answer.body).iterfind("{*}Contents")]
            done(Outcome.OK, listed=tuple(listed))
            for listed_key, seen in listed:
                self._heard(listed_key, seen)
        elif kind in (Kind.GET, Kind.HEAD) and status in (200, 404):
            if kind is Kind.GET and status == 200 and not recorder.fits(answer.body, etag):
                recorder.wrong.append(f"GET {key}: the body does not fit its ETag {etag}: {answer.body[:60]!r}")
            done(Outcome.OK, seen=etag if status == 200 else None)
            if status == 200:
                self._heard(key, etag)
        elif kind in WRITES and status in (200, 204):
            if value is not None and etag != value:
                recorder.wrong.append(f"{kind} {key}: answered with the ETag {etag}, the body's is {value}")
            done(Outcome.OK)
            if value is not None:
                self._heard(key, value)
        elif status == 412 and kind in (Kind.CREATE, *EXPECTING):
            done(Outcome.UNMET)
        elif status == 404 and kind in EXPECTING:
            done(Outcome.MISSING)
        elif status == 400 and kind is Kind.APPEND and b"InvalidWriteOffset" in answer.body:
            recorder.refusals["append at another offset"] += 1      # whatever is there, it is something else
        elif status in (409, 503):
            recorder.refusals[f"{kind} {status}"] += 1
            return False
        else:
            recorder.wrong.append(f"{kind} {key}: {status} {answer.body[:200]!r}")
            return False
        return True

    def _heard(self, key: str, etag: str) -> None:
        heard = self._recorder.latest.setdefault(key, [])
        if not heard or heard[-1] != etag:
            heard.append(etag)
            del heard[:-6]
