"""`staddle fsck` and `staddle restore`: is everything there and does it fit; and metadata brought back from a backup."""

import asyncio
import logging
from collections.abc import Coroutine
from pathlib import Path
from typing import Annotated, Any, TypeVar

import msgspec
import typer

from gateway.admin.values import Affected, FsckReport
from gateway.cli import printing
from gateway.cli.commands import (
    FOUND_SOMETHING,
    STOPPED,
    AsJson,
    CaBundle,
    Endpoint,
    Server,
    Yes,
    confirm,
    fail_with,
    reflowed,
)
from gateway.cli.connection import DEFAULT_ENDPOINT
from gateway.cli.keys import DEFAULT_DATA, CommandError
from gateway.cli.options import ConfigFile, fail, settings
from gateway.config import Config

FINDINGS_SHOWN = 50
AFFECTED_SHOWN = 100

LATER = "stored after the backup"

Value = TypeVar("Value")

Folders = Annotated[list[Path] | None, typer.Option(
    "--data", metavar="DIR", help="Data folder; give all that `staddle serve` has, in the same order. (default: data)")]


@reflowed
def fsck(
    verify: Annotated[bool, typer.Option("--verify", help="Read every byte of every copy too.")] = False,
    deep: Annotated[bool, typer.Option("--deep", help="Have SQLite check the structure of its files too.")] = False,
    repair: Annotated[bool, typer.Option("--repair", help="Mend what can be mended.")] = False,
    offline: Annotated[bool, typer.Option("--offline", help="Look at the data folders themselves; no server may run.")] = False,
    data: Folders = None, config: ConfigFile = None, endpoint: Endpoint = DEFAULT_ENDPOINT, ca_bundle: CaBundle = None,
    as_json: AsJson = False,
) -> None:
    """Check that metadata and chunks fit each other, both ways, and that all counts are right.

    Asks the server if one answers, which goes on serving meanwhile; else, on the server's own machine, looks at the data folders
    itself. Status 0: clean. Status 1: something is lost or wrong; each finding says what to do about it.

    Example: staddle fsck --data /srv/staddle
    """
    try:
        report = None if offline else _online(endpoint, data, ca_bundle, as_json, verify=verify, deep=deep, repair=repair)
        if report is None:
            report = _offline(_config(config, data), verify=verify, deep=deep, repair=repair)
    except CommandError as error:
        fail_with(error)
    except KeyboardInterrupt:
        fail("stopped.", STOPPED)
    if as_json:
        printing.print_json(report)
    else:
        _print(report)
    if not report.clean:
        raise typer.Exit(FOUND_SOMETHING)


@reflowed
def restore(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="The backup: what `staddle backup download` has written.")],
    data: Folders = None, config: ConfigFile = None,
    replace: Annotated[bool, typer.Option("--replace", help="Although there is metadata; it is moved aside and kept.")] = False,
    yes: Yes = False, as_json: AsJson = False,
) -> None:
    """Bring the metadata back from a backup, while no server runs, and list what is missing.

    The bytes of objects are not in a backup: they are taken from the data folders as they are. What was written after the backup
    is not seen any more. Status 1: objects have lost bytes, or something else was found to be wrong.

    Example: staddle restore /mnt/usb/before-upgrade.backup --data /srv/staddle --replace
    """
    in_force = _config(config, data)
    try:
        if replace:
            confirm(f"Put the backup {file} in the place of the metadata in {in_force.data[0]}? What was written after it is "
                    "then not seen any more.", yes)
        restored, report, notes = _restore(file, in_force, replace)
    except CommandError as error:
        fail_with(error)
    except KeyboardInterrupt:
        fail("stopped. Nothing has changed, unless it was checking already.", STOPPED)
    if as_json:
        printing.print_json({"restored": restored, "fsck": report, "notes": notes})
    else:
        printing.print_fields([
            ("Backup", restored.backup.name), ("Chunks", f"{restored.chunks}, {restored.moved} found elsewhere than listed, "
                                                         f"{restored.lost} not found"),
            ("Metadata before", f"kept in {restored.old}" if restored.old else ""),
            ("Nodes not given", ", ".join(restored.absent))])
        for sentence in (*restored.problems, *notes):
            printing.say(sentence)
        if later := report.waiting.get(LATER):
            printing.say(
                f"{later} copies were stored after the backup, and nothing knows them now. A server lets go of them an hour "
                "after it has started (`read_grace_seconds`): do not start one if this may be the wrong backup.")
        _print(report)
    if restored.missing_count or restored.problems or not report.clean:
        raise typer.Exit(FOUND_SOMETHING)


