"""Join tokens in the log: each lets one visitor in, while it lasts, however often and wherever it is shown."""

import hashlib

from consensus import queries
from consensus.apply.tokens import TOKENS_MAX
from consensus.core.commands import CreateToken, DeleteToken, SpendToken
from consensus.core.results import Done, Malformed, TokenRefused
from tests.unit.consensus.metadata import Cluster

HASH, OTHER = hashlib.sha256(b"secret half").digest(), hashlib.sha256(b"a guess").digest()
HOUR_MS = 3_600_000


def made(cluster: Cluster, name: str = "t1", lasts_ms: int = HOUR_MS) -> str:
    assert cluster.run(CreateToken(id=name, hash=HASH, expires_ms=cluster.now + lasts_ms)) == Done()
    return name


def spent(cluster: Cluster, name: str, visitor: str, digest: bytes = HASH) -> object:
    return cluster.run(SpendToken(id=name, hash=digest, name=visitor))


def test_a_token_is_spent_once_and_its_visitor_may_ask_again(cluster: Cluster) -> None:
    token = made(cluster)
    assert spent(cluster, token, "n2 aa") == Done()
    assert spent(cluster, token, "n2 aa") == Done(), "the answer may have been lost"
    for other in ("n2 bb", "n3 aa", "", "n2"):
        assert spent(cluster, token, other) == TokenRefused(why="spent")
    cluster.reopen()
    assert spent(cluster, token, "n3 aa") == TokenRefused(why="spent")
    known = cluster.read(queries.join_tokens)
    assert [(each.id, each.spent_by) for each in known] == [(token, "n2 aa")]


def test_a_wrong_secret_or_a_name_that_nobody_made_spends_nothing(cluster: Cluster) -> None:
    token = made(cluster)
    assert spent(cluster, token, "n2 aa", OTHER) == TokenRefused(why="unknown")
    assert spent(cluster, "t2", "n2 aa") == TokenRefused(why="unknown")
    assert spent(cluster, token, "n2 aa") == Done()
    assert spent(cluster, token, "n2 aa", OTHER) == TokenRefused(why="unknown"), "not even to the same visitor"


def test_a_token_ends_with_its_time_and_with_its_deletion(cluster: Cluster) -> None:
    token = made(cluster, lasts_ms=HOUR_MS)
    cluster.now += HOUR_MS + 1
    assert spent(cluster, token, "n2 aa") == TokenRefused(why="expired")
    fresh = made(cluster, "t2")
    assert cluster.run(DeleteToken(id=fresh)) == Done()
    assert cluster.run(DeleteToken(id=fresh)) == TokenRefused(why="unknown")
    assert spent(cluster, fresh, "n2 aa") == TokenRefused(why="unknown")


def test_there_are_never_too_many_and_used_ones_make_room(cluster: Cluster) -> None:
    for number in range(TOKENS_MAX):
        made(cluster, f"t{number}")
    assert isinstance(cluster.run(CreateToken(id="more", hash=HASH, expires_ms=cluster.now + 1)), Malformed)
    assert cluster.run(CreateToken(id="t1", hash=HASH, expires_ms=cluster.now + 1)) == TokenRefused(why="exists")
    assert spent(cluster, "t7", "n2 aa") == Done()
    made(cluster, "more")
    assert spent(cluster, "t7", "n2 bb") == TokenRefused(why="unknown")
    assert cluster.rows("join_token") == TOKENS_MAX
    for wrong in (CreateToken(id="", hash=HASH, expires_ms=1), CreateToken(id="x", hash=b"short", expires_ms=1),
                  CreateToken(id="x", hash=HASH, expires_ms=-1), CreateToken(id="x" * 10_000, hash=HASH, expires_ms=1)):
        assert isinstance(cluster.run(wrong), Malformed)
