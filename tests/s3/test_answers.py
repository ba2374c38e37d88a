"""answers.txt: requests and, to the letter, what they are refused with: status, code, message, extra elements in order.

    PUT /plain/k                     method and target; {upload} and such are names of what the world below holds
    > x-amz-acl: nope                headers
    < <Delete/>                      the body
    400 InvalidArgument              status and code; for HEAD the status alone
      Message:                       the elements of the error document between Code and RequestId
      ArgumentName: x-amz-acl

All of it is AWS's wording: recorded answers, AWS's documentation, S3_SEMANTICS. Every answer has the headers of an answer of
S3 too, and its document repeats their ids.
"""

import base64
import hashlib
import http.client
import re
import time
import xml.etree.ElementTree as ElementTree
from collections.abc import Iterator
from email.utils import parsedate_to_datetime
from pathlib import Path
from typing import NamedTuple

import pytest

from tests.s3.conftest import MAIN, OTHER, SETTINGS, client
from tests.s3.in_process import InProcess
from tests.signing import Keys, sign_request

TABLE = Path(__file__).with_name("answers.txt")
LONG = {"long_key": "k" * 1025, "long_value": "v" * 2100, "many_keys": "<Object><Key>a</Key></Object>" * 1001,
        "eleven_tags": "".join(f"<Tag><Key>k{number}</Key><Value>v</Value></Tag>" for number in range(11)),
        "fifty_one_tags": "".join(f"<Tag><Key>k{number}</Key><Value>v</Value></Tag>" for number in range(51)),
        "key_of_129": "k" * 129, "value_of_257": "v" * 257, "no_version": "a" * 32}


class Row(NamedTuple):
    line: int
    method: str
    target: str
    headers: dict[str, str]
    body: str
    status: int
    code: str
    elements: tuple[tuple[str, str], ...]

    @property
    def named(self) -> str:
        said = "".join(f" {name}: {value}" for name, value in self.headers.items())
        return f"{self.line} {self.method} {self.target}{said}"


def rows() -> Iterator[Row]:
    for block in re.finditer(r"(?:^(?!#)\S.*\n(?:^[ <>\d].*\n?)+)", TABLE.read_text(), re.MULTILINE):
        first, *lines = block[0].splitlines()
        method, _, target = first.partition(" ")
        headers = dict(line[2:].partition(": ")[::2] for line in lines if line.startswith("> "))
        answer = next(line for line in lines if line[0].isdigit())
        status, _, code = answer.partition(" ")
        yield Row(
            TABLE.read_text().count("\n", 0, block.start()) + 1, method, target, headers,
            "\n".join(line[2:] for line in lines if line.startswith("< ")), int(status), code,
            tuple((name, value.removeprefix(" ")) for name, _, value in
                  (line[2:].partition(":") for line in lines if line.startswith("  "))))


ROWS = list(rows())


class World(NamedTuple):
    server: InProcess
    connection: http.client.HTTPConnection
    names: dict[str, str]

    def fill(self, text: str) -> str:
        for name, value in self.names.items():
            text = text.replace(f"{{{name}}}", value)
        return text


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    """Buckets `plain` (k of ten bytes, empty, and the uploads big and summed), `versioned` (k, under a delete marker) and
    `locked` (k)."""
    with InProcess(tmp_path_factory.mktemp("answers"), [MAIN, OTHER], settings=SETTINGS) as server:
        s3 = client(server.endpoint)
        s3.create_bucket(Bucket="plain")
        s3.create_bucket(Bucket="versioned")
        s3.create_bucket(Bucket="locked", ObjectLockEnabledForBucket=True)
        s3.put_bucket_versioning(Bucket="versioned", VersioningConfiguration={"Status": "Enabled"})
        s3.put_object(Bucket="plain", Key="k", Body=b"0123456789")
        s3.put_object(Bucket="plain", Key="empty")
        s3.put_object(Bucket="locked", Key="k", Body=b"x")
        client(server.endpoint, OTHER).create_bucket(Bucket="taken")
        names = {**LONG, "etag": hashlib.md5(b"0123456789").hexdigest()}
        names["version"] = s3.put_object(Bucket="versioned", Key="k", Body=b"x")["VersionId"]
        names["marker"] = s3.delete_object(Bucket="versioned", Key="k")["VersionId"]
        names["upload"] = s3.create_multipart_upload(Bucket="plain", Key="big")["UploadId"]
        names["summed"] = s3.create_multipart_upload(Bucket="plain", Key="summed", ChecksumAlgorithm="SHA256")["UploadId"]
        for number, letter in ((1, b"x"), (2, b"y")):
            names[f"part{number}"] = hashlib.md5(letter * 10).hexdigest()
            s3.upload_part(Bucket="plain", Key="big", UploadId=names["upload"], PartNumber=number, Body=letter * 10)
        connection = http.client.HTTPConnection("127.0.0.1", server.port)
        yield World(server, connection, names)
        connection.close()


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.named)
def test_the_answer_is_the_table_s(world: World, row: Row) -> None:
    body, target = world.fill(row.body).encode(), world.fill(row.target)
    headers = {name: world.fill(value) for name, value in row.headers.items()}
    if headers.get("content-md5") == "{}":
        headers["content-md5"] = base64.b64encode(hashlib.md5(body).digest()).decode()
    keys = Keys(access_key=MAIN.access_key, secret_key=MAIN.secret_key)
    signed = sign_request(row.method, world.server.endpoint + target, headers, keys=keys, now_s=time.time(),
                          payload=hashlib.sha256(body).hexdigest())
    world.connection.request(row.method, target, body, signed)
    answer = world.connection.getresponse()
    said = answer.read()
    assert answer.status == row.status, said
    assert answer.headers["content-type"] == "application/xml"
    assert answer.headers["server"] == "Staddle"
    assert abs(parsedate_to_datetime(answer.headers["date"]).timestamp() - time.time()) < 60
    assert len(answer.headers["x-amz-request-id"]) == 16
    if row.method == "HEAD":
        assert not said
        return
    document = ElementTree.fromstring(said)
    assert document.tag == "Error", "no namespace"
    elements = [(element.tag, element.text or "") for element in document]
    assert elements == [
        ("Code", row.code), *((name, world.fill(value)) for name, value in row.elements),
        ("RequestId", answer.headers["x-amz-request-id"]), ("HostId", answer.headers["x-amz-id-2"]),
    ]


def test_the_table_is_read_whole() -> None:
    heads = [line for line in TABLE.read_text().splitlines() if re.match(r"[A-Z]+ /", line)]
    assert len(ROWS) == len(heads) > 150
