"""Documents from clients: what is accepted, and hostile ones refused quickly and without harm."""

import time

import pytest

from gateway.s3.errors import S3Error
from gateway.s3.xml import read as xml_read
from gateway.s3.xml.read import CompletePart, ObjectToDelete, Versioning

READERS = (
    xml_read.create_bucket, xml_read.complete_multipart_upload, xml_read.delete, xml_read.versioning_configuration,
)
NS = 'xmlns="http://s3.amazonaws.com/doc/2006-03-01/"'


def refused(reader, body: bytes) -> str:
    with pytest.raises(S3Error) as caught:
        reader(body)
    return caught.value.code


@pytest.mark.parametrize(("body", "location"), [
    (f"<CreateBucketConfiguration {NS}><LocationConstraint>eu-west-1</LocationConstraint></CreateBucketConfiguration>"
     .encode(), "eu-west-1"),
    (b"<?xml version='1.0' encoding='UTF-8'?><x:CreateBucketConfiguration xmlns:x='urn:any'><x:LocationConstraint> a "
     b"</x:LocationConstraint></x:CreateBucketConfiguration>", "a"),
])
def test_create_bucket(body: bytes, location: str) -> None:
    assert xml_read.create_bucket(body) == (location, ())


def test_a_bucket_may_be_made_with_tags() -> None:
    body = b"<CreateBucketConfiguration><Tags><Tag><Key>a</Key><Value>b</Value></Tag></Tags></CreateBucketConfiguration>"
    assert xml_read.create_bucket(body) == ("", (("a", "b"),))


def test_a_new_bucket_s_document_says_something() -> None:
    for inner in (b"", b"<LocationConstraint/>"):
        body = b"<CreateBucketConfiguration>%s</CreateBucketConfiguration>" % inner
        assert refused(xml_read.create_bucket, body) == "MalformedXML"


def test_directory_buckets_are_not_here() -> None:
    body = b"<CreateBucketConfiguration><Bucket><Type>Directory</Type></Bucket></CreateBucketConfiguration>"
    assert refused(xml_read.create_bucket, body) == "NotImplemented"


def test_complete() -> None:
    body = f"""<CompleteMultipartUpload {NS}>
      <Part><ETag>&quot;aa&quot;</ETag><PartNumber>1</PartNumber></Part>
      <Part><PartNumber> 7 </PartNumber><ETag>bb</ETag><ChecksumCRC32>AAAAAA==</ChecksumCRC32></Part>
    </CompleteMultipartUpload>""".encode()
    assert xml_read.complete_multipart_upload(body) == (
        CompletePart(1, "aa"), CompletePart(7, "bb", (("CRC32", "AAAAAA=="),)),
    )


@pytest.mark.parametrize(("inner", "code"), [
    ("", "MalformedXML"),
    ("<Part><PartNumber>1</PartNumber></Part>", "MalformedXML"),
    ("<Part><ETag>a</ETag></Part>", "MalformedXML"),
    ("<Part><PartNumber>1</PartNumber><PartNumber>2</PartNumber><ETag>a</ETag></Part>", "MalformedXML"),
    ("<Part><PartNumber>x</PartNumber><ETag>a</ETag></Part>", "MalformedXML"),
    ("<Part><PartNumber>1.0</PartNumber><ETag>a</ETag></Part>", "MalformedXML"),
    ("<Part><PartNumber>1_0</PartNumber><ETag>a</ETag></Part>", "MalformedXML"),
    ("<Part><PartNumber>" + "9" * 5000 + "</PartNumber><ETag>a</ETag></Part>", "MalformedXML"),
    ("<Part><PartNumber>0</PartNumber><ETag>a</ETag></Part>", "InvalidArgument"),
    ("<Part><PartNumber>-1</PartNumber><ETag>a</ETag></Part>", "InvalidArgument"),
    ("<Part><PartNumber>1</PartNumber><ETag>a</ETag><Other/></Part>", "MalformedXML"),
    ("<Other><PartNumber>1</PartNumber><ETag>a</ETag></Other>", "MalformedXML"),
    ("<Part><PartNumber>1</PartNumber><ETag><b>a</b></ETag></Part>", "MalformedXML"),
    ("<Part>x<PartNumber>1</PartNumber><ETag>a</ETag></Part>", "MalformedXML"),
    ("<Part><PartNumber>1</PartNumber><ETag>a</ETag></Part>" * 10_001, "MalformedXML"),
])
def test_bad_complete(inner: str, code: str) -> None:
    body = f"<CompleteMultipartUpload>{inner}</CompleteMultipartUpload>".encode()
    assert refused(xml_read.complete_multipart_upload, body) == code


def test_complete_without_a_body() -> None:
    assert refused(xml_read.complete_multipart_upload, b"") == "InvalidRequest"


def test_delete() -> None:
    body = f"""<Delete {NS}><Object><Key> a&#xD;&#10;&lt; </Key></Object>
      <Object><Key>b</Key><VersionId>v</VersionId><ETag>"e"</ETag><Size>5</Size></Object><Quiet>true</Quiet></Delete>"""
    assert xml_read.delete(body.encode()) == (
        (ObjectToDelete(" a\r\n< "), ObjectToDelete("b", "v", "e", 5)), True,
    )


