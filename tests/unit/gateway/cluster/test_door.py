"""The door: who knows the secret is welcome, who has a token gets it once, and everybody else gets a sentence or nothing."""

import asyncio
import contextlib
import ssl
from collections.abc import AsyncIterator, Callable, Coroutine
from pathlib import Path

import pytest
import uvloop

from consensus import protocol
from consensus.core.errors import Refused, Unavailable
from consensus.core.tls import Tls
from consensus.forwarding import call_member
from consensus.joining import ClusterSettings, Joiner
from gateway.cluster import door as doors
from gateway.cluster.door import Door
from gateway.cluster.entering import refuse_taken_name, root_key, with_token
from gateway.cluster.machine import Machine, door_of
from gateway.cluster.no_member import without_member
from gateway.cluster.tokens import JoinToken, new_token, parse_token, text_of
from gateway.config import DOOR_PORT
from gateway.folders import FolderError, Folders, known_root
from gateway.identities import Identity
from tests.servers import free_port

SECRET, OTHER = b"s" * 32, b"o" * 32
ROOT = Identity(name="root", account="0", user_id="0", access_key="AK", secret_key="SK", admin=True)
Run = Callable[[Coroutine[None, None, None]], None]


@pytest.fixture(params=["asyncio", "uvloop"])
def run(request: pytest.FixtureRequest) -> Run:
    return asyncio.run if request.param == "asyncio" else uvloop.run


class Log:
    """Spends tokens as the metadata's log does."""

    def __init__(self, *tokens: JoinToken) -> None:
        self.hashes = {token.id.hex(): token.hash for token in tokens}
        self.spent: dict[str, str] = {}
        self.down = 0

    async def spend(self, token: str, digest: bytes, visitor: str) -> tuple[str, ...]:
        if self.down:
            self.down -= 1
            raise Unavailable("no leader just now")
        if self.hashes.get(token) != digest:
            raise Refused("the cluster does not know this token")
        if self.spent.setdefault(token, visitor) != visitor:
            raise Refused("this token has been used")
        return ("127.0.0.1:9999",)


def a_port() -> int:
    """Of a cluster address whose door is free."""
    return free_port() - DOOR_PORT


@contextlib.asynccontextmanager
async def opened(port: int, log: Log | None = None, *, name: str = "n1", secret: bytes = SECRET, root: Identity | None = ROOT,
                 may_begin: bool = True) -> AsyncIterator[Door]:
    door = Door(door_of(f"127.0.0.1:{port}"), secret, Tls(secret, f"{name}/door"), name=name, may_begin=may_begin,
                peers=lambda: (f"127.0.0.1:{port}",), spend=(log or Log()).spend)
    door.root = root
    await door.start()
    try:
        yield door
    finally:
        await door.stop()


def token_for(*ports: int, secret: bytes = SECRET) -> JoinToken:
    return new_token(tuple(f"127.0.0.1:{port}" for port in ports), Tls(secret, "x/y").authority.fingerprint, 0)


def machine(name: str, *ports: int, may_begin: bool = False) -> Machine:
    return Machine(name=name, zone=name, host="127.0.0.1", listen_host="127.0.0.1", port=1, may_begin=may_begin,
                   peers=tuple(f"127.0.0.1:{port}" for port in ports))


def test_a_token_gets_the_secret_and_the_root_key_once(run: Run) -> None:
    port = a_port()
    token = token_for(port)
    log = Log(token)

    async def main() -> None:
        async with opened(port, log):
            welcome = await with_token(parse_token(text_of(token)), "n2")
            assert bytes.fromhex(welcome.secret) == SECRET
            assert welcome.root is not None
            assert (welcome.root.access_key, welcome.root.secret_key) == ("AK", "SK")
            assert welcome.peers == (f"127.0.0.1:{port}", "127.0.0.1:9999"), "where the members are, by the log"
            with pytest.raises(Refused, match="has been used"):
                await with_token(token, "n3")
            with pytest.raises(Refused, match="has been used"):
                await with_token(token, "n2")                # another start of the same machine is another visitor

    run(main())


def test_a_visitor_asks_again_at_the_next_door_until_the_log_can_answer(run: Run) -> None:
    port, nobody = a_port(), a_port()
    token = token_for(nobody, port)
    log = Log(token)
    log.down = 2

    async def main() -> None:
        async with opened(port, log):
            assert (await with_token(token, "n2")).secret

    run(main())


