"""docs/CLIENTS.md and the tests name the same programs, and each rule has its tests."""

import re
from pathlib import Path

HERE = Path(__file__).parent
PAGE = (HERE.parents[1] / "docs" / "CLIENTS.md").read_text()
RULES = 17


def test_each_program_is_run_and_on_the_page() -> None:
    programs = sorted(path for path in (HERE / "programs").iterdir() if path.suffix in (".py", ".mjs"))
    tests = (HERE / "every" / "test_programs.py").read_text()
    assert len(programs) > 10
    for program in programs:
        assert f'"{program.stem}"' in tests
        assert f"`tests/clients/programs/{program.name}`" in PAGE


def test_each_rule_has_a_test_and_a_line() -> None:
    text = (HERE / "test_rules.py").read_text()
    head, _, rest = text.partition('"""\n\n')
    numbers = list(range(1, RULES + 1))
    assert [int(number) for number in re.findall(r"^    (\d+) ", head, re.MULTILINE)] == numbers
    assert sorted({int(number) for number in re.findall(r"^def test_rule_(\d+)_", rest, re.MULTILINE)}) == numbers


def test_pins_are_versions_without_addresses() -> None:
    for file in (HERE / "pins").glob("*.txt"):
        for line in file.read_text().splitlines():
            assert re.fullmatch(r"[A-Za-z0-9_.-]+==[A-Za-z0-9_.+!-]+", line), f"{file.name}: {line}"
    assert "://" not in (HERE / "pins" / "package.json").read_text()
