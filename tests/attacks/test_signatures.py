"""Attacks on who one is: signatures that are wrong, half there, too old, or over too little."""

import time

import pytest

from gateway.s3.operations import OPERATION, Operation
from tests import signing
from tests.attacks.attacker import Attacker, both_schemes
from tests.clients.wire import Answer, unsigned_chunks

TRAILER = "STREAMING-UNSIGNED-PAYLOAD-TRAILER"
STRANGER = signing.Keys(access_key="AKIASTRANGER00000000", secret_key="guessed")

CHUNKED = {"x-amz-decoded-content-length": "5", "content-encoding": "aws-chunked"}
BODY = unsigned_chunks(b"hello", {})


def spoilt(signature: str) -> str:
    return ("0" if signature[0] != "0" else "1") + signature[1:]


def authorization(headers: dict[str, str], old: str, new: str) -> dict[str, str]:
    assert old in headers["authorization"]
    return {**headers, "authorization": headers["authorization"].replace(old, new)}


@both_schemes
def test_1_unsigned_trailer_with_a_wrong_signature(attacker: Attacker) -> None:
    path = f"{attacker.bucket}/planted"
    headers = attacker.wire.signed("PUT", path, CHUNKED, payload=TRAILER)
    signature = signing.signature_of(headers)
    headers = authorization(headers, signature, spoilt(signature)) | {"content-length": str(len(BODY))}
    answer = attacker.refused(attacker.send("PUT", path, headers, BODY), "SignatureDoesNotMatch", 403)
    assert signature not in answer.text, "the expected signature is shown"


@both_schemes
def test_2_unsigned_trailer_with_a_credential_in_the_query(attacker: Attacker) -> None:
    path = f"{attacker.bucket}/planted"
    date = signing.amz_date(time.time())
    credential = f"{attacker.keys.access_key}/{signing.scope(attacker.keys, date)}".replace("/", "%2F")
    headers = {"host": attacker.target.netloc, "x-amz-content-sha256": TRAILER, "x-amz-date": date, **CHUNKED,
               "content-length": str(len(BODY))}
    for query, code, status in (
        (f"X-Amz-Credential={credential}", "AuthorizationQueryParametersError", 400),
        (f"X-Amz-Algorithm=AWS4-HMAC-SHA256&X-Amz-Credential={credential}&X-Amz-Date={date}&X-Amz-Expires=600"
         f"&X-Amz-SignedHeaders=host&X-Amz-Signature={'0' * 64}", "AccessDenied", 403),   # x-amz-* not signed
        (f"X-Amz-Algorithm=AWS4-HMAC-SHA256&X-Amz-Credential={credential}&X-Amz-Date={date}&X-Amz-Expires=600"
         "&X-Amz-SignedHeaders=host%3Bx-amz-content-sha256%3Bx-amz-date%3Bx-amz-decoded-content-length"
         f"&X-Amz-Signature={'0' * 64}", "SignatureDoesNotMatch", 403),
    ):
        attacker.refused(attacker.send("PUT", f"{path}?{query}", headers, BODY), code, status)
    for given in ("AWS4-HMAC-SHA256 ", f"AWS4-HMAC-SHA256 Credential={credential}", "AWS4-HMAC-SHA256"):
        answer = attacker.send("PUT", path, {**headers, "authorization": given}, BODY)
        attacker.refused(answer, ("AuthorizationHeaderMalformed", "InvalidArgument"), 400)


def path_of(operation: Operation, attacker: Attacker) -> tuple[str, dict[str, str]]:
    path = {"service": "/", "bucket": attacker.bucket, "object": attacker.victim}[operation.scope]
    query = "&".join(f"{name}={'2' if name == 'list-type' else 1 if name == 'partNumber' else ''}".rstrip("=")
                     for name in operation.query)
    headers = {name: f"{attacker.bucket}/victim" if name == "x-amz-copy-source" else "x" for name in operation.headers}
    return (f"{path}?{query}" if query else path), headers


NOT_A_SIGNATURE = {"PostObject": 412, "PreflightBucket": 400, "PreflightObject": 400}
"""What is no form, and a preflight without an origin: refused as what they are, before anybody is asked who they are."""


