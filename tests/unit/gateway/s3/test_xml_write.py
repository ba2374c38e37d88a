"""Answers as XML: what is written is read back equal by a strict parser, and botocore finds every field in it."""

from types import SimpleNamespace
from urllib.parse import unquote

import botocore.session
import defusedxml.ElementTree
import pytest
from botocore.parsers import create_parser
from hypothesis import given
from hypothesis import strategies as st

from gateway.s3 import acl
from gateway.s3.xml import listings as xml_listings
from gateway.s3.xml import write as xml_write
from gateway.s3.xml.pieces import Owner
from gateway.s3.xml.write import Deleted, NotDeleted, ObjectParts

NS = "{http://s3.amazonaws.com/doc/2006-03-01/}"
MODEL = botocore.session.get_session().get_service_model("s3")
PARSER = create_parser("rest-xml")
MS = 1_255_369_830_123

# What XML 1.0 can hold; all other characters are tested by themselves.
LEGAL = st.text(
    st.characters(exclude_categories=["Cs"]).filter(lambda c: c in "\t\n\r" or (c >= " " and c not in "\ufffe\uffff")),
    min_size=1, max_size=30,
)
ANY = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=30)


def owner(owner_id: str) -> Owner:
    return Owner(owner_id, f"name of {owner_id}")


def listed(key: str, **more) -> SimpleNamespace:
    fields = {
        "key": key, "version_id": "v1", "modified_ms": MS, "size": 5, "etag": "abc", "checksum": None,
        "storage_class": "STANDARD", "owner": "o", "delete_marker": False, "latest": True,
    }
    return SimpleNamespace(**{**fields, **more})


CRC = SimpleNamespace(algorithm="CRC32", value="AAAAAA==", kind="FULL_OBJECT")
SHA = SimpleNamespace(algorithm="SHA256", value="c2hh-2", kind="COMPOSITE")


def v1(objects=(), common_prefixes=(), encoded=False, **more) -> bytes:
    given = {"bucket": "bkt", "prefix": "", "delimiter": "", "marker": "", "max_keys": 1000, "truncated": False,
             "next_marker": None, "owner": owner, **more}
    return xml_listings.list_objects_v1(objects=objects, common_prefixes=common_prefixes, encoded=encoded, **given)


def v2(objects=(), common_prefixes=(), encoded=False, **more) -> bytes:
    given = {"bucket": "bkt", "prefix": "", "delimiter": "", "start_after": "", "max_keys": 1000,
             "continuation_token": None, "next_token": None, "owner": None, **more}
    return xml_listings.list_objects_v2(objects=objects, common_prefixes=common_prefixes, encoded=encoded, **given)


def parsed(operation: str, body: bytes) -> dict:
    response = {"status_code": 200, "headers": {}, "body": body}
    answer = PARSER.parse(response, MODEL.operation_model(operation).output_shape)
    del answer["ResponseMetadata"]
    return answer


@given(st.lists(LEGAL, max_size=5), st.lists(LEGAL, max_size=3), LEGAL)
def test_keys_survive_a_strict_parser(keys: list[str], prefixes: list[str], prefix: str) -> None:
    objects = [listed(key) for key in keys]
    for body in (v1(objects, prefixes, prefix=prefix), v2(objects, prefixes, prefix=prefix)):
        root = defusedxml.ElementTree.fromstring(body)
        assert [e.text for e in root.iterfind(f"{NS}Contents/{NS}Key")] == keys
        assert [e.text for e in root.iterfind(f"{NS}CommonPrefixes/{NS}Prefix")] == prefixes
        assert root.findtext(f"{NS}Prefix") == prefix


@given(st.lists(ANY, max_size=5), ANY)
def test_every_key_survives_url_encoding(keys: list[str], text: str) -> None:
    body = v2([listed(key) for key in keys], [text], encoded=True, prefix=text, delimiter=text, start_after=text)
    root = defusedxml.ElementTree.fromstring(body)
    assert [unquote(e.text) for e in root.iterfind(f"{NS}Contents/{NS}Key")] == keys
    for path in ("Prefix", "Delimiter", "StartAfter"):
        assert unquote(root.findtext(NS + path)) == text
    assert unquote(root.findtext(f"{NS}CommonPrefixes/{NS}Prefix")) == text
    assert root.findtext(f"{NS}EncodingType") == "url"


def test_characters_that_xml_cannot_hold_are_references() -> None:
    assert b"<Key>a&#x0;b&#x1;&#xB;&#x7F;&#x85;&#xFFFE;</Key>" in v1([listed("a\0b\x01\x0b\x7f\x85\ufffe")])
    assert b"<Key>a&#xD;&#xA;&#x9; &amp;&lt;&gt;&quot;'</Key>" in v1([listed("a\r\n\t &<>\"'")])


def test_one_odd_key_does_not_change_the_others() -> None:
    body = v1([listed("plain"), listed("a&b"), listed("é z")])
    assert b"<Key>plain</Key>" in body
    assert b"<Key>a&amp;b</Key>" in body
    assert "<Key>é z</Key>".encode() in body


