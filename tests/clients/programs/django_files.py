"""django-storages: a site's uploads: names made unique, gzip kept as it is, links by signature version 2 and 4."""

import gzip
import os
import ssl
import urllib.request

import boto3
from django.conf import settings
from django.core.files.base import ContentFile

BUCKET, CA = os.environ["BUCKET"], os.environ.get("AWS_CA_BUNDLE")
boto3.client("s3").create_bucket(Bucket=BUCKET)
settings.configure(
    AWS_STORAGE_BUCKET_NAME=BUCKET, AWS_S3_ENDPOINT_URL=os.environ["AWS_ENDPOINT_URL"], AWS_S3_FILE_OVERWRITE=False,
    AWS_IS_GZIPPED=True, AWS_S3_ADDRESSING_STYLE="path", USE_TZ=True)

from storages.backends.s3 import S3Storage  # noqa: E402 - needs the settings above

trust = ssl.create_default_context(cafile=CA) if CA else None
for version in ("s3", "s3v4"):
    storage = S3Storage(signature_version=version, location=version)
    text = "p { colour: blue } /* ü */\n" * 1000
    name = storage.save("css/a b.css", ContentFile(text.encode()))
    assert storage.exists(name)
    assert storage.save("css/a b.css", ContentFile(b"x")) != name
    with storage.open(name) as file:
        assert file.read().decode() == text
    with urllib.request.urlopen(storage.url(name), context=trust, timeout=20) as answer:
        assert answer.headers["Content-Encoding"] == "gzip"
        assert answer.headers["Content-Type"] == "text/css"
        assert gzip.decompress(answer.read()).decode() == text
    folders, files = storage.listdir("css")
    assert (folders, len(files)) == ([], 2), (folders, files)
    assert storage.size(name) < len(text)
    assert storage.get_modified_time(name)
    storage.delete(name)
    assert not storage.exists(name)
