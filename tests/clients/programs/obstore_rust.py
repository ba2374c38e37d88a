"""obstore (the Rust crate object_store): conditional writes, streams, ranges, lists, moves, links, bulk deletes."""

import os
import urllib.request
from datetime import timedelta

import boto3
import obstore
from obstore.exceptions import AlreadyExistsError, NotFoundError, PreconditionError
from obstore.store import S3Store

BUCKET = os.environ["BUCKET"]
boto3.client("s3").create_bucket(Bucket=BUCKET)
store = S3Store(BUCKET, endpoint=os.environ["AWS_ENDPOINT_URL"], region=os.environ["AWS_DEFAULT_REGION"],
                client_options={"allow_http": True})

put = obstore.put(store, "counter", b"1", mode="create")
try:
    obstore.put(store, "counter", b"2", mode="create")
    raise AssertionError("an existing key was created")
except AlreadyExistsError:
    pass
second = obstore.put(store, "counter", b"2", mode={"e_tag": put["e_tag"]})
try:
    obstore.put(store, "counter", b"3", mode={"e_tag": put["e_tag"]})
    raise AssertionError("an old ETag was taken for the current one")
except PreconditionError:
    pass
assert bytes(obstore.get(store, "counter").bytes()) == b"2"
big = os.urandom(17 << 20)
obstore.put(store, "big", big)
assert bytes(obstore.get_range(store, "big", start=9 << 20, length=100)) == big[9 << 20:(9 << 20) + 100]
assert [bytes(piece) for piece in obstore.get_ranges(store, "big", starts=[0, 12 << 20], lengths=[10, 10])] == [
    big[:10], big[12 << 20:(12 << 20) + 10]]
assert b"".join(bytes(piece) for piece in obstore.get(store, "big")) == big
with obstore.open_writer(store, "written") as out:
    out.write(big)
assert obstore.head(store, "written")["size"] == len(big)
names = [f"many/{number:03} ü+&%" for number in range(30)]
for name in names:
    obstore.put(store, name, name.encode())
assert sorted(item["path"] for page in obstore.list(store, "many") for item in page) == names
assert obstore.list_with_delimiter(store)["common_prefixes"] == ["many"]
obstore.copy(store, names[0], "copied")
obstore.rename(store, "copied", "renamed")
assert bytes(obstore.get(store, "renamed").bytes()) == names[0].encode()
if os.environ["AWS_ENDPOINT_URL"].startswith("http:"):
    link = obstore.sign(store, "GET", "renamed", timedelta(minutes=1))
    with urllib.request.urlopen(link, timeout=20) as answer:
        assert answer.read() == names[0].encode()
obstore.delete(store, [*names, "never there"])
assert not [item for page in obstore.list(store, "many") for item in page]
try:
    obstore.get(store, names[0])
    raise AssertionError("a deleted key was read")
except (NotFoundError, FileNotFoundError):
    pass
