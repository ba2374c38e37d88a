"""Clients that write over signed HTTP while things break, and remember what they were told.

*Outcome*: a request is ACKNOWLEDGED (2xx: it must have happened), REFUSED (503 or 4xx: it must not have), or UNKNOWN (any
other 5xx, or no answer: either is right).
*Value*: what a key holds: bytes (by digest), ETag and the mark that the writer put into its metadata, so that a write of
the same bytes can be told from the one before; None is a key without an object.
*Possible*: the values that a key may have, after what was answered. Each client writes its own keys, one request at a
time, so it is one value after an acknowledged write, and one more after each unknown. `races` are keys that all clients
want to create at the same time: at most one may be told that it did.

    workload = Workload(server, clients=4, seed=7)
    workload.make_bucket(); workload.start(); …break things…; workload.stop()
    violations = checker.check(workload)

What a client asks for depends on the seed, the answers and their timing: a seed repeats the sizes, contents and order of
requests, not the moment at which they meet a fault.
"""

import base64
import hashlib
import random
import threading
import time
import xml.etree.ElementTree as Xml
from collections import Counter, defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from enum import Enum
from typing import NamedTuple
from urllib.parse import quote

from tests.servers import StaddleProcess
from tests.talker import ANSWER_TIMEOUT_S, NotSent, Talker, Unanswered
from tests.torture.contents import MIB, SIZES, Content, Pool

BUCKET = "torture"
KEYS_A_CLIENT = 40
RACES_EACH_S = 3
OPEN_UPLOADS_MAX = 3
PART_BYTES_MIN = 5 * MIB
MARK = "x-amz-meta-mark"
RECONNECT_S = 0.02
RANGE_BYTES_MAX = 200_000


class Outcome(Enum):
    ACKNOWLEDGED = "acknowledged"
    REFUSED = "refused"
    UNKNOWN = "unknown"


class Value(NamedTuple):
    mark: str
    size: int
    sha256: str
    etag: str
    content: Content | None = None
    """Where the bytes come from, if they are one content's."""

    @property
    def seen(self) -> "Seen":
        return Seen(self.mark, self.size, self.sha256, self.etag)


class Seen(NamedTuple):
    """What a GET shows of a value."""

    mark: str
    size: int
    sha256: str
    etag: str


class Answer(NamedTuple):
    outcome: Outcome
    status: int                   # 0: none
    body: bytes
    headers: dict[str, str]

    @property
    def code(self) -> str:
        """The S3 error code, or nothing."""
        if not self.body.startswith(b"<") or b"<Error>" not in self.body:
            return ""
        return Xml.fromstring(self.body).findtext("{*}Code") or ""


class State(Enum):
    OPEN = "open"
    COMPLETE = "complete"
    ABORTED = "aborted"


@dataclass
class Upload:
    """A multipart upload: what it may be now, and the contents that each part number may have."""

    id: str
    key: str
    mark: str
    state: set[State] = field(default_factory=lambda: {State.OPEN})
    parts: dict[int, set[Content | None]] = field(default_factory=dict)
    completed: Value | None = None

    def certain(self) -> dict[int, Content]:
        """Parts about which there is no doubt, by number."""
        only = {number: next(iter(values)) for number, values in sorted(self.parts.items()) if len(values) == 1}
        return {number: content for number, content in only.items() if content is not None}


class Race:
    """A key that several clients create with If-None-Match: *."""

    def __init__(self) -> None:
        self.winners: list[Value] = []
        self.maybe: list[Value] = []
        self.losers = 0


class Races:
    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.keys: dict[str, Race] = defaultdict(Race)
        self._began = time.monotonic()

    def current(self) -> str:
        """A new one several times a second, so that clients meet at it."""
        return f"race/{int((time.monotonic() - self._began) * RACES_EACH_S):06}"


