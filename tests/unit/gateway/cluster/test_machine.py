"""Who a machine is: its name for good, its ports, its peers, and folders that are not taken for others."""

import subprocess
import sys
from pathlib import Path

import pytest

from consensus.core.errors import Refused
from consensus.endings import EXIT_RESTART
from gateway.cli.running import prepared
from gateway.cluster import beginning
from gateway.cluster.beginning import begin, join_with
from gateway.cluster.machine import Machine, door_of, machine_of, remember_peers
from gateway.cluster.tokens import new_token
from gateway.config import Config
from gateway.folders import FolderError, Folders, cluster_secret, prepare, secret_of
from gateway.launch import EX_RESTART, launches
from gateway.roles import build
from tests.servers import ROOT as ROOT_FOLDER
from tests.unit.gateway.cluster.test_door import ROOT


@pytest.fixture(autouse=True)
def _environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("STADDLE_CLUSTER_SECRET", raising=False)


def config(folder: Path, **settings: object) -> Config:
    return Config(data=(folder / "data",), **{"cluster_listen": "127.0.0.1:9400", **settings})  # type: ignore[arg-type]


def made(folder: Path, **settings: object) -> Machine:
    asked = config(folder, **settings)
    found = machine_of(asked, prepare(asked.data, elsewhere=True))
    assert found is not None
    return found


def test_a_machine_keeps_the_name_of_its_first_start(tmp_path: Path) -> None:
    assert made(tmp_path, name="n1").name == "n1"
    assert made(tmp_path).name == "n1"
    with pytest.raises(FolderError, match="belongs to machine n1, not n2"):
        made(tmp_path, name="n2")


def test_a_name_is_made_of_the_hosts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("socket.gethostname", lambda: "Store_7.Example.COM")
    found = made(tmp_path)
    assert (found.name, found.zone) == ("store-7", "store-7")


def test_addresses_that_others_dial_and_those_that_are_listened_at(tmp_path: Path) -> None:
    found = made(tmp_path, cluster_listen="0.0.0.0:9400", cluster_address="fd00::1", zone="rack-3")
    assert (found.address(), found.address(2), found.listens(2)) == ("[fd00::1]:9400", "[fd00::1]:9402", "0.0.0.0:9402")
    assert found.zone == "rack-3"
    assert door_of(found.address()) == "[fd00::1]:9500"


def test_its_own_address_is_no_peer_and_peers_are_remembered(tmp_path: Path) -> None:
    peers = ("127.0.0.1:9400", "127.0.0.1:9420")
    assert made(tmp_path, peers=peers).peers == ("127.0.0.1:9420",)
    remember_peers(Folders(tmp_path / "data"), ("127.0.0.1:9440", "127.0.0.1:9420"))
    assert made(tmp_path, peers=peers).peers == ("127.0.0.1:9420", "127.0.0.1:9440")
    assert not made(tmp_path, peers=peers).may_begin
    assert made(tmp_path, peers=peers, initial=True).may_begin


def test_a_folder_of_a_cluster_is_not_served_alone(tmp_path: Path) -> None:
    made(tmp_path, name="n1")
    with pytest.raises(FolderError, match="give --cluster-listen"):
        machine_of(Config(data=(tmp_path / "data",)), Folders(tmp_path / "data"))


def test_peers_without_the_clusters_secret_are_a_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(FolderError, match="staddle join TOKEN"):
        prepared(config(tmp_path, peers=("127.0.0.1:9420",)))
    monkeypatch.setenv("STADDLE_CLUSTER_SECRET", "s" * 32)
    machine, _, _ = prepared(config(tmp_path, peers=("127.0.0.1:9420",)))
    assert machine is not None


def test_chunks_without_metadata_begin_no_cluster(tmp_path: Path) -> None:
    asked = config(tmp_path, peers=("127.0.0.1:9420",), initial=True)
    folders = prepare(asked.data)
    cluster_secret(folders.root)
    (folders.root / "chunks").mkdir()
    (folders.root / "chunks" / "incarnation").write_text("x")
    machine, _, said = prepared(asked)
    assert machine is not None
    assert not machine.may_begin
    assert any("begins no new cluster" in sentence for sentence in said)
    with pytest.raises(FolderError, match="holds the chunks of a store"):
        prepared(config(tmp_path))                          # no peers: nobody has the metadata