def test_url_encoding_leaves_slashes_and_tokens_alone() -> None:
    body = v2([listed("a/b c+d%&é")], encoded=True, continuation_token="t+/=", next_token="u+/=")
    assert b"<Key>a/b%20c%2Bd%25%26%C3%A9</Key>" in body
    assert b"<ContinuationToken>t+/=</ContinuationToken><NextContinuationToken>u+/=</NextContinuationToken>" in body


def test_list_v1() -> None:
    body = v1([listed("d/k", checksum=CRC)], ["d/e/"], prefix="d/", delimiter="/", marker="c", max_keys=2,
              truncated=True, next_marker="d/k")
    answer = parsed("ListObjects", body)
    moment = answer["Contents"][0].pop("LastModified")
    assert moment.timestamp() == MS // 1000
    assert answer == {
        "Name": "bkt", "Prefix": "d/", "Marker": "c", "NextMarker": "d/k", "MaxKeys": 2, "Delimiter": "/",
        "IsTruncated": True, "CommonPrefixes": [{"Prefix": "d/e/"}],
        "Contents": [{
            "Key": "d/k", "ETag": '"abc"', "Size": 5, "StorageClass": "STANDARD", "ChecksumAlgorithm": ["CRC32"],
            "ChecksumType": "FULL_OBJECT", "Owner": {"ID": "o", "DisplayName": "name of o"},
        }],
    }


def test_list_v2() -> None:
    answer = parsed("ListObjectsV2", v2([listed("k")], ["p/"], delimiter="/", start_after="a", next_token="t"))
    del answer["Contents"][0]["LastModified"]
    assert answer == {
        "Name": "bkt", "Prefix": "", "StartAfter": "a", "NextContinuationToken": "t", "KeyCount": 2, "MaxKeys": 1000,
        "Delimiter": "/", "IsTruncated": True, "CommonPrefixes": [{"Prefix": "p/"}],
        "Contents": [{"Key": "k", "ETag": '"abc"', "Size": 5, "StorageClass": "STANDARD"}],
    }


def test_an_empty_page_has_its_elements() -> None:
    assert parsed("ListObjectsV2", v2()) == {
        "Name": "bkt", "Prefix": "", "KeyCount": 0, "MaxKeys": 1000, "IsTruncated": False,
    }
    assert b"<Delimiter>" not in v1()
    assert b"<NextMarker>" not in v1(next_marker="x")


def test_list_versions_interleaves() -> None:
    body = xml_listings.list_versions(
        bucket="bkt", prefix="", delimiter="", key_marker="a", version_id_marker="m", max_keys=3, encoded=False,
        versions=[listed("k", version_id="v3"), listed("k", version_id="v2", delete_marker=True, latest=False)],
        common_prefixes=["p/"], truncated=True, next_key_marker="k", next_version_id_marker="v2", owner=owner,
    )
    answer = parsed("ListObjectVersions", body)
    assert answer["Versions"][0]["VersionId"] == "v3"
    assert answer["DeleteMarkers"][0] | {"LastModified": None} == {
        "Key": "k", "VersionId": "v2", "IsLatest": False, "LastModified": None,
        "Owner": {"ID": "o", "DisplayName": "name of o"},
    }
    assert body.index(b"<Version>") < body.index(b"<DeleteMarker>")
    assert (answer["NextKeyMarker"], answer["NextVersionIdMarker"]) == ("k", "v2")


def test_list_buckets() -> None:
    buckets = [SimpleNamespace(name=name, created_ms=MS) for name in ("b1", "b2")]
    answer = parsed("ListBuckets", xml_listings.list_buckets(
        owner=owner("o"), buckets=buckets, region="us-east-1", prefix="b", next_token="t",
    ))
    assert [(b["Name"], b["BucketRegion"]) for b in answer["Buckets"]] == [("b1", "us-east-1"), ("b2", "us-east-1")]
    assert (answer["Owner"]["ID"], answer["Prefix"], answer["ContinuationToken"]) == ("o", "b", "t")


def test_location() -> None:
    for region, text in (("eu-west-1", "eu-west-1"), ("", None)):
        root = defusedxml.ElementTree.fromstring(xml_write.location(region))
        assert (root.tag, root.text) == (f"{NS}LocationConstraint", text)


@pytest.mark.parametrize(("status", "expected"), [("", {}), ("Enabled", {"Status": "Enabled"})])
def test_versioning(status: str, expected: dict) -> None:
    assert parsed("GetBucketVersioning", xml_write.versioning_configuration(status)) == expected


def test_copy_results() -> None:
    answer = parsed("CopyObject", xml_write.copy_object(etag="abc", modified_ms=MS, checksum=CRC))["CopyObjectResult"]
    del answer["LastModified"]
    assert answer == {"ETag": '"abc"', "ChecksumCRC32": "AAAAAA==", "ChecksumType": "FULL_OBJECT"}
    answer = parsed("UploadPartCopy", xml_write.copy_part(etag="abc", modified_ms=MS, checksum=None))["CopyPartResult"]
    del answer["LastModified"]
    assert answer == {"ETag": '"abc"'}


