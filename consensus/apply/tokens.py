"""Join tokens: each lets one machine in, once. The log knows a hash of the secret half; who joins shows that he knows it."""

from consensus.apply.state import State, count_fits, texts_fit
from consensus.core.commands import CreateToken, DeleteToken, SpendToken
from consensus.core.results import AnyResult, Done, Malformed, TokenRefused

TOKENS_MAX = 100
"""Also those that are spent or expired: they go first."""

HASH_BYTES = 32


def create_token(state: State, command: CreateToken) -> AnyResult:
    if not command.id or not texts_fit(command.id) or len(command.hash) != HASH_BYTES or not count_fits(command.expires_ms):
        return Malformed(reason="a token has a short id, a hash of 32 bytes, and a time")
    if state.execute("SELECT 1 FROM join_token WHERE id = ?", (command.id,)).fetchone():
        return TokenRefused(why="exists")
    used = state.execute("SELECT id FROM join_token WHERE spent_by IS NOT NULL OR expires <= ? ORDER BY created, id",
                         (state.now,)).fetchall()
    count = state.execute("SELECT count(*) FROM join_token").fetchone()[0]
    if count >= TOKENS_MAX:
        if not used:
            return Malformed(reason=f"there are at most {TOKENS_MAX} tokens: delete some")
        state.touch()
        state.execute("DELETE FROM join_token WHERE id = ?", used[0])
    state.touch()
    state.execute("INSERT INTO join_token (id, hash, created, expires) VALUES (?, ?, ?, ?)",
                  (command.id, command.hash, state.now, command.expires_ms))
    return Done()


def spend_token(state: State, command: SpendToken) -> AnyResult:
    row = None
    if texts_fit(command.id, command.name):
        row = state.execute("SELECT hash, expires, spent_by FROM join_token WHERE id = ?", (command.id,)).fetchone()
    if row is None or row[0] != command.hash:
        return TokenRefused(why="unknown")
    if row[2] == command.name:
        return Done()                     # the same visitor, whose answer was lost
    if row[2] is not None:
        return TokenRefused(why="spent")
    if row[1] <= state.now:
        return TokenRefused(why="expired")
    state.touch()
    state.execute("UPDATE join_token SET spent_by = ?, spent_at = ? WHERE id = ?", (command.name, state.now, command.id))
    return Done()


def delete_token(state: State, command: DeleteToken) -> AnyResult:
    if not texts_fit(command.id):
        return TokenRefused(why="unknown")
    gone = state.execute("DELETE FROM join_token WHERE id = ?", (command.id,)).rowcount
    state.touch(gone)
    return Done() if gone else TokenRefused(why="unknown")
