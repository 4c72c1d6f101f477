"""The storefront while its database is migrated, as a process of its own: `migrate_load URL ROWS RESULTS`.

Writes and reads are due at a steady rate, whatever became of those before: each is timed from when it was due, so
that who waits behind a lock is counted with all who queue up behind it.  Says when it has begun; ends when its standard
input does, once everything due until then is answered.
"""

import asyncio
import gc
import json
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from random import Random
from uuid import UUID, uuid4

import asyncpg
import uvloop

from bench.facts import START
from bench.subscriptions import SUBSCRIPTIONS_PER_CUSTOMER, customer_id, subscription_id

WRITES_PER_SECOND = 200
READS_PER_SECOND = 200
# A storefront's pool; more connections would shorten no queue behind a lock.
WRITING_CONNECTIONS, READING_CONNECTIONS = 16, 16
TICK_SECONDS = 0.001

RENEW = "UPDATE public.subscriptions SET period_start = $2, period_end = $3 WHERE id = $1"
PAUSE = "UPDATE public.subscriptions SET status = $2 WHERE id = $1 AND status <> 'canceled'"
CREATE = (
    "INSERT INTO public.subscriptions (id, user_id, currency, period_start, period_end)"
    " VALUES ($1, $2, 'USD', $3, $4)"
)
READ = "SELECT id, status, period_end FROM public.subscriptions WHERE user_id = $1"
MONTH = timedelta(days=30)

Request = tuple[str, Sequence[object]]
# When it was due (Unix time), how long it took from then (ms), what went wrong.
Answer = tuple[float, float, str | None]


@dataclass
class Traffic:
    """One kind of request."""

    per_second: int
    connections: int
    make: Callable[[], Request]
    answers: list[Answer] = field(default_factory=list)
    created: list[object] = field(default_factory=list)
    queue: asyncio.Queue[tuple[float, Request]] = field(default_factory=asyncio.Queue)

    async def run(self, url: str, connected: asyncio.Barrier, stop: asyncio.Event) -> None:
        connections = [await asyncpg.connect(url) for _ in range(self.connections)]
        workers = [asyncio.create_task(self._work(each)) for each in connections]
        await connected.wait()
        due = time.time()
        while not stop.is_set():
            while due <= time.time():
                self.queue.put_nowait((due, self.make()))
                due += 1 / self.per_second
            await asyncio.sleep(TICK_SECONDS)
        await self.queue.join()
        for worker in workers:
            worker.cancel()
        for each in connections:
            await each.close()

    async def _work(self, connection: asyncpg.Connection) -> None:
        while True:
            due, (query, values) = await self.queue.get()
            wrong = None
            try:
                await connection.fetch(query, *values)
            except (asyncpg.PostgresError, asyncpg.InterfaceError, OSError) as error:
                wrong = " ".join(f"{type(error).__name__}: {error}".split())
            self.answers.append((due, (time.time() - due) * 1000, wrong))
            if query == CREATE and wrong is None:
                self.created.append(values[0])
            self.queue.task_done()


@dataclass
class Storefront:
    """Of ten writes seven are renewals, one pauses or resumes, two are new subscriptions."""

    rows: int
    random: Random = field(default_factory=lambda: Random(1))

    def write(self) -> Request:
        chance, number = self.random.random(), self.random.randrange(1, self.rows + 1)
        starts = START + timedelta(seconds=self.random.randrange(10**6))
        if chance < 0.7:
            return RENEW, (subscription_id(number), starts, starts + MONTH)
        if chance < 0.8:
            status = self.random.choice(("active", "paused"))
            return PAUSE, (subscription_id(number), status)
        return CREATE, (uuid4(), self._customer(), starts, starts + MONTH)

    def read(self) -> Request:
        return READ, (self._customer(),)

    def _customer(self) -> UUID:
        return customer_id(self.random.randrange(1, self.rows // SUBSCRIPTIONS_PER_CUSTOMER + 1))


async def work(url: str, rows: int) -> dict[str, object]:
    storefront, stop = Storefront(rows), asyncio.Event()
    writes = Traffic(WRITES_PER_SECOND, WRITING_CONNECTIONS, storefront.write)
    reads = Traffic(READS_PER_SECOND, READING_CONNECTIONS, storefront.read)
    asyncio.get_running_loop().add_reader(sys.stdin.fileno(), stop.set)
    connected = asyncio.Barrier(3)
    async with asyncio.TaskGroup() as both:
        both.create_task(writes.run(url, connected, stop))
        both.create_task(reads.run(url, connected, stop))
        await connected.wait()
        print("begun", flush=True)
    lost = len(writes.created) - await _found(url, writes.created)
    return {"writes": writes.answers, "reads": reads.answers, "lost": lost}


async def _found(url: str, created: list[object]) -> int:
    connection = await asyncpg.connect(url)
    try:
        query = "SELECT count(*) FROM public.subscriptions WHERE id = ANY ($1)"
        return int(await connection.fetchval(query, created))
    finally:
        await connection.close()


if __name__ == "__main__":
    # A collection of what is kept of a hundred thousand answers would be measured as a stall.
    gc.disable()
    said = uvloop.run(work(sys.argv[1], int(sys.argv[2])))
    Path(sys.argv[3]).write_text(json.dumps(said))
