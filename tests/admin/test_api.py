"""What the endpoints do, asked as any program would."""

import datetime
import re
from typing import Any

import boto3
import pytest
from botocore.exceptions import ClientError

from tests.admin.asking import ask, done
from tests.servers import REGION, StaddleProcess


def client(server: StaddleProcess, made: dict[str, str]) -> Any:
    return boto3.client("s3", endpoint_url=server.endpoint, aws_access_key_id=made["access_key"],
                        aws_secret_access_key=made["secret_key"], region_name=REGION)


def refused(s3: Any) -> str:
    with pytest.raises(ClientError) as refusal:
        s3.list_buckets()
    return str(refusal.value.response["Error"]["Code"])


def test_a_user_lives_from_its_first_key_to_its_deletion(server: StaddleProcess) -> None:
    """Each change is in force on both workers when it is answered: connections are spread over them."""
    user = done(server, "POST", "user/create", name="ada", display_name="Ada L.", email="ada@example.com")
    assert re.fullmatch("[0-9]{12}", user["account"])
    made = done(server, "POST", "key/create", user="ada")
    s3 = client(server, made)
    s3.create_bucket(Bucket="adas-bucket")
    assert done(server, "GET", "bucket/stat", name="adas-bucket")["bucket"]["account"] == user["account"]
    assert done(server, "GET", "key/list", user="ada")["keys"][0].keys() == {"access_key", "user", "disabled", "created"}

    for path, name, value in (("user/change", "name", "ada"), ("key/change", "access_key", made["access_key"])):
        done(server, "POST", path, **{name: value}, disabled=True)
        assert {refused(client(server, made)) for _ in range(6)} == {"InvalidAccessKeyId"}
        done(server, "POST", path, **{name: value}, disabled=False)
        for _ in range(6):
            client(server, made).list_buckets()

    new = done(server, "POST", "key/rotate", access_key=made["access_key"])
    assert refused(client(server, made)) == "InvalidAccessKeyId"
    assert [bucket["Name"] for bucket in client(server, new).list_buckets()["Buckets"]] == ["adas-bucket"]
    done(server, "POST", "key/delete", access_key=new["access_key"])
    assert {refused(client(server, new)) for _ in range(6)} == {"InvalidAccessKeyId"}

    last = done(server, "POST", "key/create", user="ada")
    done(server, "POST", "user/delete", name="ada")
    assert {refused(client(server, last)) for _ in range(6)} == {"InvalidAccessKeyId"}
    assert done(server, "GET", "bucket/stat", name="adas-bucket")["bucket"]["account"] == user["account"], "it stays"
    assert ask(server, "GET", "user/show", {"name": "ada"}).code == "NoSuchUser"


def test_an_admin_is_made_and_unmade(server: StaddleProcess) -> None:
    from tests.signing import Keys

    done(server, "POST", "user/create", name="deputy", admin=True)
    made = done(server, "POST", "key/create", user="deputy")
    keys = Keys(access_key=made["access_key"], secret_key=made["secret_key"])
    assert ask(server, "GET", "version", keys=keys).status == 200
    done(server, "POST", "user/change", name="deputy", admin=False)
    assert {ask(server, "GET", "version", keys=keys).status for _ in range(6)} == {403}


