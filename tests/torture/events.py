"""Events told while gateways and the metadata are killed at random and the listener fails in every way.

Each PUT has bytes of its own, so an event's ETag says which PUT it is of. Afterwards: every acknowledged PUT was told, nothing
was told that nobody wrote, and each key's events came in the order of the log, repeats aside.
"""

import hashlib
import json
import random
import threading
import time
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from tests.servers import REGION, StaddleProcess, free_port
from tests.talker import NotSent, Talker, Unanswered
from tests.torture import admin
from tests.torture.report import Report, scratch

BUCKET = "told"
KEYS = 12
WRITERS = 3
KILL_S = 6.0
FAILING = 0.1
"""Of the requests to the listener: answered 500 or 503, or cut off, before or after it has taken note."""

QUIET_S_MAX = 120.0
"""For what waits at the end: pauses between tries have grown by then."""

CONFIGURATION = (
    f"<NotificationConfiguration><QueueConfiguration><Queue>arn:aws:sqs:{REGION}:1:hook</Queue><Event>s3:ObjectCreated:*</Event>"
    "</QueueConfiguration></NotificationConfiguration>").encode()


class Listener:
    """Takes note of (key, sequencer, ETag) as they come, of each first time only."""

    def __init__(self, chance: random.Random) -> None:
        self.port, self.came, self.repeats = free_port(), list[tuple[str, str, str]](), 0
        known: set[str] = set()
        lock = threading.Lock()
        listener = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["content-length"]))
                with lock:
                    failing = chance.random() < FAILING
                    how = chance.choice(("500", "503", "lost", "deaf"))
                    if not failing or how == "lost":
                        listener._note(json.loads(body), known)
                if failing and how in ("lost", "deaf"):
                    self.close_connection = True
                    return
                self.send_response(int(how) if failing else 200)
                self.send_header("content-length", "0")
                self.end_headers()

            def log_message(self, *_: object) -> None:
                pass

        class Server(ThreadingHTTPServer):
            def handle_error(self, *_: object) -> None:
                """Connections of those that are killed break."""

        self._server = Server(("127.0.0.1", self.port), Handler)
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def _note(self, document: dict[str, Any], known: set[str]) -> None:
        for record in document.get("Records", ()):
            thing = record["s3"]["object"]
            if thing["sequencer"] in known:
                self.repeats += 1
                continue
            known.add(thing["sequencer"])
            self.came.append((thing["key"], thing["sequencer"], thing["eTag"]))

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()


class Writer(threading.Thread):
    """Puts to its own keys. `done` were acknowledged, `tried` are all."""

    def __init__(self, server: StaddleProcess, number: int, chance: random.Random, stopped: Callable[[], bool]) -> None:
        super().__init__(daemon=True)
        self._server, self._number, self._chance, self._stopped = server, number, chance, stopped
        self.done: set[str] = set()
        self.tried: set[str] = set()

    def run(self) -> None:
        while not self._stopped():
            try:
                with Talker(self._server) as talker:
                    while not self._stopped():
                        body = self._chance.randbytes(100)
                        etag = hashlib.md5(body, usedforsecurity=False).hexdigest()
                        self.tried.add(etag)
                        key = f"w{self._number}-{self._chance.randrange(KEYS)}"
                        if talker.ask("PUT", f"/{BUCKET}/{key}", body=body)[0] == 200:
                            self.done.add(etag)
            except (NotSent, Unanswered):
                time.sleep(0.05)                  # it was killed, and comes back


def run(seconds: float, seed: int, *, parent: Path | None = None) -> Report:
    report = Report("events told through kills", seed)
    chance = random.Random(seed)
    listener = Listener(random.Random(seed + 1))
    with scratch(report, parent) as folder:
        settings = folder / "staddle.toml"
        settings.write_text(f'webhook_allow = ["127.0.0.1"]\n[webhooks.hook]\nurl = "http://127.0.0.1:{listener.port}/"\n')
        server = StaddleProcess(folder / "server", variables={"STADDLE_CONFIG": str(settings)})
        try:
            server.start()
            with Talker(server) as talker:
                assert talker.ask("PUT", f"/{BUCKET}")[0] == 200
                assert talker.ask("PUT", f"/{BUCKET}", "notification=", CONFIGURATION)[0] == 200
            ends = time.monotonic() + seconds
            writers = [Writer(server, number, random.Random(seed + 2 + number), lambda: time.monotonic() > ends)
                       for number in range(WRITERS)]
            for writer in writers:
                writer.start()
            kills = 0
            while time.monotonic() < ends:
                time.sleep(KILL_S * chance.random())
                roles = server.roles()
                role = chance.choice(("gateway", "gateway", "meta"))
                if roles[role]:                   # else it is being started again
                    server.kill(role)
                    kills += 1
            for writer in writers:
                writer.join()
            server.wait_ready()
            left = _await_quiet(server)
            _judge(report, listener, writers, left)
            report.say(f"{sum(len(writer.done) for writer in writers)} acknowledged, {len(listener.came)} told, "
                       f"{listener.repeats} repeats, {kills} kills")
        finally:
            server.kill_all()
            listener.close()
    return report


def _await_quiet(server: StaddleProcess) -> int:
    """What still waits after that time."""
    ends = time.monotonic() + QUIET_S_MAX
    while True:
        left = int(admin.get(server, "events/list")["targets"][0]["queued"])
        if not left or time.monotonic() > ends:
            return left
        time.sleep(0.2)


def _judge(report: Report, listener: Listener, writers: list[Writer], left: int) -> None:
    done, tried = set[str]().union(*(writer.done for writer in writers)), set[str]().union(*(writer.tried for writer in writers))
    told = {etag for _, _, etag in listener.came}
    wrong = [f"an acknowledged PUT was not told: {etag}" for etag in sorted(done - told)]
    wrong += [f"a PUT was told that nobody sent: {etag}" for etag in sorted(told - tried)]
    wrong += [f"{left} events still wait"] if left else []
    last: dict[str, str] = {}
    for key, sequencer, _ in listener.came:
        if sequencer < last.get(key, ""):
            wrong.append(f"{key}: {sequencer} came after {last[key]}")
        last[key] = max(sequencer, last.get(key, ""))
    report.violations("at the end", wrong)
