"""A configuration full of mistakes: each is refused by a sentence that names the key and where it was set."""

from pathlib import Path

import pytest

from consensus.core.settings import SettingsError, load
from gateway.config import ROOT_VARIABLES, Config

IDENTITY = 'name = "x"\naccount = "1"\nuser_id = "u"\naccess_key = "a"\nsecret_key = "s"\n'


def loaded(folder: Path, toml: str = "", environ: dict[str, str] | None = None, **overrides: object) -> Config:
    file = folder / "staddle.toml"
    file.write_bytes(toml.encode("utf-8", "surrogateescape"))
    return load(Config, file=file, environ=environ or {}, overrides=overrides, other_variables=ROOT_VARIABLES)


def refused(folder: Path, toml: str = "", environ: dict[str, str] | None = None, **overrides: object) -> str:
    with pytest.raises(SettingsError) as caught:
        loaded(folder, toml, environ, **overrides)
    return str(caught.value)


@pytest.mark.parametrize(("toml", "says"), [
    ("nope = 1", "unknown setting 'nope' (in {file}). docs/CONFIGURATION.md lists them all."),
    ('regoin = "x"', "unknown setting 'regoin' (in {file}). Did you mean 'region'?"),
    ("[server]\nlisten = 1", "unknown setting 'server' (in {file})"),
    ("listen = 9000", "setting 'listen' (in {file}): must be text, not a whole number"),
    ('listen = "9000"', "setting 'listen': '9000' is not HOST:PORT"),
    ('listen = "127.0.0.1:70000"', "setting 'listen': '127.0.0.1:70000' is not HOST:PORT"),
    ('workers = "two"', "setting 'workers' (in {file}): must be a whole number, not text"),
    ("workers = 1.5", "setting 'workers' (in {file}): must be a whole number, not a number with a point"),
    ("workers = -1", "setting 'workers': -1 is not between 0 and 256"),
    ("workers = 99999999999999999999999", "is not between 0 and 256"),
    ("copies = 0", "setting 'copies': 0 is not between 1 and 9"),
    ("copies = true", "setting 'copies' (in {file}): must be a whole number, not true or false"),
    ("shutdown_seconds = 0", "setting 'shutdown_seconds': 0 is not between 1 and 3600"),
    ('chunk_bytes = "64 potatoes"', "setting 'chunk_bytes' (in {file}): '64 potatoes' is not a size"),
    ("chunk_bytes = 5", "setting 'chunk_bytes': 5 is not between 1MiB and 1GiB"),
    ("chunk_bytes = true", "setting 'chunk_bytes' (in {file}): a size is a number of bytes or a text"),
    ('replication = "fast"', "setting 'replication' (in {file}): 'fast' is not one of 'sync', 'async', 'all'"),
    ('signature_v2 = "maybe"', "setting 'signature_v2' (in {file}): must be true or false, not text"),
    ('domains = "s3.example.com"', "setting 'domains' (in {file}): must be a list, not text"),
    ('domains = ["https://s3.example.com"]', "setting 'domains': 'https://s3.example.com' is not a host name"),
    ('website_domains = ["S3.example.com"]', "setting 'website_domains': 'S3.example.com' is not a host name in lower case"),
    ('domains = ["s.test"]\nwebsite_domains = ["s.test"]', "setting 'website_domains': 's.test' is in 'domains' too"),
    ('domains = ["S3.example.com"]', "setting 'domains': 'S3.example.com' is not a host name in lower case"),
    ('region = ""', "setting 'region': ''"), ('region = "a/b"', "setting 'region': 'a/b'"),
    ("data = []", "setting 'data': at least one"), ('data = "d"', "setting 'data' (in {file}): must be a list, not text"),
    ('data = [""]', "setting 'data' (in {file}): entry 1: a path is text that is not empty"),
    ('data = ["a", "./a"]', "setting 'data': the same folder is given twice"),
    ('data = ["a", "a/chunks"]', "lies inside"),
    ('tls_cert = "c.pem"', "settings 'tls_cert' and 'tls_key' belong together"),
    ('[identity]\nname = "x"', "must be a list, not a table: write [[double brackets]] around its name"),
    ('[[identity]]\nname = "x"', "setting 'identity' (in {file}): entry 1: account is missing"),
    ("[[identity]]\n" + IDENTITY + 'sekret = "s"', "entry 1 has an unknown key 'sekret'. Did you mean 'secret_key'?"),
    ("[[identity]]\n" + IDENTITY.replace('"1"', "1"), "entry 1: account must be text, not a whole number"),
    ("[[identity]]\n" + IDENTITY.replace('"s"', '""'), "secret_key must not be empty"),
    (f"[[identity]]\n{IDENTITY}[[identity]]\n{IDENTITY}", "the access key 'a' is given twice"),
    ("[[identity]]\n" + IDENTITY + 'policies = ["readonly"]', "a policy of 'x' is neither JSON nor one of AmazonS3Full"),
    ('[webhooks.a]\nurll = "http://a/"', "entry 'a': has an unknown key 'urll'. Did you mean 'url'?"),
    ('name = "N1"', "setting 'name': 'N1' is not 1 to 32 of a-z, 0-9 and '-'"),
    ('cluster_listen = "n1"', "setting 'cluster_listen': 'n1' is not HOST:PORT"),
    ('cluster_listen = "n1:0"', "choose a lower one, not 0"), ('cluster_listen = "n1:65500"', "choose a lower one, not 0"),
    ('cluster_listen = "0.0.0.0:9400"', "setting 'cluster_address': others cannot dial the host in 'cluster_listen'"),
    ('cluster_listen = "n1:9400"\ncluster_address = "a b"', "setting 'cluster_address': 'a b' is not a host name"),
    ('peers = ["n2:9400"]', "setting 'peers': it is of use only in a cluster, with 'cluster_listen'"),
    ("initial = true", "setting 'initial': it is of use only in a cluster"),
    ('roles = ["node"]', "setting 'roles': it is of use only in a cluster"),
    ('roles = ["disk"]', "setting 'roles': 'disk' is not one of"), ("roles = []", "setting 'roles': give each role"),
    ('cluster_listen = "n1:9400"\npeers = ["n2"]', "setting 'peers': 'n2' is not HOST:PORT"),
    ('metrics_listen = "127.0.0.1:9000"', "setting 'metrics_listen': port 9000 is that of 'listen'"),
    ('metrics_listen = "0.0.0.0:9000"', "setting 'metrics_listen': port 9000 is that of 'listen'"),
    ("meta_members = 4", "give an odd number"), ("meta_members = 0", "setting 'meta_members': 0 is not between 1 and 9"),
    ("region", "is not TOML"), ("region = \udcff", "is not TOML"), ('region = "a"\nregion = "b"', "is not TOML"),
])
def test_mistakes_in_the_file(tmp_path: Path, toml: str, says: str) -> None:
    assert says.format(file=tmp_path / "staddle.toml") in refused(tmp_path, toml)