@pytest.mark.parametrize(("path", "fields", "code"), [
    ("user/create", {"name": "root"}, "UserExists"), ("user/create", {"name": "twice"}, "UserExists"),
    ("user/create", {"name": ""}, "InvalidArgument"), ("user/create", {"name": "x" * 129}, "InvalidArgument"),
    ("user/create", {"name": "new\nline"}, "InvalidArgument"),
    ("user/change", {"name": "root", "disabled": True}, "ConfiguredIdentity"),
    ("user/delete", {"name": "root"}, "ConfiguredIdentity"), ("user/delete", {"name": "nobody"}, "NoSuchUser"),
    ("user/change", {"name": "nobody", "email": "x"}, "NoSuchUser"),
    ("key/create", {"user": "nobody"}, "NoSuchUser"), ("key/create", {"user": "root"}, "ConfiguredIdentity"),
    ("key/create", {"user": "twice", "secret_key": "short"}, "InvalidArgument"),
    ("key/create", {"user": "twice", "access_key": "with/slash"}, "InvalidArgument"),
    ("key/create", {"user": "twice", "access_key": "STADDLETESTACCESSKEY"}, "AccessKeyExists"),
    ("key/create", {"user": "twice", "access_key": "TAKENKEY"}, "AccessKeyExists"),
    ("key/change", {"access_key": "STADDLETESTACCESSKEY", "disabled": True}, "ConfiguredIdentity"),
    ("key/delete", {"access_key": "STADDLETESTACCESSKEY"}, "ConfiguredIdentity"),
    ("key/rotate", {"access_key": "NOSUCHKEY"}, "NoSuchAccessKey"),
    ("key/delete", {"access_key": "NOSUCHKEY"}, "NoSuchAccessKey"),
    ("bucket/create", {"name": "Not A Bucket"}, "InvalidBucketName"),
    ("bucket/create", {"name": "twice-there"}, "BucketAlreadyExists"),
    ("bucket/create", {"name": "for-nobody", "user": "nobody"}, "NoSuchUser"),
    ("bucket/delete", {"name": "no-such-bucket"}, "NoSuchBucket"), ("bucket/delete", {"name": "twice-there"}, "BucketNotEmpty"),
    ("object/delete", {"bucket": "no-such-bucket", "key": "k"}, "NoSuchBucket"),
    ("object/delete", {"bucket": "twice-there", "key": "k" * 1025}, "KeyTooLongError"),
    ("object/verify", {"bucket": "twice-there", "key": "nothing"}, "NoSuchKey"),
    ("object/verify", {"bucket": "twice-there", "key": "there", "version_id": "A" * 32}, "NoSuchVersion"),
    ("object/verify", {"bucket": "twice-there", "key": "there", "version_id": "nonsense"}, "InvalidArgument"),
    ("backup/delete", {"name": "none"}, "NoSuchBackup"),
    ("cluster/remove", {"name": "n4"}, "NoCluster"),
])
def test_what_cannot_be_is_refused_by_name(
    server: StaddleProcess, s3: Any, path: str, fields: dict[str, Any], code: str, prepared: None,
) -> None:
    answer = ask(server, "POST", path, fields)
    assert answer.code == code, answer
    assert 400 <= answer.status < 500
    assert len(answer.json["message"]) > 10


@pytest.fixture(scope="module")
def prepared(server: StaddleProcess, s3: Any) -> None:
    done(server, "POST", "user/create", name="twice")
    done(server, "POST", "key/create", user="twice", access_key="TAKENKEY")
    s3.create_bucket(Bucket="twice-there")
    s3.put_object(Bucket="twice-there", Key="there", Body=b"there")


def test_an_object_shows_its_parts_its_chunks_and_who_holds_them(server: StaddleProcess, s3: Any) -> None:
    s3.create_bucket(Bucket="objects")
    key = "odd/ä ?&=+%/../\x01key"
    upload = s3.create_multipart_upload(Bucket="objects", Key=key, ContentType="text/odd", Metadata={"one": "1"})["UploadId"]
    sizes = [5 << 20, 5 << 20, 100]
    parts = [{"PartNumber": number, "ETag": s3.upload_part(
        Bucket="objects", Key=key, UploadId=upload, PartNumber=number, Body=bytes([number]) * size)["ETag"]}
        for number, size in enumerate(sizes, 1)]
    s3.complete_multipart_upload(Bucket="objects", Key=key, UploadId=upload, MultipartUpload={"Parts": parts})

    stat = done(server, "GET", "object/stat", bucket="objects", key=key)
    assert (stat["size"], stat["content_type"], stat["metadata"]) == (sum(sizes), "text/odd", {"one": "1"})
    assert [(part["start"], part["size"]) for part in stat["parts"]] == [(0, 5 << 20), (5 << 20, 5 << 20), (10 << 20, 100)]
    assert sum(chunk["length"] for chunk in stat["chunks"]) == sum(sizes)
    (node,) = done(server, "GET", "node/list")["nodes"]
    assert all(chunk["nodes"] == [node["node"]] for chunk in stat["chunks"])
    tail = done(server, "GET", "object/stat", bucket="objects", key=key, after_part=2, from_byte=10 << 20)
    assert [len(tail["parts"]), len(tail["chunks"])] == [1, 1]

    *progress, last = ask(server, "POST", "object/verify", {"bucket": "objects", "key": key}).lines
    assert all(line["progress"]["bytes"] <= line["progress"]["of"] == sum(sizes) for line in progress)
    assert last["result"] == {"bucket": "objects", "key": key, "clean": True, "chunks": 3, "copies": 3, "bytes": sum(sizes),
                              "bad": [], "unreadable": 0}
    assert done(server, "GET", "object/list", bucket="objects")["objects"][0]["key"] == key
    assert done(server, "POST", "object/delete", bucket="objects", key=key)["existed"]
    assert not done(server, "POST", "object/delete", bucket="objects", key=key)["existed"]


