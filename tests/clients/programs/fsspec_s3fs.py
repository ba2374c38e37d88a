"""s3fs (fsspec, aiobotocore): what pandas, dask and DVC call: folders, globs, appends, moves, exclusive creation."""

import os

import s3fs

BUCKET, CA = os.environ["BUCKET"], os.environ.get("AWS_CA_BUNDLE")
fs = s3fs.S3FileSystem(endpoint_url=os.environ["AWS_ENDPOINT_URL"], client_kwargs={"verify": CA} if CA else {})

fs.mkdir(BUCKET)
big = os.urandom(11 << 20)
with fs.open(f"{BUCKET}/d/big", "wb", block_size=5 << 20) as file:
    for start in range(0, len(big), 1 << 20):
        file.write(big[start:start + (1 << 20)])
with fs.open(f"{BUCKET}/d/big", "rb") as file:
    file.seek(6 << 20)
    assert file.read(1000) == big[6 << 20:(6 << 20) + 1000]
assert fs.cat(f"{BUCKET}/d/big") == big
with fs.open(f"{BUCKET}/d/big", "ab") as file:
    file.write(b"appended")
fs.invalidate_cache()
assert fs.cat(f"{BUCKET}/d/big") == big + b"appended"
fs.pipe({f"{BUCKET}/d/{name}": name.encode() for name in ("one", "two ü", "e/three")})
assert sorted(fs.glob(f"{BUCKET}/d/**"))
assert f"{BUCKET}/d/e/three" in fs.find(f"{BUCKET}/d")
assert fs.isdir(f"{BUCKET}/d/e")
assert not fs.exists(f"{BUCKET}/d/f")
assert fs.info(f"{BUCKET}/d/two ü")["size"] == len("two ü".encode())
try:
    fs.pipe_file(f"{BUCKET}/d/one", b"again", mode="create")
    raise AssertionError("an existing file was created")
except FileExistsError:
    pass
fs.mv(f"{BUCKET}/d/one", f"{BUCKET}/moved")
assert not fs.exists(f"{BUCKET}/d/one")
assert fs.cat(f"{BUCKET}/moved") == b"one"
os.makedirs("up/sub", exist_ok=True)
for name in ("a", "sub/b"):
    with open(f"up/{name}", "wb") as file:
        file.write(name.encode() * 1000)
fs.put("up/", f"{BUCKET}/tree/", recursive=True)
fs.get(f"{BUCKET}/tree/", "down/", recursive=True)
with open("down/sub/b", "rb") as file:
    assert file.read() == b"sub/b" * 1000
fs.touch(f"{BUCKET}/empty")
assert fs.size(f"{BUCKET}/empty") == 0
fs.setxattr(f"{BUCKET}/moved", colour="blue")
assert fs.getxattr(f"{BUCKET}/moved", "colour") == "blue"
assert "X-Amz-Signature" in fs.sign(f"{BUCKET}/moved") or "Signature=" in fs.sign(f"{BUCKET}/moved")
fs.rm(BUCKET, recursive=True)
fs.invalidate_cache()
assert not fs.exists(BUCKET)
