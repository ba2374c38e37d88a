"""polars (object_store): Parquet and CSV written, scanned with a filter, and found by a pattern."""

import os

import boto3
import polars as pl

BUCKET = os.environ["BUCKET"]
options = {"aws_endpoint_url": os.environ["AWS_ENDPOINT_URL"], "aws_region": os.environ["AWS_DEFAULT_REGION"],
           "aws_access_key_id": os.environ["AWS_ACCESS_KEY_ID"],
           "aws_secret_access_key": os.environ["AWS_SECRET_ACCESS_KEY"],
           "aws_allow_http": "true"}

s3 = boto3.client("s3")
s3.create_bucket(Bucket=BUCKET)
frame = pl.DataFrame({"n": range(200_000), "text": ["ünï"] * 200_000})
for part in range(3):
    frame.with_columns(part=part).write_parquet(f"s3://{BUCKET}/set/{part}.parquet", storage_options=options)
scanned = pl.scan_parquet(f"s3://{BUCKET}/set/*.parquet", storage_options=options)
assert scanned.select(pl.len()).collect().item() == 600_000
assert scanned.filter(pl.col("n") == 199_999).select(pl.col("part").sum()).collect().item() == 3
frame.lazy().sink_csv(f"s3://{BUCKET}/rows.csv", storage_options=options)
assert pl.scan_csv(f"s3://{BUCKET}/rows.csv", storage_options=options).select(pl.col("n").sum()).collect().item() == sum(
    range(200_000))
