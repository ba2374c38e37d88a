"""One function per operation: `async def op(ctx: Context, request: S3Request) -> Reply`; one file per topic.

`HANDLERS` finds the function by the operation's name in the table (gateway/s3/operations.py); every name has one.
An operation reads as its steps. What S3 calls an outcome is decided here: lower packages know no S3 errors, and
gateway/s3 knows no outcomes.
"""

from collections.abc import Awaitable, Callable

from gateway.ops.context import Context
from gateway.s3.reply import Reply
from gateway.s3.request import S3Request

Handler = Callable[[Context, S3Request], Awaitable[Reply]]

HANDLERS: dict[str, Handler] = {}
"""Operation name, as in the table, to its function."""
