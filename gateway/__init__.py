"""S3 over HTTP: the only package where S3 exists, and, being on top, the place where programs are put together.

The path of a request:

    http/app      request id, deadline
    s3/request    S3Request: raw path, query and headers, read once, frozen
    s3/operations which of S3's operations this is
    auth          whose request it is: s3/sigv4 or s3/sigv2, before anything is read or shown
    ops/*         one function per operation: Context, S3Request -> Reply
    ops/upload    body -> decoded, hashed, cut into chunks -> durable on the quorum
    consensus     one commit, the only moment at which an object begins to exist
    http/app      Reply or S3Error -> response
"""
