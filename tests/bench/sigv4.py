"""What verifying a signature costs, and decoding an aws-chunked body: ``python -m tests.bench.sigv4``.

Goals: 8 µs for a header of version 4 whose key is cached, 11 µs for a presigned URL, 2 GB/s for unsigned chunks of
64 KiB.
Figures are the best of several rounds, since other work on the machine only ever adds.
"""

import functools
import timeit
from collections.abc import Callable

from gateway.auth import Settings, authenticate
from gateway.identities import Identity, IdentityStore
from gateway.s3.body.chunked import Framing, Signing
from gateway.s3.signing import sigv4
from tests.s3_requests import s3_request
from tests.signing import ChunkSigner, Keys, presign, presign_v2, scope, sign_request, sign_request_v2

ROUNDS, CALLS = 7, 5_000
NOW_S = 1_767_323_045
DATE = "20260102T030405Z"
KEYS = Keys()
URL = "http://127.0.0.1:9000/bucket/k0000001"
USUAL = {"user-agent": "aws-sdk/1", "accept-encoding": "identity", "accept": "*/*"}
BODY_BYTES = 64 << 20
CRC = "x-amz-checksum-crc32"


def best_s(call: Callable[[], object], calls: int) -> float:
    return min(timeit.repeat(call, number=calls, repeat=ROUNDS)) / calls


def bench_signatures() -> None:
    store = IdentityStore([
        Identity(name="a", account="a", user_id="a", access_key=KEYS.access_key, secret_key=KEYS.secret_key)
    ])
    settings = Settings()
    listing = "http://127.0.0.1:9000/bucket?list-type=2&prefix=a%2Fb&delimiter=%2F&encoding-type=url"
    requests = {
        "version 4, header, GET": s3_request("GET", URL, sign_request("GET", URL, USUAL, keys=KEYS, now_s=NOW_S)),
        "version 4, header, list": s3_request(
            "GET", listing, sign_request("GET", listing, USUAL, keys=KEYS, now_s=NOW_S)
        ),
        "version 4, presigned GET": s3_request("GET", presign("GET", URL, keys=KEYS, now_s=NOW_S), USUAL),
        "version 2, header, GET": s3_request("GET", URL, sign_request_v2("GET", URL, USUAL, keys=KEYS, now_s=NOW_S)),
        "version 2, presigned GET": s3_request("GET", presign_v2("GET", URL, keys=KEYS, expires_at_s=NOW_S), USUAL),
        "anonymous": s3_request("GET", URL, USUAL),
    }
    for name, request in requests.items():
        seconds = best_s(functools.partial(authenticate, request, store, settings, NOW_S * 1000), CALLS)
        print(f"{name:28} {seconds * 1e6:8.2f} µs")


def bench_chunks(chunk_bytes: int, *, signed: bool) -> None:
    count = BODY_BYTES // chunk_bytes
    data = bytes(chunk_bytes)
    signing = None
    if signed:
        key = sigv4.signing_key(KEYS.secret_key, DATE[:8], KEYS.region, KEYS.service)
        signing = Signing(key=key, date=DATE, scope=scope(KEYS, DATE), seed="0" * 64)
        chain = ChunkSigner(keys=KEYS, date=DATE, seed="0" * 64)
        body = b"".join(chain.chunk(data) for _ in range(count)) + chain.last_with_trailers({CRC: "AAAAAA=="})
    else:
        body = (b"%x\r\n%s\r\n" % (chunk_bytes, data)) * count + b"0\r\n%s:AAAAAA==\r\n\r\n" % CRC.encode()
    framing = Framing(decoded_length=BODY_BYTES, may_trail=True, trailers=(CRC,), signing=signing)
    view = memoryview(body)
    pieces = [view[at : at + (256 << 10)] for at in range(0, len(body), 256 << 10)]

    def decode() -> None:
        decoder = framing.decoder()
        for piece in pieces:
            decoder.feed(piece)
        decoder.finish()

    name = f"{'signed' if signed else 'unsigned'} chunks of {chunk_bytes >> 10} KiB"
    print(f"{name:28} {BODY_BYTES / best_s(decode, 1) / 1e9:8.2f} GB/s")


def main() -> None:
    bench_signatures()
    for chunk_bytes in (8 << 10, 64 << 10, 1 << 20):
        bench_chunks(chunk_bytes, signed=False)
    for chunk_bytes in (8 << 10, 64 << 10, 1 << 20):
        bench_chunks(chunk_bytes, signed=True)


if __name__ == "__main__":
    main()
