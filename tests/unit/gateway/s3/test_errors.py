"""Errors: the catalogue agrees with the service model, and every document can be read."""

import gzip
import itertools
import json
import pathlib
import re

import botocore
import defusedxml.ElementTree
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.s3.errors import CODES, S3Error, render

_FILE = pathlib.Path(botocore.__file__).parent / "data/s3/2006-03-01/service-2.json.gz"
_TESTS = pathlib.Path(__file__).parents[3]
_GATEWAY = _TESTS.parent / "gateway"
SHAPES = json.loads(gzip.decompress(_FILE.read_bytes()))["shapes"]


@pytest.mark.parametrize("code", sorted(name for name, shape in SHAPES.items() if shape.get("exception")))
def test_the_models_errors_are_known(code: str) -> None:
    assert CODES[code][0] == SHAPES[code]["error"]["httpStatusCode"]


def test_statuses_and_messages_are_sane() -> None:
    for code, (status, message) in CODES.items():
        assert status in {301, 304, 307, 400, 403, 404, 405, 409, 411, 412, 415, 416, 500, 501, 503}, code
        assert message


NOT_YET = {
    "redirects to other endpoints: there is one": ("PermanentRedirect", "TemporaryRedirect"),
    "temporary credentials": ("ExpiredToken",),
    "encryption": ("EncryptionTypeMismatch", "InvalidEncryptionAlgorithmError", "KMS.NotFoundException"),
    "annotations": ("AnnotationLimitExceeded", "AnnotationNameTooLong", "InvalidAnnotationName", "NoSuchAnnotation",
                    "InvalidPrefix", "UnsupportedMediaType"),
    "accounts have no limit of buckets, and none is stopped": ("TooManyBuckets", "AccountProblem", "AllAccessDisabled"),
    "a restore is done at once, and objects have no tiers": ("RestoreAlreadyInProgress", "ObjectAlreadyInActiveTierError"),
    "what two do at once is done one after the other": ("OperationAborted",),
    "documented by AWS, which answers otherwise (recorded)": (
        "CredentialsNotSupported", "IncorrectNumberOfFilesInPostRequest", "InlineDataTooLarge", "InvalidHostHeader",
        "RequestIsNotMultiPartContent", "UserKeyMustBeSpecified"),
}
"""Codes that clients know and that nothing here raises, and why."""


def test_every_code_is_raised_or_there_is_a_reason_why_not() -> None:
    source = "".join(file.read_text() for file in _GATEWAY.rglob("*.py") if file.name != "errors.py")
    raised = {code for code in CODES if f'"{code}"' in source}
    assert sorted(CODES.keys() - raised) == sorted(itertools.chain.from_iterable(NOT_YET.values()))


def test_every_code_that_is_raised_is_what_some_test_expects() -> None:
    files = (file for end in ("py", "txt") for file in _TESTS.rglob(f"*.{end}") if file != pathlib.Path(__file__))
    words = set(re.findall(r"\w+", "".join(file.read_text(errors="replace") for file in files)))
    assert not CODES.keys() - words - set(itertools.chain.from_iterable(NOT_YET.values()))


def test_document_has_no_namespace_and_keeps_the_order_of_elements() -> None:
    error = S3Error("InvalidPart", UploadId="u", PartNumber=3, ETag="e")
    root = defusedxml.ElementTree.fromstring(render(error, "RID", "HID"))
    assert root.tag == "Error"
    assert [(child.tag, child.text) for child in root] == [
        ("Code", "InvalidPart"), ("Message", CODES["InvalidPart"][1]), ("UploadId", "u"), ("PartNumber", "3"),
        ("ETag", "e"), ("RequestId", "RID"), ("HostId", "HID"),
    ]


def test_elements_whose_names_are_no_identifiers() -> None:
    error = S3Error("InvalidDigest", None, (), **{"Content-MD5": "x"})
    assert b"<Content-MD5>x</Content-MD5>" in render(error, "", "")


@given(st.text())
def test_any_text_gives_a_document_that_parses(text: str) -> None:
    document = render(S3Error("NoSuchKey", text, Key=text), "r", "h")
    root = defusedxml.ElementTree.fromstring(document)
    expected = "".join(
        character if character in "\t\n\r" or (character >= " " and not "\ud800" <= character <= "\udfff"
                                               and character not in "\ufffe\uffff") else "\ufffd"
        for character in text
    )
    assert (root.findtext("Key") or "") == (root.findtext("Message") or "") == expected


def test_an_unknown_code_is_our_bug() -> None:
    with pytest.raises(KeyError):
        S3Error("NoSuchCode")