@both_schemes
def test_3_no_route_without_authentication(attacker: Attacker) -> None:
    """Every row of the table: nobody in particular, somebody unknown, and a wrong signature."""
    now = time.time()
    wrong = signing.Keys(access_key=attacker.keys.access_key, secret_key="x")
    for operation in OPERATION.values():
        path, headers = path_of(operation, attacker)
        answer = attacker.anonymous(operation.method, path, headers)
        assert answer.status == NOT_A_SIGNATURE.get(operation.name, 403), (operation.name, answer)
        for keys, code in ((STRANGER, "InvalidAccessKeyId"), (wrong, "SignatureDoesNotMatch")):
            signed = signing.sign_request(operation.method, attacker.target.url + path, headers, keys=keys, now_s=now)
            answer = attacker.send(operation.method, path, {**signed, "content-length": "0"})
            assert answer.status == 403, (operation.name, answer)
            assert operation.method == "HEAD" or answer.element("Code") == code


def test_3_strangers_learn_nothing_from_routes(attacker: Attacker) -> None:
    """What S3 has no such method for is told to those who are known; what is no path at all, to everybody."""
    wrong = signing.Keys(access_key=attacker.keys.access_key, secret_key="x")
    for method, query in (("PUT", "?versions"), ("POST", ""), ("GET", "?acl&tagging"), ("PUT", "?uploadId=1")):
        signed = signing.sign_request(method, f"{attacker.target.url}{attacker.victim}{query}", keys=wrong,
                                      now_s=time.time())
        answer = attacker.send(method, attacker.victim + query, {**signed, "content-length": "0"})
        attacker.refused(answer, "SignatureDoesNotMatch", 403)
    attacker.refused(attacker.anonymous("GET", "/%zz"), "InvalidURI", 400)
    attacker.refused(attacker.anonymous("GET", f"{attacker.bucket}/%ff"), "InvalidURI", 400)
    attacker.refused(attacker.anonymous("GET", "/no-such-bucket-at-all/key"), "NoSuchBucket", 404)
    attacker.refused(attacker.anonymous("GET", attacker.bucket + "/no-such-key"), "AccessDenied", 403)


UNSIGNED_HEADERS = {
    "x-amz-copy-source": "/elsewhere/key", "x-amz-acl": "public-read-write", "x-amz-meta-a": "b",
    "x-amz-security-token": "t", "x-amz-tagging": "a=b", "x-amz-storage-class": "STANDARD_IA",
    "x-amz-checksum-crc32": "AAAAAA==", "x-amz-trailer": "x-amz-checksum-crc32", "x-amz-anything": "x",
}


@both_schemes
@pytest.mark.parametrize("name", UNSIGNED_HEADERS)
def test_8_an_amz_header_that_is_not_signed(attacker: Attacker, name: str) -> None:
    path = f"{attacker.bucket}/planted"
    extra = {name: UNSIGNED_HEADERS[name], "content-length": "5"}
    headers = attacker.wire.signed("PUT", path, payload=signing.UNSIGNED) | extra
    expected = "InvalidToken" if name == "x-amz-security-token" else "AccessDenied"
    status = 400 if expected == "InvalidToken" else 403
    answer = attacker.refused(attacker.send("PUT", path, headers, b"hello"), expected, status)
    assert expected != "AccessDenied" or answer.element("HeadersNotSigned") == name
    url = signing.presign("PUT", attacker.target.url + path, keys=attacker.keys, now_s=time.time())
    presigned = {"host": attacker.target.netloc, **extra}
    attacker.refused(attacker.send("PUT", url.removeprefix(attacker.target.url), presigned, b"hello"), expected, status)


