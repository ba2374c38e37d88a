"""The server's own care, asked for over its admin API as its keeper would: collection, scrub, check."""

import json
from typing import Any

from tests.servers import StaddleProcess
from tests.talker import Talker

Answer = dict[str, Any]


def run(server: StaddleProcess, work: str, **fields: object) -> Answer:
    """Long work, to its end: what it answers. AssertionError with what it says if it fails."""
    with Talker(server) as talker:
        status, answer, _ = talker.ask("POST", f"/-/admin/{work}", body=json.dumps(fields).encode(),
                                       headers=(("content-type", "application/json"),))
    assert status == 200, f"{work} answers {status}: {answer[:500]!r}"
    last: Answer = json.loads(answer.splitlines()[-1])
    assert "result" in last, f"{work}: {last}"
    result: Answer = last["result"]
    return result
