"""What a website endpoint answers (AWS: "Hosting a static website using Amazon S3", "Website endpoints").

    redirect of everything -> routing rule for the key -> the object, or the index document of a folder
    -> else the folder itself (302), a routing rule for the error, the error document, an error page

Reads are ordinary reads by somebody anonymous: policies and access lists decide as ever, conditions and ranges count.
"""

import msgspec

from gateway.auth import ANONYMOUS, Authenticated
from gateway.http.reply import HOST_ID, head
from gateway.ops.buckets import sharing
from gateway.ops.buckets.website import KIND
from gateway.ops.context import Context, Services
from gateway.ops.objects.reading import find, get_object, head_object
from gateway.s3.body.payload import UNCHECKED
from gateway.s3.errors import S3Error
from gateway.s3.headers import REDIRECT
from gateway.s3.operations import OPERATION
from gateway.s3.reply import Reply
from gateway.s3.request import S3Request
from gateway.s3.website import configuration as website
from gateway.s3.website import pages as website_pages
from gateway.s3.website.configuration import Website
from gateway.s3.website.pages import HTML, SiteError
from gateway.website.hosts import site_of_host

METHODS = ("GET", "HEAD")

_ABOUT_THE_OBJECT = frozenset({"range", "if-match", "if-none-match", "if-modified-since", "if-unmodified-since", "if-range"})
"""Headers that speak of the object that was asked for, not of the error document that comes in its place."""

NOBODY = Authenticated(principal=ANONYMOUS, payload=UNCHECKED, headers={})
"""Whoever it is: signatures are not looked at here."""


class Sites:
    """The websites of a gateway process."""

    def __init__(self, services: Services, domains: tuple[str, ...], whole: tuple[str, ...], s3: tuple[str, ...] = ()) -> None:
        self._services, self._domains, self._whole, self._s3 = services, domains, whole, s3

    def bucket_of(self, host: str) -> str:
        """"" for a host that is no website."""
        return site_of_host(host, self._domains, self._whole, self._s3)

    async def answer(self, request: S3Request) -> tuple[Reply, str]:
        """With the code of the error that an error document stands for. Raises S3Error, ClusterError."""
        ctx = self._services.context(OPERATION[operation_of(request)], ANONYMOUS, UNCHECKED)
        if request.method == "OPTIONS":
            return await sharing.preflight(ctx, request), ""
        if request.method not in METHODS:
            raise S3Error("MethodNotAllowed", headers=(("allow", "GET, HEAD, OPTIONS"),), Method=request.method,
                          ResourceType="OBJECT")
        site = await self._site(ctx, request)
        if site.all_to:
            query = f"?{request.raw_query.decode('latin-1')}" if request.raw_query else ""
            scheme = site.all_protocol or _scheme(request)
            return _moved(301, f"{scheme}://{site.all_to}{request.raw_path.decode('latin-1')}{query}"), ""
        if rule := website.matching(site, request.key):
            return _by_rule(rule, request), ""
        is_folder = not request.key or request.key.endswith("/")
        try:
            return await _page(ctx, request, request.key + site.index if is_folder else request.key), ""
        except S3Error as error:
            if not 400 <= error.status <= 499:
                raise
            return await _instead(ctx, request, site, error, is_folder=is_folder)

    async def _site(self, ctx: Context, request: S3Request) -> Website:
        bucket = await ctx.metadata.bucket(request.bucket)
        if bucket is None:
            raise S3Error("NoSuchBucket", BucketName=request.bucket)
        site = await KIND.of(ctx.metadata, bucket.id)
        if site is None:
            raise S3Error(KIND.missing, BucketName=request.bucket)
        return site


def operation_of(request: S3Request) -> str:
    """As it is counted and logged."""
    return {"HEAD": "HeadObject", "OPTIONS": "PreflightObject"}.get(request.method, "GetObject")


def error_answer(error: S3Error, request_id: str, *, with_body: bool) -> tuple[str, bytes]:
    """Head lines and page: what gateway.http.reply.error_answer is for the REST endpoint."""
    headers = [*_headers(error), ("content-type", HTML)]
    if not with_body:
        return head(request_id, headers, None), b""
    page = website_pages.error_page(error, request_id, HOST_ID)
    return head(request_id, headers, len(page)), page


def _headers(error: S3Error) -> list[tuple[str, str]]:
    """Where a bucket is means nothing to a browser."""
    return [*(pair for pair in error.headers if pair[0] != "x-amz-bucket-region"), *website_pages.error_headers(error)]


async def _page(ctx: Context, request: S3Request, key: str) -> Reply:
    """The object, or where it says that it has gone."""
    asked = msgspec.structs.replace(request, key=key)
    if request.method == "HEAD":
        reply = await head_object(ctx, asked)
    else:
        reply = await get_object(ctx, asked)
    to = next((value for name, value in reply.headers if name == REDIRECT), None)
    if to is None:
        return reply
    if not isinstance(reply.body, bytes):
        await reply.body.aclose()  # type: ignore[attr-defined]  # streams of get_object are generators
    return _moved(301, to)


async def _instead(
    ctx: Context, request: S3Request, site: Website, error: S3Error, *, is_folder: bool,
) -> tuple[Reply, str]:
    """What is answered in the place of an error. Raises S3Error where there is nothing."""
    if not is_folder and await _is_folder(ctx, request, site):
        return _to_folder(request), ""
    if rule := website.matching(site, request.key, error.status):
        return _by_rule(rule, request), error.code
    if not site.error:
        raise error
    plain = {name: value for name, value in request.headers.items() if name not in _ABOUT_THE_OBJECT}
    try:
        reply = await _page(ctx, msgspec.structs.replace(request, headers=plain), site.error)
    except S3Error as second:
        raise SiteError(error, second) from None
    if reply.status == 200:
        reply.status = error.status
        reply.headers += _headers(error)
    return reply, error.code


async def _is_folder(ctx: Context, request: S3Request, site: Website) -> bool:
    """Whether there is no such key, but a folder of this name with a page that everybody may see."""
    bucket = await ctx.metadata.bucket(request.bucket)
    version = None if bucket is None else await ctx.metadata.current(bucket.id, request.key)
    if version is not None and not version.delete_marker:
        return False
    try:
        await find(ctx, msgspec.structs.replace(request, key=f"{request.key}/{site.index}"))
    except S3Error:
        return False
    return True


def _to_folder(request: S3Request) -> Reply:
    query = f"?{request.raw_query.decode('latin-1')}" if request.raw_query else ""
    return Reply(status=302, headers=[*website_pages.FOUND_HEADERS, ("location", website.folder_location(request.key) + query),
                                      ("content-type", HTML)], body=website_pages.found_page(request.id, HOST_ID))


def _by_rule(rule: website.Rule, request: S3Request) -> Reply:
    to = website.location(rule, _scheme(request), request.headers["host"], request.key, request.raw_query.decode("latin-1"))
    return _moved(rule.redirect.code or website.DEFAULT_CODE, to)


def _scheme(request: S3Request) -> str:
    return "https" if request.secure else "http"


def _moved(status: int, location: str) -> Reply:
    return Reply(status=status, headers=[("location", location)])
