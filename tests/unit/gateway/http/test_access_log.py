"""One JSON line for each request, with the id that the client got, and never a signature."""

import json
import logging
from pathlib import Path

import pytest

from tests.unit.gateway.http.edge import Edge
from tests.unit.gateway.http.test_dispatcher import Handlers, ask, talk_to


def test_every_request_leaves_its_line(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    ids: list[str] = []

    async def talk(edge: Edge, handlers: Handlers) -> None:
        client = await edge.connect()
        for method, path in (
            ("GET", "/b/k?x-id=GetObject&X-Secret=abc"), ("PUT", '/b/%22quoted"%0A\\'), ("DELETE", "/"), ("HEAD", "/b"),
        ):
            ids.append((await ask(client, method, path)).headers["x-amz-request-id"])

    logger = logging.getLogger("staddle.access")
    before = logger.level
    logger.setLevel(logging.INFO)
    try:
        talk_to(("uvloop-http", False), folder, talk)
    finally:
        logger.setLevel(before)
    written = capsys.readouterr().err
    lines = [json.loads(line) for line in written.splitlines()]
    assert [line["request_id"] for line in lines] == ids
    assert [(line["operation"], line["status"]) for line in lines] == [
        ("GetObject", 200), ("PutObject", 200), ("", 405), ("HeadBucket", 200)]
    assert lines[1]["message"] == 'PUT /b/%22quoted"%0A\\'
    assert all(line["level"] == "info" and line["remote"] == "127.0.0.1" and line["ms"] >= 0 for line in lines)
    assert "Secret" not in written
    assert "Signature" not in written


def test_no_lines_where_they_are_not_wanted(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    async def talk(edge: Edge, handlers: Handlers) -> None:
        await ask(await edge.connect(), "GET", "/b/k")

    talk_to(("uvloop-http", False), folder, talk)
    assert capsys.readouterr().err == ""
