"""What a backup says of itself: its files with their hashes, and what the database was at its instant."""

import hashlib
import os
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from pydantic import ValidationError

from migrations.faults import MigrationFault
from migrations.guard.exits import ExitCode
from migrations.guard.snapshot import Frozen, Snapshot

MANIFEST, DATA = "manifest.json", "data"
PINNED, TESTED = "pinned", "restore-tested"
CHUNK_BYTES = 2**20


class BackupFault(MigrationFault):
    """There is no backup to rely on; the database is as it was."""

    exit_code = ExitCode.REFUSED_BY_BACKUP


class File(Frozen):
    size: int
    sha256: str


class Manifest(Frozen):
    """`data_bytes` is what the tables took, `database_bytes` all of the database; positions are of the write-ahead log."""

    version: int = 1
    name: str
    server: str
    database: str
    server_version: str
    tools_version: str
    compression: str
    started_at: datetime
    ended_at: datetime
    wal_start: str
    wal_end: str
    data_bytes: int
    database_bytes: int = 0
    files: dict[str, File]
    snapshot: Snapshot


@dataclass(frozen=True)
class Backup:
    """A finished one; `path` is its folder."""

    path: Path
    manifest: Manifest

    @property
    def data(self) -> Path:
        return self.path / DATA

    @property
    def size(self) -> int:
        return sum(each.size for each in self.manifest.files.values())

    @property
    def pinned(self) -> str | None:
        """Why it must stay."""
        return _read(self.path / PINNED)

    @property
    def tested(self) -> str | None:
        """When it was last brought back and compared."""
        return _read(self.path / TESTED)


def read_backup(path: Path) -> Backup:
    """`path`: the folder, or a file in it.  Raises BackupFault."""
    folder = path if path.is_dir() else path.parent
    if not path.exists():
        raise BackupFault(f"{path} is not there; `list` shows the backups there are")
    try:
        text = (folder / MANIFEST).read_bytes()
    except FileNotFoundError as error:
        if any(folder.glob(f"[!.]*/{MANIFEST}")) and path.is_dir():
            raise BackupFault(f"{path} is a folder of backups: name one of them") from error
        raise BackupFault(
            f"{path} has no {MANIFEST}: it was not made by `backup`, and nothing tells"
            " whether it is whole; restore it with pg_restore or psql into a database of its own"
        ) from error
    try:
        return Backup(folder, Manifest.model_validate_json(text))
    except ValidationError as error:
        raise BackupFault(f"{folder / MANIFEST} cannot be read: it is damaged") from error


def hash_files(folder: Path) -> dict[str, File]:
    return {each.relative_to(folder).as_posix(): _hash(each) for each in _files(folder)}


def damage(backup: Backup, *, hashes: bool = True) -> list[str]:
    """What is wrong with the files, as the manifest knows them; without `hashes` by their sizes alone."""
    there = {each.relative_to(backup.data).as_posix(): each for each in _files(backup.data)}
    wanted = backup.manifest.files
    found = [f"{name} is missing" for name in sorted(wanted.keys() - there.keys())]
    found += [f"{name} was not in it" for name in sorted(there.keys() - wanted.keys())]
    for name in sorted(wanted.keys() & there.keys()):
        size = there[name].stat().st_size
        if size != wanted[name].size:
            found.append(f"{name} has {size} bytes instead of {wanted[name].size}")
        elif hashes and _hash(there[name]) != wanted[name]:
            found.append(f"{name} was changed: another sha256")
    return found


def write(path: Path, text: str) -> None:
    """All of it or nothing, and on the disk."""
    beside = path.with_name(f".{path.name}.new")
    with beside.open("w") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    beside.replace(path)
    sync(path.parent)


def sync(folder: Path) -> None:
    """A rename is on the disk when its folder is."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _files(folder: Path) -> Iterator[Path]:
    yield from (each for each in sorted(folder.rglob("*")) if each.is_file())


def _hash(path: Path) -> File:
    digest, size = hashlib.sha256(), 0
    with path.open("rb") as file:
        while chunk := file.read(CHUNK_BYTES):
            digest.update(chunk)
            size += len(chunk)
    return File(size=size, sha256=digest.hexdigest())


def _read(path: Path) -> str | None:
    try:
        return path.read_text().strip()
    except FileNotFoundError:
        return None
