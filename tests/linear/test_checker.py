"""The checker against histories whose truth is known: made by a store in memory, spoilt on purpose, or so small that
every order can be tried."""

import itertools
import math
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.linear import checker, controls
from tests.linear.history import Kind, Op, Outcome, Value, load, save

GROUP = "g0"
KEYS = ("g0/k0", "g0/k1", "g0/k2")


def op(kind: Kind, begin: float, end: float, *, key: str = KEYS[0], value: Value = None, seen: Value = None,
       expected: Value = None, outcome: Outcome = Outcome.OK, listed: tuple[tuple[str, str], ...] = ()) -> Op:
    return Op(client=0, gateway=0, kind=kind, key=key, begin=begin, end=end, value=value, seen=seen, expected=expected,
              outcome=outcome, listed=listed)


class Store:
    """Carries each operation out at one moment within its time: every history of it is linearizable."""

    def __init__(self, seed: int, clients: int, unknown: float = 0.0) -> None:
        self._choose = random.Random(seed)
        self._held: dict[str, str] = {}
        self._unknown = unknown
        self._clients = clients
        self._number = 0

    def history(self, count: int, kinds: tuple[Kind, ...] = tuple(Kind)) -> list[Op]:
        """As if by clients with one operation at a time."""
        choose, ops, free = self._choose, [], [0.0] * self._clients
        moments = []
        for _ in range(count):
            client = min(range(self._clients), key=lambda number: free[number])
            begin = free[client] + choose.random() * 0.2
            end = begin + choose.random()
            moments.append((choose.uniform(begin, end), begin, end, client, choose.choice(kinds)))
            free[client] = end
        for at, begin, end, client, kind in sorted(moments):
            del at
            ops.append(self._carry_out(kind, begin, end, client))
        return [made for made in ops if made is not None]

    def _carry_out(self, kind: Kind, begin: float, end: float, client: int) -> Op | None:
        choose, key = self._choose, self._choose.choice(KEYS)
        unknown = choose.random() < self._unknown
        held = self._held.get(key)
        self._number += 1
        value = f"v{self._number}"
        given = {"client": client, "gateway": 0, "kind": kind, "begin": begin, "end": math.inf if unknown else end}
        outcome = Outcome.UNKNOWN if unknown else Outcome.OK
        match kind:
            case Kind.GET | Kind.HEAD:
                return None if unknown else Op(**given, key=key, outcome=outcome, seen=held)
            case Kind.LIST:
                return None if unknown else Op(**given, key=GROUP, outcome=outcome, listed=tuple(sorted(self._held.items())))
        if unknown and choose.random() < 0.5 and kind is not Kind.RENAME:         # and never carried out
            return Op(**given, key=key, outcome=outcome, value=None if kind is Kind.DELETE else value, expected=held)
        if kind is Kind.DELETE:
            self._held.pop(key, None)
            return Op(**given, key=key, outcome=outcome)
        if kind is Kind.RENAME:
            return self._rename(given, key, held, unknown)
        if kind is Kind.CREATE and held is not None:
            return Op(**given, key=key, outcome=Outcome.UNKNOWN if unknown else Outcome.UNMET, value=value)
        if kind in (Kind.SWAP, Kind.APPEND):
            expected = held if held is not None and choose.random() < 0.7 else "v0"
            if held is None or expected != held:
                met = Outcome.MISSING if held is None else Outcome.UNMET
                return Op(**given, key=key, outcome=Outcome.UNKNOWN if unknown else met, value=value, expected=expected)
            self._held[key] = value
            return Op(**given, key=key, outcome=outcome, value=value, expected=expected)
        self._held[key] = value
        return Op(**given, key=key, outcome=outcome, value=value)


    def _rename(self, given: dict[str, Any], key: str, held: str | None, unknown: bool) -> Op:
        """Of what is expected at the one name, to another."""
        choose = self._choose
        to = choose.choice([other for other in KEYS if other != key])
        expected = held if held is not None and choose.random() < 0.7 else "v0"
        if held is not None and held == expected and not (unknown and choose.random() < 0.5):
            self._held[to] = self._held.pop(key)
            outcome = Outcome.OK
        else:
            outcome = Outcome.MISSING if held is None else Outcome.UNMET
        return Op(**given, key=key, to=to, outcome=Outcome.UNKNOWN if unknown else outcome, expected=expected)


