"""After the dust has settled: does the server hold what its clients were told, whole, and nothing else?

`check` compares through the server's front: every key's bytes, ETag and metadata, listings, open uploads and their parts,
and the races. What it sees it remembers: from then on an unknown write has happened, or never will. `leftovers` looks at
the metadata and the storage nodes themselves: counts are right, every copy that is listed is there, and, once everything
that nobody refers to was collected, no other.

Both answer sentences, one for each violation.
"""

import random
import xml.etree.ElementTree as Xml
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from urllib.parse import quote

from tests.servers import StaddleProcess
from tests.talker import NotSent, Talker, Unanswered
from tests.torture.workload import (
    BUCKET,
    Answer,
    Client,
    Listed,
    Outcome,
    Race,
    State,
    Upload,
    Workload,
    compare_listing,
    list_keys,
    seen,
)

UNTOUCHED_CHECKED = 8
"""Of the keys that a client has not written since the last check, so many are read again. All are with `everything`."""


def check(workload: Workload, *, everything: bool = False, shift: int = 0) -> list[str]:
    """While no client runs. Never raises because of what the server answers. With several servers, what a client wrote is
    read through its own, or with `shift` through one so many further on."""
    def look(number: int) -> list[str]:
        client, server = workload.clients[number], workload.servers[(number + shift) % len(workload.servers)]
        return _guarded(client.name, lambda: _Check(client, everything, server).run())

    with ThreadPoolExecutor(len(workload.clients)) as pool:
        found = list(pool.map(look, range(len(workload.clients))))
    return [sentence for sentences in found for sentence in sentences] + _guarded("races", lambda: _races(workload))


def _guarded(name: str, run: Callable[[], list[str]]) -> list[str]:
    try:
        return run()
    except (NotSent, Unanswered, Xml.ParseError) as error:
        return [f"{name}: the check got no answer: {type(error).__name__} {error}"]


