"""Access logs of buckets in a whole server: recorded by whichever worker serves, delivered when an admin asks."""

import json
import time
from typing import Any

from tests.admin.asking import ask, done
from tests.admin.running import Staddle
from tests.servers import StaddleProcess

PATIENCE_S = 15.0


def test_logs_are_delivered_when_asked_for(server: StaddleProcess, s3: Any) -> None:
    s3.create_bucket(Bucket="logged-bucket")
    s3.create_bucket(Bucket="log-bucket")
    s3.put_bucket_policy(Bucket="log-bucket", Policy=json.dumps({"Version": "2012-10-17", "Statement": [
        {"Effect": "Allow", "Principal": {"Service": "logging.s3.amazonaws.com"}, "Action": "s3:PutObject",
         "Resource": "arn:aws:s3:::log-bucket/*"}]}))
    s3.put_bucket_logging(Bucket="logged-bucket", BucketLoggingStatus={
        "LoggingEnabled": {"TargetBucket": "log-bucket", "TargetPrefix": ""}})
    deadline = time.monotonic() + PATIENCE_S
    sent = written = 0
    while not written:                       # the worker that serves may not know of it yet
        assert time.monotonic() < deadline
        sent += s3.head_bucket(Bucket="logged-bucket")["ResponseMetadata"]["HTTPStatusCode"] == 200
        written = done(server, "POST", "bucket/flush-logs")["objects"]
    key = s3.list_objects_v2(Bucket="log-bucket")["Contents"][0]["Key"]
    lines = s3.get_object(Bucket="log-bucket", Key=key)["Body"].read().decode().splitlines()
    assert 1 <= len(lines) <= sent
    assert all(" logged-bucket " in line and " REST.HEAD.BUCKET " in line for line in lines)
    assert "staddle_bucket_log_objects_total" in ask(server, "GET", "metrics", prefix="/-/").body.decode()
    ran = Staddle(server.endpoint)("bucket", "flush-logs")
    assert (ran.status, ran.out) == (0, "0 objects written to target buckets.\n")