class Workload:
    """Several clients in threads of their own. With several `servers`, all of one store, each client has one of them."""

    def __init__(self, server: StaddleProcess, clients: int, seed: int | str, largest: int = SIZES[-1][2],
                 servers: Sequence[StaddleProcess] = ()) -> None:
        self.server, self.seed = server, seed
        self.servers = servers or [server]
        self.pool = Pool(seed, largest=largest)
        self.races = Races()
        self.stopping = threading.Event()
        self.clients = [Client(self, f"c{number}", self.servers[number % len(self.servers)]) for number in range(clients)]
        self._threads: list[threading.Thread] = []

    def make_bucket(self) -> None:
        with Talker(self.server) as talker:
            status, answer, _ = talker.ask("PUT", f"/{BUCKET}")
        assert status == 200, answer

    def start(self) -> None:
        self.stopping.clear()
        self._threads = [threading.Thread(target=client.run, daemon=True, name=client.name) for client in self.clients]
        for thread in self._threads:
            thread.start()

    def stop(self) -> None:
        """Returns once every client has the answer to its last request, or none after ANSWER_TIMEOUT_S."""
        self.stopping.set()
        for thread in self._threads:
            thread.join(ANSWER_TIMEOUT_S + 30)
            assert not thread.is_alive(), f"{thread.name} is stuck"
        self._threads = []

    @property
    def outcomes(self) -> Counter[str]:
        """Of writes: acknowledged, refused (503), declined (a condition was not met), unknown; and how many requests met
        nobody who listens."""
        return sum((client.outcomes for client in self.clients), Counter())

    @property
    def operations(self) -> Counter[str]:
        return sum((client.operations for client in self.clients), Counter())

    @property
    def sent_bytes(self) -> int:
        return sum(client.sent_bytes for client in self.clients)

    @property
    def refusals(self) -> Counter[str]:
        return sum((client.refusals for client in self.clients), Counter())

    def acknowledged_after(self, moment: float) -> float | None:
        """When the first write that began after `moment` was acknowledged (both time.monotonic()), or None."""
        after = [ended for client in self.clients for began, ended in [client.last_acknowledged] if began > moment]
        return min(after, default=None)


