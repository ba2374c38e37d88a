"""S3 itself, for commands that move bytes: a boto3 client with the command's endpoint and keys, and its errors in words."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

from gateway.cli.connection import Connection
from gateway.cli.keys import CommandError

CONNECT_TIMEOUT_S = 5.0


class Place(NamedTuple):
    """``s3://bucket/key``. `key` is empty for a bucket."""

    bucket: str
    key: str

    def __str__(self) -> str:
        return f"s3://{self.bucket}/{self.key}"


def is_place(text: str) -> bool:
    return text.startswith("s3://")


def place(text: str, *, key: bool) -> Place:
    """`key`: whether it must name an object. Raises CommandError."""
    if not is_place(text):
        raise CommandError(f"{text!r} is not of the form s3://bucket/key.", status=2)
    bucket, _, rest = text.removeprefix("s3://").partition("/")
    if not bucket:
        raise CommandError(f"{text!r} names no bucket: s3://bucket/key is wanted.", status=2)
    if key and not (bucket and rest):
        raise CommandError(f"{text!r} names no object: s3://bucket/key is wanted.", status=2)
    return Place(bucket, rest)


def versioned(version_id: str) -> dict[str, str]:
    """What a request says besides of the version that is meant: nothing for the current one."""
    return {"VersionId": version_id} if version_id else {}


def client(server: Connection) -> Any:
    """For the same server with the same keys, in the server's own region: an answer to anybody tells which it is."""
    from botocore.exceptions import ClientError

    with explained(server, server.endpoint):
        made = _client(server)
        try:
            made.list_buckets(MaxBuckets=1)
        except ClientError as error:            # what else is wrong, the command itself will meet
            region = error.response["Error"].get("Region")
            if region:
                server.region = str(region)
                made = _client(server)
    return made


def _client(server: Connection) -> Any:
    """boto3 is imported by this call. Everything is given to it: what it would find for itself, in variables and profiles and
    as proxies, the commands that ask the admin API do not heed either."""
    import boto3
    from botocore.config import Config
    from botocore.session import Session

    unset = {name: (None, None, default, kind) for name, (_, _, default, kind) in Session.SESSION_VARIABLES.items()}
    nobody = Session({**unset, **dict.fromkeys(("config_file", "credentials_file"), (None, None, os.devnull, None))})
    config = Config(s3={"addressing_style": "path"}, retries={"max_attempts": 4, "mode": "standard"},
                    connect_timeout=CONNECT_TIMEOUT_S, user_agent_extra="staddle-cli", proxies={})
    return boto3.Session(botocore_session=nobody).client(
        "s3", endpoint_url=server.endpoint, aws_access_key_id=server.keys.access_key,
        aws_secret_access_key=server.keys.secret_key, region_name=server.region,
        verify=str(server.ca_bundle) if server.ca_bundle else True, config=config)


@contextmanager
def explained(server: Connection, what: object, key: object = None) -> Iterator[None]:
    """What boto3 raises about `what` (a bucket or an object) becomes a CommandError. `key`: the object that may be missing."""
    from boto3.exceptions import Boto3Error
    from botocore.exceptions import (
        BotoCoreError,
        ClientError,
        ConnectionError,
        HTTPClientError,
        IncompleteReadError,
        ResponseStreamingError,
    )

    try:
        yield
    except (IncompleteReadError, ResponseStreamingError):
        raise CommandError(
            f"the server broke off in the middle of {what}. If it happens again, `staddle object verify {what}` tells whether "
            "its bytes are damaged.") from None
    except (ConnectionError, HTTPClientError) as error:
        raise server.no_answer(error) from None
    except ClientError as error:
        given = error.response["Error"]
        code, message = given.get("Code", ""), given.get("Message", "")
        whose = f"the access key {server.keys.access_key} (from {server.keys.source})"
        known = {
            "NoSuchBucket": f"there is no bucket for {what}; `staddle bucket list` shows them.",
            "NoSuchKey": f"there is no object {key or what}; `staddle object ls` shows them.",
            "404": f"there is no object {what}; `staddle object ls` shows them.",
        }
        if code in ("AccessDenied", "403") and "object lock" not in message:
            raise CommandError(
                f"{whose} may not do this with {what}: policies of its user or of the bucket do not allow it, or the bucket "
                "belongs to another account. An admin's `staddle explain` tells.", code=code) from None
        if "damaged" in message:
            raise CommandError(f"{what} is damaged: nothing is given out. `staddle fsck` says what to do.", code=code) from None
        if "object lock" in message:
            raise CommandError(f"{what} is protected by a retention or a legal hold.", code=code) from None
        raise CommandError(known.get(code) or server.advice(code, None) or f"{what}: {code}: {message}", code=code) from None
    except (BotoCoreError, Boto3Error) as error:
        raise CommandError(f"{what}: {error}") from None
