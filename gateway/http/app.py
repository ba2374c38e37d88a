"""One application: Starlette's routes under `/-/`, and S3 for everything else.

No bucket can be called `-`, so the first bytes of the path decide; with a bucket in the Host header the path is a key,
whatever it looks like. The S3 path is asked first and never enters Starlette: its router costs more than all of ours.
"""

from collections.abc import Coroutine, Mapping, Sequence
from typing import Any

from starlette.applications import Starlette
from starlette.routing import BaseRoute

from gateway.auth import Settings as AuthSettings
from gateway.bucket_log.recorder import BucketLogs
from gateway.http import asgi, health
from gateway.http.asgi import AsgiExchange, Receive, Scope, Send
from gateway.http.dispatcher import Dispatcher
from gateway.http.exchange import Exchange
from gateway.http.health import Ready
from gateway.http.server_log import ServerLog
from gateway.metrics.counters import Counters
from gateway.ops.context import Handler, Services
from gateway.s3.names import bucket_of_host
from gateway.website.endpoint import Sites

OURS = b"/-/"


def build(
    services: Services, handlers: Mapping[str, Handler], *, auth: AuthSettings, ready: Ready,
    domains: tuple[str, ...] = (),
    requests_max: int = 1024, routes: Sequence[BaseRoute] = (), counters: Counters | None = None,
    server_log: ServerLog | None = None, website_domains: tuple[str, ...] = (), website_hosts: tuple[str, ...] = (),
    bucket_logs: BucketLogs | None = None,
) -> "Application":
    """The application of a gateway process. `ready`: whether it can read and write now. `routes`: more under `/-/`."""
    sites = Sites(services, website_domains, website_hosts, domains) if website_domains or website_hosts else None
    dispatcher = Dispatcher(services, handlers, auth=auth, domains=domains, requests_max=requests_max, counters=counters,
                            server_log=server_log, sites=sites, bucket_logs=bucket_logs)
    return Application(dispatcher, [*health.routes(ready), *routes], domains, sites)


class Application:
    """An ASGI application; our own connections call `serve`, which saves building a scope. `routes` lie under `/-/`:
    health, admin and what else `build` is given."""

    def __init__(self, dispatcher: Dispatcher, routes: Sequence[BaseRoute], domains: tuple[str, ...] = (),
                 sites: Sites | None = None) -> None:
        self._dispatcher = dispatcher
        self._sites = sites
        self._domains = domains
        self._starlette = Starlette(routes=list(routes))
        self._starlette.router.redirect_slashes = False      # it would send clients to wherever their Host header says
        self._serve_ours = asgi.serving(self._starlette)

    def serve(self, exchange: Exchange) -> Coroutine[Any, Any, None]:
        if exchange.target.startswith(OURS) and not self._names_bucket(exchange.headers["host"]):
            return self._serve_ours(exchange)
        return self._dispatcher.serve(exchange)

    @property
    def in_flight(self) -> int:
        """S3 requests under way."""
        return self._dispatcher.in_flight

    def stopped(self) -> None:
        """The listener calls it when the last request has been served."""
        self._dispatcher.flush_log()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._starlette(scope, receive, send)
            return
        exchange = AsgiExchange(scope, receive, send)
        if exchange.target.startswith(OURS) and not self._names_bucket(exchange.headers["host"]):
            await self._starlette(scope, receive, send)
        else:
            await self._dispatcher.serve(exchange)

    def _names_bucket(self, host: str) -> bool:
        return (bool(self._domains) and bool(bucket_of_host(host, self._domains))) or (
            self._sites is not None and bool(self._sites.bucket_of(host)))
