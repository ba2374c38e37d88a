"""Each command against a real server, in its form for people and in JSON."""

import os
import re
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import typer
from typer.core import TyperGroup

from gateway.cli import app, objects
from tests.admin.running import Staddle, keys, staddle
from tests.servers import StaddleProcess

__all__ = ["staddle"]


def commands(command: Any = None, path: tuple[str, ...] = ()) -> list[tuple[str, ...]]:
    command = command or typer.main.get_command(app)
    if not isinstance(command, TyperGroup):
        return [path]
    return [path, *(found for name, inner in command.commands.items() for found in commands(inner, (*path, name)))]


@pytest.mark.parametrize("path", commands(), ids=" ".join)
def test_every_help_says_what_the_command_does_and_gives_an_example(staddle: Staddle, path: tuple[str, ...]) -> None:
    shown = staddle.done(*path, "--help").out
    assert "Usage:" in shown
    groups = ("user", "key", "bucket", "object", "node", "cluster", "gc", "scrub", "backup", "config", "events", "quota")
    if path not in ((), ("user", "policy"), *((group,) for group in groups)):
        assert re.search(r"Example: +staddle \w+", shown), shown


def test_no_help_loses_words_to_markup() -> None:
    """What stands in [brackets] would be taken for a colour."""
    def options(command: Any) -> list[Any]:
        return [*command.params, *(found for inner in getattr(command, "commands", {}).values() for found in options(inner))]

    helps = [option.help for option in options(typer.main.get_command(app)) if getattr(option, "help", None)]
    assert len(helps) > 50
    assert not [text for text in helps if "[" in text]


def test_users_and_keys(staddle: Staddle) -> None:
    made = staddle.json("user", "create", "carol", "--email", "carol@example.com", "--display-name", "Carol [x]")
    assert made["user"]["name"] == "carol"
    shown = staddle.done("user", "show", "carol").out
    assert "Carol [x]" in shown, "brackets are no markup"
    assert made["key"]["access_key"] in shown
    assert made["key"]["secret_key"] not in shown
    text = staddle.done("user", "create", "dave", "--no-key").out
    assert "Secret" not in text
    assert re.search(r"carol +\d{12} +no +enabled", staddle.done("user", "list").out)
    assert {"root", "carol", "dave"} <= {user["name"] for user in staddle.json("user", "list")}

    second = staddle.json("key", "create", "carol")
    assert {key["access_key"] for key in staddle.json("key", "list", "carol")} == {
        made["key"]["access_key"], second["access_key"]}
    assert second["access_key"] in staddle.done("key", "list").out
    staddle.json("bucket", "create", "carols", "--user", "carol")
    for turn_off, turn_on, name in (
        (("user", "disable"), ("user", "enable"), "carol"), (("key", "disable"), ("key", "enable"), second["access_key"]),
    ):
        staddle.done(*turn_off, name)
        assert "disabled" in staddle.refused("object", "cat", "s3://carols/x", **keys(second))
        staddle.done(*turn_on, name)
        assert "no object" in staddle.refused("object", "cat", "s3://carols/x", **keys(second))

    assert "not an admin" in staddle.refused("user", "list", **keys(second))
    assert staddle.json("user", "change", "carol", "--admin")["admin"]
    staddle.done("user", "list", **keys(second))
    assert "c@example.com" in staddle.done("user", "change", "carol", "--no-admin", "--email", "c@example.com").out
    assert "not an admin" in staddle.refused("user", "list", **keys(second))
    assert staddle.json("user", "change", "carol", "--email", "")["email"] == "", "it can be taken away again"

    third = staddle.done("key", "rotate", second["access_key"], "--yes").out
    assert "shown this once" in third
    staddle.done("key", "delete", made["key"]["access_key"], "--yes")
    assert len(staddle.json("key", "list", "carol")) == 1
    own = staddle.json("key", "create", "dave", "--access-key", "DAVESOWNKEY", "--secret-file", "-", input="daves own secret\n")
    assert own == {"user": "dave", "access_key": "DAVESOWNKEY", "secret_key": "daves own secret"}
    assert staddle.json("user", "delete", "carol", "--yes") == {}
    assert "dave is deleted" in staddle.done("user", "delete", "dave", "--yes").out


