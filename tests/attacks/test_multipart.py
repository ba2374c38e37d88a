"""Attacks on multipart uploads: part numbers, ids of others, lists that don't fit, and races for the same upload."""

import concurrent.futures
from urllib.parse import quote

import pytest

from tests.attacks.attacker import Attacker
from tests.clients.wire import Answer, Wire

PART = bytes(5 << 20)
SMALL = b"small"


class Upload:
    def __init__(self, attacker: Attacker, key: str = "planted") -> None:
        self.attacker = attacker
        self.path = f"{attacker.bucket}/{key}"
        self.id = attacker.ask("POST", f"{self.path}?uploads").element("UploadId")

    def part(self, number: int | str, body: bytes) -> Answer:
        number = quote(str(number), safe="")
        return self.attacker.ask("PUT", f"{self.path}?partNumber={number}&uploadId={self.id}", body=body)

    def complete(self, *parts: tuple[object, str]) -> Answer:
        return self.attacker.ask("POST", f"{self.path}?uploadId={self.id}", body=document(*parts))

    def abort(self) -> Answer:
        return self.attacker.ask("DELETE", f"{self.path}?uploadId={self.id}")


def document(*parts: tuple[object, str]) -> bytes:
    inner = "".join(f"<Part><PartNumber>{number}</PartNumber><ETag>{etag}</ETag></Part>" for number, etag in parts)
    return f"<CompleteMultipartUpload>{inner}</CompleteMultipartUpload>".encode()


NUMBERS = ["0", "-1", "10001", "1.5", "abc", "", "1e2", "0x1", "+1", "1_0", "٣", "9" * 4000, "1;2", "null", "1\x00"]


def test_36_part_numbers(attacker: Attacker) -> None:
    upload = Upload(attacker)
    for number in NUMBERS:
        attacker.refused(upload.part(number, SMALL), "InvalidArgument", 400)
        if number != "":
            query = f"?partNumber={quote(number, safe='')}"
            attacker.refused(attacker.ask("GET", attacker.victim + query), "InvalidArgument", 400)
            assert attacker.ask("HEAD", attacker.victim + query).status == 400
    listed = attacker.ask("GET", f"{upload.path}?uploadId={upload.id}")
    assert "<Part>" not in listed.text
    attacker.refused(attacker.ask("PUT", f"{upload.path}?uploadId={upload.id}", body=SMALL), "MethodNotAllowed", 405)
    attacker.refused(attacker.ask("PUT", f"{upload.path}?partNumber=1", body=SMALL), "InvalidArgument", 400)
    upload.abort()


def test_36_an_upload_under_another_key_or_bucket(attacker: Attacker) -> None:
    upload = Upload(attacker)
    etag = upload.part(1, SMALL).headers["etag"]
    other = f"{attacker.bucket}x"
    assert attacker.ask("PUT", other).status == 200
    for path in (f"{attacker.bucket}/another", f"{other}/planted", f"{attacker.bucket}/planted/"):
        attacker.refused(attacker.ask("PUT", f"{path}?partNumber=1&uploadId={upload.id}", body=SMALL), "NoSuchUpload", 404)
        attacker.refused(attacker.ask("GET", f"{path}?uploadId={upload.id}"), "NoSuchUpload", 404)
        attacker.refused(attacker.ask("POST", f"{path}?uploadId={upload.id}", body=document((1, etag))),
                         "NoSuchUpload", 404)
        attacker.refused(attacker.ask("DELETE", f"{path}?uploadId={upload.id}"), "NoSuchUpload", 404)
    assert upload.abort().status == 204
    assert attacker.ask("DELETE", other).status == 204