RESULTS = [
    Deleted("a&b"), Deleted("c", "v"), Deleted("d", None, True, "m"),
    NotDeleted("e\n", "AccessDenied", "Access <Denied>", "w"),
]


def test_delete_result() -> None:
    answer = parsed("DeleteObjects", xml_write.delete_result(RESULTS, quiet=False))
    assert answer["Deleted"] == [
        {"Key": "a&b"}, {"Key": "c", "VersionId": "v"},
        {"Key": "d", "DeleteMarker": True, "DeleteMarkerVersionId": "m"},
    ]
    assert answer["Errors"] == [
        {"Key": "e\n", "VersionId": "w", "Code": "AccessDenied", "Message": "Access <Denied>"},
    ]


def test_quiet_leaves_out_successes_only() -> None:
    answer = parsed("DeleteObjects", xml_write.delete_result(RESULTS, quiet=True))
    assert list(answer) == ["Errors"]


def part(number: int, checksum=None) -> SimpleNamespace:
    return SimpleNamespace(number=number, size=9, etag=f"e{number}", modified_ms=MS, checksum=checksum)


def test_object_attributes() -> None:
    body = xml_write.object_attributes(
        etag="abc-2", checksum=SHA, storage_class="STANDARD", size=18,
        object_parts=ObjectParts(2, [part(1, SHA), part(2)], 0, 2, 1000, False),
    )
    answer = parsed("GetObjectAttributes", body)
    assert answer["ETag"] == "abc-2"
    assert answer["Checksum"] == {"ChecksumSHA256": "c2hh", "ChecksumType": "COMPOSITE"}
    assert answer["ObjectSize"] == 18
    assert answer["ObjectParts"]["TotalPartsCount"] == 2
    assert [p["PartNumber"] for p in answer["ObjectParts"]["Parts"]] == [1, 2]
    assert parsed("GetObjectAttributes", xml_write.object_attributes(object_parts=ObjectParts(3))) == {
        "ObjectParts": {"TotalPartsCount": 3},
    }


def upload(key: str, algorithm: str = "") -> SimpleNamespace:
    return SimpleNamespace(
        key=key, upload_id="u1", initiated_ms=MS, attributes=SimpleNamespace(storage_class="STANDARD"), owner="o",
        initiator="",
        checksum_algorithm=algorithm, checksum_kind="COMPOSITE" if algorithm else "",
    )


def test_multipart_documents() -> None:
    body = xml_write.initiate_multipart_upload(bucket="bkt", key="a&b", upload_id="u1")
    assert parsed("CreateMultipartUpload", body) == {"Bucket": "bkt", "Key": "a&b", "UploadId": "u1"}
    body = xml_write.complete_multipart_upload(url="http://h/a?&", bucket="bkt", key="a&b", etag="e-2", checksum=SHA)
    assert parsed("CompleteMultipartUpload", body) == {
        "Location": "http://h/a?&", "Bucket": "bkt", "Key": "a&b", "ETag": '"e-2"', "ChecksumSHA256": "c2hh-2",
        "ChecksumType": "COMPOSITE",
    }


def test_list_parts() -> None:
    body = xml_listings.list_parts(
        bucket="bkt", upload=upload("k", "CRC32"), owner=owner, parts=[part(1, CRC), part(3)], marker=0, next_marker=3,
        max_parts=2, truncated=True,
    )
    answer = parsed("ListParts", body)
    assert [(p["PartNumber"], p["ETag"], p.get("ChecksumCRC32")) for p in answer["Parts"]] == [
        (1, '"e1"', "AAAAAA=="), (3, '"e3"', None),
    ]
    assert answer["Initiator"] == answer["Owner"] == {"ID": "o", "DisplayName": "name of o"}
    assert (answer["ChecksumAlgorithm"], answer["ChecksumType"]) == ("CRC32", "COMPOSITE")
    assert (answer["PartNumberMarker"], answer["NextPartNumberMarker"], answer["IsTruncated"]) == (0, 3, True)


def test_list_uploads() -> None:
    body = xml_listings.list_multipart_uploads(
        bucket="bkt", prefix="p ", delimiter="/", key_marker="a b", upload_id_marker="", next_key_marker="k l",
        next_upload_id_marker="u1", max_uploads=5, encoded=True, truncated=True, uploads=[upload("k l")],
        common_prefixes=["p q/"], owner=owner,
    )
    answer = parsed("ListMultipartUploads", body)
    assert answer["Uploads"][0]["Key"] == answer["NextKeyMarker"] == "k%20l"
    assert (answer["Prefix"], answer["KeyMarker"]) == ("p%20", "a%20b")
    assert answer["CommonPrefixes"] == [{"Prefix": "p%20q/"}]
    assert answer["EncodingType"] == "url"


def test_whoever_has_no_name_is_told_by_the_id_alone() -> None:
    body = acl.write((("id:nobody", "READ"),), "owner", lambda owner_id: Owner(owner_id, "" if owner_id == "nobody" else "O"))
    assert b"<Owner><ID>owner</ID><DisplayName>O</DisplayName></Owner>" in body
    assert b'xsi:type="CanonicalUser"><ID>nobody</ID></Grantee>' in body