def test_buckets(staddle: Staddle) -> None:
    assert "no buckets" not in staddle.done("bucket", "create", "cli-bucket").out
    assert staddle.json("bucket", "stat", "cli-bucket")["bucket"]["objects"] == 0
    assert "cli-bucket" in staddle.done("bucket", "stat", "s3://cli-bucket/").out
    assert "cli-bucket" in staddle.done("bucket", "list", "cli-").out
    assert [bucket["name"] for bucket in staddle.json("bucket", "list", "cli-bucket")] == ["cli-bucket"]
    assert "all accounts" in staddle.done("usage").out
    assert staddle.json("usage")["buckets"] >= 1
    assert staddle.json("bucket", "delete", "cli-bucket") == {}
    assert "no bucket" in staddle.done("bucket", "list", "cli-bucket").out.lower()


def test_copies_of_a_bucket_and_nodes_that_leave(staddle: Staddle) -> None:
    staddle.done("bucket", "create", "cli-copies", "--copies", "2", "--replication", "async")
    assert staddle.json("bucket", "stat", "cli-copies")["bucket"]["copies"] == 2
    changed = staddle.json("bucket", "set", "cli-copies", "--replication", "all")
    assert (changed["copies"], changed["replication"]) == (2, "all"), "what isn't given stays"
    assert "as the cluster does" in staddle.done("bucket", "set", "cli-copies", "--copies", "0", "--replication", "default").out
    assert staddle.json("bucket", "stat", "cli-copies")["bucket"]["copies"] is None
    assert "sync" in staddle.refused("bucket", "set", "cli-copies", "--replication", "most")
    for wrong in ("--copies", "10"), ():
        assert staddle("bucket", "set", "cli-copies", *wrong).status == 2
    assert "There is no bucket 'cli-none';" in staddle.refused("bucket", "set", "cli-none", "--copies", "2")
    staddle.done("bucket", "delete", "cli-copies")

    [node] = staddle.json("node", "list")["nodes"]
    name = node["node"]
    assert (node["state"], node["counts"], node["to_fetch"]) == ("up", True, 0)
    assert "not draining" in staddle.refused("node", "remove", name)
    assert "is down" in staddle.refused("node", "remove", name, "--force")
    alone = staddle("node", "drain", name)
    assert (alone.status, staddle.json("node", "list")["nodes"][0]["state"]) == (2, "up")
    assert "No other storage node is there" in alone.err
    assert "give --yes" in alone.err
    for command, state in (("drain", "draining"), ("undrain", "up"), ("read-only", "read-only"), ("undrain", "up")):
        staddle.done("node", command, name, *(("--yes",) if command == "drain" else ()))
        assert staddle.json("node", "list")["nodes"][0]["state"] == state
    assert "no storage node 'none'" in staddle.refused("node", "drain", "none")
    assert "no storage node 'none'" in staddle.refused("node", "remove", "none")


def test_an_object_gets_another_name(staddle: Staddle) -> None:
    staddle.done("bucket", "create", "cli-names")
    for content, at in ((b"here", "in/a b"), (b"there", "out/a b")):
        staddle.done("object", "put", "-", f"s3://cli-names/{at}", input=content)
    move = ("object", "mv", "s3://cli-names/in/a b", "s3://cli-names/out/")
    assert staddle.refused(*move) == "there is an object s3://cli-names/out/a b already: --overwrite replaces it."
    assert "is now s3://cli-names/out/a b" in staddle.done(*move, "--overwrite").out
    assert staddle.done("object", "cat", "s3://cli-names/out/a b").raw == b"here"
    for command in ("mv", "cp"):
        assert "there is no object s3://cli-names/in/a b;" in staddle.refused("object", command, *move[2:])
    assert "within its bucket only" in staddle.refused(*move[:3], "s3://cli-files/x", status=2)
    staddle.done("object", "rm", "s3://cli-names/out/a b")
    staddle.done("bucket", "delete", "cli-names")


