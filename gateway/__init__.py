"""S3 over HTTP: the only package where S3 exists, and, being on top, the place where programs are put together.

The path of a request (docs/ARCHITECTURE.md has every step):

    http/protocol    bytes -> an exchange, served in its turn
    http/dispatcher  request id; S3's steps in order; S3Error and the world's faults become error documents here
    http/request     S3Request: raw path, query and headers, read once, frozen
    auth             whose request it is: s3/sigv4 or s3/sigv2, before anything is read or shown
    s3/operations    which of S3's operations this is
    ops/*            one function per operation: Context, S3Request -> Reply
    ops/upload       body -> decoded, hashed, cut into chunks -> durable on the quorum
    consensus        one commit, the only moment at which an object begins to exist
    http/exchange    Reply -> response
"""
