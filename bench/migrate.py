"""How long a storefront's writes stall while its schema changes: plain alembic, the guarded job, the job with a blocker.

`migrate_stall_max_ms` and `migrate_stall_p999_ms` are of all writes due while the migration ran, each timed from when
it was due; `migrate_overhead` is what the job takes beyond dump, restore test, rehearsal and the migration's own
statements.  FAREBOX_BENCH_ROWS: how many subscriptions (default 5 million).
"""

import asyncio
import contextlib
import json
import math
import os
import shutil
import sys
import time
from collections.abc import AsyncIterator, Callable, Coroutine
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path

import asyncpg

from bench.ground import Ground
from bench.migrate_load import READS_PER_SECOND, WRITES_PER_SECOND, Answer
from bench.result import Result
from bench.subscriptions import BEFORE, copy_storefront, make_storefront, subscription_id
from migrations.guard.policy import Policy
from migrations.guard.trail import TRAIL_NAME, entries
from migrations.steps import ROOT
from tests.servers import drop_database

ROWS = 5_000_000
# Traffic before the migration begins: what the machine's own unrest is, and warm caches.
QUIET_SECONDS = 20.0
# Nobody waits longer for a page.
PATIENCE_SECONDS = 10.0
BLOCKED_SECONDS = 15.0
WATCH_SECONDS = 0.05
# By these names the trail calls what any careful person would do by hand.
NOT_OVERHEAD = ("backup", "restore test", "rehearsal")
TOUCH = "UPDATE public.subscriptions SET period_end = period_end WHERE id = $1"

Command = Callable[[str, Path], list[str]]
Beside = Callable[[str, Path], Coroutine[None, None, None]]


@dataclass(frozen=True)
class Window:
    """Answers to what was due between two instants; stalls in ms."""

    answers: list[Answer]

    @property
    def worst_ms(self) -> float:
        return max((ms for _, ms, _ in self.answers), default=0.0)

    @property
    def p999_ms(self) -> float:
        ordered = sorted(ms for _, ms, _ in self.answers)
        return ordered[math.ceil(len(ordered) * 0.999) - 1] if ordered else 0.0

    @property
    def failed(self) -> int:
        """Refused, or not answered while anybody would still wait."""
        late = PATIENCE_SECONDS * 1000
        return len([1 for _, ms, wrong in self.answers if wrong is not None or ms > late])

    def between(self, began: float, ended: float) -> "Window":
        return Window([each for each in self.answers if began <= each[0] < ended])


@dataclass
class Answers:
    writes: Window = field(default_factory=lambda: Window([]))
    reads: Window = field(default_factory=lambda: Window([]))

    def read(self, results: Path) -> None:
        """Raises RuntimeError when a write that was acknowledged is not there."""
        said = json.loads(results.read_text())
        if said["lost"]:
            raise RuntimeError(f"{said['lost']} subscriptions were acknowledged and are not there")
        self.writes, self.reads = Window(said["writes"]), Window(said["reads"])


@dataclass(frozen=True)
class Stage:
    name: str
    began: float
    seconds: float


@dataclass(frozen=True)
class Measured:
    """One migration under traffic; `stages` and `own_seconds` (the migration's statements) are the job's alone."""

    title: str
    seconds: float
    quiet: Window
    writes: Window
    reads: Window
    stages: tuple[Stage, ...] = ()
    own_seconds: float = 0.0

    @property
    def overhead(self) -> float:
        """As a share of the run."""
        careful = sum(each.seconds for each in self.stages if each.name in NOT_OVERHEAD)
        return (self.seconds - careful - self.own_seconds) / self.seconds

    def __str__(self) -> str:
        return (
            f"{self.title}: {self.seconds:.1f} s; {len(self.writes.answers):,} writes, longest stall"
            f" {self.writes.worst_ms:,.0f} ms, p99.9 {self.writes.p999_ms:,.0f} ms, {self.writes.failed:,} failed;"
            f" {len(self.reads.answers):,} reads, longest {self.reads.worst_ms:,.0f} ms, {self.reads.failed:,} failed;"
            f" before it began: longest write {self.quiet.worst_ms:,.0f} ms, p99.9 {self.quiet.p999_ms:,.0f} ms"
        )

    def shares(self) -> str:
        """Where the time went, and the longest stall of the writes that were due in each stage."""
        said = [
            f"{each.name} {each.seconds:.1f} s ({each.seconds / self.seconds:.0%}, stall"
            f" {self.writes.between(each.began, each.began + each.seconds).worst_ms:,.0f} ms)"
            for each in self.stages
        ]
        rest = self.seconds - sum(each.seconds for each in self.stages)
        return "; ".join([*said, f"start and end {rest:.1f} s", f"overhead {self.overhead:.1%}"])