def test_files_go_in_and_out_without_another_client(staddle: Staddle, tmp_path: Path) -> None:
    staddle.done("bucket", "create", "cli-files")
    file, back = tmp_path / "a file.bin", tmp_path / "back"
    file.write_bytes(os.urandom(3 << 20))
    assert "3.0 MiB stored" in staddle.done("object", "put", str(file), "s3://cli-files/dir/").out
    at = "s3://cli-files/dir/a file.bin"
    assert staddle.json("object", "put", str(file), "s3://cli-files/two")["size"] == 3 << 20
    assert staddle.json("object", "cp", at, "s3://cli-files/copy/")["to"] == "s3://cli-files/copy/a file.bin"
    assert "copied" in staddle.done("object", "cp", at, "s3://cli-files/three").out
    staddle.done("object", "get", at, str(back))
    assert back.read_bytes() == file.read_bytes()
    assert staddle.json("object", "get", at, str(tmp_path))["file"] == str(file)
    assert staddle.done("object", "cat", "s3://cli-files/copy/a file.bin").raw == file.read_bytes()
    assert staddle.done("object", "get", at, "-").raw == file.read_bytes()
    staddle.done("object", "put", "-", "s3://cli-files/piped.txt", input=b"piped")
    assert staddle.done("object", "cat", "s3://cli-files/piped.txt").raw == b"piped"
    staddle.done("object", "cp", str(file), "s3://cli-files/cp-in")
    staddle.done("object", "cp", "s3://cli-files/piped.txt", str(back))
    assert back.read_bytes() == b"piped"

    level = staddle.json("object", "ls", "s3://cli-files")
    assert level["prefixes"] == ["copy/", "dir/"]
    assert "folder  dir/" in staddle.done("object", "ls", "s3://cli-files").out
    assert len(staddle.json("object", "ls", "s3://cli-files", "-r")["objects"]) == 6
    assert "nothing at" in staddle.done("object", "ls", "s3://cli-files/none").out
    stat = staddle.json("object", "stat", "s3://cli-files/piped.txt")
    assert (stat["content_type"], stat["size"]) == ("text/plain", 5)
    assert stat["chunks"][0]["digest"] in staddle.done("object", "stat", "s3://cli-files/piped.txt").out
    assert staddle.json("object", "verify", at)["clean"]
    assert "all good" in staddle.done("object", "verify", "s3://cli-files/", "--recursive").out

    assert staddle.json("object", "rm", "s3://cli-files/two")["existed"]
    assert "2 object(s) deleted" in staddle.done("object", "rm", "-r", "s3://cli-files/c", "--yes").out
    assert staddle.json("object", "rm", "-r", "s3://cli-files/", "--yes") == {"deleted": 3}
    staddle.done("bucket", "delete", "cli-files")


def test_users_who_are_no_admins_manage_their_own_files(staddle: Staddle, s3: Any, tmp_path: Path) -> None:
    own = keys(staddle.json("user", "create", "erin")["key"])
    staddle.done("bucket", "create", "erins", "--user", "erin")
    for key in ("dir/one", "dir/two", "three"):
        staddle.done("object", "put", "-", f"s3://erins/{key}", input=b"erin", **own)
    assert staddle.json("object", "ls", "s3://erins", **own)["prefixes"] == ["dir/"]
    assert [entry["size"] for entry in staddle.json("object", "ls", "s3://erins", "-r", **own)["objects"]] == [4, 4, 4]
    assert staddle.json("object", "stat", "s3://erins/three", **own)["size"] == 4
    assert "no object" in staddle.refused("object", "stat", "s3://erins/none", **own)
    staddle.done("object", "rm", "s3://erins/three", **own)
    assert "2 object(s) deleted" in staddle.done("object", "rm", "-r", "s3://erins/", "--yes", **own).out
    s3.create_bucket(Bucket="not-erins")
    for command in (("ls", "s3://not-erins"), ("stat", "s3://not-erins/k"), ("rm", "s3://not-erins/k"), ("cat", "s3://not-erins/k")):
        assert "belongs to another account" in staddle.refused("object", *command, **own)
    readers = tmp_path / "readers.json"
    readers.write_text('{"Version": "2012-10-17", "Statement": {"Effect": "Allow", "Action": "s3:ListBucket", "Resource": "*"}}')
    staddle.done("user", "policy", "set", "erin", "readers", str(readers))
    said = staddle.refused("object", "rm", "s3://erins/k", **own)
    assert "policies of its user" in said
    assert "staddle explain" in said