def test_an_empty_folder_with_a_clusters_secret_begins_no_second_cluster(tmp_path: Path) -> None:
    """A new disk, on which the operator has put `secret` and `root-key` back: another store with the same keys would take
    clients' writes."""
    cluster_secret(prepare(config(tmp_path).data).root)
    for _ in range(2):                                      # and at the second try neither
        with pytest.raises(FolderError, match="--peers"):
            prepared(config(tmp_path))
    machine, _, _ = prepared(config(tmp_path, peers=("127.0.0.1:9420",)))
    assert machine is not None
    assert not machine.may_begin


def test_a_first_start_that_was_broken_off_is_a_first_start_again(tmp_path: Path) -> None:
    machine, folders, _ = prepared(config(tmp_path))
    cluster_secret(folders.root)
    assert prepared(config(tmp_path))[0] == machine


def test_who_says_initial_begins_a_cluster_with_a_secret_of_his_own(tmp_path: Path) -> None:
    cluster_secret(prepare(config(tmp_path).data).root)
    machine, _, _ = prepared(config(tmp_path, initial=True))
    assert machine is not None
    assert machine.may_begin


def test_the_secret_of_the_environment_is_that_of_the_folder_for_good(tmp_path: Path) -> None:
    assert cluster_secret(tmp_path, "ab" * 32) == bytes.fromhex("ab" * 32)
    assert cluster_secret(tmp_path) == bytes.fromhex("ab" * 32)
    with pytest.raises(FolderError, match="another cluster"):
        cluster_secret(tmp_path, "cd" * 32)
    assert len(secret_of("correct horse battery staple, and more")) == 32
    with pytest.raises(FolderError, match="could be guessed"):
        secret_of("hunter2")


def test_init_prepares_an_empty_folder_once(tmp_path: Path) -> None:
    begun = begin(config(tmp_path, name="n1"))
    assert (begun.name, len(begun.secret_key)) == ("n1", 40)
    assert made(tmp_path, peers=("127.0.0.1:9420",)).may_begin
    with pytest.raises(FolderError, match="belongs to a store already"):
        begin(config(tmp_path))
    with pytest.raises(FolderError, match="belongs to a store already"):
        join_with(new_token(("127.0.0.1:1",), b"x" * 32, 0), config(tmp_path))


def test_who_was_refused_for_its_name_may_come_with_another(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def refused(token: object, name: str) -> None:
        raise Refused(f"{name} is taken")

    monkeypatch.setattr(beginning, "with_token", refused)
    for name in ("n1", "n2"):
        with pytest.raises(Refused, match=f"{name} is taken"):
            join_with(new_token(("127.0.0.1:1",), b"x" * 32, 0), config(tmp_path, name=name))


def test_a_machine_runs_the_roles_that_it_has(tmp_path: Path) -> None:
    asked = config(tmp_path, roles=("node",), peers=("127.0.0.1:9420",), name="n9")
    folders = prepare(asked.data, elsewhere=True)
    (folders.root / "node-id").write_text("n12345678\n")
    of = launches(asked, folders, b"s" * 32, ROOT, "127.0.0.1", 0, machine_of(asked, folders))
    assert [launch.name for launch in of] == ["node-1"]
    build(of[0])


def test_a_machine_that_is_alone_loads_nothing_of_certificates() -> None:
    """It would cost each of its processes 20 MiB and a tenth of a second."""
    roles = "gateway.cli.running, gateway.gateway_role, gateway.node_role, gateway.meta_role, gateway.roles"
    loaded = subprocess.run([sys.executable, "-c", f"import {roles}, sys; print(*sys.modules)"], capture_output=True, text=True,
                            check=True, env={"PYTHONPATH": str(ROOT_FOLDER)}).stdout.split()
    assert "consensus.core.wire" in loaded
    assert not {"consensus.core.tls", "cryptography.x509", "gateway.cluster.door"} & set(loaded)


def test_one_status_asks_for_a_new_start_everywhere() -> None:
    assert EX_RESTART == EXIT_RESTART