@dataclass
class Bench:
    """`template` is a storefront's database with `rows` subscriptions on the server of `admin_url`."""

    admin_url: str
    folder: Path
    rows: int
    template: str = "bench_storefront"
    quiet_seconds: float = QUIET_SECONDS

    async def naive(self) -> Measured:
        ini = Path(__file__).with_name("naive") / "alembic.ini"
        command = [sys.executable, "-m", "alembic", "-c", str(ini), "upgrade", "head"]
        return await self._measure("naive", lambda url, folder: command)

    async def guarded(self) -> Measured:
        return await self._measure("guarded", guarded_command)

    async def blocked(self) -> Measured:
        return await self._measure("blocked", guarded_command, hold_a_row)

    async def _measure(
        self, title: str, command: Command, beside: Beside | None = None
    ) -> Measured:
        """Run the command on a storefront's database of its own, with traffic; `beside` may get in its way."""
        name = f"{self.template}_{title}"
        url = copy_storefront(self.admin_url, self.template, name)
        folder = self.folder / name
        folder.mkdir()
        answers = Answers()
        async with traffic(url, self.rows, folder / "answers.json", answers):
            await asyncio.sleep(self.quiet_seconds)
            began = time.time()
            async with asyncio.TaskGroup() as group:
                if beside is not None:
                    group.create_task(beside(url, folder))
                await run_command(command(url, folder), url, folder)
            ended = time.time()
        stages, own_seconds = told(folder / TRAIL_NAME)
        measured = Measured(
            title,
            ended - began,
            quiet=answers.writes.between(0, began),
            writes=answers.writes.between(began, ended),
            reads=answers.reads.between(began, ended),
            stages=stages,
            own_seconds=own_seconds,
        )
        drop_database(self.admin_url, name)
        shutil.rmtree(folder)
        print(f"  {measured}", file=sys.stderr)
        if measured.stages:
            print(f"  {measured.shares()}", file=sys.stderr)
        return measured


def guarded_command(url: str, folder: Path) -> list[str]:
    """The runbook's own."""
    where = ("--backup-dir", str(folder / "backups"), "--audit-dir", str(folder))
    return [sys.executable, "run_migration.py", "--database-url", url, *where]


@contextlib.asynccontextmanager
async def traffic(url: str, rows: int, results: Path, answers: Answers) -> AsyncIterator[None]:
    """A storefront at work while the block runs; afterwards `answers` is filled.  Raises RuntimeError."""
    child = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "bench.migrate_load", url, str(rows), str(results)),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        cwd=ROOT,
    )
    assert child.stdin is not None
    assert child.stdout is not None
    try:
        await child.stdout.readline()
        yield
        child.stdin.close()
        if await child.wait() != 0:
            raise RuntimeError("the storefront's traffic broke off")
        answers.read(results)
    finally:
        with contextlib.suppress(ProcessLookupError):
            child.kill()


async def run_command(command: list[str], url: str, folder: Path) -> None:
    """Raises RuntimeError with its last words when it fails."""
    log = folder / "command.log"
    environment = {k: v for k, v in os.environ.items() if not k.startswith(("KAFKA_", "FAREBOX_"))}
    with log.open("w") as output:
        child = await asyncio.create_subprocess_exec(
            *command,
            env=environment | {"DATABASE_URL": url},
            stdout=output,
            stderr=output,
            cwd=ROOT,
        )
        try:
            code = await child.wait()
        finally:
            with contextlib.suppress(ProcessLookupError):
                child.kill()
    if code != 0:
        raise RuntimeError(f"{command[1:3]} left with {code}: {log.read_text()[-2000:]}")


