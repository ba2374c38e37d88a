"""A request's body: how it is announced, framed (aws-chunked, forms) and checked."""
