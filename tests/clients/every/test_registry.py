"""A Docker registry that keeps its images in the store: layers in pieces, a resumed push, manifests, tags, deletion."""

import hashlib
import json
import os
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import urljoin

from tests.clients.shell import Shell
from tests.servers import free_port

MANIFEST = "application/vnd.docker.distribution.manifest.v2+json"


class Registry:
    """What a push and a pull ask of a registry."""

    def __init__(self, url: str) -> None:
        self.url = url

    def ask(self, method: str, path: str, body: bytes | None = None, **headers: str) -> tuple[int, dict[str, str], bytes]:
        request = urllib.request.Request(urljoin(self.url, path), data=body, method=method,
                                         headers={name.replace("_", "-"): value for name, value in headers.items()})
        try:
            with urllib.request.urlopen(request, timeout=60) as answer:
                return answer.status, dict(answer.headers), answer.read()
        except urllib.error.HTTPError as error:
            with error:
                return error.code, dict(error.headers), error.read()

    def begin(self, name: str) -> str:
        status, headers, _ = self.ask("POST", f"/v2/{name}/blobs/uploads/", b"")
        assert status == 202
        return headers["Location"]

    def add(self, upload: str, start: int, piece: bytes) -> str:
        status, headers, said = self.ask("PATCH", upload, piece, Content_Type="application/octet-stream",
                                         Content_Range=f"{start}-{start + len(piece) - 1}")
        assert status == 202, said
        return headers["Location"]

    def finish(self, upload: str, digest: str) -> None:
        status, _, said = self.ask("PUT", f"{upload}&digest={digest}" if "?" in upload else f"{upload}?digest={digest}", b"")
        assert status == 201, said


@contextmanager
def registry(shell: Shell, bucket: str, port: int, folder: Path) -> Iterator[Registry]:
    settings = folder / "registry.yml"
    settings.write_text(json.dumps({                              # YAML reads JSON
        "version": 0.1, "log": {"level": "info"}, "http": {"addr": f"127.0.0.1:{port}", "secret": "shared"},
        "storage": {"delete": {"enabled": True}, "redirect": {"disable": True}, "s3": {
            "accesskey": shell.target.access_key, "secretkey": shell.target.secret_key, "region": shell.target.region,
            "regionendpoint": shell.target.url, "bucket": bucket, "secure": shell.target.secure, "v4auth": True,
            "chunksize": 5 << 20, "rootdirectory": "/images"}}}))
    # This one takes AWS_CA_BUNDLE for something that it cannot do; SSL_CERT_FILE says the same.
    with shell.start("docker-registry", "serve", settings, environment={"AWS_CA_BUNDLE": ""}) as running:
        running.wait_until(lambda: answers(port))
        yield Registry(f"http://127.0.0.1:{port}")


def answers(port: int) -> bool:
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/v2/", timeout=2) as answer:
            return bool(answer.status == 200)
    except OSError:
        return False


def digest_of(data: bytes) -> str:
    return f"sha256:{hashlib.sha256(data).hexdigest()}"


def test_an_image_is_pushed_and_pulled(shell: Shell, bucket: str, tmp_path: Path) -> None:
    shell.run("aws", "s3", "mb", f"s3://{bucket}")
    layer, config, port = os.urandom(23 << 20), b'{"architecture": "amd64", "os": "linux"}', free_port()
    with registry(shell, bucket, port, tmp_path) as hub:
        upload, start = hub.begin("team/app"), 0
        for size in (6 << 20, 1 << 20, 9 << 20):
            upload, start = hub.add(upload, start, layer[start:start + size]), start + size
    with registry(shell, bucket, port, tmp_path) as hub:          # another process goes on where the first one ended
        hub.finish(hub.add(upload, start, layer[start:]), digest_of(layer))
        hub.finish(hub.add(hub.begin("team/app"), 0, config), digest_of(config))
        manifest = json.dumps({
            "schemaVersion": 2, "mediaType": MANIFEST,
            "config": {"mediaType": "application/vnd.docker.container.image.v1+json", "size": len(config),
                       "digest": digest_of(config)},
            "layers": [{"mediaType": "application/vnd.docker.image.rootfs.diff.tar.gzip", "size": len(layer),
                        "digest": digest_of(layer)}]}).encode()
        assert hub.ask("PUT", "/v2/team/app/manifests/1.0", manifest, Content_Type=MANIFEST)[0] == 201
        # The layer for another image, without sending it again.
        assert hub.ask("POST", f"/v2/team/web/blobs/uploads/?mount={digest_of(layer)}&from=team/app", b"")[0] == 201
    with registry(shell, bucket, port, tmp_path) as hub:          # nothing but what the store holds
        assert json.loads(hub.ask("GET", "/v2/_catalog")[2])["repositories"] == ["team/app", "team/web"]
        assert json.loads(hub.ask("GET", "/v2/team/app/tags/list")[2])["tags"] == ["1.0"]
        status, headers, pulled = hub.ask("GET", "/v2/team/app/manifests/1.0", Accept=MANIFEST)
        assert (status, pulled) == (200, manifest)
        assert hub.ask("GET", f"/v2/team/app/blobs/{digest_of(layer)}")[2] == layer
        assert hub.ask("GET", f"/v2/team/web/blobs/{digest_of(layer)}", Range="bytes=100-199")[2] == layer[100:200]
        assert hub.ask("GET", f"/v2/team/app/blobs/{digest_of(b'never')}")[0] == 404
        assert hub.ask("DELETE", f"/v2/team/app/manifests/{headers['Docker-Content-Digest']}")[0] == 202
        assert hub.ask("GET", "/v2/team/app/manifests/1.0", Accept=MANIFEST)[0] == 404
    shell.run("docker-registry", "garbage-collect", tmp_path / "registry.yml", environment={"AWS_CA_BUNDLE": ""})
