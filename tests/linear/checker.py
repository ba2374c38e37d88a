"""Is there one order of all operations that explains what everybody was told? (Wing and Gong's question.)

The search keeps all *configurations* that the history so far allows: what the keys hold, and which of the operations
under way have taken effect. At each answer those remain, or are reached, in which the operation answered has taken effect
("just in time", as Lowe has it). None left: a violation. What keeps it small, without changing its verdict:

* An operation that only looks takes effect as soon as it would see what it saw: waiting gains it nothing.
* A write whose answer is unknown, and whose value was seen, had taken effect when the first who saw it had his answer.
* Values that nobody ever saw or named are one value; of open operations that do the same, the eldest goes first,
  and only when somebody needs it.
* Of two configurations that differ only in which open operations are spent, the one that has more left is enough.

A listing is one look at all keys of its group, so a group's keys are searched together. Should that take too long
(BUDGET), each key is searched alone, a listing being a look at each of them, and the verdict says so.
"""

import math
from collections import defaultdict
from collections.abc import Iterable, Iterator
from typing import NamedTuple

from tests.linear.history import EXPECTING, WRITES, Kind, Op, Outcome, Value, by_group

BUDGET = 2_000_000
"""Configurations looked at for one group: about half a minute of Python."""

SHOWN = 12
"""Operations told with a violation: those before it on its keys."""

UNSEEN = "unseen"
State = tuple[Value, ...]


class Violation(NamedTuple):
    op: Op
    possible: list[State]         # before it
    before: list[Op]

    def __str__(self) -> str:
        told = "".join(f"\n        {op}" for op in self.before)
        return f"no order explains {self.op}; possible before: {self.possible}; the last on its keys:{told}"


class Verdict(NamedTuple):
    violations: list[Violation]
    alone: int                    # groups whose keys could only be searched each alone
    looked: int                   # configurations


class TooMany(Exception):
    """The budget is spent."""


class Action(NamedTuple):
    """An operation as the search sees it. `key` is an index into the state."""

    kind: str                     # write, create, swap, move; read, exists, differs, list
    key: int
    value: object                 # written or seen
    expected: Value = None
    to: int = -1                  # of a move


LOOKS = frozenset({"read", "exists", "differs", "list"})


def check(history: Iterable[Op], budget: int = BUDGET) -> Verdict:
    """Keys are empty when the history begins."""
    violations, alone, looked = [], 0, 0
    for ops in by_group(history).values():
        keys = sorted({op.key for op in ops if op.kind is not Kind.LIST} | {op.to for op in ops if op.to}
                      | {key for op in ops for key, _ in op.listed})
        # Each key alone first: quick, and its explanation is short.
        found: list[Violation] = []
        for key in keys:
            search = Search(ops, [key], budget)
            found += filter(None, [search.run()])
            looked += search.looked
        if not found:
            search = Search(ops, keys, budget)
            try:
                found = list(filter(None, [search.run()]))
            except TooMany:
                alone += 1
            looked += search.looked
        violations += found
    return Verdict(violations, alone, looked)