def test_delete_is_not_quiet_unless_told() -> None:
    body = "<Delete><Object><Key>é</Key></Object></Delete>"
    assert xml_read.delete(body.encode()) == ((ObjectToDelete("é"),), False)


@pytest.mark.parametrize("inner", [
    "", "<Quiet>true</Quiet>", "<Object/>", "<Object><Key/></Object>", "<Object><VersionId>v</VersionId></Object>",
    "<Object><Key>a</Key></Object><Quiet>maybe</Quiet>",
    "<Object><Key>a</Key></Object><Quiet>true</Quiet><Quiet>false</Quiet>",
    "<Object><Key>a</Key></Object><Other/>", "<Object><Key>a</Key><Key>b</Key></Object>",
    "<Object><Key>a</Key><Size>x</Size></Object>", "<Object><Key>a&#1;</Key></Object>",
    "<Object><Key>a</Key></Object>" * 1001,
])
def test_bad_delete(inner: str) -> None:
    assert refused(xml_read.delete, f"<Delete>{inner}</Delete>".encode()) == "MalformedXML"


def test_a_thousand_keys_are_not_too_many() -> None:
    assert len(xml_read.delete(b"<Delete>" + b"<Object><Key>a</Key></Object>" * 1000 + b"</Delete>").objects) == 1000


@pytest.mark.parametrize(("inner", "expected"), [
    ("<Status>Enabled</Status>", Versioning("Enabled")),
    ("<MfaDelete>Disabled</MfaDelete><Status>Suspended</Status>", Versioning("Suspended", "Disabled")),
])
def test_versioning(inner: str, expected: Versioning) -> None:
    body = f"<VersioningConfiguration>{inner}</VersioningConfiguration>".encode()
    assert xml_read.versioning_configuration(body) == expected


@pytest.mark.parametrize(("inner", "code"), [
    ("", "IllegalVersioningConfigurationException"),
    ("<Status>enabled</Status>", "MalformedXML"),
    ("<Status/>", "MalformedXML"),
    ("<Status>Enabled</Status><MfaDelete>x</MfaDelete>", "MalformedXML"),
])
def test_bad_versioning(inner: str, code: str) -> None:
    body = f"<VersioningConfiguration>{inner}</VersioningConfiguration>".encode()
    assert refused(xml_read.versioning_configuration, body) == code


LAUGHS = b'<!DOCTYPE Delete [<!ENTITY a "ha">' + b"".join(
    b'<!ENTITY %c "%s">' % (98 + n, b"&%c;" % (97 + n) * 10) for n in range(10)
) + b"]><Delete><Object><Key>&k;</Key></Object></Delete>"

HOSTILE = {
    "laughs": LAUGHS,
    "external entity": b'<!DOCTYPE Delete [<!ENTITY x SYSTEM "file:///etc/passwd">]><Delete><Object><Key>&x;</Key>'
                       b"</Object></Delete>",
    "external document type": b'<!DOCTYPE Delete SYSTEM "http://127.0.0.1:1/x.dtd"><Delete/>',
    "parameter entity": b'<!DOCTYPE Delete [<!ENTITY % x SYSTEM "file:///etc/passwd"> %x;]><Delete/>',
    "undeclared entity": b"<Delete><Object><Key>&x;</Key></Object></Delete>",
    "processing instruction": b"<?xml-stylesheet href='x'?><Delete><Object><Key>a</Key></Object></Delete>",
    "deep": b"<a>" * 300_000,
    "deep under the right root": b"<Delete>" + b"<Object>" * 100_000,
    "attributes": b"<Delete " + b" ".join(b'a%d=""' % n for n in range(3000)) + b"/>",
    "same attribute": b'<Delete a="" a=""/>',
    "undeclared prefix": b"<x:Delete/>",
    "two roots": b"<Delete/><Delete/>",
    "cut short": b"<Delete><Object><Key>a</Key>",
    "another encoding": "<?xml version='1.0' encoding='ISO-8859-1'?><Delete><Object><Key>é</Key></Object></Delete>"
                        .encode("latin-1"),
    "UTF-16": "<Delete><Object><Key>a</Key></Object></Delete>".encode("utf-16"),
    "broken UTF-8": b"<Delete><Object><Key>\xff</Key></Object></Delete>",
    "overlong UTF-8": b"<Delete><Object><Key>\xc0\xaf</Key></Object></Delete>",
    "NUL": b"<Delete>\0</Delete>",
    "not XML": b"{}",
    "only blanks": b"  ",
}


@pytest.mark.parametrize("reader", READERS, ids=lambda reader: reader.__name__)
@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_documents(reader, name: str) -> None:
    body = HOSTILE[name][: xml_read.SMALL_BYTES_MAX] if reader is not xml_read.delete else HOSTILE[name]
    began = time.perf_counter()
    assert refused(reader, body) == "MalformedXML"
    assert time.perf_counter() - began < 1


@pytest.mark.parametrize("reader", READERS, ids=lambda reader: reader.__name__)
def test_size_is_limited(reader) -> None:
    assert refused(reader, b" " * (xml_read.COMPLETE_BYTES_MAX + 1)) == "MaxMessageLengthExceeded"