def test_what_is_locked_a_keeper_cannot_delete_either(server: StaddleProcess, s3: Any) -> None:
    s3.create_bucket(Bucket="locked", ObjectLockEnabledForBucket=True)
    until = datetime.datetime.now(datetime.UTC) + datetime.timedelta(days=1)
    for key, lock in (("kept", {"ObjectLockMode": "GOVERNANCE", "ObjectLockRetainUntilDate": until}),
                      ("held", {"ObjectLockLegalHoldStatus": "ON"})):
        version = s3.put_object(Bucket="locked", Key=key, Body=b"x", ChecksumAlgorithm="CRC32", **lock)["VersionId"]
        answer = ask(server, "POST", "object/delete", {"bucket": "locked", "key": key, "version_id": version})
        assert (answer.status, answer.code) == (409, "ObjectLocked")
        assert done(server, "POST", "object/delete", bucket="locked", key=key)["delete_marker"]
        assert s3.get_object(Bucket="locked", Key=key, VersionId=version)["Body"].read() == b"x"


def test_lists_come_in_pages(server: StaddleProcess, s3: Any) -> None:
    s3.create_bucket(Bucket="pages")
    for number in range(5):
        s3.put_object(Bucket="pages", Key=f"k{number}", Body=b"")
        done(server, "POST", "user/create", name=f"page{number}")
        done(server, "POST", "bucket/create", name=f"pages-{number}")
    for path, listed, name, fields in (
        ("object/list", "objects", "key", {"bucket": "pages"}), ("user/list", "users", "name", {}),
        ("bucket/list", "buckets", "name", {"prefix": "pages-"}),
    ):
        whole = [each[name] for each in done(server, "GET", path, **fields)[listed]]
        found, after = [], ""
        while True:
            page = done(server, "GET", path, **fields, after=after, limit=2)
            assert len([each for each in page[listed] if each.get("source") in (None, "metadata")]) <= 2
            found += [each[name] for each in page[listed]]
            after = page["next"]
            if not after:
                break
        assert found == whole, path


def test_figures_add_up(server: StaddleProcess, s3: Any) -> None:
    s3.create_bucket(Bucket="figures")
    before = done(server, "GET", "node/list")
    body = b"figures" * 300_000
    s3.put_object(Bucket="figures", Key="one", Body=body)
    s3.put_object(Bucket="figures", Key="same", Body=body)
    after = done(server, "GET", "node/list")
    assert after["logical_bytes"] - before["logical_bytes"] == 2 * len(body)
    stat = done(server, "GET", "bucket/stat", name="figures")["bucket"]
    assert (stat["objects"], stat["bytes"]) == (2, 2 * len(body))
    usage = done(server, "GET", "bucket/usage")
    assert usage["bytes"] == sum(account["bytes"] for account in usage["accounts"])
    assert done(server, "GET", "meta/status")["role"] == "leader"


def test_settings_are_shown_without_secrets(server: StaddleProcess) -> None:
    shown = ask(server, "GET", "config/show")
    assert shown.json["settings"]["workers"] == 2
    assert b"secret" not in shown.body.replace(b'"***"', b"")


def test_a_backup_is_taken_downloaded_and_dropped(server: StaddleProcess) -> None:
    *_, last = ask(server, "POST", "backup/create", {"name": "kept"}).lines
    assert last["result"]["name"] == "kept"
    assert ask(server, "POST", "backup/create", {"name": "kept"}).code == "BackupExists"
    (listed,) = done(server, "GET", "backup/list")["backups"]
    assert listed["state"] == "kept"
    file = ask(server, "GET", "backup/download", {"name": "kept"})
    assert len(file.body) == int(file.headers["content-length"]) > listed["size"]
    done(server, "POST", "backup/delete", name="kept")
    assert ask(server, "GET", "backup/download", {"name": "kept"}).code == "NoSuchBackup"
    assert done(server, "GET", "backup/list")["backups"] == []