@pytest.mark.parametrize(("name", "says"), [("n1", "is called n1 itself"), ("N2", "name is 1 to 32"), ("x/y", "name is 1 to 32")])
def test_a_name_that_is_taken_or_none_spends_nothing(run: Run, name: str, says: str) -> None:
    port = a_port()
    token = token_for(port)
    log = Log(token)

    async def main() -> None:
        async with opened(port, log):
            with pytest.raises(Refused, match=says):
                await with_token(token, name)
        assert not log.spent

    run(main())


def test_the_tokens_secret_is_told_to_no_door_of_another_cluster(run: Run) -> None:
    port = a_port()
    log = Log(token := token_for(port))

    async def main() -> None:
        async with opened(port, log, secret=OTHER):
            with pytest.raises(Unavailable, match="of another cluster than the token"):
                await with_token(token, "n2", patience_s=0.0)
        assert not log.spent

    run(main())


def test_a_door_that_shows_the_right_authority_without_having_it_hears_nothing(run: Run) -> None:
    port = a_port()
    log = Log(token := token_for(port))

    async def main() -> None:
        async with opened(port, log, secret=OTHER) as door:
            raw = Tls(SECRET, "n1/door").authority.certificate
            der = raw.public_bytes(doors.Encoding.DER)
            door._hello = doors.HELLO.pack(doors.MAGIC, doors.VERSION, len(der)) + der
            with pytest.raises(Unavailable, match="of another cluster than the token"):
                await with_token(token, "n2", patience_s=0.0)
        assert not log.spent

    run(main())


@pytest.mark.parametrize("raw", [
    doors.REQUEST.pack(doors.MAGIC, doors.VERSION, doors.MEMBER, b"n2", bytes(16), bytes(8), bytes(32)),
    doors.REQUEST.pack(doors.MAGIC, doors.VERSION, 77, b"n2", bytes(16), bytes(8), bytes(32)),
    doors.REQUEST.pack(doors.MAGIC, doors.VERSION, doors.TOKEN, b"n2", bytes(16), bytes(8), bytes(32)),
    doors.REQUEST.pack(doors.MAGIC, 9, doors.TOKEN, b"n2", bytes(16), bytes(8), bytes(32)),
    b"\xff" * doors.REQUEST.size, b"GET / HTTP/1.1\r\n\r\n" + b"x" * 200,
], ids=["member without certificate", "unknown kind", "made-up token", "another version", "noise", "http"])
def test_a_stranger_gets_a_sentence_and_no_key(run: Run, raw: bytes) -> None:
    port = a_port()

    async def main() -> None:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
        async with opened(port):
            host, _, at = door_of(f"127.0.0.1:{port}").rpartition(":")
            reader, writer = await asyncio.open_connection(host, int(at), ssl=context)
            _, _, length = doors.HELLO.unpack(await reader.readexactly(doors.HELLO.size))
            await reader.readexactly(length)
            writer.write(raw)
            status, size = doors.ANSWER.unpack(await reader.readexactly(doors.ANSWER.size))
            answer = await reader.readexactly(size)
            assert status == doors.REFUSED
            assert SECRET.hex().encode() not in answer
            assert b"SK" not in answer
            writer.close()
            with contextlib.suppress(OSError):
                await writer.wait_closed()

    run(main())


def test_too_many_strangers_are_sent_away_and_keep_no_member_out(run: Run, tmp_path: Path) -> None:
    port, second = a_port(), a_port()
    log = Log(token := token_for(port))

    async def main() -> None:
        async with opened(port, log) as door, opened(second, name="n2", root=None) as ours:
            door._strangers = doors.STRANGERS_MAX
            with pytest.raises(Unavailable):
                await with_token(token, "n2", patience_s=0.0)
            assert (await asked(tmp_path / "n2", ours, machine("n2", port))).access_key == "AK"
            assert door._strangers == doors.STRANGERS_MAX
            door._strangers = 0
            assert (await with_token(token, "n2")).secret

    run(main())


# The root key of a machine that has the secret

async def asked(folder: Path, at: Door, who: Machine, secret: bytes = SECRET) -> Identity:
    folder.mkdir(exist_ok=True)
    async with asyncio.timeout(10):
        return (await root_key(who, Folders(folder), at, Tls(secret, f"{who.name}/door")))[0]