class Search:
    """Of some keys of one group. Raises TooMany."""

    def __init__(self, ops: list[Op], keys: list[str], budget: int) -> None:
        self._keys = {key: place for place, key in enumerate(keys)}
        self._ops = [op for op in ops if op.kind is Kind.LIST or op.key in self._keys or op.to in self._keys]
        self._budget = budget
        self.looked = 0
        self._pending: dict[int, Action] = {}        # by bit: those under way
        self._unanswered: dict[Action, list[int]] = {}
        """Those that are open for ever, with their bits: the same action is taken in this order."""
        self._open = 0                               # all these bits
        self._next_bit = 1
        self._free: list[int] = []

    def run(self) -> Violation | None:
        empty: State = (None,) * len(self._keys)
        configurations: set[tuple[State, int]] = {(empty, 0)}
        bits: dict[int, int] = {}
        for at, answered, op, action in self._events():
            del at
            if not answered:
                bit = bits[id(op)] = self._take_bit()
                if _never_answered(op, self._seen_at):
                    self._open |= bit
                    self._unanswered.setdefault(action, []).append(bit)
                    continue
                self._pending[bit] = action
                if action.kind in LOOKS:
                    configurations = {(state, done | bit) if _fits(action, state) else (state, done)
                                      for state, done in configurations}
                continue
            bit = bits[id(op)]
            after: set[tuple[State, int]] = set()
            missing = []
            for state, done in configurations:
                if done & bit:
                    after.add((state, done))
                else:
                    missing.append((state, done))
            if missing:
                after |= self._reach(missing, bit, action)
            del self._pending[bit]
            self._free.append(bit)
            if not after:
                before = [other for other in self._ops if other.begin <= op.end and self._touches(other, op)]
                return Violation(op, sorted({state for state, _ in configurations}, key=repr)[:SHOWN],
                                 sorted(before, key=lambda other: other.begin)[-SHOWN:])
            configurations = self._least({(state, done & ~bit) for state, done in after})
        return None

    def _events(self) -> Iterator[tuple[float, bool, Op, Action]]:
        """Requests and answers in the order of their times; at the same time, requests first: it allows more."""
        self._seen_at = _first_seen(self._ops)
        self._named: set[Value] = {*self._seen_at, *(op.expected for op in self._ops)}
        events: list[tuple[float, int, int, Op, Action]] = []
        for number, op in enumerate(self._ops):
            action = self._action(op)
            if action is None:
                continue
            events.append((op.begin, 0, number, op, action))
            end = op.end
            if math.isinf(end) and op.value is not None:
                end = max(op.begin, self._seen_at.get(op.value, math.inf))
            if not math.isinf(end):
                events.append((end, 1, number, op, action))
        for at, answered, _, op, action in sorted(events, key=lambda event: event[:3]):
            yield at, bool(answered), op, action

    def _action(self, op: Op) -> Action | None:
        if op.kind is Kind.LIST:
            listed = dict(op.listed)
            return Action("list", -1, tuple(listed.get(key) for key in self._keys))
        if op.kind is Kind.RENAME and op.outcome in (Outcome.OK, Outcome.UNKNOWN):
            return self._move(op)
        if op.key not in self._keys:
            return None                # a rename that was refused says nothing of the key that it was to make
        key = self._keys[op.key]
        if op.kind in (Kind.GET, Kind.HEAD):
            return Action("read", key, op.seen)
        if op.outcome is Outcome.MISSING:
            return Action("read", key, None)
        if op.outcome is Outcome.UNMET:
            return Action("exists", key, None) if op.kind is Kind.CREATE else Action("differs", key, None, op.expected)
        unseen = op.outcome is Outcome.UNKNOWN and op.value is not None and op.value not in self._named
        value = UNSEEN if unseen else op.value
        if op.kind is Kind.CREATE:
            return Action("create", key, value)
        if op.kind in (Kind.SWAP, Kind.APPEND):
            return Action("swap", key, value, op.expected)
        return Action("write", key, value)

    def _move(self, op: Op) -> Action:
        """Where one of its keys alone is searched: what it does to that one."""
        if op.to not in self._keys:
            return Action("swap", self._keys[op.key], None, op.expected)
        if op.key not in self._keys:
            return Action("write", self._keys[op.to], op.expected)
        return Action("move", self._keys[op.key], op.expected, op.expected, self._keys[op.to])

    def _reach(self, begin: list[tuple[State, int]], bit: int, action: Action) -> set[tuple[State, int]]:
        """Configurations in which the operation has taken effect, reached by what is under way taking effect first."""
        waiting = [other for other in self._pending.items() if other[1].kind in LOOKS]
        everything = (action.kind == "list" or any(look.kind == "list" for _, look in waiting)
                      or any(act.kind == "move" for act in (*self._pending.values(), *self._unanswered)))
        writes = [(other, act) for other, act in self._pending.items()
                  if act.kind not in LOOKS and (everything or act.key == action.key)]
        unanswered = [(act, bits) for act, bits in self._unanswered.items() if everything or act.key == action.key]
        found: set[tuple[State, int]] = set()
        known: dict[tuple[State, int], list[int]] = defaultdict(list)
        level = begin
        while level:
            following = []
            for state, done in level:
                able = [(other, act) for other, act in writes if not done & other]
                able += [(next(other for other in bits if not done & other), act) for act, bits in unanswered
                         if bits[-1] & ~done and self._useful(act, done)]
                for other, act in able:
                    changed = _carried_out(act, state)
                    if changed is None:
                        continue
                    now = done | other
                    for look, acting in waiting:
                        if not now & look and _fits(acting, changed):
                            now |= look
                    self.looked += 1
                    if self.looked > self._budget:
                        raise TooMany
                    spent = now & self._open
                    kept = known[changed, now & ~self._open]
                    if any(less & spent == less for less in kept):
                        continue
                    kept.append(spent)
                    if now & bit:
                        found.add((changed, now))
                    else:
                        following.append((changed, now))
            level = following
        return found

    def _useful(self, act: Action, done: int) -> bool:
        """An open operation may wait until somebody under way needs what it leaves: an object, whichever, or none."""
        if act.value not in (None, UNSEEN):
            return True
        for bit, other in self._pending.items():
            if done & bit or (other.key != act.key and other.kind != "list"):
                continue
            if other.kind == "differs" or (act.value == UNSEEN and other.kind == "exists"):
                return True
            if act.value is None and (other.kind == "create" or (other.kind == "read" and other.value is None)):
                return True
            if act.value is None and other.kind == "list":
                assert isinstance(other.value, tuple)
                if other.value[act.key] is None:
                    return True
        return False

    def _least(self, configurations: set[tuple[State, int]]) -> set[tuple[State, int]]:
        if len(configurations) < 2 or not self._open:
            return configurations
        spent: dict[tuple[State, int], list[int]] = defaultdict(list)
        for state, done in configurations:
            spent[state, done & ~self._open].append(done & self._open)
        return {(state, done | used) for (state, done), several in spent.items() for used in several
                if not any(less != used and less & used == less for less in several)}

    def _take_bit(self) -> int:
        if self._free:
            return self._free.pop()
        bit = self._next_bit
        self._next_bit <<= 1
        return bit

    def _touches(self, other: Op, op: Op) -> bool:
        return Kind.LIST in (other.kind, op.kind) or bool({other.key, other.to} & {op.key, op.to} - {""})