def linearizable(history: list[Op]) -> bool:
    verdict = checker.check(history)
    assert verdict.alone == 0
    return not verdict.violations


@pytest.mark.parametrize("seed", range(12))
@pytest.mark.parametrize("unknown", [0.0, 0.05])
def test_what_a_store_told_passes(seed: int, unknown: float) -> None:
    assert linearizable(Store(seed, clients=8, unknown=unknown).history(600))


@pytest.mark.parametrize("name", controls.CONTROLS)
@pytest.mark.parametrize("unknown", [0.0, 0.05])
def test_each_lie_is_noticed(name: str, unknown: float) -> None:
    told = 0
    for seed in range(15):
        history = Store(seed, clients=6, unknown=unknown).history(300)
        spoilt = controls.CONTROLS[name](history, random.Random(seed))
        if spoilt is not None:
            told += 1
            assert not linearizable(spoilt), f"seed {seed}"
    assert told >= 5


def orders(history: list[Op]) -> Iterator[list[Op]]:
    """Every order that the times allow, with any of the unknown operations left out."""
    unknown = [made for made in history if math.isinf(made.end)]
    for count in range(len(unknown) + 1):
        for left_out in itertools.combinations(unknown, count):
            kept = [made for made in history if made not in left_out]
            for order in itertools.permutations(kept):
                if all(not later.end < earlier.begin for earlier, later in itertools.combinations(order, 2)):
                    yield list(order)


def explains(order: list[Op]) -> bool:
    held: dict[str, str] = {}
    for made in order:
        now = held.get(made.key)
        unknown = made.outcome is Outcome.UNKNOWN
        match made.kind:
            case Kind.GET | Kind.HEAD:
                if made.seen != now:
                    return False
                continue
            case Kind.LIST:
                if dict(made.listed) != held:
                    return False
                continue
            case Kind.CREATE:
                if (now is None) != (made.outcome is not Outcome.UNMET):
                    return False
            case Kind.SWAP | Kind.APPEND | Kind.RENAME:
                fits = now is not None and now == made.expected
                told = (Outcome.OK, Outcome.UNKNOWN) if fits else (Outcome.MISSING,) if now is None else (Outcome.UNMET,)
                if made.outcome not in told:
                    return False
        if made.outcome is Outcome.OK or unknown:
            if made.kind is Kind.RENAME:
                held[made.to] = held.pop(made.key)
            elif made.value is None:
                held.pop(made.key, None)
            else:
                held[made.key] = made.value
    return True


def test_small_histories_are_judged_as_by_trying_every_order() -> None:
    """Histories in which half of what was seen is made up, so that both verdicts come often."""
    verdicts = {True: 0, False: 0}
    for seed in range(400):
        choose = random.Random(seed)
        kinds = (Kind.PUT, Kind.CREATE, Kind.SWAP, Kind.RENAME, Kind.DELETE, Kind.GET, Kind.LIST)
        history = Store(seed, clients=3, unknown=0.2).history(6, kinds)
        values = [made.value for made in history if made.value is not None] + [None]
        for number, made in enumerate(history):
            if made.kind is Kind.GET and choose.random() < 0.4:
                history[number] = op(Kind.GET, made.begin, made.end, key=made.key, seen=choose.choice(values))
            elif made.kind is Kind.LIST and choose.random() < 0.4:
                listed = {key: choose.choice(values) for key in KEYS}
                history[number] = op(Kind.LIST, made.begin, made.end, key=GROUP,
                                     listed=tuple((key, value) for key, value in listed.items() if value is not None))
            elif made.kind is Kind.CREATE and made.outcome is not Outcome.UNKNOWN and choose.random() < 0.3:
                history[number] = op(Kind.CREATE, made.begin, made.end, key=made.key, value=made.value,
                                     outcome=choose.choice((Outcome.OK, Outcome.UNMET)))
        truth = any(map(explains, orders(history)))
        assert linearizable(history) == truth, f"seed {seed}: {[str(made) for made in history]}"
        verdicts[truth] += 1
    assert min(verdicts.values()) > 50, verdicts


