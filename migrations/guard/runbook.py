"""The runbook's commands: backup, validate, list, restore, and what keeps a folder of backups in order.

`python migration_utils.py --database-url URL backup --name N | validate | list | restore PATH | reopen | …`
"""

import argparse
import os
import sys
from collections.abc import Iterator, Sequence
from dataclasses import asdict, replace
from pathlib import Path

import psycopg
from rich.console import Console
from sqlalchemy.engine import make_url

from migrations.faults import MigrationFault
from migrations.guard import backup as backups
from migrations.guard.address import address
from migrations.guard.compare import Difference, Severity
from migrations.guard.exits import EXPLAINED, ExitCode
from migrations.guard.manifest import Backup, read_backup
from migrations.guard.progress import shown
from migrations.guard.restore import WritesWouldBeLost, proven, reopen, restore
from migrations.guard.scratch import copy_maker
from migrations.guard.speech import Speaker, tell, tell_json
from migrations.guard.tools import megabytes, stoppable
from migrations.guard.trail import Trail
from migrations.guard.validate import validate
from migrations.run_lock import connect
from shared.schema import WANTED_REVISION

PROGRAM = "migration_utils.py"
CODES = (
    *(ExitCode.DONE, ExitCode.USAGE, ExitCode.UNREACHABLE, ExitCode.LOCK_BUSY),
    *(ExitCode.REFUSED_BY_PREFLIGHT, ExitCode.REFUSED_BY_BACKUP),
    *(ExitCode.VALIDATION_FAILED, ExitCode.INTERRUPTED),
)
EPILOG = "exit codes:\n" + "\n".join(f"  {code:3d}  {EXPLAINED[code]}" for code in CODES)


class Usage(MigrationFault):
    exit_code = ExitCode.USAGE


def main(arguments: Sequence[str] | None = None, *, program: str = PROGRAM) -> int:
    given = _parser(program).parse_args(arguments)
    console = Speaker()
    try:
        with stoppable():
            return int(_run(given, console))
    except WritesWouldBeLost as refused:
        _show_lost(refused, console, given.json, program)
        return int(refused.exit_code)
    except (MigrationFault, psycopg.Error, OSError) as error:
        reason, code = " ".join(str(error).split()), _code(error)
        if given.json:
            tell_json({"error": reason, "exit_code": code})
        console.print(f"{program}: {reason}")
        return code
    except KeyboardInterrupt:
        console.print(f"{program}: interrupted; nothing half made was kept")
        return int(ExitCode.INTERRUPTED)


def _code(error: Exception) -> int:
    match error:
        case MigrationFault():
            return int(error.exit_code)
        case OSError():
            # A folder that cannot be written, a disk that is full.
            return int(ExitCode.USAGE)
        case _:
            return int(ExitCode.UNREACHABLE)


def _parser(program: str) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog=program,
        description="Back a database up, prove it, look whether it is whole, bring it back.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--database-url", help="the owner's URL; default: DATABASE_URL")
    parser.add_argument("--folder", type=Path, default=backups.default_folder(), help="of backups")
    parser.add_argument("--json", action="store_true", help="for a script to read")
    commands = parser.add_subparsers(dest="command", required=True)
    make = commands.add_parser("backup", help="dump, hash, bring back to prove it")
    make.add_argument("--name", default="manual")
    make.add_argument("--no-restore-test", action="store_true", help="do not prove it")
    check = commands.add_parser("validate", help="foreign keys, checks, indexes, statistics")
    check.add_argument("--against", type=Path, metavar="PATH", help="a backup: what was before")
    commands.add_parser("list", help="the backups there are")
    back = commands.add_parser("restore", help="put a backup in the database's place, keep that")
    back.add_argument("path", type=Path)
    back.add_argument("--give-up-writes", metavar="PHRASE", help="what the refusal says is lost")
    commands.add_parser("reopen", help="open a database that a killed restore left shut")
    old = commands.add_parser("prune", help="remove old backups, pinned ones never")
    old.add_argument("--keep", type=int, required=True, help="how many of each database stay")
    for name, does in (("pin", "never prune it"), ("unpin", "prune it with the others")):
        one = commands.add_parser(name, help=does)
        one.add_argument("path", type=Path)
        if name == "pin":
            one.add_argument("--reason", default="pinned by hand")
    for each in commands.choices.values():
        each.add_argument("--json", action="store_true", default=argparse.SUPPRESS)
    return parser


def _run(given: argparse.Namespace, console: Console) -> ExitCode:
    match given.command:
        case "backup":
            return _backup(given, console)
        case "validate":
            return _validate(given)
        case "restore":
            return _restore(given, console)
        case "list":
            return _list(given)
        case "reopen":
            return _reopen(given)
        case "prune":
            if given.keep < 1:
                raise Usage("the last backup is not removed: keep at least 1")
            gone = backups.prune(given.folder, given.keep, trail=Trail.open())
            _say(given, [str(each) for each in gone], [f"removed {each}" for each in gone])
        case "pin":
            backups.pin(read_backup(given.path), given.reason)
            _say(given, {"pinned": str(given.path)}, [f"pinned {given.path}: {given.reason}"])
        case _:
            backups.unpin(read_backup(given.path))
            _say(given, {"unpinned": str(given.path)}, [f"unpinned {given.path}"])
    return ExitCode.DONE