def test_9_host_not_signed_or_a_header_signed_that_is_not_there(attacker: Attacker) -> None:
    url = attacker.target.url + attacker.victim
    without_host = signing.sign_request("GET", url, keys=attacker.keys, now_s=time.time(), unsigned=("host",))
    attacker.refused(attacker.send("GET", attacker.victim, without_host), "AccessDenied", 403)
    with_more = attacker.wire.signed("GET", attacker.victim, {"x-extra": "1"})
    del with_more["x-extra"]
    attacker.refused(attacker.send("GET", attacker.victim, with_more), "SignatureDoesNotMatch", 403)
    elsewhere = attacker.wire.signed("GET", attacker.victim) | {"host": "s3.amazonaws.com"}
    attacker.refused(attacker.send("GET", attacker.victim, elsewhere), "SignatureDoesNotMatch", 403)


@pytest.mark.parametrize(("old", "new"), [
    ("/s3/", "/ec2/"), ("/us-east-1/", "/eu-west-1/"), ("aws4_request", "aws4_reques"), ("/s3/aws4_request", ""),
    ("/us-east-1/", "/"), ("Credential=", "Credential=/"), ("Credential=", "Credential"), ("SignedHeaders=", "Signed="),
    (", Signature=", ", Signature=0, Signature="), ("Signature=", "Signature:"),
])
def test_10_another_scope_or_a_malformed_header(attacker: Attacker, old: str, new: str) -> None:
    headers = authorization(attacker.wire.signed("GET", attacker.victim), old, new)
    answer = attacker.send("GET", attacker.victim, headers)
    if new == "Credential=/":      # a key that begins with a slash: nobody has it
        attacker.refused(answer, "InvalidAccessKeyId", 403)
        return
    attacker.refused(answer, "AuthorizationHeaderMalformed", 400)
    if old == "/us-east-1/" and new == "/eu-west-1/":
        assert answer.element("Region") == "us-east-1"


@pytest.mark.parametrize("algorithm", ["AWS4-HMAC-SHA1", "AWS4-HMAC-SHA512", "Bearer", "Basic", "aws4-hmac-sha256", ""])
def test_10_another_algorithm(attacker: Attacker, algorithm: str) -> None:
    headers = authorization(attacker.wire.signed("GET", attacker.victim), "AWS4-HMAC-SHA256", algorithm)
    headers["authorization"] = headers["authorization"].strip()
    attacker.refused(
        attacker.send("GET", attacker.victim, headers), ("InvalidArgument", "AuthorizationHeaderMalformed"), 400)


def test_10_a_date_that_is_not_the_scopes(attacker: Attacker) -> None:
    date = signing.amz_date(time.time())
    headers = authorization(attacker.wire.signed("GET", attacker.victim), f"/{date[:8]}/", "/20200101/")
    attacker.refused(attacker.send("GET", attacker.victim, headers), "AuthorizationHeaderMalformed", 400)


@pytest.mark.parametrize("seconds", [-86_400 * 365, -3600, -930, 930, 3600, 86_400 * 365])
def test_11_replay_and_future(attacker: Attacker, seconds: int) -> None:
    url = attacker.target.url + attacker.victim
    headers = signing.sign_request("GET", url, keys=attacker.keys, now_s=time.time() + seconds)
    answer = attacker.refused(attacker.send("GET", attacker.victim, headers), "RequestTimeTooSkewed", 403)
    assert answer.element("ServerTime")
    assert answer.element("MaxAllowedSkewMilliseconds") == "900000"


@pytest.mark.parametrize(("date", "code"), [
    ("", "AccessDenied"), ("yesterday", "AccessDenied"), ("20200230T000000Z", "AccessDenied"),
    ("99999999T999999Z", "AccessDenied"), ("2" * 5000, "AccessDenied"), ("２０２０0101T000000Z", "AccessDenied"),
])
def test_11_a_date_that_is_none(attacker: Attacker, date: str, code: str) -> None:
    headers = attacker.wire.signed("GET", attacker.victim)
    headers["x-amz-date"] = date.encode().decode("latin-1")
    attacker.refused(attacker.send("GET", attacker.victim, headers), code, 403)