class Client:
    """Writes its own keys until told to stop."""

    OPERATIONS = (("put", 34), ("put_if", 8), ("race", 4), ("delete", 11), ("delete_many", 2), ("copy", 9), ("upload", 14),
                  ("get", 12), ("get_range", 4), ("list", 2))

    def __init__(self, workload: Workload, name: str, server: StaddleProcess) -> None:
        self.name, self.workload = name, workload
        self.possible: dict[str, frozenset[Value | None]] = {}
        self.touched: set[str] = set()
        self.uploads: list[Upload] = []
        self.lost_creations: Counter[str] = Counter()
        """Uploads that may have been begun without us being told their ids, by key."""
        self.outcomes: Counter[str] = Counter()
        self.operations: Counter[str] = Counter()
        self.refusals: Counter[str] = Counter()
        self.wrong: list[str] = []
        self.sent_bytes = 0
        self.last_acknowledged = (0.0, 0.0)
        self._choose = random.Random(f"{workload.seed} {name}")
        self._marks = 0
        self.talker = Talker(server)

    def run(self) -> None:
        names, weights = zip(*self.OPERATIONS, strict=True)
        while not self.workload.stopping.is_set():
            operation = self._choose.choices(names, weights)[0]
            try:
                getattr(self, f"_{operation}")()
                self.operations[operation] += 1
            except NotSent:
                self.outcomes["not sent"] += 1
                time.sleep(RECONNECT_S)
            except Exception as error:
                self.wrong.append(f"{self.name}, {operation}: {type(error).__name__}: {error}")
                raise
        self.talker.close()

    # What is asked

    def _put(self) -> None:
        key, content = self._key(), self._content()
        value = self._value(content)
        self._write("PUT", key, value, content.bytes(), headers=((MARK, value.mark),), digest=content.sha256)

    def _put_if(self) -> None:
        """If-None-Match: *, or If-Match with an ETag that is right, wrong, or perhaps right."""
        key, content = self._key(), self._content()
        value = self._value(content)
        known = [held for held in self._held(key) if held is not None]
        if not known or self._choose.random() < 0.4:
            condition, holds = ("if-none-match", "*"), lambda held: held is None
        else:
            etag = self._choose.choice(known).etag if self._choose.random() < 0.7 else "0" * 32
            condition, holds = ("if-match", f'"{etag}"'), lambda held: held is not None and held.etag == etag
        self._write("PUT", key, value, content.bytes(), headers=(condition, (MARK, value.mark)), digest=content.sha256,
                    holds=holds)

    def _race(self) -> None:
        key = self.workload.races.current()
        content = Content(f"{self.workload.seed}/{key}/{self.name}/{self._marks}", self._choose.randrange(1000, 20_000))
        value = self._value(content)
        headers = (("if-none-match", "*"), (MARK, value.mark))
        with self.workload.races.lock:                # known before it is asked: a check may come at any moment
            race = self.workload.races.keys[key]
            race.maybe.append(value)
        try:
            answer = self._ask("PUT", f"/{BUCKET}/{key}", body=content.bytes(), headers=headers, digest=content.sha256)
        except NotSent:
            with self.workload.races.lock:
                race.maybe.remove(value)
            raise
        self._count(answer, "race")
        with self.workload.races.lock:
            if answer.outcome is not Outcome.UNKNOWN:
                race.maybe.remove(value)
            if answer.outcome is Outcome.ACKNOWLEDGED:
                race.winners.append(value)
            elif answer.status in (409, 412):
                race.losers += 1
            elif answer.outcome is Outcome.REFUSED and answer.status != 503:
                self.wrong.append(f"PUT {key}, a race, was refused with {answer.status} {answer.code}")

    def _delete(self) -> None:
        self._write("DELETE", self._key(), None)

    def _delete_many(self) -> None:
        """DeleteObjects: one answer for several keys, each with its own outcome."""
        keys = sorted({self._key() for _ in range(self._choose.randrange(1, 8))})
        body = ("<Delete>" + "".join(f"<Object><Key>{key}</Key></Object>" for key in keys) + "</Delete>").encode()
        before = {key: self._held(key) for key in keys}
        for key in keys:
            self._set(key, before[key] | {None})
        try:
            answer = self._ask("POST", f"/{BUCKET}", "delete=", body, headers=(("content-md5", _md5_base64(body)),))
        except NotSent:
            for key in keys:
                self._set(key, before[key])
            raise
        self._count(answer, "delete_many")
        if answer.status == 200:
            deleted = {item.text for item in Xml.fromstring(answer.body).iterfind("{*}Deleted/{*}Key")}
            for key in keys:                          # one that was answered with an error stays in doubt
                if key in deleted:
                    self._set(key, frozenset({None}))
        elif answer.outcome is Outcome.REFUSED:
            for key in keys:
                self._set(key, before[key])
            if answer.status != 503:
                self.wrong.append(f"DeleteObjects was refused with {answer.status} {answer.code}")

    def _copy(self) -> None:
        """Of a key whose value is certain, with its metadata or new ones, also onto itself."""
        source = self._certain_key()
        if source is None:
            return
        (held,) = self._held(source)
        assert held is not None
        key = self._key()
        headers: tuple[tuple[str, str], ...] = (("x-amz-copy-source", f"/{BUCKET}/{quote(source)}"),)
        value = held
        if key == source or self._choose.random() < 0.5:
            value = held._replace(mark=self._mark())
            headers += (("x-amz-metadata-directive", "REPLACE"), (MARK, value.mark))
        self._write("PUT", key, value, headers=headers)

    def _upload(self) -> None:
        """One step of a multipart upload."""
        going = [upload for upload in self.uploads if upload.state == {State.OPEN}]
        chance = self._choose.random()
        if not going or (len(going) < OPEN_UPLOADS_MAX and chance < 0.3):
            self._create()
            return
        upload = self._choose.choice(going)
        if chance < 0.4:
            self._abort(upload)
        elif chance < 0.7 or not self._listable(upload):
            self._part(upload)
        else:
            self._complete(upload)

    def _create(self) -> None:
        key, mark = self._key(), self._mark()
        answer = self._ask("POST", f"/{BUCKET}/{key}", "uploads=", headers=((MARK, mark),))
        self._count(answer, "create")
        if answer.outcome is Outcome.ACKNOWLEDGED:
            self.uploads.append(Upload(Xml.fromstring(answer.body).findtext("{*}UploadId") or "", key, mark))
        elif answer.outcome is Outcome.UNKNOWN:
            self.lost_creations[key] += 1

    def _part(self, upload: Upload) -> None:
        number = self._choose.randrange(1, 4)
        content = self._content()
        if number == 1 and self._choose.random() < 0.3:
            content = Content(f"{self.workload.seed}/part/{self._choose.randrange(6)}", PART_BYTES_MIN)
        query = f"partNumber={number}&uploadId={quote(upload.id, safe='')}"
        source = self._certain_key() if self._choose.random() < 0.25 else None
        held = next(iter(self._held(source))) if source is not None else None
        before = upload.parts.get(number, {None})
        if held is not None and held.content is not None:
            content = held.content
            asked = {"headers": (("x-amz-copy-source", f"/{BUCKET}/{quote(source or '')}"),)}
        else:
            asked = {"body": content.bytes(), "digest": content.sha256}
        upload.parts[number] = before | {content}
        try:
            answer = self._ask("PUT", f"/{BUCKET}/{upload.key}", query, **asked)  # type: ignore[arg-type]
        except NotSent:
            upload.parts[number] = before
            raise
        self._count(answer, "part")
        if answer.outcome is Outcome.ACKNOWLEDGED:
            upload.parts[number] = {content}
        elif answer.outcome is Outcome.REFUSED:
            upload.parts[number] = before
            if answer.status != 503:
                self.wrong.append(f"part {number} of {upload.key} was refused with {answer.status} {answer.code}")

    @staticmethod
    def _listable(upload: Upload) -> dict[int, Content]:
        """Parts that a Complete may list: all but the last have 5 MiB."""
        certain = list(upload.certain().items())
        return dict([pair for pair in certain[:-1] if pair[1].size >= PART_BYTES_MIN] + certain[-1:])

    def _complete(self, upload: Upload) -> None:
        parts = self._listable(upload)
        whole = hashlib.sha256()
        for content in parts.values():
            whole.update(content.bytes())
        md5s = b"".join([bytes.fromhex(content.md5) for content in parts.values()])
        etag = f"{hashlib.md5(md5s).hexdigest()}-{len(parts)}"
        only = next(iter(parts.values())) if len(parts) == 1 else None
        value = Value(upload.mark, sum(content.size for content in parts.values()), whole.hexdigest(), etag, only)
        listed = "".join(f'<Part><PartNumber>{number}</PartNumber><ETag>"{content.md5}"</ETag></Part>'
                         for number, content in parts.items())
        body = f"<CompleteMultipartUpload>{listed}</CompleteMultipartUpload>".encode()
        upload.completed = value
        outcome = self._write("POST", upload.key, value, body, query=f"uploadId={quote(upload.id, safe='')}",
                              kind="complete")
        self._ended(upload, State.COMPLETE, outcome)

    def _abort(self, upload: Upload) -> None:
        answer = self._ask("DELETE", f"/{BUCKET}/{upload.key}", f"uploadId={quote(upload.id, safe='')}")
        self._count(answer, "abort")
        self._ended(upload, State.ABORTED, answer.outcome)
        if answer.outcome is Outcome.REFUSED and answer.status != 503:
            self.wrong.append(f"abort of {upload.key} was refused with {answer.status} {answer.code}")

    @staticmethod
    def _ended(upload: Upload, state: State, outcome: Outcome) -> None:
        if outcome is Outcome.ACKNOWLEDGED:
            upload.state = {state}
        elif outcome is Outcome.UNKNOWN:
            upload.state = {State.OPEN, state}

    def _get(self) -> None:
        key = self._key()
        answer = self._ask("GET", f"/{BUCKET}/{key}")
        self._compare(key, answer)

    def _get_range(self) -> None:
        key = self._certain_key()
        if key is None:
            return
        (held,) = self._held(key)
        assert held is not None
        if held.content is None:
            return
        start = self._choose.randrange(held.size)
        length = self._choose.randrange(1, RANGE_BYTES_MAX)
        answer = self._ask("GET", f"/{BUCKET}/{key}", headers=(("range", f"bytes={start}-{start + length - 1}"),))
        if answer.status == 206:
            if answer.body != held.content.bytes(start, length):
                self.wrong.append(f"GET {key} from {start}: {len(answer.body)} bytes that are not the object's")
        elif answer.status and answer.status < 500:
            self.wrong.append(f"GET {key} from {start} answers {answer.status} {answer.code}")

    def _list(self) -> None:
        try:
            listed = list_keys(self.talker, self.name)
        except Unanswered:
            return
        if listed is not None:
            self.wrong += compare_listing(self, listed)

    # How answers are taken

    def _write(self, method: str, key: str, value: Value | None, body: bytes = b"", *, query: str = "", kind: str = "",
               headers: tuple[tuple[str, str], ...] = (), digest: str | None = None,
               holds: Callable[[Value | None], bool] = lambda held: True) -> Outcome:
        """A request that gives a key a value if `holds` is true of the one before."""
        before = self._held(key)
        able = frozenset(held for held in before if holds(held))
        # Until the answer is here, both may be: a check may come at any moment.
        self._set(key, before | {value} if able else before)
        try:
            answer = self._ask(method, f"/{BUCKET}/{key}", query, body, headers, digest)
        except NotSent:
            self._set(key, before)
            raise
        self._count(answer, kind or method)
        if answer.outcome is Outcome.ACKNOWLEDGED:
            self._set(key, frozenset({value}))
            if not able:
                self.wrong.append(f"{method} {key} was carried out, but its condition does not hold for {_brief(before)}")
        elif answer.outcome is Outcome.REFUSED:
            self._set(key, before)
            if answer.status != 503 and able == before:
                self.wrong.append(f"{method} {key} {headers} was refused with {answer.status} {answer.code}, it holds "
                                  f"{_brief(before)}")
        return answer.outcome

    def _ask(self, method: str, path: str, query: str = "", body: bytes = b"",
             headers: tuple[tuple[str, str], ...] = (), digest: str | None = None) -> Answer:
        """Raises NotSent."""
        began = time.monotonic()
        try:
            status, answer, replied = self.talker.ask(method, path, query, body, headers, digest)
        except Unanswered:
            return Answer(Outcome.UNKNOWN, 0, b"", {})
        self.sent_bytes += len(body)
        if 200 <= status < 300 and not (answer[:200].startswith(b"<") and b"<Error>" in answer[:200]):
            if method != "GET":
                self.last_acknowledged = (began, time.monotonic())
            return Answer(Outcome.ACKNOWLEDGED, status, answer, replied)
        refused = status == 503 or 400 <= status < 500
        return Answer(Outcome.REFUSED if refused else Outcome.UNKNOWN, status, answer, replied)

    def _count(self, answer: Answer, kind: str) -> None:
        declined = answer.outcome is Outcome.REFUSED and answer.status != 503
        self.outcomes["declined" if declined else answer.outcome.value] += 1
        if answer.outcome is Outcome.REFUSED:
            self.refusals[f"{kind}: {answer.status} {answer.code}"] += 1

    def _compare(self, key: str, answer: Answer) -> None:
        """A GET shows one of the possible values, whole."""
        if answer.status == 0 or answer.status >= 500:
            return                                    # no answer, or none now: says nothing about the key
        found = seen(answer)
        if found not in {held and held.seen for held in self._held(key)}:
            self.wrong.append(f"GET {key} answers {answer.status} {found}, possible are {_brief(self._held(key))}")

    # What is known

    def _held(self, key: str) -> frozenset[Value | None]:
        return self.possible.get(key, frozenset({None}))

    def _set(self, key: str, values: frozenset[Value | None]) -> None:
        self.possible[key] = values
        self.touched.add(key)

    def _key(self) -> str:
        return f"{self.name}/{self._choose.randrange(KEYS_A_CLIENT):03}"

    def _certain_key(self) -> str | None:
        certain = sorted(key for key, held in self.possible.items() if len(held) == 1 and None not in held)
        return self._choose.choice(certain) if certain else None

    def _content(self) -> Content:
        return self.workload.pool.choose(self._choose, f"{self.workload.seed}/{self.name}/{self._marks}")

    def _mark(self) -> str:
        self._marks += 1
        return f"{self.name}-{self._marks}"

    def _value(self, content: Content) -> Value:
        return Value(self._mark(), content.size, content.sha256, content.md5, content)


