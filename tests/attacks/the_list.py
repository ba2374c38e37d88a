"""The list of attacks, number by number: what is tried, what must be answered, and which tests try it.

What a row expects is answered with an XML error that has Code and RequestId; nothing is stored that was refused, nothing of
the inside is told, and the next request is served (`Attacker.refused`, `Attacker.unharmed`). test_the_list.py holds this
table to the tests: every row has some, and every numbered test has a row.
"""

from typing import NamedTuple

HERE = "tests/attacks/"


class Attack(NamedTuple):
    number: int
    attack: str
    expected: str
    tests: tuple[str, ...] = ()       # besides those of this folder whose names begin with the number: file::function


ATTACKS = (
    Attack(1, "PUT with STREAMING-UNSIGNED-PAYLOAD-TRAILER and a wrong signature", "403 SignatureDoesNotMatch"),
    Attack(2, "the same with a credential in the query and no signature that is checked", "403"),
    Attack(3, "a route beside the others that lacks their authentication", "403 for all of them"),
    Attack(4, "chunk signatures that are wrong, missing or of another request", "403 SignatureDoesNotMatch, 400 IncompleteBody"),
    Attack(5, "a payload that isn't the one hashed; unknown kinds", "400 XAmzContentSHA256Mismatch or InvalidArgument"),
    Attack(6, "a trailer checksum that is wrong, missing, or another than announced", "400 BadDigest, MalformedTrailerError"),
    Attack(7, "x-amz-decoded-content-length too small, too large, negative", "400 IncompleteBody, InvalidArgument, 411"),
    Attack(8, "an x-amz- header that is sent and not signed", "403 AccessDenied"),
    Attack(9, "host not signed; a header signed that is not there", "403"),
    Attack(10, "another scope, algorithm or form of the credential", "400 AuthorizationHeaderMalformed"),
    Attack(11, "old, future and over-long signatures and links", "403 RequestTimeTooSkewed, AccessDenied; 400"),
    Attack(12, "a form whose policy's conditions do not hold", "403 AccessDenied; 400 EntityTooLarge, EntityTooSmall",
           ("tests/s3/test_posting.py::*",)),
    Attack(13, "a form field that names another bucket than the one posted to", "403 AccessDenied"),
    Attack(14, "signatures and access keys of odd bytes", "403"),
    Attack(15, ".., %2e%2e, back-slash and NUL in keys and buckets", "404 NoSuchKey or 400; never another object"),
    Attack(16, ".. in x-amz-copy-source", "400 InvalidArgument, 404 NoSuchKey"),
    Attack(17, "a copy of what one may not read", "403 AccessDenied"),
    Attack(18, "addresses as copy source, target of events, of logs and of copies", "400 InvalidArgument; nobody is called"),
    Attack(19, "external entities and DTDs in any document", "400 MalformedXML"),
    Attack(20, "entities that grow, deep nesting, 8 MB of XML, UTF-16, more than 1000 deletes", "400 MalformedXML, within 1 s"),
    Attack(21, "deeply nested JSON, policies of 30 kB", "400 MalformedPolicy, InvalidPolicyDocument"),
    Attack(22, "a policy that says more than it seems to: Deny passed over, exceptions as permissions, names as prefixes",
           "denied by default; unknown elements refused when put"),
    Attack(23, "a user who gives himself rights that he has not", "403"),
    Attack(24, "one action judged by another one's right", "a table of routes and actions, complete",
           ("tests/s3/test_access_matrix.py::test_nothing_is_allowed_that_no_statement_allows",)),
    Attack(25, "the inner sockets with a default secret or one derived from it", "hung up on",
           ("tests/attacks/test_mishaps.py::test_secrets_and_names_that_are_damaged",)),
    Attack(26, "the inner sockets without any, and the admin's routes", "hung up on; 403",
           ("tests/admin/test_doors.py::test_the_root_key_is_refused_everywhere_when_it_signs_wrongly",)),
    Attack(27, "a pickle, a giant length", "hung up on; no code run, no memory taken"),
    Attack(28, "malformed messages of one who knows the secret", "the process lives"),
    Attack(29, "requests that two servers would read in two ways", "400 and closed",
           ("tests/unit/gateway/http/test_framing.py::*",)),
    Attack(30, "a Host that names another bucket", "400; sub-domains only of configured names"),
    Attack(31, "X-Forwarded-For and its like from anybody", "not believed"),
    Attack(32, "bodies without length or end, too long, too short", "411 MissingContentLength; 400"),
    Attack(33, "thousands of ranges, numbers of 40 digits", "416 InvalidRange or the whole object, within 100 ms"),
    Attack(34, "heads and bodies that come slowly or not at all", "408 or closed; others are served",
           ("tests/unit/gateway/http/test_deadlines.py::*",)),
    Attack(35, "Expect: 100-continue without the right", "403 at once"),
    Attack(36, "part numbers that are none, uploads of others, lists that don't fit, races", "400, 404; one success"),
    Attack(37, "bucket names that are none", "400 InvalidBucketName"),
    Attack(38, "line ends in headers that the answer gives back", "400, or a value without them; never another header",
           ("tests/unit/gateway/http/test_dispatcher.py::test_no_header_breaks_out_of_its_line",)),
    Attack(39, "origins that no rule names", "no CORS header; 403 AccessForbidden"),
    Attack(40, "scripts in names, shown by a console", "there is no console"),
    Attack(41, "errors with markup", "escaped, application/xml"),
    Attack(42, "default credentials", "none exist"),
    Attack(43, "pages of the inside that are open", "401, 403, 404; health says ok or not"),
    Attack(44, "secrets in logs, errors, arguments and files", "nowhere",
           ("tests/admin/test_doors.py::test_who_did_what_is_logged_and_no_secret_is",)),
    Attack(45, "guessing users and passwords", "there is no login; wrong and unknown keys take the same time"),
    Attack(46, "tokens, version and upload ids that we did not make", "400 InvalidArgument, 404"),
    Attack(47, "SQL and wildcards in prefixes and markers", "they mean themselves"),
    Attack(48, "odd keys", "kept exactly; 1025 bytes are 400 KeyTooLongError",
           ("tests/attacks/test_odd_keys.py::test_all_that_one_does_with_a_key",)),
    Attack(49, "metadata over 2 kB, tags too many or twice", "400 MetadataTooLarge, InvalidTag"),
    Attack(50, "compressed bodies that grow", "never decompressed"),
)