@pytest.mark.parametrize(("expires", "code", "status"), [
    ("-1", "AuthorizationQueryParametersError", 400), ("604801", "AuthorizationQueryParametersError", 400),
    ("abc", "AuthorizationQueryParametersError", 400), ("", "AuthorizationQueryParametersError", 400),
    ("9" * 5000, "AuthorizationQueryParametersError", 400), ("1e3", "AuthorizationQueryParametersError", 400),
    ("٣", "AuthorizationQueryParametersError", 400),
])
def test_11_odd_lives_of_links(attacker: Attacker, expires: str, code: str, status: int) -> None:
    url = signing.presign("GET", attacker.target.url + attacker.victim, keys=attacker.keys, now_s=time.time(),
                          expires_s=expires)
    attacker.refused(attacker.anonymous("GET", url.removeprefix(attacker.target.url)), code, status)


def test_11_links_that_are_over_or_not_yet(attacker: Attacker) -> None:
    now = time.time()
    url = attacker.target.url + attacker.victim
    for link in (signing.presign("GET", url, keys=attacker.keys, now_s=now - 3601),
                 signing.presign("GET", url, keys=attacker.keys, now_s=now - 5, expires_s=0),
                 signing.presign("GET", url, keys=attacker.keys, now_s=now + 3600),
                 signing.presign_v2("GET", url, keys=attacker.keys, expires_at_s=int(now) - 5)):
        attacker.refused(attacker.anonymous("GET", link.removeprefix(attacker.target.url)), "AccessDenied", 403)
    link = signing.presign("GET", url, keys=attacker.keys, now_s=now)
    for repeated in ("X-Amz-Expires=600", "X-Amz-Date=20200101T000000Z", "X-Amz-Signature=0"):
        answer = attacker.anonymous("GET", f"{link}&{repeated}".removeprefix(attacker.target.url))
        attacker.refused(answer, "AuthorizationQueryParametersError", 400)


@both_schemes
def test_11_a_link_is_good_for_nothing_else(attacker: Attacker) -> None:
    """A presigned GET of one object opens no other object, method, sub-resource or answer header."""
    now = int(time.time())
    url = attacker.target.url + attacker.victim
    for link in (signing.presign("GET", url, keys=attacker.keys, now_s=now),
                 signing.presign_v2("GET", url, keys=attacker.keys, expires_at_s=now + 60)):
        path = link.removeprefix(attacker.target.url)
        assert attacker.anonymous("GET", path).status == 200
        for method, changed in (
            ("PUT", path), ("DELETE", path), ("GET", path.replace("/victim", "/other")), ("GET", path + "&acl"),
            ("GET", path + "&versionId=null"), ("GET", path + "&response-content-type=text/html"),
            ("GET", path.replace("/victim", "/victim/")), ("GET", path.replace("/victim", "//victim")),
            ("GET", path + "&uploads"), ("GET", path + "&partNumber=1"),
        ):
            attacker.refused(attacker.anonymous(method, changed), "SignatureDoesNotMatch", 403)


ODD_SIGNATURES = ["", "é" * 64, "\xff" * 64, "0" * 63, "0" * 65, "0" * 4000, "null", "\t", "0" * 32 + "İ" * 32]


@pytest.mark.parametrize("signature", ODD_SIGNATURES)
def test_14_signatures_of_odd_bytes(attacker: Attacker, signature: str) -> None:
    headers = attacker.wire.signed("GET", attacker.victim)
    sent = authorization(headers, signing.signature_of(headers), signature.encode().decode("latin-1"))
    answer = attacker.send("GET", attacker.victim, sent)
    assert answer.status in (400, 403)
    attacker.decent(answer)
    now = int(time.time())
    url = attacker.target.url + attacker.victim
    for link, name in ((signing.presign("GET", url, keys=attacker.keys, now_s=now), "X-Amz-Signature="),
                       (signing.presign_v2("GET", url, keys=attacker.keys, expires_at_s=now + 60), "Signature=")):
        quoted = signing.quote(signature, safe="")
        path = link.removeprefix(attacker.target.url)[: -len(link.partition(name)[2])] + quoted
        answer = attacker.anonymous("GET", path)
        assert answer.status in (400, 403), path
        attacker.decent(answer)
    answer = attacker.anonymous("GET", attacker.victim, {
        "authorization": f"AWS {attacker.keys.access_key}:{signature}".strip().encode().decode("latin-1")})
    assert answer.status in (400, 403)
    attacker.decent(answer)