def seen(answer: Answer) -> Seen | None:
    """What a GET's answer (200, or a refusal) shows. A body shorter than announced never gets here."""
    if answer.status != 200:
        return None
    return Seen(answer.headers.get(MARK, ""), len(answer.body), hashlib.sha256(answer.body).hexdigest(),
                answer.headers.get("etag", "").strip('"'))


class Listed(NamedTuple):
    size: int
    etag: str


def list_keys(talker: Talker, prefix: str) -> dict[str, Listed] | None:
    """All keys below the prefix, page by page; None when a page was refused. Raises NotSent, Unanswered."""
    keys: dict[str, Listed] = {}
    after = ""
    while True:
        query = f"list-type=2&max-keys=1000&prefix={quote(prefix + '/', safe='')}&start-after={quote(after, safe='')}"
        status, answer, _ = talker.ask("GET", f"/{BUCKET}", query)
        if status != 200:
            return None
        page = [(item.findtext("{*}Key") or "", Listed(int(item.findtext("{*}Size") or -1),
                                                       (item.findtext("{*}ETag") or "").strip('"')))
                for item in Xml.fromstring(answer).iterfind("{*}Contents")]
        keys.update(page)
        if len(page) < 1000:
            return keys
        after = page[-1][0]


def compare_listing(client: Client, listed: dict[str, Listed]) -> list[str]:
    """What a listing of all the client's keys shows that cannot be."""
    wrong = []
    for key in sorted(listed.keys() | client.possible.keys()):
        possible = {held and Listed(held.size, held.etag) for held in client.possible.get(key, frozenset({None}))}
        if listed.get(key) not in possible:
            wrong.append(f"LIST shows {key} as {listed.get(key)}, possible are {possible}")
    return wrong


def _brief(values: frozenset[Value | None]) -> list[str]:
    return sorted(f"{value.mark} ({value.size} bytes, {value.sha256[:8]})" if value else "nothing" for value in values)


def _md5_base64(body: bytes) -> str:
    return base64.b64encode(hashlib.md5(body).digest()).decode()