def test_a_file_that_was_there_stays_when_the_object_cannot_be_had(staddle: Staddle, tmp_path: Path) -> None:
    staddle("bucket", "create", "cli-stays")
    file = tmp_path / "kept"
    file.write_text("kept")
    assert "no object" in staddle.refused("object", "get", "s3://cli-stays/none", str(file))
    assert file.read_text() == "kept"
    assert os.listdir(tmp_path) == ["kept"]


def test_objects_that_go_while_many_are_verified_do_not_end_it(
    staddle: Staddle, s3: Any, monkeypatch: pytest.MonkeyPatch,
) -> None:
    s3.create_bucket(Bucket="cli-going")
    for key in "abc":
        s3.put_object(Bucket="cli-going", Key=key, Body=b"x")
    listed = objects._pages

    def deleted_then(*arguments: Any) -> Any:
        for page in listed(*arguments):
            s3.delete_object(Bucket="cli-going", Key="b")
            yield page

    monkeypatch.setattr(objects, "_pages", deleted_then)
    said = staddle.done("object", "verify", "-r", "s3://cli-going/").out
    assert "2 object(s)" in said
    assert "1 object(s) were deleted or overwritten meanwhile" in said
    s3.put_object(Bucket="cli-going", Key="b", Body=b"x")
    assert [each["key"] for each in staddle.json("object", "verify", "-r", "s3://cli-going/")] == ["a", "c"]
    assert "no object" in staddle.refused("object", "verify", "s3://cli-going/b").lower()


def test_names_cannot_steer_the_terminal(staddle: Staddle, s3: Any) -> None:
    s3.create_bucket(Bucket="cli-odd")
    key = "a\x1b[31mred\x07\n[bold]b\u202eack"
    s3.put_object(Bucket="cli-odd", Key=key, Body=b"x")
    for shown in (staddle.done("object", "ls", "s3://cli-odd").out, staddle.done("object", "stat", f"s3://cli-odd/{key}").out):
        assert "\x1b" not in shown
        assert "\x07" not in shown
        assert "\u202e" not in shown
        assert r"a\x1b[31mred\x07\n[bold]b" in shown
    assert staddle.json("object", "ls", "s3://cli-odd")["objects"][0]["key"] == key


def test_nodes_and_metadata(staddle: Staddle) -> None:
    (node,) = staddle.json("node", "list")["nodes"]
    assert node["node"] in staddle.done("node", "list").out
    assert "free bytes" in staddle.done("node", "stat", node["node"]).out
    assert staddle.json("node", "stat")["nodes"][0]["statistics"]["chunks"] >= 0
    assert "leader" in staddle.done("node", "metadata").out
    assert staddle.json("node", "metadata")["role"] == "leader"
    assert "No damage" in staddle.done("node", "damage").out
    assert staddle.json("node", "damage") == {"copies": []}