def test_who_has_the_secret_gets_the_root_key_of_its_peers(run: Run, tmp_path: Path) -> None:
    first, second = a_port(), a_port()

    async def main() -> None:
        async with opened(first), opened(second, name="n2", root=None) as ours:
            found = await asked(tmp_path / "n2", ours, machine("n2", first, second))
            assert (found.access_key, found.secret_key) == ("AK", "SK")
            assert known_root(tmp_path / "n2", None, None) == found

    run(main())


def test_of_several_that_may_begin_the_first_by_name_makes_the_key(run: Run, tmp_path: Path) -> None:
    ports = [a_port(), a_port(), a_port()]

    async def main() -> None:
        async with contextlib.AsyncExitStack() as stack:
            ours = [await stack.enter_async_context(opened(port, name=name, root=None))
                    for port, name in zip(ports, ("n2", "n1", "n3"), strict=True)]

            async def start(place: int, name: str) -> Identity:
                found = await asked(tmp_path / name, ours[place], machine(name, *ports, may_begin=True))
                ours[place].root = found
                return found

            keys = await asyncio.gather(start(0, "n2"), start(1, "n1"), start(2, "n3"))
            assert len({key.access_key for key in keys}) == 1

    run(main())


def test_nobody_begins_while_a_peer_has_not_answered(run: Run, tmp_path: Path) -> None:
    first, away = a_port(), a_port()

    async def main() -> None:
        async with opened(first, root=None) as ours:
            asking = asyncio.create_task(asked(tmp_path / "n1", ours, machine("n1", first, away, may_begin=True)))
            while ours.visited < 2:                       # itself is among its peers: it has asked all, and asks again
                await asyncio.sleep(0.01)
            assert not asking.done()
            async with opened(away, name="n2", root=ROOT):
                assert (await asking).access_key == "AK"

    run(main())


def test_two_machines_of_one_name_are_refused(run: Run, tmp_path: Path) -> None:
    first, second = a_port(), a_port()

    async def main() -> None:
        async with opened(first, name="n1", root=None), opened(second, name="n1", root=None) as ours:
            with pytest.raises(FolderError, match="another machine of the cluster is called n1"):
                await asked(tmp_path / "n1", ours, machine("n1", first, second))

    run(main())


def test_a_name_is_taken_by_whoever_answers_with_it(run: Run) -> None:
    first, second, away = a_port(), a_port(), a_port()

    async def main() -> None:
        async with opened(first), opened(second, name="n2") as ours:
            tls = Tls(SECRET, "n2/door")
            await refuse_taken_name(machine("n2", first, second, away), ours, tls)        # its own door is no other machine
            async with opened(away, name="n2"):
                with pytest.raises(FolderError, match="is called n2 too"):
                    await refuse_taken_name(machine("n2", first, second, away), ours, tls)

    run(main())


def test_tokens_as_text() -> None:
    token = token_for(9400)
    assert parse_token(f" {text_of(token)}\n") == token
    assert token.secret.hex() not in repr(token)
    for text, says in ((text_of(token)[:-5], "damaged"), ("x", "no join token"), ("staddle-join-", "no join token"),
                       ("staddle-join-" + "A" * 5000, "no join token"), ("staddle-join-ZZZZ", "damaged")):
        with pytest.raises(ValueError, match=says):
            parse_token(text)



def test_a_machine_without_a_metadata_member_keeps_nobody_from_beginning(run: Run) -> None:
    async def steps() -> None:
        port = free_port()
        peer = Machine(name="g1", zone="g1", host="127.0.0.1", listen_host="127.0.0.1", port=port)
        settings = ClusterSettings(address="127.0.0.1:1", peers=(peer.address(),), begins=True)
        joiner = Joiner(settings, "n1", b"", SECRET, Tls(SECRET, "n1/meta"))
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.3):
                await joiner.join()
        async with without_member(peer, SECRET, Tls(SECRET, "g1/door")):
            assert await joiner.join() == ()
            with pytest.raises(Refused, match="no metadata member"):
                await call_member(peer.address(), SECRET, Tls(SECRET, "n1/meta"), protocol.WATCH, b"", answer_s=5)

    run(steps())