def _without_later(report: FsckReport) -> FsckReport:
    """What was stored after the backup is known to nobody now: no fault, but what a restore is about. The server that starts
    compares and collects it."""
    later = report.counts.get("orphan", 0) + report.waiting.get("unlisted", 0)
    findings = [finding for finding in report.findings if finding.kind != "orphan"]
    counts = {kind: count for kind, count in report.counts.items() if kind != "orphan"}
    clean = report.clean or all(finding.severity == "note" for finding in findings)
    waiting = report.waiting | ({LATER: later} if later else {})
    waiting.pop("unlisted", None)        # the same, of copies that their node had not settled yet
    return msgspec.structs.replace(report, clean=clean, findings=findings, counts=counts, waiting=waiting)


def _config(config: Path | None, data: list[Path] | None) -> Config:
    return settings(config, {"data": [str(folder) for folder in data] if data else None})


def _online(endpoint: str, data: list[Path] | None, ca_bundle: Path | None, as_json: bool, **wanted: bool) -> FsckReport | None:
    """None if no server answers and there are data folders to look at."""
    try:
        server = Server(endpoint=endpoint, data=data[0] if data else None, ca_bundle=ca_bundle, as_json=as_json)
        return server.long("asking the server", "fsck/run", FsckReport, **wanted)
    except CommandError as error:
        if error.code == "Unreachable" and (data or DEFAULT_DATA.is_dir()):
            return None
        raise


def _offline(config: Config, **wanted: bool) -> FsckReport:
    from gateway import offline

    with printing.progress("opening the data folders") as bar:
        report = _carried_out(offline.check(config, **wanted, progress=_told(bar)))
    return msgspec.convert(msgspec.to_builtins(report), FsckReport)


def _restore(file: Path, config: Config, replace: bool) -> tuple[Any, FsckReport, list[str]]:
    from gateway import offline

    with printing.progress("restoring") as bar:
        done = _carried_out(offline.restore(file, config, replace=replace, progress=_told(bar)))
    return done.restored, _without_later(msgspec.convert(msgspec.to_builtins(done.fsck), FsckReport)), done.notes


def _told(bar: printing.Bar) -> Any:
    return lambda what, done, of: bar.show({"what": what, "done": done, "of": of})


def _carried_out(work: Coroutine[Any, Any, Value]) -> Value:
    """Run it here; what stands in its way becomes a sentence."""
    from consensus.core.errors import ClusterError
    from gateway.folders import FolderError

    logger = logging.getLogger("staddle")
    level = logger.level
    logger.setLevel(logging.CRITICAL)           # the report says it; the roles' own lines are for servers
    try:
        return asyncio.run(work)
    except (ClusterError, FolderError) as error:
        busy = " Is a server running? Stop it first." if "another process" in str(error) else ""
        raise CommandError(f"{error}.{busy}") from None
    except OSError as error:
        raise CommandError(str(error)) from None
    finally:
        logger.setLevel(level)


def _print(report: FsckReport) -> None:
    printing.say(f"{report.chunks} chunk(s) with {printing.size(report.chunk_bytes)}, {report.copies} copies"
                 + (f", {report.verified} read whole." if report.verified else "."))
    if report.repaired:
        printing.say("Repaired: " + ", ".join(f"{count} {kind}" for kind, count in report.repaired.items()) + ".")
    if report.findings:
        shown = report.findings[:FINDINGS_SHOWN]
        printing.print_table(("kind", "weight", "what"), ((each.kind, each.severity, each.text) for each in shown), empty="")
        remedies = dict.fromkeys((each.kind, each.remedy) for each in report.findings)
        printing.print_table(("kind", "found>", "what to do"), (
            (kind, report.counts.get(kind, 0), remedy) for kind, remedy in remedies), empty="")
        if len(report.findings) > len(shown):
            printing.say(f"{sum(report.counts.values()) - len(shown)} more finding(s); --json lists up to 10,000.")
    if report.affected:
        printing.print_table(("object that has lost bytes", "version or upload"), (
            _name(each) for each in report.affected[:AFFECTED_SHOWN]), empty="")
        if report.affected_count > AFFECTED_SHOWN:
            printing.say(f"{report.affected_count} in all; --json lists up to 10,000.")
    if report.waiting:
        printing.say("Waiting, which is no fault: " + ", ".join(
            f"{count} copies ({reason})" for reason, count in report.waiting.items()) + "; `staddle gc report` says more.")
    printing.say("Clean." if report.clean else "NOT clean.")


def _name(affected: Affected) -> tuple[str, str]:
    if affected.upload_id:
        return f"s3://{affected.bucket}/{affected.key}", f"part {affected.part} of upload {affected.upload_id}"
    return f"s3://{affected.bucket}/{affected.key}", affected.version_id
