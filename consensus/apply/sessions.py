"""Sessions: who may commit, and the answers that are kept so that a command applied twice has the effect of once.

A session keeps the result of each sequence from its low mark on. A repeat gets the first result; a sequence below the
mark is refused, and so is everything of a session that has ended (or never was).
"""

import msgspec

from consensus.apply import backups
from consensus.apply.queue import SESSION
from consensus.apply.state import State, texts_fit
from consensus.core.commands import EndSession, OpenSession
from consensus.core.ids import NodeId, SessionId
from consensus.core.results import AnyResult, Done, Malformed, SessionOpened
from consensus.rows import encode

_decode_result = msgspec.msgpack.Decoder(AnyResult).decode


class Session:
    """As applied. `fresh`: results that have no row yet; `passed`: rows below the mark may be left to delete."""

    __slots__ = ("fresh", "id", "last", "low", "node", "passed", "results")

    def __init__(self, id: SessionId, node: NodeId | None, low: int, last: int) -> None:
        self.id, self.node, self.low, self.last = id, node, low, last
        self.results: dict[int, AnyResult] = {}
        self.fresh: list[int] = []
        self.passed = False

    def raise_low(self, low: int) -> None:
        """Forget the results below the mark: their owner has them."""
        if low <= self.low:
            return
        results = self.results
        if low - self.low <= len(results):
            for sequence in range(self.low, low):
                results.pop(sequence, None)
        else:
            self.results = {sequence: result for sequence, result in results.items() if sequence >= low}
        self.low, self.passed = low, True

    def keep(self, sequence: int, result: AnyResult) -> None:
        self.results[sequence] = result
        self.fresh.append(sequence)


class Sessions:
    """All open sessions, and which of them the open transaction has touched."""

    __slots__ = ("_state", "_touched", "open")

    def __init__(self, state: State) -> None:
        self._state = state
        self._touched: dict[int, Session] = {}
        self.open: dict[int, Session] = {}
        for id, node, low, last in state.execute("SELECT id, node, low, last FROM session"):
            self.open[id] = Session(id, node, low, last)
        for id, sequence, raw in state.execute("SELECT session, sequence, result FROM result"):
            session = self.open.get(id)
            if session is not None and sequence >= session.low:
                session.results[sequence] = _decode_result(raw)

    def mark(self, session: Session) -> None:
        """Its row is to be written when the transaction ends."""
        session.last = self._state.now
        self._touched[session.id] = session

    def start(self, owner: str, node: NodeId | None) -> Session:
        """A new one; its id is the command's position."""
        state = self._state
        session = Session(SessionId(state.position), node, 0, state.now)
        state.touch()
        state.execute("INSERT INTO session (id, owner, node, low, last) VALUES (?, ?, ?, 0, ?)",
                      (session.id, owner, node, state.now))
        self.open[session.id] = session
        return session

    def stop(self, id: int) -> None:
        """Nothing of it is accepted from here on; what it left in rows goes in pages."""
        session = self.open.pop(id, None)
        if session is None:
            return
        if self._touched.pop(id, None) is not None:
            self._write(session)    # so that rows don't depend on where this member's transaction began
        self._state.touch()
        self._state.execute("DELETE FROM session WHERE id = ?", (id,))
        self._state.enqueue(SESSION, id)
        backups.drop_open(self._state, id)

    def flush(self) -> None:
        """Write what the open transaction has changed."""
        for session in self._touched.values():
            self._write(session)
        self._touched.clear()

    def _write(self, session: Session) -> None:
        """The mark, the fresh results; and the rows that the mark has passed go."""
        execute, results, low = self._state.execute, session.results, session.low
        execute("UPDATE session SET low = ?, last = ? WHERE id = ?", (low, session.last, session.id))
        if session.passed:
            execute("DELETE FROM result WHERE session = ? AND sequence < ?", (session.id, low))
            session.passed = False
        self._state.executemany(
            "INSERT INTO result (session, sequence, result) VALUES (?, ?, ?)",
            [(session.id, sequence, encode(results[sequence])) for sequence in session.fresh if sequence >= low],
        )
        session.fresh.clear()


def open_session(state: State, sessions: Sessions, command: OpenSession) -> AnyResult:
    if not texts_fit(command.owner):
        return Malformed(reason="the owner of a session is a short text")
    return SessionOpened(session=sessions.start(command.owner, None).id)


def end_session(state: State, sessions: Sessions, command: EndSession) -> AnyResult:
    sessions.stop(command.session)
    return Done()
