"""The tree is what it says: pages printed from code are current, the registry is complete, the wheel holds the packages."""

import re
import subprocess
import sys
import zipfile
from pathlib import Path
from types import ModuleType

import pytest

from gateway import docs
from gateway.ops import HANDLERS
from gateway.s3.operations import BEYOND_MODEL, OPERATIONS

ROOT = Path(__file__).parent.parent
PACKAGES = ("consensus", "storage_node", "gateway")


@pytest.mark.parametrize("name", sorted(docs.pages()))
def test_a_page_that_comes_from_the_code_is_current(name: str) -> None:
    assert (ROOT / "docs" / name).read_text() == docs.pages()[name], "run `make docs`"


def test_every_handler_has_a_row_and_every_row_an_answer() -> None:
    names = [operation.name for operation in (*OPERATIONS, *BEYOND_MODEL)]
    assert set(HANDLERS) <= set(names)
    assert len(set(names)) == len(names)


def test_no_module_hides_another() -> None:
    """A package that imports `x` from its own folder `x` has that in the folder's place: by its dotted name it is not found."""
    for name in [name for name in sys.modules if name.partition(".")[0] in PACKAGES and "." in name]:
        package, _, last = name.rpartition(".")
        found = getattr(sys.modules[package], last, None)
        assert not isinstance(found, ModuleType) or found.__name__ == name


def test_links_in_the_docs_lead_somewhere() -> None:
    for page in [ROOT / "README.md", *(ROOT / "docs").rglob("*.md")]:
        for target in re.findall(r"\]\((?!https?://)([^)#]+)", page.read_text()):
            assert (page.parent / target).exists(), f"{page.relative_to(ROOT)} links to {target}"


def test_files_named_in_the_docs_exist() -> None:
    for page in [ROOT / "README.md", *(ROOT / "docs").rglob("*.md")]:
        for named in re.findall(r"`((?:consensus|storage_node|gateway|tests)/[\w/.*-]+?\.(?:py|md))`", page.read_text()):
            assert list(ROOT.glob(named)), f"{page.relative_to(ROOT)} names {named}"


TOP = {
    ".ci", ".dockerignore", ".gitignore", "CHANGELOG.md", "CONTRIBUTING.md", "LICENSE", "Makefile", "README.md", "consensus",
    "constraints.txt", "docker", "docs", "gateway", "pyproject.toml", "staddle.py", "storage_node", "tests",
}


def test_nothing_lies_about_at_the_top() -> None:
    """What somebody measured or tried, and committed with the rest."""
    listed = subprocess.run(["git", "ls-tree", "--name-only", "HEAD"], cwd=ROOT, capture_output=True, text=True, check=False)
    if listed.returncode:
        pytest.skip("not a checkout")
    assert set(listed.stdout.split()) == TOP


def test_versions_are_pinned_without_addresses() -> None:
    for line in (ROOT / "constraints.txt").read_text().splitlines():
        assert re.fullmatch(r"[A-Za-z0-9_.-]+==[A-Za-z0-9_.+!-]+", line), line


def test_there_is_one_log_and_one_chunk_store() -> None:
    """No setting chooses another journal, state machine or chunk store: what is tested is what runs."""
    from gateway.config import described

    settings = {setting.name for setting in described()}
    assert not settings & {"log", "journal", "engine", "backend", "store", "storage", "database", "metadata", "fsync"}
    for package in PACKAGES:
        for file in (ROOT / package).rglob("*.py"):
            if file != ROOT / "storage_node" / "memory.py":
                assert "storage_node.memory" not in file.read_text(), f"{file} could choose the store for tests"
    journals = [file for file in (ROOT / "consensus").rglob("*.py") if re.search(r"class \w+\(\w*Journal\)", file.read_text())]
    assert len(journals) == 1


@pytest.mark.slow
def test_the_wheel_holds_the_packages_and_nothing_else(tmp_path: Path) -> None:
    subprocess.run(
        [sys.executable, "-m", "pip", "--disable-pip-version-check", "-q", "wheel", "--no-deps", "-w", str(tmp_path), str(ROOT)],
        check=True, capture_output=True,
    )
    (wheel,) = tmp_path.glob("*.whl")
    tops = {name.split("/")[0] for name in zipfile.ZipFile(wheel).namelist()}
    assert {top for top in tops if not top.endswith(".dist-info")} <= {*PACKAGES, "staddle.py"}
    assert set(PACKAGES) <= tops
