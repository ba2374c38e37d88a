"""The list of attacks is complete: fifty rows, each with tests that exist, and no numbered test without its row."""

import ast
import re
from pathlib import Path

from tests.attacks.the_list import ATTACKS, HERE

ROOT = Path(__file__).parents[2]
ROWS = 50


def functions(file: Path) -> list[str]:
    return [node.name for node in ast.parse(file.read_text()).body if isinstance(node, ast.FunctionDef)
            and node.name.startswith("test_")]


def numbers_of(name: str) -> set[int]:
    """``test_12_and_13_forms`` is about two, ``test_25_to_27_strangers`` about three."""
    found = re.match(r"test_(\d+)(?:_(and|to)_(\d+))?(?:_|$)", name)
    if found is None:
        return set()
    first, word, last = found.groups()
    if last is None:
        return {int(first)}
    return set(range(int(first), int(last) + 1)) if word == "to" else {int(first), int(last)}


def numbered() -> dict[int, list[str]]:
    tests: dict[int, list[str]] = {}
    for file in sorted((ROOT / HERE).glob("test_*.py")):
        for name in functions(file):
            for number in numbers_of(name):
                tests.setdefault(number, []).append(name)
    return tests


def test_every_row_has_tests_that_exist() -> None:
    tests = numbered()
    assert [attack.number for attack in ATTACKS] == list(range(1, ROWS + 1))
    for attack in ATTACKS:
        for named in attack.tests:
            path, _, function = named.partition("::")
            there = functions(ROOT / path)
            assert there, named
            assert function == "*" or function in there, f"row {attack.number} names {named}"
        assert tests.get(attack.number), f"no test is numbered {attack.number}: {attack.attack}"


def test_every_numbered_test_has_a_row() -> None:
    assert numbered().keys() == {attack.number for attack in ATTACKS}