def _first_seen(ops: list[Op]) -> dict[str, float]:
    """When the first of those who saw a value had their answer."""
    seen: dict[str, float] = {}
    for op in ops:
        values: list[Value] = [op.seen, *(etag for _, etag in op.listed)]
        if op.kind in EXPECTING and op.outcome is Outcome.OK:
            values.append(op.expected)
        for value in values:
            if value is not None:
                seen[value] = min(seen.get(value, math.inf), op.end)
    return seen


def _never_answered(op: Op, seen_at: dict[str, float]) -> bool:
    return op.kind in WRITES and math.isinf(op.end) and (op.value is None or op.value not in seen_at)


def _fits(look: Action, state: State) -> bool:
    if look.kind == "list":
        return state == look.value
    held = state[look.key]
    if look.kind == "read":
        return held == look.value
    return held is not None and (look.kind == "exists" or held != look.expected)


def _carried_out(write: Action, state: State) -> State | None:
    held = state[write.key]
    if (write.kind == "create" and held is not None) or (write.kind in ("swap", "move") and held != write.expected):
        return None
    if write.kind == "move":
        changed = [*state]
        changed[write.key], changed[write.to] = None, held
        return tuple(changed)
    value = write.value
    assert value is None or isinstance(value, str)
    return (*state[:write.key], value, *state[write.key + 1:])
