"""Backup programs: duplicity for files, Litestream for SQLite, pgBackRest and Barman for PostgreSQL."""

import contextlib
import os
import shutil
import sqlite3
import subprocess
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.clients import install
from tests.clients.shell import ClientFailed, Shell, random_file, same_tree
from tests.servers import free_port


def test_duplicity(shell: Shell, bucket: str, few_files: Callable[[int], Path], tmp_path: Path) -> None:
    folder = few_files(60)
    random_file(folder / "large.bin", 30 << 20)
    shell.run("aws", "s3", "mb", f"s3://{bucket}")
    url = f"boto3+s3://{bucket}/backups"
    flags = ("--s3-endpoint-url", shell.target.url, "--volsize", "10", "--no-encryption", "--allow-source-mismatch")
    shell.run("duplicity", "full", *flags, folder, url)
    (folder / "d3" / "0003.bin").unlink()
    random_file(folder / "d4" / "new.bin", 100_000)
    shell.run("duplicity", "incremental", *flags, folder, url)
    shell.run("duplicity", "verify", "--compare-data", *flags, url, folder)
    status = shell.run("duplicity", "collection-status", *flags, url)
    assert status.count("Full") >= 1
    assert status.count("Incremental") >= 1
    shutil.rmtree(shell.home / ".cache" / "duplicity")              # as on another machine
    shell.run("duplicity", "restore", *flags, url, tmp_path / "back")
    same_tree(folder, tmp_path / "back")
    shell.run("duplicity", "full", *flags, folder, url)
    shell.run("duplicity", "remove-all-but-n-full", "1", "--force", *flags, url)
    assert shell.run("duplicity", "collection-status", *flags, url).count("Incremental") == 0


def test_litestream(shell: Shell, bucket: str, tmp_path: Path) -> None:
    shell.run("aws", "s3", "mb", f"s3://{bucket}")
    database, settings = tmp_path / "app.db", tmp_path / "litestream.yml"
    trust = {"AWS_CA_BUNDLE": ""}           # with its own connections it cannot use that; SSL_CERT_FILE says the same
    settings.write_text(f"""
dbs:
  - path: {database}
    replica:
      type: s3
      bucket: {bucket}
      path: app
      endpoint: {shell.target.url}
      region: {shell.target.region}
      force-path-style: true
      sync-interval: 100ms
""")
    with contextlib.closing(sqlite3.connect(database)) as db:
        db.execute("PRAGMA journal_mode = wal")
        db.execute("CREATE TABLE entry (n INTEGER, text TEXT)")
        db.commit()
        with shell.start("litestream", "replicate", "-config", settings, environment=trust) as running:
            for batch in range(20):
                db.executemany("INSERT INTO entry VALUES (?, ?)", [(n, "x" * 500) for n in range(batch * 100, batch * 100 + 100)])
                db.commit()
            running.wait_until(lambda: shell.run("rclone", "lsf", "-R", f"staddle:{bucket}/app").count(".ltx") >= 2)
    shell.run("litestream", "restore", "-config", settings, "-o", tmp_path / "back.db", database, environment=trust)
    with contextlib.closing(sqlite3.connect(tmp_path / "back.db")) as db:
        assert db.execute("SELECT count(*), sum(n) FROM entry").fetchone() == (2000, sum(range(2000)))
        assert db.execute("PRAGMA integrity_check").fetchone() == ("ok",)


@dataclass(frozen=True, slots=True, kw_only=True)
class Postgres:
    """A server of the user `postgres`, who never is root. `home` is that user's for settings of backup programs."""

    programs: Path
    data: Path
    home: Path
    port: int

    def run(self, *command: str | Path, environment: dict[str, str] | None = None) -> str:
        """As the user `postgres`."""
        wanted = {"PATH": f"{self.programs}:{os.environ['PATH']}", "HOME": str(self.home), "LANG": "C.UTF-8",
                  "PGPORT": str(self.port), "PGHOST": str(self.home)} | (environment or {})
        done = subprocess.run([*map(str, command)], capture_output=True, text=True, timeout=100, cwd=self.home, env=wanted,
                              user="postgres", group="postgres", check=False)
        if done.returncode:
            log = self.home / "postgres.log"
            raise ClientFailed(f"{command}\n{done.stdout[-3000:]}\n{done.stderr[-3000:]}\n"
                               f"{log.read_text()[-3000:] if log.exists() else ''}")
        return done.stdout

    def start(self) -> None:
        self.run("pg_ctl", "-D", self.data, "-l", self.home / "postgres.log", "-w", "start")

    def stop(self) -> None:
        self.run("pg_ctl", "-D", self.data, "-m", "fast", "-w", "stop")

    def sql(self, text: str) -> str:
        return self.run("psql", "-At", "-c", text, "postgres").strip()

    def wait_until_recovered(self) -> None:
        until = time.monotonic() + 60
        while self.sql("SELECT pg_is_in_recovery()") != "f":
            assert time.monotonic() < until
            time.sleep(0.2)

    def set(self, **settings: str) -> None:
        with (self.data / "postgresql.conf").open("a") as file:
            file.writelines(f"{name} = '{value}'\n" for name, value in settings.items())


@pytest.fixture
def postgres(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Postgres]:
    program = install.find("postgres")
    if program is None:
        pytest.skip("postgres is not installed")
    if os.geteuid() != 0:
        pytest.skip("only root can start postgres as its own user")
    home = Path("/tmp") / f"staddle-postgres-{os.getpid()}-{free_port()}"       # a folder that another user may enter
    home.mkdir(mode=0o755)
    shutil.chown(home, "postgres", "postgres")
    server = Postgres(programs=program.parent, data=home / "data", home=home, port=free_port())
    try:
        server.run("initdb", "-D", server.data, "--auth=trust", "--no-sync")
        server.set(port=str(server.port), unix_socket_directories=str(home), listen_addresses="", wal_level="replica")
        yield server
    finally:
        if (server.data / "postmaster.pid").exists():
            server.run("pg_ctl", "-D", server.data, "-m", "immediate", "-w", "stop")      # waits for no archive
        shutil.rmtree(home)