class _Check:
    """Of one client's keys and uploads."""

    def __init__(self, client: Client, everything: bool, server: StaddleProcess) -> None:
        self._client, self._everything = client, everything
        self._talker = Talker(server)
        self._wrong: list[str] = []

    def run(self) -> list[str]:
        client = self._client
        with self._talker:
            self._wrong += client.wrong
            client.wrong.clear()
            listed = list_keys(self._talker, client.name)
            if listed is None:
                return [*self._wrong, f"{client.name}: LIST is refused"]
            self._wrong += compare_listing(client, listed)
            for key in self._keys(listed):
                self._key(key, listed.get(key))
            self._uploads()
        client.touched.clear()
        return self._wrong

    def _keys(self, listed: dict[str, Listed]) -> list[str]:
        client = self._client
        known = sorted(client.possible.keys() | listed.keys())
        if self._everything:
            return known
        old = [key for key in known if key not in client.touched]
        chosen = random.Random(len(client.touched)).sample(old, min(UNTOUCHED_CHECKED, len(old)))
        return sorted({*client.touched, *chosen})

    def _key(self, key: str, listed: Listed | None) -> None:
        answer = ask(self._talker, "GET", f"/{BUCKET}/{key}")
        if answer.status not in (200, 404):
            self._wrong.append(f"{key}: GET answers {answer.status}: {answer.body[:300]!r}")
            return
        possible = self._client.possible.get(key, frozenset({None}))
        found = seen(answer)
        fitting = frozenset(held for held in possible if (held and held.seen) == found)
        if not fitting:
            told = sorted(str(held and held.seen) for held in possible)
            self._wrong.append(f"{key}: holds {found}, told was one of {told}")
        if listed != (found and Listed(found.size, found.etag)):
            self._wrong.append(f"{key}: LIST shows {listed}, GET {found}")
        if fitting:
            self._client.possible[key] = fitting

    # Multipart uploads

    def _uploads(self) -> None:
        """Open ones are listed, ended ones are not, and completing has made the object and ended the upload in one step.
        Those of which nobody was told the id are aborted."""
        client = self._client
        listed = dict(self._list_uploads())
        ids = {upload.id for upload in client.uploads}
        for upload in list(client.uploads):
            is_open = upload.id in listed
            if (is_open and State.OPEN not in upload.state) or (not is_open and upload.state == {State.OPEN}):
                self._wrong.append(f"upload {upload.id} of {upload.key} is {'' if is_open else 'not '}open, told was "
                                   f"{sorted(state.value for state in upload.state)}")
            if is_open:
                # Nothing of an upload that is open shows. (Its key's value was checked above: now the two together.)
                held = client.possible.get(upload.key, frozenset())
                if State.COMPLETE in upload.state and held == {upload.completed}:
                    self._wrong.append(f"upload {upload.id} of {upload.key} is open, and its object is there")
                upload.state = {State.OPEN}
                self._parts(upload)
            else:
                client.uploads.remove(upload)
        for id, key in listed.items():
            if id not in ids:
                client.lost_creations[key] -= 1
                if client.lost_creations[key] < 0:
                    self._wrong.append(f"upload {id} of {key} is open, and nobody asked for it")
                ask(self._talker, "DELETE", f"/{BUCKET}/{key}", f"uploadId={quote(id, safe='')}")
        client.lost_creations.clear()

    def _list_uploads(self) -> Iterator[tuple[str, str]]:
        answer = ask(self._talker, "GET", f"/{BUCKET}", f"prefix={quote(self._client.name + '/', safe='')}&uploads=")
        if answer.status != 200:
            self._wrong.append(f"{self._client.name}: uploads are not listed: {answer.status} {answer.code}")
            return
        for item in Xml.fromstring(answer.body).iterfind("{*}Upload"):
            yield item.findtext("{*}UploadId") or "", item.findtext("{*}Key") or ""

    def _parts(self, upload: Upload) -> None:
        answer = ask(self._talker, "GET", f"/{BUCKET}/{upload.key}", f"uploadId={quote(upload.id, safe='')}")
        if answer.status != 200:
            self._wrong.append(f"parts of {upload.key} are not listed: {answer.status} {answer.code}")
            return
        listed = {int(item.findtext("{*}PartNumber") or 0): (int(item.findtext("{*}Size") or -1),
                                                            (item.findtext("{*}ETag") or "").strip('"'))
                  for item in Xml.fromstring(answer.body).iterfind("{*}Part")}
        for number in sorted(listed.keys() | upload.parts.keys()):
            possible = upload.parts.get(number, {None})
            fitting = {held for held in possible if (held and (held.size, held.md5)) == listed.get(number)}
            if not fitting:
                self._wrong.append(f"part {number} of {upload.key} is {listed.get(number)}, told was one of {possible}")
            else:
                upload.parts[number] = fitting


def _races(workload: Workload) -> list[str]:
    """At most one was told that it had created the key, and then the key is what it wrote."""
    wrong = []
    with Talker(workload.server) as talker:
        for key, race in list(workload.races.keys.items()):
            answer = ask(talker, "GET", f"/{BUCKET}/{key}")
            if answer.status not in (200, 404):
                wrong.append(f"{key}: GET answers {answer.status}: {answer.body[:300]!r}")
                continue
            wrong += _race(key, race, answer)
            ask(talker, "DELETE", f"/{BUCKET}/{key}")
            if workload.races.current() != key:
                del workload.races.keys[key]
            else:
                workload.races.keys[key] = Race()
    return wrong


def _race(key: str, race: Race, answer: Answer) -> Iterator[str]:
    found = seen(answer)
    winners = [value.seen for value in race.winners]
    if len(winners) > 1:
        yield f"{key}: {len(winners)} clients were told that they created it"
    elif winners and found != winners[0]:
        yield f"{key}: holds {found}, created was {winners[0]}"
    elif not winners and found not in [None, *(value.seen for value in race.maybe)]:
        yield f"{key}: holds {found}, which nobody has been told, possible are {race.maybe}"
    elif not winners and found is None and race.losers:
        yield f"{key}: {race.losers} clients were told that somebody else had created it, and it is not there"


def ask(talker: Talker, method: str, path: str, query: str = "") -> Answer:
    """One request of a check. Raises NotSent, Unanswered."""
    status, body, headers = talker.ask(method, path, query)
    outcome = Outcome.ACKNOWLEDGED if 200 <= status < 300 else Outcome.UNKNOWN
    return Answer(outcome, status, body, headers)