async def hold_a_row(url: str, folder: Path) -> None:
    """Somebody's transaction, open from the moment the job begins to change the database."""
    trail = folder / TRAIL_NAME
    while not (trail.exists() and '"stage": "apply"' in trail.read_text()):
        await asyncio.sleep(WATCH_SECONDS)
    connection = await asyncpg.connect(url)
    try:
        async with connection.transaction():
            await connection.execute(TOUCH, subscription_id(1))
            await asyncio.sleep(BLOCKED_SECONDS)
    finally:
        await connection.close()


def told(trail: Path) -> tuple[tuple[Stage, ...], float]:
    """The job's stages, and the seconds that the migration's own statements took; nothing of plain alembic."""
    began: dict[str, float] = {}
    stages: list[Stage] = []
    own_ms = 0.0
    for line in entries(trail) if trail.exists() else ():
        at = datetime.fromisoformat(str(line["at"])).timestamp()
        match line:
            case {"kind": "stage_started", "stage": str(name)}:
                began[name] = at
            case {"kind": "stage_done", "stage": str(name), "seconds": float(seconds)}:
                stages.append(Stage(name, began.pop(name), seconds))
            case {"kind": "statement_done", "ms": float(ms)} if "apply" in began:
                own_ms += ms
    return tuple(stages), own_ms / 1000


async def run(ground: Ground) -> list[Result]:
    rows = int(os.environ.get("FAREBOX_BENCH_ROWS", ROWS))
    bench = Bench(ground.postgres.url, ground.folder, rows)
    began = time.monotonic()
    make_storefront(bench.admin_url, bench.template, bench.rows)
    took = time.monotonic() - began
    print(f"  {bench.rows:,} subscriptions made in {took:.0f} s", file=sys.stderr)
    naive, guarded, blocked = await bench.naive(), await bench.guarded(), await bench.blocked()
    return results(bench.rows, naive, guarded, blocked)


def results(rows: int, naive: Measured, guarded: Measured, blocked: Measured) -> list[Result]:
    how = (
        f"{rows:,} subscriptions, {WRITES_PER_SECOND} writes/s and {READS_PER_SECOND} reads/s from another process,"
        f" each timed from when it was due, failed when refused or unanswered for {PATIENCE_SECONDS:.0f} s; fsync on"
    )
    limit_ms = Policy().stall_lock_timeout_ms
    made = [
        ("migrate_stall_max_ms", guarded, guarded.writes.worst_ms, naive.writes.worst_ms),
        ("migrate_stall_p999_ms", guarded, guarded.writes.p999_ms, naive.writes.p999_ms),
        ("migrate_stall_blocked_ms", blocked, blocked.writes.worst_ms, None),
    ]
    notes = [
        f"{how}; run_migration.py, {BEFORE} to head; {guarded}; bare is plain alembic with a naive 003; {naive}",
        f"the same run; over the {QUIET_SECONDS:.0f} s before it {guarded.quiet.p999_ms:,.1f} ms",
        f"{how}; a transaction holds a row for {BLOCKED_SECONDS:.0f} s, lock_timeout {limit_ms} ms; {blocked}",
    ]
    found = [
        Result(name, ours, bare, ours / bare if bare else None, "ms", len(run.writes.answers), note)
        for (name, run, ours, bare), note in zip(made, notes, strict=True)
    ]
    share = Result(
        "migrate_overhead",
        ours=guarded.overhead * 100,
        bare=None,
        ratio=None,
        unit="% of the run",
        n=rows,
        note=f"beyond {', '.join(NOT_OVERHEAD)} and the migration's own statements ({guarded.own_seconds:.1f} s);"
        f" {guarded.shares()}; naive has none and took {naive.seconds:.1f} s",
    )
    return [*found, share]
