"""What docs/EMBEDDING.md shows is run here, with pytest's plug-in found the way that an installed one is found."""

import os
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

import staddle
from tests.servers import make_certificate

ROOT = Path(__file__).resolve().parents[2]
PAGE = (ROOT / "docs" / "EMBEDDING.md").read_text()
BLOCKS = re.findall(r"^```python ?(\w*)\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)
PROGRAMS = [text for kind, text in BLOCKS if not kind]


def installed(folder: Path) -> dict[str, str]:
    """An environment in which Staddle is installed with the entry points of pyproject.toml, whatever this one has."""
    entry_points = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["entry-points"]
    record = folder / "staddle_as_declared-1.dist-info"
    record.mkdir(parents=True)
    (record / "METADATA").write_text("Metadata-Version: 2.1\nName: staddle-as-declared\nVersion: 1\n")
    (record / "entry_points.txt").write_text("".join(
        f"[{group}]\n" + "".join(f"{name} = {value}\n" for name, value in names.items())
        for group, names in entry_points.items()))
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("STADDLE_", "AWS_", "PYTEST_"))}
    return kept | {"PYTHONPATH": os.pathsep.join((str(folder), str(ROOT)))}


def run_pytest(folder: Path, files: dict[str, str], *options: str) -> subprocess.CompletedProcess[str]:
    for name, text in files.items():
        (folder / name).write_text(text)
    return subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-p", "no:hypothesispytest", *options], cwd=folder,
        env=installed(folder / "installed"), capture_output=True, text=True, timeout=100)


@pytest.mark.parametrize("program", PROGRAMS, ids=range(len(PROGRAMS)))
def test_each_program_of_the_page_runs(program: str, tmp_path: Path) -> None:
    (tmp_path / "program.py").write_text(program)
    done = subprocess.run([sys.executable, "program.py"], cwd=tmp_path, env=installed(tmp_path / "installed"),
                          capture_output=True, text=True, timeout=100)
    assert done.returncode == 0, done.stderr


def test_settings_that_name_an_address_or_a_region_or_a_certificate_count(tmp_path: Path) -> None:
    for settings in ({"listen": "127.0.0.1:1"}, {"data": str(tmp_path)}):
        with pytest.raises(staddle.ServerError, match="give it as"):
            staddle.Server(settings=settings)
    files = make_certificate(tmp_path)
    with staddle.Server(settings={"region": "eu-west-1", "tls_cert": str(files.certificate), "tls_key": str(files.key)}) as s3:
        assert s3.client(verify=str(files.certificate)).list_buckets()["Buckets"] == []
        assert (s3.env()["AWS_REGION"], s3.env()["AWS_ENDPOINT_URL"][:8]) == ("eu-west-1", "https://")
        with pytest.raises(staddle.ServerError, match=f"cannot listen on 127.0.0.1:{s3.port}"):
            staddle.Server(port=s3.port).start()


def test_what_an_earlier_start_said_is_not_this_ones(tmp_path: Path) -> None:
    (tmp_path / "data" / "run").mkdir(parents=True)
    (tmp_path / "data" / "run" / "server.log").write_text("of yesterday\n")
    with pytest.raises(staddle.ServerError, match="Did you mean 'copies'") as failed:
        staddle.Server(tmp_path / "data", settings={"copie": 1}).start()
    assert "of yesterday" not in str(failed.value)


def test_the_tests_of_the_page_pass_side_by_side(tmp_path: Path) -> None:
    files = {"test_page.py": next(text for kind, text in BLOCKS if kind == "pytest"),
             "conftest.py": next(text for kind, text in BLOCKS if kind == "conftest")}
    files["test_settings.py"] = (
        "def test_settings_reach_the_server(s3_server):\n    assert s3_server._settings['chunk_bytes'] == '1MiB'\n")
    done = run_pytest(tmp_path, files, "-n", "2")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "4 passed" in done.stdout


def test_a_bucket_goes_with_all_that_is_in_it_and_the_server_with_the_session(tmp_path: Path) -> None:
    tests = """
seen = {}

def test_leaves_much_behind(s3_server, s3_client, s3_bucket):
    seen.update(bucket=s3_bucket, folder=s3_server._temporary, pid=s3_server._process.pid)
    for number in range(12):
        s3_client.put_object(Bucket=s3_bucket, Key=f"odd key/{number}\\n&<>", Body=b"x")
    upload = s3_client.create_multipart_upload(Bucket=s3_bucket, Key="unfinished")
    s3_client.upload_part(Bucket=s3_bucket, Key="unfinished", UploadId=upload["UploadId"], PartNumber=1, Body=b"x")

def test_deletes_its_bucket_itself(s3_client, s3_bucket):
    s3_client.delete_bucket(Bucket=s3_bucket)

def test_it_is_gone(s3_client):
    assert s3_client.list_buckets()["Buckets"] == []
    print("SEEN", seen["folder"], seen["pid"])
"""
    done = run_pytest(tmp_path, {"test_it.py": tests}, "-s")
    assert done.returncode == 0, done.stdout + done.stderr
    folder, pid = re.search(r"SEEN (\S+) (\d+)", done.stdout).groups()  # type: ignore[union-attr]
    assert not Path(folder).exists()
    assert not Path(f"/proc/{pid}").exists()


def test_the_plug_in_brings_nothing_into_a_session_that_does_not_use_it(tmp_path: Path) -> None:
    look = """
import sys
import pytest
before = set(sys.modules)
import staddle
staddle.pytest_plugin
print(*{name.partition(".")[0] for name in set(sys.modules) - before} - {"staddle"} - set(sys.stdlib_module_names))
"""
    done = subprocess.run([sys.executable, "-c", look], cwd=tmp_path, env=installed(tmp_path / "installed"), text=True,
                          capture_output=True, timeout=100)
    assert (done.stdout.strip(), done.stderr) == ("", "")
    alone = subprocess.run([sys.executable, "-c", "import sys, staddle; print('pytest' in sys.modules)"], text=True,
                           cwd=tmp_path, env=installed(tmp_path / "again"), capture_output=True, timeout=100)
    assert alone.stdout.strip() == "False", "programs that are no tests must not import pytest"
