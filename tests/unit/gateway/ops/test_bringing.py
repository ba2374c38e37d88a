"""A chunk that is on too few nodes when it is committed is written once more, and the client is told of none of it."""

import hashlib

import msgspec
import pytest

from consensus.core.commands import NewChunk, NewContent, PutPart
from consensus.core.errors import Unavailable
from consensus.core.ids import BucketId, ContentId, Digest, Generation, UploadId
from consensus.core.model import Slice
from consensus.core.results import NotDurable, NoUpload, PartStored
from gateway.ops.context import Context
from gateway.ops.uploads.bringing import AGAIN_BYTES_MAX, bring
from tests.unit.gateway.ops.fakes import HOLDER, Metadata, Nodes, context

pytestmark = pytest.mark.anyio

BODIES = (b"small", b"large" * 5000)
DIGESTS = [Digest(hashlib.sha256(body).digest()) for body in BODIES]
TOO_FEW = NotDurable(digest=DIGESTS[0], wanted=2, present=1)
DONE = PartStored(modified_ms=1)


class Upload:
    """Two chunks are stored, and the log will answer as `outcomes` say."""

    def __init__(self, *outcomes: object) -> None:
        self.metadata, self.nodes = Metadata(outcomes=list(outcomes)), Nodes()

    async def command(self) -> tuple[PutPart, Generation]:
        ticket = await self.metadata.reserve()
        for digest, body in zip(DIGESTS, BODIES, strict=True):
            self.nodes.chunks[digest, ticket] = body
        content = NewContent(
            size=sum(map(len, BODIES)), etag="e",
            slices=tuple(Slice(digest, 0, len(body)) for digest, body in zip(DIGESTS, BODIES, strict=True)),
            chunks=tuple(NewChunk(digest=digest, size=len(body), holders=(HOLDER,))
                         for digest, body in zip(DIGESTS, BODIES, strict=True)))
        return PutPart(bucket=BucketId(1), key="k", upload_id=UploadId("u"), number=1, content=content), ticket

    @property
    def context(self) -> Context:
        return context(self.metadata, self.nodes)

    @property
    def tickets(self) -> list[Generation | None]:
        return [ticket for _, ticket in self.metadata.commands]


async def test_what_is_on_too_few_nodes_is_written_again_under_a_new_name() -> None:
    upload = Upload(TOO_FEW, DONE)
    command, ticket = await upload.command()
    assert await bring(upload.context, command, ticket, None) == DONE
    first, second = upload.tickets
    assert first == ticket != second
    assert second is not None
    assert [upload.nodes.chunks[digest, second] for digest in DIGESTS] == list(BODIES)
    assert upload.metadata.commands[1][0] == command, "nothing else is another"
    assert not upload.metadata.open


@pytest.mark.parametrize("outcome", [DONE, NoUpload()], ids=["done", "refused"])
async def test_any_other_answer_is_the_answer(outcome: object) -> None:
    upload = Upload(outcome)
    command, ticket = await upload.command()
    assert await bring(upload.context, command, ticket, None) == outcome
    assert upload.tickets == [ticket]


async def test_it_is_tried_once() -> None:
    upload = Upload(TOO_FEW, TOO_FEW)
    command, ticket = await upload.command()
    assert await bring(upload.context, command, ticket, None) == TOO_FEW
    assert len(upload.tickets) == 2


@pytest.mark.parametrize("lost", ["the copy", "a node"])
async def test_where_it_cannot_be_done_the_first_answer_stands_and_nothing_is_owed(lost: str) -> None:
    upload = Upload(TOO_FEW)
    command, ticket = await upload.command()
    if lost == "the copy":
        del upload.nodes.chunks[DIGESTS[1], ticket]
    else:
        upload.nodes.fail = Unavailable("down")
    assert await bring(upload.context, command, ticket, None) == TOO_FEW
    assert upload.tickets == [ticket]
    assert not upload.metadata.open
    assert upload.nodes.aborted == 1


async def test_nobody_waits_for_what_takes_long_or_was_staged() -> None:
    for changed in ({"size": AGAIN_BYTES_MAX + 1}, {"staged": ContentId(7)}):
        upload = Upload(TOO_FEW)
        command, ticket = await upload.command()
        command = msgspec.structs.replace(command, content=msgspec.structs.replace(command.content, **changed))
        assert await bring(upload.context, command, ticket, None) == TOO_FEW
        assert upload.tickets == [ticket]
