"""The registry, tokens, version ids, and the names that S3 has for refusals."""

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from consensus.core import results
from consensus.core.errors import ClusterError, Unavailable, UnknownOutcome
from consensus.core.ids import NULL_VERSION, Digest
from gateway.ops import HANDLERS, never, tokens
from gateway.ops.objects.versions import new_version_id, parse_version_id, random_name
from gateway.ops.refusals import refusal
from gateway.s3.errors import S3Error
from gateway.s3.operations import OPERATION
from tests.unit.gateway.ops.fakes import request


def test_every_operation_has_a_function() -> None:
    assert set(HANDLERS) == set(OPERATION)
    implemented = {name for name, handler in HANDLERS.items() if handler is not never.answer}
    assert not [name for name in implemented if OPERATION[name].never is not None], "implemented: no `never` is asked"
    assert len(implemented) >= 20


@given(st.text(max_size=40).filter(lambda text: text.isprintable()))
def test_tokens_come_back(after: str) -> None:
    token = tokens.make(after)
    assert tokens.parse(token) == after
    assert token.isascii()
    assert not set(token) & set("+/=&% ")


@given(st.text(alphabet="abc/é\U0010ffff", min_size=1, max_size=20), st.data())
def test_a_damaged_token_is_refused(after: str, data: st.DataObject) -> None:
    token = tokens.make(after)
    place = data.draw(st.integers(0, len(token) - 1))
    other = data.draw(st.sampled_from("ABCXYZabcxyz019-_ +=é"))
    for wrong in (token[:place], token[:place] + other + token[place + 1 :], token[:place] + other + token[place:]):
        if wrong != token and not _same_bits(wrong, token):
            with pytest.raises(S3Error):
                tokens.parse(wrong)


def _same_bits(wrong: str, token: str) -> bool:
    """The last character of base64 may carry bits that mean nothing."""
    return len(wrong) == len(token) and wrong[:-1] == token[:-1] and len(token) % 4 != 0


def test_version_ids_are_many_and_ours() -> None:
    ids = {new_version_id() for _ in range(2000)}
    assert len(ids) == 2000
    for version in ids:
        assert parse_version_id(version) == version
        assert version[0] != "-"
    assert parse_version_id("null") == NULL_VERSION
    for wrong in ("", "NULL", "a", "x" * 31, "x" * 33, "x" * 31 + "/", "é" * 32):
        with pytest.raises(S3Error):
            parse_version_id(wrong)
    assert len(random_name(48)) == 64


REFUSALS: list[tuple[results.AnyResult, str]] = [
    (results.NoBucket(), "NoSuchBucket"),
    (results.BucketNotEmpty(), "BucketNotEmpty"),
    (results.NoKey(), "NoSuchKey"),
    (results.NoUpload(), "NoSuchUpload"),
    (results.ConditionFailed(condition="If-Match"), "PreconditionFailed"),
    (results.ConditionConflict(condition="If-Match"), "ConditionalRequestConflict"),
]


@pytest.mark.parametrize(("outcome", "code"), REFUSALS, ids=[code for _, code in REFUSALS])
def test_refusals_have_their_codes(outcome: results.AnyResult, code: str) -> None:
    error = refusal(outcome, request(query={"uploadId": "u"}))
    assert isinstance(error, S3Error)
    assert error.code == code


@pytest.mark.parametrize(("outcome", "kind"), [
    (results.NotDurable(digest=Digest(b"d" * 32), wanted=2, present=1), Unavailable),
    (results.ChunkMissing(digest=Digest(b"d" * 32)), Unavailable),
    (results.ContentMissing(), Unavailable),
    (results.PartChanged(number=1), Unavailable),
    (results.SessionEnded(), UnknownOutcome),
    (results.SequencePassed(), UnknownOutcome),
])
def test_the_worlds_faults_stay_the_worlds(outcome: results.AnyResult, kind: type[ClusterError]) -> None:
    assert isinstance(refusal(outcome, request()), kind)


def test_our_own_faults_are_neither() -> None:
    for outcome in itertools.chain([results.Malformed(reason="r")], [results.Done()]):
        with pytest.raises(AssertionError):
            refusal(outcome, request())
