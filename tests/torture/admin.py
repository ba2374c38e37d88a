"""The server's own care, asked for over its admin API as its keeper would: collection, scrub, backups, check."""

import json
from typing import Any

from tests.servers import StaddleProcess
from tests.talker import Talker

Answer = dict[str, Any]


def get(server: StaddleProcess, path: str) -> Answer:
    return _decoded(_ask(server, "GET", path, b""))


def post(server: StaddleProcess, path: str, **fields: object) -> Answer:
    return _decoded(_ask(server, "POST", path, json.dumps(fields).encode()))


def run(server: StaddleProcess, work: str, **fields: object) -> Answer:
    """Long work, to its end: what it answers. AssertionError with what it says if it fails."""
    last = _decoded(_ask(server, "POST", work, json.dumps(fields).encode()).splitlines()[-1])
    assert "result" in last, f"{work}: {last}"
    result: Answer = last["result"]
    return result


def fsck(server: StaddleProcess, *, thorough: bool = False) -> list[str]:
    """What `staddle fsck` finds lost or wrong; `thorough`: every copy is read, and every index compared with its files."""
    report = run(server, "fsck/run", verify=thorough, deep=thorough)
    return [f"fsck: {finding['text']}" for finding in report["findings"] if finding["severity"] != "note"]


def _ask(server: StaddleProcess, method: str, path: str, body: bytes) -> bytes:
    with Talker(server) as talker:
        headers = (("content-type", "application/json"),) if body else ()
        status, answer, _ = talker.ask(method, f"/-/admin/{path}", body=body, headers=headers)
    assert status == 200, f"{path} answers {status}: {answer[:500]!r}"
    return answer


def _decoded(answer: bytes) -> Answer:
    found: Answer = json.loads(answer)
    return found
