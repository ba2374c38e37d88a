"""How a machine gets what it needs to be of a cluster: the secret with a token, the root key from its peers' doors."""

import asyncio
import datetime
import hashlib
import logging
import secrets
import ssl
import time

import msgspec
from cryptography import x509
from cryptography.exceptions import InvalidSignature

from consensus.core.codec import UNDECODABLE
from consensus.core.errors import ClusterError, Refused, Unavailable
from consensus.core.tls import Tls
from gateway.cluster import door
from gateway.cluster.door import Door, Welcome
from gateway.cluster.machine import Machine, door_of
from gateway.cluster.tokens import ID_BYTES, SECRET_BYTES, JoinToken
from gateway.config import parse_listen
from gateway.folders import FolderError, Folders, keep_root, new_access_key, new_secret_key
from gateway.identities import Identity

log = logging.getLogger("staddle.door")

VISIT_S = 10.0
"""At one door; a commit is among what it may take."""

CONNECT_S = 3.0
ASK_AGAIN_S = 0.3
SAY_S = 10.0
"""How often it is said what is waited for."""


async def with_token(token: JoinToken, name: str, *, patience_s: float = 30.0) -> Welcome:
    """Be let in. Raises Refused with a sentence (the token is spent, expired, or of another cluster), Unavailable."""
    visitor = secrets.token_bytes(16)             # so that asking again after a lost answer is the same visit
    why = "nobody was asked"
    until = time.monotonic() + patience_s
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE          # `_right_door` looks, before we say a word
    while True:
        for address in token.addresses:
            try:
                return await _visit(address, context, door.TOKEN, name, visitor, token=token)
            except Unavailable as error:
                why = f"{address}: {error}"
        if time.monotonic() > until:
            raise Unavailable(f"no machine of the cluster let us in: {why}")
        await asyncio.sleep(ASK_AGAIN_S)


async def root_key(machine: Machine, folders: Folders, ours: Door, tls: Tls) -> tuple[Identity, bool]:
    """The root key that the cluster has, or a new one if this machine may begin a cluster and no peer knows of any; and
    whether it was made just now. Waits for as long as that takes. Raises FolderError."""
    said = 0.0
    while True:
        answers, welcomes = await _ask_peers(machine, ours, tls)
        for welcome in welcomes:
            if welcome.root is not None:
                return keep_root(folders.root, welcome.root.access_key, welcome.root.secret_key), False
        missing = [f"{address} ({answer})" for address, answer in zip(machine.peers, answers, strict=True)
                   if not isinstance(answer, Welcome)]
        before_us = [welcome.name for welcome in welcomes if welcome.may_begin and welcome.name < machine.name]
        if machine.may_begin and not missing and not before_us:
            return keep_root(folders.root, new_access_key(), new_secret_key()), True
        if time.monotonic() - said > SAY_S or not said:
            said = time.monotonic()
            waited_for = f"no answer from {', '.join(missing)}" if missing else (
                f"{', '.join(before_us)} will begin" if before_us else "none of them has one yet")
            log.warning("waiting for a cluster at %s: %s", ", ".join(machine.peers), waited_for)
        await asyncio.sleep(ASK_AGAIN_S)


async def refuse_taken_name(machine: Machine, ours: Door, tls: Tls) -> None:
    """A machine that begins with an empty folder must not be taken for another one that lives: its storage nodes would come
    in the place of that one's. Raises FolderError."""
    await _ask_peers(machine, ours, tls)


async def _ask_peers(machine: Machine, ours: Door, tls: Tls) -> tuple[list[Welcome | ClusterError], list[Welcome]]:
    """What each peer says, and those answers that are others' than our own. Raises FolderError if one has our name."""
    answers = await asyncio.gather(*[_peer(address, machine, tls) for address in machine.peers])
    welcomes = [answer for answer in answers if isinstance(answer, Welcome) and answer.life != ours.life]
    if any(welcome.name == machine.name for welcome in welcomes):
        raise FolderError(f"setting 'name': another machine of the cluster is called {machine.name} too. Give this one "
                          "another name, and an empty folder")
    return answers, welcomes


async def _peer(address: str, machine: Machine, tls: Tls) -> Welcome | ClusterError:
    try:
        return await _visit(address, tls.client, door.MEMBER, machine.name, secrets.token_bytes(16))
    except ClusterError as error:
        return error


async def _visit(address: str, context: ssl.SSLContext, kind: int, name: str, visitor: bytes, *,
                 token: JoinToken | None = None) -> Welcome:
    """Raises Refused, Unavailable."""
    host, port = parse_listen(door_of(address), "peers")
    writer: asyncio.StreamWriter | None = None
    try:
        async with asyncio.timeout(CONNECT_S):
            reader, writer = await asyncio.open_connection(host, port, ssl=context, limit=door.ANSWER_BYTES_MAX)
        async with asyncio.timeout(VISIT_S):
            magic, version, length = door.HELLO.unpack(await reader.readexactly(door.HELLO.size))
            if magic != door.MAGIC or length > door.AUTHORITY_BYTES_MAX:
                raise Unavailable("that is no door of a Staddle cluster")
            if version != door.VERSION:
                raise Refused(f"{address} speaks version {version} at its door, we {door.VERSION}")
            authority = await reader.readexactly(length)
            if token is not None and not _right_door(authority, writer, token):
                raise Unavailable("that machine is of another cluster than the token")
            writer.write(door.REQUEST.pack(
                door.MAGIC, door.VERSION, kind, name.encode(), visitor,
                bytes(ID_BYTES) if token is None else token.id, bytes(SECRET_BYTES) if token is None else token.secret))
            status, size = door.ANSWER.unpack(await reader.readexactly(door.ANSWER.size))
            if size > door.ANSWER_BYTES_MAX:
                raise Unavailable("its answer is longer than any")
            answer = await reader.readexactly(size)
    except ssl.SSLError as error:
        raise Unavailable(f"no TLS: {error.reason or error}; is it of the same cluster, and are the clocks right?") from error
    except (OSError, TimeoutError, asyncio.IncompleteReadError) as error:
        raise Unavailable(f"no answer: {error or 'timed out'}") from error
    finally:
        if writer is not None:
            await door.hang_up(writer)
    if status != door.OK:
        sentence = answer.decode(errors="replace")
        raise Refused(sentence) if status == door.REFUSED else Unavailable(sentence)
    try:
        return msgspec.json.decode(answer, type=Welcome)
    except UNDECODABLE as error:
        raise Unavailable(f"its answer is not understood: {error}") from error


def _right_door(authority: bytes, writer: asyncio.StreamWriter, token: JoinToken) -> bool:
    """TLS has proved that the other side has the key of its leaf; the token, which authority is right; here, that this
    authority made the leaf."""
    if hashlib.sha256(authority).digest() != token.authority:
        return False
    raw = writer.get_extra_info("ssl_object").getpeercert(binary_form=True)
    if raw is None:
        return False
    leaf, now = x509.load_der_x509_certificate(raw), datetime.datetime.now(datetime.UTC)
    try:
        leaf.verify_directly_issued_by(x509.load_der_x509_certificate(authority))
    except (InvalidSignature, ValueError, TypeError):
        return False
    return leaf.not_valid_before_utc <= now <= leaf.not_valid_after_utc
