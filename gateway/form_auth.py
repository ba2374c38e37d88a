"""Whose form it is: signatures that stand in the fields of a form upload (S3_SEMANTICS §20).

What is signed is the policy, as sent; so a form is as good as its policy, and without one it is anonymous.
"""

from collections.abc import Mapping

from gateway.auth import ANONYMOUS, Mechanism, Principal, Settings, check_scope, find_identity
from gateway.identities import Identity, IdentityStore
from gateway.s3.errors import S3Error
from gateway.s3.signing import sigv2, sigv4
from gateway.s3.signing.credentials import ALGORITHM, Scheme, basic_date_s, parse_credential

_V4 = ("x-amz-signature", "x-amz-algorithm", "x-amz-credential", "x-amz-date")
_V2 = ("signature", "awsaccesskeyid")
"""In the order in which AWS misses them."""

_SPELT = {"x-amz-algorithm": "X-Amz-Algorithm", "x-amz-credential": "X-Amz-Credential", "x-amz-date": "X-Amz-Date",
          "x-amz-signature": "X-Amz-Signature", "awsaccesskeyid": "AWSAccessKeyId", "signature": "signature",
          "policy": "policy"}


def authenticate_form(fields: Mapping[str, str], store: IdentityStore, settings: Settings, now_ms: int) -> Principal:
    """`fields` by lower-case name. S3Error for a signature that is not whole or not right: never taken for none."""
    by_v4, by_v2 = any(name in fields for name in _V4), any(name in fields for name in _V2)
    if by_v4 and by_v2:
        raise S3Error("InvalidArgument", "Only one auth mechanism allowed in a form.", ArgumentName="signature")
    if by_v4:
        return _by_v4(fields, store, settings, now_ms)
    if by_v2:
        return _by_v2(fields, store, settings)
    if fields.get("policy"):
        raise S3Error("AccessDenied")        # of nobody
    return ANONYMOUS


def _by_v4(fields: Mapping[str, str], store: IdentityStore, settings: Settings, now_ms: int) -> Principal:
    _require(fields, (*_V4, "policy"))
    if fields["x-amz-algorithm"] != ALGORITHM:
        raise S3Error("InvalidArgument", f"X-Amz-Algorithm only supports \"{ALGORITHM}\"",
                      ArgumentName="X-Amz-Algorithm", ArgumentValue=fields["x-amz-algorithm"][:64])
    credential = parse_credential(fields["x-amz-credential"], Scheme.QUERY)
    date = fields["x-amz-date"]
    date_s = basic_date_s(date)
    if date_s is None:
        raise S3Error("AccessDenied", 'X-Amz-Date must be in the ISO8601 Long Format "yyyyMMdd\'T\'HHmmss\'Z\'"')
    check_scope(credential, date, settings, Scheme.QUERY)
    identity = find_identity(store, credential.access_key, fields.get("x-amz-security-token"))
    if not sigv4.verify_policy(identity.secret_key, credential, fields["policy"], fields["x-amz-signature"]):
        raise _mismatch(identity, fields["policy"], fields["x-amz-signature"])
    return _principal(identity, Mechanism.V4_FORM, now_ms - date_s * 1000)


def _by_v2(fields: Mapping[str, str], store: IdentityStore, settings: Settings) -> Principal:
    if not settings.signature_v2:
        raise S3Error("InvalidRequest",
                      "The authorization mechanism you have provided is not supported. Please use AWS4-HMAC-SHA256.")
    _require(fields, (*_V2, "policy"))
    identity = find_identity(store, fields["awsaccesskeyid"], fields.get("x-amz-security-token"))
    if not sigv2.verify_policy(identity.secret_key, fields["policy"], fields["signature"]):
        raise _mismatch(identity, fields["policy"], fields["signature"])
    return _principal(identity, Mechanism.V2_FORM, None)


def _require(fields: Mapping[str, str], names: tuple[str, ...]) -> None:
    for name in names:
        if not fields.get(name):
            raise S3Error("InvalidArgument", f"Bucket POST must contain a field named '{_SPELT[name]}'.  If it is "
                          "specified, please check the order of the fields.", ArgumentName=_SPELT[name], ArgumentValue="")


def _mismatch(identity: Identity, policy: str, signature: str) -> S3Error:
    return S3Error("SignatureDoesNotMatch", AWSAccessKeyId=identity.access_key, StringToSign=policy,
                   SignatureProvided=signature)


def _principal(identity: Identity, mechanism: Mechanism, age_ms: int | None) -> Principal:
    return Principal(identity=identity, account=identity.account, user_id=identity.user_id,
                     access_key=identity.access_key, mechanism=mechanism, age_ms=age_ms)
