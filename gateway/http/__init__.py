"""The edge: HTTP in, S3 requests to the dispatcher, replies out. The only folder that knows uvicorn and Starlette.

Nouns: a *connection* (protocol.py) parses and keeps the order of requests; an *exchange* (exchange.py) is one request
and its answer; its *body* (body.py) is pulled, so a slow reader slows the sender; large bodies go round the parser into
reused buffers (raw.py, buffers.py). The *dispatcher* (dispatcher.py) takes an exchange through S3's steps.

Rules: what is not plainly HTTP/1.1 is refused and the connection closed (no two readings of one byte stream);
everything a client can make us hold or wait for has a limit (limits.py); nothing is asked of the body before the
request is authenticated.
"""