@pytest.mark.parametrize("access_key", ["", "\xff\xfe", "a" * 4000, "../../etc/passwd", "' OR 1=1 --", "%00", "/", "é"])
def test_14_access_keys_of_odd_bytes(attacker: Attacker, access_key: str) -> None:
    headers = attacker.wire.signed("GET", attacker.victim)
    sent = authorization(headers, attacker.keys.access_key, access_key)
    answer = attacker.send("GET", attacker.victim, sent)
    assert answer.status in (400, 403)
    attacker.decent(answer)


def test_14_a_signature_in_capitals_is_another_one(attacker: Attacker) -> None:
    headers = attacker.wire.signed("GET", attacker.victim)
    signature = signing.signature_of(headers)
    attacker.refused(
        attacker.send("GET", attacker.victim, authorization(headers, signature, signature.upper())),
        "SignatureDoesNotMatch", 403)


def test_two_signatures_at_once(attacker: Attacker) -> None:
    url = attacker.target.url + attacker.victim
    link = signing.presign("GET", url, keys=attacker.keys, now_s=time.time()).removeprefix(attacker.target.url)
    answer = attacker.send("GET", link, attacker.wire.signed("GET", attacker.victim))
    attacker.refused(answer, "InvalidArgument", 400)


def test_31_forwarded_headers_are_not_believed(attacker: Attacker) -> None:
    """A signature made for another host is none for us, whatever a proxy is said to have seen."""
    url = f"https://s3.elsewhere.example{attacker.victim}"
    headers = signing.sign_request("GET", url, keys=attacker.keys, now_s=time.time())
    headers["host"] = attacker.target.netloc
    for name in ("x-forwarded-host", "forwarded", "x-host", "x-forwarded-server", "x-original-host", "x-rewrite-url",
                 "x-original-url", "x-http-method-override"):
        value = "host=s3.elsewhere.example" if name == "forwarded" else "s3.elsewhere.example"
        attacker.refused(attacker.send("GET", attacker.victim, {**headers, name: value}), "SignatureDoesNotMatch", 403)


def test_45_unknown_and_wrong_look_alike_but_for_the_code(attacker: Attacker) -> None:
    """AWS tells an unknown key from a wrong secret, and clients rely on it; nothing else differs."""
    now = time.time()
    answers = [
        attacker.send("GET", attacker.victim, signing.sign_request(
            "GET", attacker.target.url + attacker.victim, keys=keys, now_s=now))
        for keys in (STRANGER, signing.Keys(access_key=attacker.keys.access_key, secret_key="x"))
    ]
    attacker.refused(answers[0], "InvalidAccessKeyId", 403)
    attacker.refused(answers[1], "SignatureDoesNotMatch", 403)
    assert answers[0].headers.keys() == answers[1].headers.keys()


def test_what_a_signer_moved_into_the_query_counts(attacker: Attacker) -> None:
    """A header in a presigned link's query is as good as one that was sent: none that restricts is passed over."""
    url = attacker.target.url + attacker.victim

    def follow(method: str, extra: dict[str, str]) -> Answer:
        link = signing.presign(method, url, keys=attacker.keys, now_s=time.time(), extra=extra)
        return attacker.anonymous(method, link.removeprefix(attacker.target.url))

    for method in ("GET", "PUT", "DELETE"):
        attacker.refused(follow(method, {"x-amz-expected-bucket-owner": "123456789012"}), "AccessDenied", 403)
    for name, value in (("x-amz-server-side-encryption-customer-algorithm", "AES256"),
                        ("X-Amz-Server-Side-Encryption-Customer-Algorithm", "AES256")):
        assert follow("GET", {name: value}).status == 400
    assert follow("DELETE", {"x-amz-bypass-governance-retention": "true"}).status == 400
    assert "x-amz-checksum-crc64nvme" in follow("GET", {"x-amz-checksum-mode": "ENABLED"}).headers
