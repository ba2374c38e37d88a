"""POST Object: a browser's form, signed by its policy, becomes an object (S3_SEMANTICS §20).

    fields of the form -> whose policy it is -> does the form keep to it -> the file as a body -> one commit -> answer
"""

import re
from collections.abc import AsyncIterator
from urllib.parse import SplitResult, quote, urlencode, urlsplit, urlunsplit

import msgspec

from consensus.core.commands import PutVersion
from consensus.core.results import Committed
from gateway.auth import Settings as AuthSettings
from gateway.form_auth import authenticate_form
from gateway.ops.access.acls import of_new_object
from gateway.ops.buckets import lifecycle
from gateway.ops.buckets.notification import origin_of
from gateway.ops.context import Context
from gateway.ops.objects.versions import new_version_id
from gateway.ops.objects.writing import put_attributes
from gateway.ops.refusals import refusal
from gateway.ops.replies import checksum_headers, object_url, written_version
from gateway.ops.uploads.bringing import bring
from gateway.ops.uploads.upload import store
from gateway.s3 import tags
from gateway.s3.body import checksums
from gateway.s3.body.form import FIELDS_BYTES_MAX, Form, boundary_of
from gateway.s3.body.payload import UNCHECKED
from gateway.s3.errors import S3Error
from gateway.s3.names import check_key
from gateway.s3.reply import XML, Reply
from gateway.s3.request import S3Request
from gateway.s3.signing import post_policy
from gateway.s3.signing.post_policy import Policy
from gateway.s3.xml import read as xml_read
from gateway.s3.xml import write as xml_write

_FILENAME = "${filename}"

TOLD_BYTES_MAX = 1 << 20
"""Of a file that is longer than its policy allows: read only to say how long it is."""

_AS_HEADERS = ("cache-control", "content-type", "content-disposition", "content-encoding", "content-language", "expires",
               "content-md5")
"""Fields that say what headers of a PUT say. All that begin with x-amz- do as well."""


async def post_object(ctx: Context, request: S3Request) -> Reply:
    """Nothing of the file is read before the policy allows it; nothing is visible before all of it is stored."""
    form = Form(request.body, boundary_of(request.headers.get("content-type", "")))
    await form.begin()
    fields = form.fields
    filename = re.split(r"[/\\]", form.filename)[-1]
    for name in fields.keys() - _SIGNED:
        fields[name] = fields[name].replace(_FILENAME, filename)
    if sum(map(len, fields.values())) > FIELDS_BYTES_MAX:
        raise S3Error("MaxPostPreDataLengthExceeded")
    key = fields.get("key", "")
    if not key:
        raise S3Error("InvalidArgument", "Bucket POST must contain a field named 'key'.  If it is specified, please "
                      "check the order of the fields.", ArgumentName="key", ArgumentValue="")
    auth = AuthSettings(region=ctx.settings.region, any_region=ctx.settings.any_region,
                        signature_v2=ctx.settings.signature_v2)
    principal = authenticate_form(fields, ctx.identities, auth, request.now_ms)
    if ctx.signers is not None:
        ctx.signers.append(principal)
    # Headers speak of the form, never of the file in it.
    ctx = msgspec.structs.replace(ctx, principal=principal, payload=UNCHECKED)
    policy = post_policy.parse(fields["policy"]) if fields.get("policy") else None
    if policy is not None:
        # The address says the bucket; a field of that name could only lie.
        post_policy.check(policy, {**fields, "bucket": request.bucket}, request.now_ms)
    request = msgspec.structs.replace(request, key=key, body=_Sized(form, policy))
    check_key(key)
    given = {name: _as_header(value) for name, value in fields.items()
             if name in _AS_HEADERS or (name.startswith("x-amz-") and name not in _UNHEARD)}
    if bad := next((name for name in given if not _TOKEN.fullmatch(name)), None):
        raise S3Error("InvalidArgument", "A field that becomes a header must be called like one.", ArgumentName=bad[:128])
    if any(name.startswith("x-amz-copy-source") for name in given):
        # A policy that allows copies alone would take the form for one.
        raise S3Error("InvalidArgument", "You can only specify a copy source header for copy requests.",
                      ArgumentName="x-amz-copy-source")
    if fields.get("acl"):
        given["x-amz-acl"] = fields["acl"]
    if fields.get("tagging"):
        given["x-amz-tagging"] = _tags(fields["tagging"])
    attributes = put_attributes(given, request.now_ms, ctx.settings.storage_classes)
    # What is decided are the fields, neither the headers of the form nor the query of its address.
    request = msgspec.structs.replace(request, headers=_for_policies(request, given), query={})
    bucket = await ctx.bucket(request)
    new = await of_new_object(ctx, bucket, key, given)
    if new.acl is not None:
        attributes = msgspec.structs.replace(attributes, acl=new.acl)
    stored = await store(ctx, request, checksums.Expected.from_headers(given).hasher(), bucket)
    outcome = await bring(
        ctx,
        PutVersion(bucket=bucket.id, key=key, version_id=new_version_id(), attributes=attributes,
                   owner=new.owner, content=stored.content, origin=origin_of(ctx, request, bucket, "ObjectCreated:Post")),
        stored.ticket, bucket,
    )
    if not isinstance(outcome, Committed):
        raise refusal(outcome, request)
    reply = _answer(request, fields, outcome)
    if bucket.lifecycle:
        reply.headers += await lifecycle.expiration(
            ctx, bucket, key, outcome.modified_ms, stored.content.size, attributes.tags)
    return reply


