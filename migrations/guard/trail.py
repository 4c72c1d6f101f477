"""The audit trail: JSON lines outside the database, each holding the hash of the line before it.

A recorded line is on the disk before what it announces is done; a noted one, written while others wait for our
locks, survives the death of the process and reaches the disk with the next.  Passwords are taken out here only.
"""

import fcntl
import hashlib
import json
import os
import re
import secrets
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from shared.clock import Clock, utc_now

DEFAULT_FOLDER = Path("migration-audit")
TRAIL_NAME = "trail.jsonl"
LOG_NAME = "migration.log"
# What the first line of a trail follows.
NOTHING_BEFORE = "0" * 64
HIDDEN = "***"
SECRETS = (
    # postgresql://user:password@host; the password may hold an unescaped @ or /.
    (
        re.compile(r"(\b[a-z][a-z0-9+.-]*://[^\s:/@]+:)[^\s'\"]*(@)", re.IGNORECASE),
        rf"\1{HIDDEN}\2",
    ),
    (re.compile(r"(\bpassword\s*[=:]\s*)('[^']*'|[^\s'\"&,;]+)", re.IGNORECASE), rf"\1{HIDDEN}"),
    (re.compile(r"(\bpassword\s+)E?'(?:[^']|'')*'", re.IGNORECASE), rf"\1'{HIDDEN}'"),
    (re.compile(r"SCRAM-SHA-256\$[^\s'\"]+"), HIDDEN),
)


def default_folder() -> Path:
    return Path(os.environ.get("FAREBOX_AUDIT_DIR") or DEFAULT_FOLDER)


def redact(value: object) -> object:
    """`value` as JSON can carry it, without passwords."""
    match value:
        case None | bool() | int() | float():
            return value
        case Mapping():
            return {str(key): redact(each) for key, each in value.items()}
        case list() | tuple() | set() | frozenset():
            return [redact(each) for each in value]
        case _:
            return redact_text(str(value))


def redact_text(text: str) -> str:
    for pattern, replacement in SECRETS:
        text = pattern.sub(replacement, text)
    return text


class Trail:
    """Appends; two jobs may write to one folder, their lines share one chain."""

    def __init__(self, folder: Path, *, clock: Clock = utc_now) -> None:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        self.folder = folder
        self.path = folder / TRAIL_NAME
        self.log_path = folder / LOG_NAME
        self.run = secrets.token_hex(4)
        self._clock = clock

    @classmethod
    def open(cls, folder: Path | None = None) -> "Trail":
        return cls(folder or default_folder())

    def record(self, kind: str, **fields: object) -> None:
        """Returns when the line is on the disk.  Raises OSError."""
        self._append(kind, fields, durable=True)

    def note(self, kind: str, **fields: object) -> None:
        """Returns when the line is with the operating system: for what is said while locks are held."""
        self._append(kind, fields, durable=False)

    def head(self) -> str:
        """The hash of the last line."""
        with _append(self.path) as file:
            last = _last_hash(file)
        return last.hash if isinstance(last, _Torn) else last

    def _append(self, kind: str, fields: Mapping[str, object], *, durable: bool) -> None:
        clean = {name: redact(value) for name, value in fields.items()}
        with _append(self.path) as file:
            previous = _last_hash(file)
            if isinstance(previous, _Torn):
                file.write(b"\n")
                previous = _write(file, self._line("torn", {}, previous.hash))
            _write(file, self._line(kind, clean, previous))
            if durable:
                os.fsync(file.fileno())
        with _append(self.log_path) as log:
            at = self._clock().strftime("%Y-%m-%d %H:%M:%SZ")
            log.write(_for_people(at, self.run, kind, clean))

    def _line(self, kind: str, fields: Mapping[str, object], previous: str) -> dict[str, object]:
        first = {"at": self._clock().isoformat(), "run": self.run, "kind": kind}
        return {**first, **fields, "prev": previous}


def _append(path: Path) -> BinaryIO:
    """Locked until it is closed; readable by its owner alone."""
    file = os.fdopen(os.open(path, os.O_RDWR | os.O_APPEND | os.O_CREAT, 0o600), "r+b", buffering=0)
    fcntl.flock(file, fcntl.LOCK_EX)
    return file


@dataclass(frozen=True)
class _Torn:
    """The writer of the last line was killed in the middle of it."""

    hash: str


def _last_hash(file: BinaryIO) -> str | _Torn:
    end = file.seek(0, os.SEEK_END)
    tail, start = b"", end
    while start > 0 and b"\n" not in tail[:-1]:
        step = min(start, 8192)
        start -= step
        file.seek(start)
        tail = file.read(step) + tail
    if not tail:
        return NOTHING_BEFORE
    line = tail[:-1].rpartition(b"\n")[2] + tail[-1:]
    digest = _digest(line.removesuffix(b"\n"))
    return digest if line.endswith(b"\n") else _Torn(digest)


def _write(file: BinaryIO, line: Mapping[str, object]) -> str:
    data = json.dumps(line, ensure_ascii=False).encode()
    file.write(data + b"\n")
    return _digest(data)


def _digest(line: bytes) -> str:
    return hashlib.sha256(line).hexdigest()


def _for_people(at: str, run: str, kind: str, fields: Mapping[str, object]) -> bytes:
    said = " ".join(f"{name}={_short(value)}" for name, value in fields.items())
    return f"{at} [{run}] {kind} {said}".rstrip().encode() + b"\n"


def _short(value: object) -> str:
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    return " ".join(text.split())


@dataclass(frozen=True)
class ChainReport:
    """`problems` is empty when nobody changed, removed or inserted a line before the last one.

    Lines cut off the end leave a whole chain: compare `head` with the one a run printed last.
    """

    lines: int
    head: str
    problems: tuple[str, ...]


def verify(path: Path) -> ChainReport:
    """Raises OSError when there is no trail."""
    previous, torn, problems, count = NOTHING_BEFORE, False, [], 0
    for count, line in enumerate(_lines(path), 1):
        try:
            fields = json.loads(line)
        except ValueError:
            fields = None
        if not isinstance(fields, dict):
            if torn:
                problems.append(f"line {count - 1} is no JSON")
            torn, previous = True, _digest(line)
            continue
        if fields.get("prev") != previous:
            problems.append(f"line {count} does not follow line {count - 1}")
        elif torn and fields.get("kind") != "torn":
            problems.append(f"line {count - 1} is no JSON")
        torn, previous = False, _digest(line)
    return ChainReport(count, previous, tuple(problems))


def holds(path: Path, head: str) -> bool:
    """Whether a head that was told once is still of this trail: if not, its end was cut off or written anew."""
    return any(_digest(line) == head for line in _lines(path))


def entries(path: Path) -> Iterator[dict[str, object]]:
    """What can be read of a trail, oldest first."""
    for line in _lines(path):
        try:
            fields = json.loads(line)
        except ValueError:
            continue
        if isinstance(fields, dict):
            yield fields


def _lines(path: Path) -> Iterator[bytes]:
    with path.open("rb") as file:
        for line in file:
            yield line.removesuffix(b"\n")
