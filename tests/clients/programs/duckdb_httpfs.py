"""DuckDB's httpfs: Parquet and CSV written and read back, patterns, partitions, a big file in parts."""

import importlib.util
import os
from pathlib import Path
from urllib.parse import urlsplit

import boto3
import duckdb

BUCKET, CA = os.environ["BUCKET"], os.environ.get("AWS_CA_BUNDLE")
where = urlsplit(os.environ["AWS_ENDPOINT_URL"])
boto3.client("s3").create_bucket(Bucket=BUCKET)

# The extension comes as a Python package of its own; DuckDB would fetch it from its makers otherwise.
packages = importlib.util.find_spec("duckdb_ext").submodule_search_locations
(extension,) = [found for folder in packages for found in Path(folder).rglob("httpfs.duckdb_extension")]
db = duckdb.connect(config={"allow_unsigned_extensions": "true"})
db.execute(f"LOAD '{extension}'")
if CA:
    db.execute(f"SET ca_cert_file = '{CA}'")
    db.execute("SET enable_server_cert_verification = true")
db.execute(f"""CREATE SECRET (TYPE s3, KEY_ID '{os.environ["AWS_ACCESS_KEY_ID"]}',
    SECRET '{os.environ["AWS_SECRET_ACCESS_KEY"]}', REGION '{os.environ["AWS_DEFAULT_REGION"]}',
    ENDPOINT '{where.netloc}', URL_STYLE 'path', USE_SSL {"true" if where.scheme == "https" else "false"})""")
db.execute("CREATE TABLE numbers AS SELECT range AS n, range % 3 AS part, md5(range::text) AS text FROM range(700000)")
total = db.execute("SELECT sum(n), count(*) FROM numbers").fetchone()

db.execute(f"COPY numbers TO 's3://{BUCKET}/big.parquet' (FORMAT parquet, COMPRESSION uncompressed)")
assert db.execute(f"SELECT sum(n), count(*) FROM 's3://{BUCKET}/big.parquet'").fetchone() == total
assert db.execute(f"SELECT text FROM 's3://{BUCKET}/big.parquet' WHERE n = 699999").fetchone() == db.execute(
    "SELECT md5('699999')").fetchone()
db.execute(f"COPY numbers TO 's3://{BUCKET}/parts' (FORMAT parquet, PARTITION_BY part)")
assert db.execute(f"SELECT count(DISTINCT part), sum(n) FROM read_parquet('s3://{BUCKET}/parts/*/*.parquet')"
                  ).fetchone() == (3, total[0])
db.execute(f"COPY (FROM numbers LIMIT 1000) TO 's3://{BUCKET}/a b+ü.csv' (HEADER)")
assert db.execute(f"SELECT sum(n) FROM 's3://{BUCKET}/a b+ü.csv'").fetchone() == (sum(range(1000)),)
assert len(db.execute(f"FROM glob('s3://{BUCKET}/**')").fetchall()) == 5