def test_the_space_of_what_was_deleted_comes_back(staddle: Staddle, s3: Any) -> None:
    """Large chunks by collection, small ones by compaction; the report says what goes and why."""
    s3.create_bucket(Bucket="cli-gc")
    await_nothing_waits(staddle)                      # what other tests left would be counted with ours
    s3.put_object(Bucket="cli-gc", Key="large", Body=os.urandom(3 << 20))
    s3.put_object(Bucket="cli-gc", Key="small", Body=os.urandom(300_000))
    staddle.done("gc", "run", "--now", "--yes")
    before = staddle.json("node", "list")["stored_bytes"]
    staddle.done("object", "rm", "-r", "s3://cli-gc/", "--yes")
    staddle.done("gc", "run")
    report = staddle.json("gc", "report", "--copies", "5")
    # At once, also where the worker that was asked to store them has said nothing since.
    assert sorted((copy["size"], copy["reason"]) for copy in report["nodes"][0]["copies"]) == [
        (300_000, "grace"), (3 << 20, "grace")]
    shown = staddle.done("gc", "--report").out
    assert "nothing refers to them" in shown
    assert all(copy["digest"] in shown for copy in report["nodes"][0]["copies"])
    assert "--yes" in staddle.refused("gc", "run", "--now", status=2)
    gone = staddle.json("gc", "run", "--now", "--yes")
    assert (gone["removed_copies"], gone["removed_bytes"]) == (2, (3 << 20) + 300_000)
    assert staddle.json("node", "list")["stored_bytes"] == before - (3 << 20) - 300_000
    staddle.done("node", "compact")
    assert staddle.json("node", "compact")["nodes"][0]["error"] == ""
    await_nothing_waits(staddle)


def await_nothing_waits(staddle: Staddle) -> None:
    """Collect until nothing is left: uploads that other tests broke off may go only when their worker has said so."""
    deadline = time.monotonic() + 20
    while "Nothing waits" not in staddle.done("gc", "report").out:
        assert time.monotonic() < deadline
        staddle.done("gc", "run", "--now", "--yes")


def test_the_scrub(staddle: Staddle) -> None:
    assert staddle.json("scrub", "status")["nodes"][0]["state"] in ("idle", "running")
    assert "damaged" in staddle.done("scrub", "status").out
    assert staddle.json("scrub", "start", "--wait", "--full-speed")["nodes"][0]["finished"]
    assert "has begun" in staddle.done("scrub", "start").out
    assert "stopped" in staddle.done("scrub", "stop").out


def test_backups(staddle: Staddle, tmp_path: Path) -> None:
    assert "No backup" in staddle.done("backup", "list").out
    assert "is kept" in staddle.done("backup", "create", "cli", "--file", str(tmp_path / "one")).out
    assert "cli" in staddle.done("backup", "list").out
    assert staddle.json("backup", "download", "cli", str(tmp_path / "two"))["size"] == (tmp_path / "one").stat().st_size
    assert (tmp_path / "one").read_bytes() == (tmp_path / "two").read_bytes()
    named = staddle.json("backup", "create")["name"]
    assert re.fullmatch(r"\d{4}-\d\d-\d\d-\d{6}", named)
    for name in (named, "cli"):
        staddle.done("backup", "delete", name, "--yes")
    assert staddle.json("backup", "list") == []


def test_settings_and_version(staddle: Staddle) -> None:
    assert "us-east-1" in staddle.done("config", "show").out
    assert staddle.json("config", "show")["chunk_bytes"] == 64 << 20
    assert staddle.json("config", "running")["settings"]["workers"] == 2
    assert re.search(r"workers +2 +0", staddle.done("config", "running").out)
    assert staddle.json("version")["version"] == staddle.done("version").out.strip() == staddle.done("--version").out.strip()


def test_small_commands_do_not_load_what_they_do_not_need() -> None:
    """What makes `staddle version` quick, on any machine: no HTTP, no server, no S3 client."""
    code = ("import sys; from gateway.cli import app\n"
            "print([name for name in ('boto3', 'botocore', 'starlette', 'uvicorn', 'peewee', 'cryptography', 'gateway.roles',"
            " 'consensus.client') if name in sys.modules])")
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert ran.stdout.strip() == "[]"


def test_a_reader_that_has_enough_ends_the_command_quietly(staddle: Staddle, server: StaddleProcess, s3: Any) -> None:
    s3.create_bucket(Bucket="cli-pipe")
    s3.put_object(Bucket="cli-pipe", Key="long", Body=b"line\n" * 1_000_000)
    command = [sys.executable, "-P", "-m", "gateway.cli", "object", "cat", "s3://cli-pipe/long"]
    environment = os.environ | {name: value for name, value in staddle.environment.items() if value is not None}
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=environment) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        assert process.stdout.readline() == b"line\n"
        process.stdout.close()
        assert process.stderr.read() == b""
        assert process.wait(20) == 0
