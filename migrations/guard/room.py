"""Whether the disks hold what the run will write: the backup here, the rehearsal's copy with the server."""

import os
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from migrations.guard.backup import space_needed
from migrations.guard.subject import Problem, Subject, one, refuse, warn

MEBIBYTE = 2**20
# The copy itself, and the write-ahead log of writing it; a rewrite of a table is small beside both.
COPIES = 2
DATABASE_BYTES = "SELECT pg_database_size(current_database())"
# A tablespace of its own, else the data folder; empty for those who may not see it.
PLACE = """
SELECT coalesce(nullif(pg_tablespace_location(d.dattablespace), ''),
    (SELECT setting FROM pg_settings WHERE name = 'data_directory'))
FROM pg_database d WHERE d.datname = current_database()
"""
THIS_MACHINE = {"", "127.0.0.1", "localhost", "::1"}


@dataclass(frozen=True)
class Need:
    folder: Path
    size: int
    purpose: str
    remedy: str


def room(subject: Subject) -> Iterator[Problem]:
    """Honest where it cannot be measured: then a person has to look."""
    if subject.bare:
        return
    folder = subject.backup_folder
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        probe = folder / f".writable-{os.getpid()}"
        probe.touch()
        probe.unlink()
    except OSError as error:
        yield refuse(
            "backup folder",
            f"cannot write to {folder}: {error.strerror}",
            "set FAREBOX_BACKUP_DIR or --backup-dir to a folder that this user may write to",
        )
        return
    size = space_needed(subject.connection)
    needs = [Need(folder, size, "the backup", "free some space, or set FAREBOX_BACKUP_DIR")]
    copy = _of_copy(subject)
    place = _place(subject)
    if place is None:
        yield warn(
            "disk",
            f"the disk where the rehearsal's copy will lie cannot be seen from here; it may need {copy // MEBIBYTE} MB",
            "see that the server has as much",
        )
    else:
        needs.append(Need(place, copy, "the rehearsal", "free some space on the server"))
    yield from _too_small(needs)


def _of_copy(subject: Subject) -> int:
    size = one(subject, DATABASE_BYTES)
    return COPIES * (size if isinstance(size, int) else 0)


def _place(subject: Subject) -> Path | None:
    """The folder in which the server will write the copy, if it is on this machine and we may look."""
    here = subject.connection.info.host in THIS_MACHINE or subject.connection.info.host.startswith(
        "/"
    )
    path = one(subject, PLACE)
    if not here or not isinstance(path, str):
        return None
    try:
        return Path(path) if Path(path).is_dir() else None
    except OSError:
        return None


def _too_small(needs: list[Need]) -> Iterator[Problem]:
    """Needs on one disk add up."""
    disks: dict[int, list[Need]] = {}
    for each in needs:
        disks.setdefault(os.stat(each.folder).st_dev, []).append(each)
    for there in disks.values():
        free = shutil.disk_usage(there[0].folder).free
        needed = sum(each.size for each in there)
        if free < needed:
            purposes = " and ".join(each.purpose for each in there)
            yield refuse(
                "disk",
                f"{purposes} may need {needed // MEBIBYTE} MB, {there[0].folder} has {free // MEBIBYTE} MB",
                ", ".join(dict.fromkeys(each.remedy for each in there)),
            )