def _backup(given: argparse.Namespace, console: Console) -> ExitCode:
    url, trail = _url(given), Trail.open()
    with shown(console) as progress:
        made = backups.backup(url, given.folder, given.name, trail=trail, progress=progress)
        if not given.no_restore_test:
            maker = copy_maker(url) or url
            with proven(made, maker, trail=trail, progress=progress) as copy:
                for each in copy.differences:
                    console.print(str(each))
    _say(given, _row(made), [_line(made)])
    return ExitCode.DONE


def _validate(given: argparse.Namespace) -> ExitCode:
    before = read_backup(given.against).manifest.snapshot if given.against else None
    with connect(_url(given)) as connection:
        report = validate(connection, before)
    if report.revision == (WANTED_REVISION,):
        report = replace(report, findings=(*_of_models(_url(given)), *report.findings))
    _say(given, report.as_json(), list(report.lines()))
    return ExitCode.DONE if report.whole else ExitCode.VALIDATION_FAILED


def _of_models(url: str) -> Iterator[Difference]:
    """What the models want and the database has not; of a database at this release's revision."""
    # Whoever backs up or restores must be able to with models that are broken.
    from migrations.guard.drift import drift

    for each in drift(url):
        severity = Severity.NOTE if each.extra else Severity.NEW
        yield Difference(severity, "model", each.what, "the schema and the models differ")


def _restore(given: argparse.Namespace, console: Console) -> ExitCode:
    found = read_backup(given.path)
    with shown(console) as progress:
        done = restore(
            found,
            _url(given),
            trail=Trail.open(),
            give_up=given.give_up_writes,
            progress=progress,
        )
    kept = f"; what was there is kept as {done.kept}" if done.kept else ""
    lines = [
        *(["a restore that was killed had left it shut"] if done.reopened else []),
        f"{done.database} is {found.path} now{kept}; nobody could connect for {done.shut_seconds:.1f} s",
        *map(str, done.differences),
    ]
    _say(given, asdict(done), lines)
    return ExitCode.DONE


def _reopen(given: argparse.Namespace) -> ExitCode:
    url = _url(given)
    opened = reopen(url, trail=Trail.open())
    name = make_url(url).database
    _say(given, {"reopened": opened}, [f"{name} {'takes' if opened else 'took'} connections"])
    return ExitCode.DONE


def _list(given: argparse.Namespace) -> ExitCode:
    """A damaged one is told, and is no reason not to tell of the others."""
    found, bad = backups.list_backups(given.folder), backups.damaged(given.folder)
    rows = [_row(each) for each in found] + [{"path": str(p), "damaged": why} for p, why in bad]
    lines = [*map(_line, found), *(f"DAMAGED: {why}" for _, why in bad)]
    _say(given, rows, lines or [f"there is none in {given.folder.absolute()}"])
    return ExitCode.REFUSED_BY_BACKUP if bad else ExitCode.DONE


def _show_lost(refused: WritesWouldBeLost, console: Console, as_json: bool, program: str) -> None:
    if as_json:
        lost = [asdict(each) for each in refused.lost]
        tell_json({"refused": str(refused), "phrase": refused.phrase, "writes": lost})
        return
    for each in refused.lost:
        console.print(str(each))
        for example in each.examples:
            console.print(f"  {example}")
    console.print(f"{program}: {refused}")


def _url(given: argparse.Namespace) -> str:
    url = given.database_url or os.environ.get("DATABASE_URL")
    if not url:
        raise Usage("say --database-url URL or set DATABASE_URL")
    return address(url)


def _row(backup: Backup) -> dict[str, object]:
    manifest = backup.manifest
    return {
        "path": str(backup.path),
        "name": manifest.name,
        "database": manifest.database,
        "server": manifest.server,
        "revision": list(manifest.snapshot.revision),
        "started_at": manifest.started_at.isoformat(),
        "bytes": backup.size,
        "compression": manifest.compression,
        "restore_tested": backup.tested,
        "pinned": backup.pinned,
    }


def _line(backup: Backup) -> str:
    manifest = backup.manifest
    said = [
        f"{manifest.started_at:%Y-%m-%d %H:%M:%SZ}",
        f"{manifest.database} at {', '.join(manifest.snapshot.revision) or 'no revision'}",
        f"{megabytes(backup.size)} ({manifest.compression})",
        f"restored and compared {backup.tested}" if backup.tested else "NOT restore-tested",
        *([f"pinned: {backup.pinned}"] if backup.pinned else []),
    ]
    return f"{backup.path}  {'; '.join(said)}"


def _say(given: argparse.Namespace, fields: object, lines: Sequence[str]) -> None:
    if given.json:
        tell_json(fields)
        return
    for each in lines or ["there is none"]:
        tell(each)


if __name__ == "__main__":
    sys.exit(main())