def test_36_lists_that_do_not_fit(attacker: Attacker) -> None:
    upload = Upload(attacker)
    one, two = upload.part(1, SMALL).headers["etag"], upload.part(2, SMALL).headers["etag"]
    wrong = '"' + "0" * 32 + '"'
    for parts, code in (
        (((2, two), (1, one)), "InvalidPartOrder"), (((1, one), (1, one)), "InvalidPartOrder"),
        (((1, wrong),), "InvalidPart"), (((3, one),), "InvalidPart"), (((1, one), (2, one[:-2])), "InvalidPart"),
        (((1, one), (2, two)), "EntityTooSmall"), ((), "MalformedXML"), (((0, one),), "InvalidArgument"),
        (((-1, one),), "InvalidArgument"), (((10_001, one),), "InvalidArgument"), ((("x", one),), "MalformedXML"),
        (((1.5, one),), "MalformedXML"), ((("", one),), "MalformedXML"), ((("9" * 4000, one),), "MalformedXML"),
        (((1, "&lt;script&gt;"),), "InvalidPart"), (((1, ""),), "InvalidPart"),
        (((1, "<x/>"),), "MalformedXML"),
    ):
        attacker.refused(upload.complete(*parts), code, 400)
    for body in (b"", b"<CompleteMultipartUpload/>", b"<CompleteMultipartUpload><Part/></CompleteMultipartUpload>",
                 b"<CompleteMultipartUpload><Part><PartNumber>1</PartNumber></Part></CompleteMultipartUpload>",
                 document(*(((n, one)) for n in range(1, 10_002)))):
        answer = attacker.ask("POST", f"{upload.path}?uploadId={upload.id}", body=body)
        attacker.refused(answer, ("MalformedXML", "InvalidRequest"), 400)
    assert upload.complete((2, two)).status == 200, "and then the upload is still there"
    attacker.stored.add("planted")


def test_36_after_the_end(attacker: Attacker) -> None:
    """An upload that was aborted or completed takes no parts, and its last answer can be asked for again."""
    upload = Upload(attacker)
    etag = upload.part(1, SMALL).headers["etag"]
    assert upload.abort().status == 204
    attacker.refused(upload.part(1, SMALL), "NoSuchUpload", 404)
    attacker.refused(upload.complete((1, etag)), "NoSuchUpload", 404)
    attacker.refused(upload.abort(), "NoSuchUpload", 404)
    upload = Upload(attacker)
    etag = upload.part(1, SMALL).headers["etag"]
    first, again = upload.complete((1, etag)), upload.complete((1, etag))
    assert (first.status, again.status) == (200, 200)
    assert first.element("ETag") == again.element("ETag")
    attacker.refused(upload.part(1, SMALL), "NoSuchUpload", 404)
    attacker.refused(upload.part(2, SMALL), "NoSuchUpload", 404)
    attacker.refused(upload.abort(), "NoSuchUpload", 404)
    attacker.stored.add("planted")


@pytest.mark.parametrize("other", ["abort", "part", "complete"])
def test_36_races(attacker: Attacker, other: str) -> None:
    """Complete against abort, against a part, against itself: one outcome, and the object is whole or not there."""

    def ask(method: str, path: str, body: bytes) -> Answer:
        wire = Wire(attacker.target)
        try:
            return wire.ask(method, path, body=body)
        finally:
            wire.close()

    with concurrent.futures.ThreadPoolExecutor(6) as pool:
        for round_number in range(5):
            upload = Upload(attacker, f"race-{round_number}")
            etag = upload.part(1, SMALL).headers["etag"]
            target = f"{upload.path}?uploadId={upload.id}"
            rivals = {"abort": ("DELETE", target, b""), "complete": ("POST", target, document((1, etag))),
                      "part": ("PUT", f"{upload.path}?partNumber=1&uploadId={upload.id}", b"other")}
            jobs = [pool.submit(ask, "POST", target, document((1, etag)))]
            jobs += [pool.submit(ask, *rivals[other]) for _ in range(3)]
            answers = [job.result() for job in jobs]
            completed = answers[0].status == 200
            assert completed or answers[0].element("Code") in ("NoSuchUpload", "InvalidPart"), answers[0]
            got = attacker.ask("GET", upload.path)
            assert (got.status, got.body) == (200, SMALL) if completed else got.status == 404
            if other == "abort":
                assert completed + sum(answer.status == 204 for answer in answers[1:]) == 1, answers
            if other == "complete":
                assert {answer.status for answer in answers} == {200}
                assert len({answer.element("ETag") for answer in answers}) == 1
            if completed:
                attacker.stored.add(f"race-{round_number}")
            else:
                upload.abort()