def _for_policies(request: S3Request, given: dict[str, str]) -> dict[str, str]:
    """The headers as policies see them: what the fields say, and of the form's own only what is about the sender. A form has no
    conditions, so none may be taken for met."""
    own = {name: value for name, value in request.headers.items() if not name.startswith(("x-amz-", "if-"))}
    return {**own, **given}


_SIGNED = frozenset({"policy", "signature", "x-amz-signature"})

_TOKEN = re.compile(r"[!#$%&'*+\-.^_`|~0-9a-z]+")
"""What a header may be called (RFC 9110 §5.6.2). A field of a form could be called anything."""

_UNHEARD = frozenset({
    "x-amz-algorithm", "x-amz-credential", "x-amz-date", "x-amz-signature", "x-amz-security-token", "x-amz-content-sha256",
})
"""Fields that say nothing about the object: those of the signature, and a digest that nobody would compare (policies may ask
for one)."""


class _Sized:
    """The file, held to the policy's content-length-range: too long shows as soon as it is, too short at the end."""

    def __init__(self, form: Form, policy: Policy | None) -> None:
        self.length: int | None = None
        self._form = form
        self._least = policy.size_min if policy is not None else None
        self._most = policy.size_max if policy is not None else None

    def __aiter__(self) -> AsyncIterator[bytes]:
        return self._checked()

    async def _checked(self) -> AsyncIterator[bytes]:
        size = 0
        async for piece in self._form:
            size += len(piece)
            if self._most is not None and size > self._most:
                # What is told is the file's size; of one that is much too long, as far as anybody wants to read.
                async for further in self._form:
                    size += len(further)
                    if size > self._most + TOLD_BYTES_MAX:
                        break
                raise S3Error("EntityTooLarge", ProposedSize=size, MaxSizeAllowed=self._most)
            yield piece
        if self._least is not None and size < self._least:
            raise S3Error("EntityTooSmall", ProposedSize=size, MinSizeAllowed=self._least)

    async def read(self, limit: int) -> bytes:
        return b"".join([piece async for piece in self])


def _as_header(value: str) -> str:
    """Header text is latin-1 by decoding only; what a form says is UTF-8."""
    return value if value.isascii() else value.encode().decode("latin-1")


def _tags(document: str) -> str:
    """The document of a form as the header of a PUT, so that policies see its tags whatever they allow or deny."""
    wanted = xml_read.tagging(document.encode())
    tags.check(wanted, tags.OBJECT_TAGS_MAX)
    return urlencode(wanted)


def _redirect(fields: dict[str, str]) -> SplitResult:
    try:
        return urlsplit(quote(fields.get("success_action_redirect") or fields.get("redirect") or "", safe=_URL_SAFE))
    except ValueError:
        return urlsplit("")              # as one that is no http address: the object is stored


_URL_SAFE = "%:/?#[]@!$&'()*+,;=-._~"


def _answer(request: S3Request, fields: dict[str, str], outcome: Committed) -> Reply:
    etag = f'"{outcome.etag}"'
    url = object_url(request)
    said = [("etag", etag), ("location", url), *checksum_headers(outcome.checksum), *written_version(outcome.version_id)]
    redirect = _redirect(fields)
    if redirect.scheme in ("http", "https") and redirect.netloc:
        more = urlencode({"bucket": request.bucket, "key": request.key, "etag": etag})
        query = f"{redirect.query}&{more}" if redirect.query else more
        return Reply(status=303, headers=[("etag", etag), ("location", urlunsplit(redirect._replace(query=query)))])
    status = fields.get("success_action_status")
    if status == "201":
        body = xml_write.post_response(url=url, bucket=request.bucket, key=request.key, etag=outcome.etag)
        return Reply(status=201, headers=[("content-type", XML), *said], body=body)
    return Reply(status=200 if status == "200" else 204, headers=said)
