"""A session's mark, and when it has to be told by a command of its own."""

from consensus.core.ids import SessionId
from consensus.sessions import Session


def sent(session: Session) -> None:
    """What sending any command does: it tells the mark."""
    session.said = session.low


def tell(session: Session) -> int:
    """A command that only tells the mark."""
    session.telling = session.take()
    sent(session)
    return session.telling


def test_mark_waits_for_the_lowest_open_ticket() -> None:
    session = Session(SessionId(1))
    first, second, third = session.take(), session.take(), session.take()
    session.answer(third)
    session.answer(second)
    assert session.low == first
    session.answer(first)
    assert session.low == third + 1
    assert session.idle


def test_telling_once_is_enough() -> None:
    session = Session(SessionId(1))
    command = session.take()
    sent(session)
    assert not session.unsaid
    session.answer(command)
    assert session.unsaid
    session.answer(tell(session))
    assert not session.unsaid


def test_mark_is_told_again_after_a_ticket_that_was_open_while_it_was_told() -> None:
    session = Session(SessionId(1))
    session.answer(session.take())
    slow = session.take()
    assert session.unsaid
    session.answer(tell(session))            # tells of the first only: the slow one is still open
    assert not session.unsaid
    sent(session)                            # now the slow one's command goes out, and is answered
    session.answer(slow)
    assert session.unsaid, "nobody has been told that the slow one is answered"
    session.answer(tell(session))
    assert not session.unsaid