def test_mistakes_in_the_environment(tmp_path: Path) -> None:
    assert "unknown setting 'wokers' (from STADDLE_WOKERS). Did you mean 'workers'?" in refused(
        tmp_path, environ={"STADDLE_WOKERS": "1"})
    assert "setting 'workers' (from STADDLE_WORKERS): must be a whole number, not text" in refused(
        tmp_path, environ={"STADDLE_WORKERS": "two"})
    assert loaded(tmp_path, environ={"STADDLE_SIGNATURE_V2": "off"}).signature_v2 is False
    assert loaded(tmp_path, environ={"STADDLE_DOMAINS": "a.test, b.test"}).domains == ("a.test", "b.test")
    assert loaded(tmp_path, environ={"STADDLE_ROOT_ACCESS_KEY": "x", "STADDLE_TEST_X": "1"}).region == "us-east-1"


def test_a_mistake_that_something_later_replaces_is_still_said(tmp_path: Path) -> None:
    """Else it comes up on the day when the other is taken away."""
    assert "setting 'listen' (in " in refused(tmp_path, "listen = 9000", listen="127.0.0.1:9000")
    assert loaded(tmp_path, 'region = "a"', {"STADDLE_REGION": "b"}, region="c").region == "c"


def test_a_file_that_cannot_be_read(tmp_path: Path) -> None:
    for file in (tmp_path / "nowhere.toml", tmp_path):
        with pytest.raises(SettingsError, match="cannot read the configuration file"):
            load(Config, file=file, environ={}, overrides={})