def test_a_list_is_one_moment_of_all_keys() -> None:
    """Each key alone could have been so while it was listed, both together never were."""
    first, second = KEYS[:2]
    history = [
        op(Kind.PUT, 0, 1, key=first, value="a"), op(Kind.DELETE, 2, 3, key=first), op(Kind.PUT, 4, 5, key=second, value="b"),
        op(Kind.LIST, 1.5, 6, key=GROUP, listed=((first, "a"), (second, "b"))),
    ]
    assert not linearizable(history)
    assert linearizable([*history[:-1], op(Kind.LIST, 1.5, 6, key=GROUP, listed=((first, "a"),))])


@pytest.mark.parametrize(("seen", "possible"), [
    (("a",), True), (("b",), True), ((), False), (("a", "b"), False),
])
def test_a_rename_is_one_moment_of_both_names(seen: tuple[str, ...], possible: bool) -> None:
    """One that was a copy and then a deletion would show both, the other way round neither."""
    first, second = KEYS[:2]
    names = {"a": first, "b": second}
    history = [
        op(Kind.PUT, 0, 1, key=first, value="v"),
        Op(client=0, gateway=0, kind=Kind.RENAME, key=first, to=second, expected="v", begin=2, end=5, outcome=Outcome.OK),
        op(Kind.LIST, 3, 4, key=GROUP, listed=tuple((names[each], "v") for each in seen)),
    ]
    assert linearizable(history) == possible


def test_a_product_that_renames_in_two_steps_is_caught() -> None:
    """A copy, and the deletion a little later: others get in between."""

    class TwoSteps(Store):
        late: tuple[str, str] | None = None

        def _carry_out(self, kind: Kind, begin: float, end: float, client: int) -> Op | None:
            if self.late is not None and self._held.get(self.late[0]) == self.late[1] and kind is not Kind.LIST:
                self._held.pop(self.late[0])
                self.late = None
            return super()._carry_out(kind, begin, end, client)

        def _rename(self, given: dict[str, Any], key: str, held: str | None, unknown: bool) -> Op:
            made = super()._rename(given, key, held, unknown)
            if made.outcome is Outcome.OK:
                assert made.expected is not None
                self._held[key] = made.expected
                self.late = key, made.expected
            return made

    assert sum(not linearizable(TwoSteps(seed, clients=6).history(300)) for seed in range(4)) >= 3


def test_many_unknown_writes_cost_little() -> None:
    """Each partition leaves some, and they stay open to the end."""
    verdict = checker.check(Store(3, clients=12, unknown=0.1).history(1000))
    assert not verdict.violations
    assert verdict.alone == 0
    assert verdict.looked < checker.BUDGET // 4


def test_a_search_that_takes_too_long_says_so() -> None:
    history = Store(1, clients=8).history(200)
    assert checker.check(history, budget=10_000).alone == 0
    with pytest.raises(checker.TooMany):
        checker.Search(history, list(KEYS), budget=5).run()


def test_histories_are_kept_for_later(tmp_path: Path) -> None:
    history = sorted(Store(1, clients=4, unknown=0.2).history(50), key=lambda made: made.begin)
    path = tmp_path / "history"
    save(history, path)
    assert load(path) == history
