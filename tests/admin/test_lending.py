"""`staddle run`: a store that is there for a command, and gone with it."""

import os
import signal
import subprocess
import sys
from pathlib import Path

from tests.servers import end_with_parent

STADDLE = (sys.executable, "-P", "-m", "gateway.cli", "run")
CHECK = """
import boto3, os, sys
s3 = boto3.client("s3")
assert [bucket["Name"] for bucket in s3.list_buckets()["Buckets"]] == ["one", "two"]
s3.put_object(Bucket="one", Key="k", Body=b"v")
print(os.environ["AWS_ENDPOINT_URL"], os.environ["AWS_REGION"], sys.argv[1:])
sys.exit(7)
"""


def environment(folder: Path) -> dict[str, str]:
    """Temporary folders are made in `folder`. Like a machine in a company: with a profile and a proxy that lead elsewhere."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("STADDLE_", "AWS_"))}
    return kept | {"PYTHONPATH": str(Path(__file__).parents[2]), "TMPDIR": str(folder), "AWS_PROFILE": "of-another-user",
                   "HTTP_PROXY": "http://127.0.0.1:9", "http_proxy": "http://127.0.0.1:9"}


def test_a_command_finds_its_buckets_and_nothing_stays(tmp_path: Path) -> None:
    done = subprocess.run([*STADDLE, "--bucket", "one", "--bucket", "two", "--region", "eu-central-1", sys.executable, "-c",
                           CHECK, "--port", "1"], env=environment(tmp_path), capture_output=True, text=True, timeout=60)
    assert done.returncode == 7, done.stderr
    assert done.stdout.startswith("http://127.0.0.1:")
    assert done.stdout.endswith("eu-central-1 ['--port', '1']\n")         # what follows the command is the command's
    assert not list(tmp_path.glob("staddle-*"))


def test_commands_of_staddle_find_it_too(tmp_path: Path) -> None:
    """Also where others are said to talk to another server."""
    done = subprocess.run([*STADDLE, "--bucket", "lent", *STADDLE[:-1], "bucket", "list"], capture_output=True, text=True,
                          env=environment(tmp_path) | {"STADDLE_ENDPOINT": "http://127.0.0.1:9"}, timeout=60)
    assert "lent" in done.stdout, done.stderr


def test_without_a_command_it_serves_until_told_and_a_folder_that_is_given_stays(tmp_path: Path) -> None:
    with subprocess.Popen(
            [*STADDLE, "--data", str(tmp_path / "data"), "--bucket", "kept"], stdout=subprocess.PIPE, stderr=subprocess.PIPE,
            text=True, env=environment(tmp_path), preexec_fn=end_with_parent) as server:
        assert server.stderr is not None
        assert server.stdout is not None
        assert server.stderr.readline() == "Serving until Ctrl-C.\n"
        os.kill(server.pid, signal.SIGTERM)
        printed = server.stdout.read()
    assert server.returncode == 128 + signal.SIGTERM
    variables = dict(line.removeprefix("export ").split("=", 1) for line in printed.splitlines())
    assert variables["AWS_ENDPOINT_URL"].startswith("http://127.0.0.1:")
    assert (tmp_path / "data" / "root-key").exists()
    done = subprocess.run([*STADDLE, "--data", str(tmp_path / "data"), "--bucket", "kept", "sh", "-c", "env"],
                          env=environment(tmp_path), capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr                # the bucket is there already
    assert f"AWS_ACCESS_KEY_ID={variables['AWS_ACCESS_KEY_ID']}\n" in done.stdout


def test_what_cannot_be_run_is_a_sentence(tmp_path: Path) -> None:
    done = subprocess.run([*STADDLE, "no-such-program"], env=environment(tmp_path), capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stderr) == (127, "staddle: no-such-program: there is no such program.\n")
    assert not list(tmp_path.glob("staddle-*"))