def fill(server: Postgres) -> str:
    """Something to lose; what is to be there again."""
    server.sql("CREATE TABLE entry AS SELECT n, md5(n::text) AS text FROM generate_series(1, 20000) n")
    return server.sql("SELECT count(*), md5(string_agg(text, '' ORDER BY n)) FROM entry")


def trusted(shell: Shell, server: Postgres) -> Path:
    """The server's certificate, where the user `postgres` can read it."""
    assert shell.target.ca is not None
    return Path(shutil.copy(shell.target.ca, server.home / "ca.crt"))


@pytest.mark.parametrize("target", ["https"], indirect=True)      # it speaks no http
def test_pgbackrest(shell: Shell, bucket: str, postgres: Postgres) -> None:
    if install.find("pgbackrest") is None:
        pytest.skip("pgbackrest is not installed")
    shell.run("aws", "s3", "mb", f"s3://{bucket}")
    port = shell.target.netloc.partition(":")[2]
    settings = postgres.home / "pgbackrest.conf"
    settings.write_text(f"""[global]
repo1-type=s3
repo1-path=/repo
repo1-s3-bucket={bucket}
repo1-s3-endpoint=localhost
repo1-storage-port={port}
repo1-s3-region={shell.target.region}
repo1-s3-key={shell.target.access_key}
repo1-s3-key-secret={shell.target.secret_key}
repo1-s3-uri-style=path
repo1-storage-ca-file={trusted(shell, postgres)}
repo1-retention-full=1
log-path={postgres.home}
lock-path={postgres.home}
spool-path={postgres.home}
start-fast=y
compress-level=1
[main]
pg1-path={postgres.data}
pg1-port={postgres.port}
pg1-socket-path={postgres.home}
""")
    settings.chmod(0o644)
    command = ("pgbackrest", f"--config={settings}", "--stanza=main")
    postgres.set(archive_mode="on", archive_command=" ".join((*command, "archive-push %p")))
    postgres.start()
    postgres.run(*command, "stanza-create")
    postgres.run(*command, "check")
    postgres.run(*command, "--type=full", "backup")
    expected = fill(postgres)
    postgres.run(*command, "--type=incr", "backup")
    assert "incr backup" in postgres.run(*command, "info")
    postgres.run(*command, "verify")
    postgres.stop()
    shutil.rmtree(postgres.data)
    postgres.data.mkdir(mode=0o700)
    shutil.chown(postgres.data, "postgres", "postgres")
    postgres.run(*command, "restore")
    postgres.start()
    postgres.wait_until_recovered()
    assert postgres.sql("SELECT count(*), md5(string_agg(text, '' ORDER BY n)) FROM entry") == expected
    postgres.run(*command, "--type=full", "backup")                # the older one goes: retention is 1
    assert postgres.run(*command, "info").count("full backup") == 1


def test_barman_cloud(shell: Shell, bucket: str, postgres: Postgres) -> None:
    if install.find("barman-cloud-backup") is None:
        pytest.skip("barman-cloud-backup is not installed")
    shell.run("aws", "s3", "mb", f"s3://{bucket}")
    names = ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_DEFAULT_REGION")
    keys = {name: shell.environment()[name] for name in names}
    if shell.target.ca:
        keys["AWS_CA_BUNDLE"] = str(trusted(shell, postgres))
    store = ("--endpoint-url", shell.target.url, f"s3://{bucket}/barman", "main")
    archive = postgres.home / "archive.sh"
    archive.write_text("#!/bin/sh\n" + "".join(f"export {name}='{value}'\n" for name, value in keys.items())
                       + f"exec barman-cloud-wal-archive {' '.join(store)} \"$1\"\n")
    archive.chmod(0o755)
    postgres.set(archive_mode="on", archive_command=f"{archive} %p")
    postgres.start()
    expected = fill(postgres)
    postgres.run("barman-cloud-backup", "-h", postgres.home, "-p", str(postgres.port), "-U", "postgres", "-J", "2",
                 "--immediate-checkpoint", *store, environment=keys)
    listed = postgres.run("barman-cloud-backup-list", *store, environment=keys)
    (backup_id,) = [line.split()[0] for line in listed.splitlines() if line[:8].isdigit()]
    postgres.sql("SELECT pg_switch_wal()")
    postgres.stop()
    shutil.rmtree(postgres.data)
    postgres.run("barman-cloud-restore", *store, backup_id, postgres.data, environment=keys)
    restore = archive.with_name("restore.sh")
    restore.write_text(archive.read_text().replace("wal-archive", "wal-restore").replace('"$1"', '"$1" "$2"'))
    restore.chmod(0o755)
    (postgres.data / "recovery.signal").touch()
    shutil.chown(postgres.data / "recovery.signal", "postgres", "postgres")
    postgres.set(restore_command=f"{restore} %f %p")
    postgres.start()
    postgres.wait_until_recovered()
    assert postgres.sql("SELECT count(*), md5(string_agg(text, '' ORDER BY n)) FROM entry") == expected
    postgres.run("barman-cloud-backup-delete", "-b", backup_id, *store, environment=keys)
    assert backup_id not in postgres.run("barman-cloud-backup-list", *store, environment=keys)
