"""Processes that are killed at their n-th await, one after the other: forked, because to start each would take longest.

`python -m tests.payments.mortal` reads its errand as JSON from stdin and prints how each of its processes ended.
"""

import asyncio
import os
import signal
import sys
import types
from collections.abc import Awaitable, Generator
from dataclasses import dataclass
from datetime import datetime
from functools import partial
from typing import Any, TypeVar
from uuid import UUID

import asyncpg
import httpx
from pydantic import BaseModel

from services.payments.app import create_web
from services.payments.gateway import StripeClient
from services.payments.orders import carry, work
from services.payments.orders.carry import Desk, Draft
from services.payments.orders.place import Order, place
from services.payments.orders.requests import Answer, Keyed
from shared.clock import Clock
from shared.db import create_engine, create_sessions, raw_pool
from shared.settings import Settings

T = TypeVar("T")


class Deed(BaseModel):
    """A request with its key; or, for the worker, the parameters of an order to be placed and carried out."""

    path: str = ""
    body: dict[str, object]
    key: str


class Errand(BaseModel):
    who: str  # web or worker
    database_url: str
    stripe_base: str
    token: str
    now: datetime
    deeds: list[Deed]
    stride: int = 1  # each lives so many awaits longer than the one before


@dataclass
class Life:
    """How many more times its process may wait for something."""

    breaths: int

    @types.coroutine
    def spend(self, awaited: Awaitable[T]) -> Generator[Any, Any, T]:
        """The result of `awaited`; the process dies on the spot when it waits once too often."""
        steps = awaited.__await__()
        step = partial(next, steps)
        while True:
            try:
                waits_for = step()
            except StopIteration as done:
                result: T = done.value
                return result
            self.breaths -= 1
            if self.breaths == 0:
                os.kill(os.getpid(), signal.SIGKILL)
            try:
                step = partial(steps.send, (yield waits_for))
            except BaseException as error:  # noqa: BLE001 - handed on, whatever it is
                step = partial(steps.throw, error)


async def ask_web(errand: Errand, deed: Deed, life: Life) -> None:
    settings = Settings(
        database_url=errand.database_url,
        stripe_api_key="sk_test_mortal",
        stripe_api_base=errand.stripe_base,
    )
    web = create_web(settings, lambda: errand.now)
    carried = carry.carry

    async def mortally(desk: Desk, keyed: Keyed, draft: Draft) -> Answer:
        return await life.spend(carried(desk, keyed, draft))

    carry.carry = mortally
    headers = {"Authorization": f"Bearer {errand.token}", "Idempotency-Key": deed.key}
    async with web.app.router.lifespan_context(web.app):
        transport = httpx.ASGITransport(web)
        async with httpx.AsyncClient(transport=transport, base_url="http://payments") as http:
            answer = await http.post(deed.path, json=deed.body, headers=headers)
            answer.raise_for_status()


async def work_once(errand: Errand, deed: Deed, life: Life) -> None:
    settings = Settings(database_url=errand.database_url)
    url = settings.url_of("payments")
    engine = create_engine(url, "payments")
    order = Order(UUID(deed.key), "create", deed.body, "renewals")
    async with create_sessions(engine).begin() as session:
        await place(session, order, errand.now)
    client = StripeClient("sk_test_mortal", errand.stripe_base)
    carry_out = work._carry_out

    async def mortally(
        pool: asyncpg.Pool, client: StripeClient, order: work.Claimed, clock: Clock
    ) -> bool:
        return await life.spend(carry_out(pool, client, order, clock))

    work._carry_out = mortally
    async with raw_pool(url, "payments", size=2) as pool:
        await life.spend(work.run_once(pool, client, "mortal", lambda: errand.now))
    await client.close()
    await engine.dispose()


def main() -> None:
    """Until two have lived: then every await has killed one."""
    errand = Errand.model_validate_json(sys.stdin.read())
    act = ask_web if errand.who == "web" else work_once
    lived = 0
    for number, deed in enumerate(errand.deeds):
        breaths = 1 + number * errand.stride
        child = os.fork()
        if child == 0:
            asyncio.run(act(errand, deed, Life(breaths)))
            os._exit(0)
        _, status = os.waitpid(child, 0)
        end = os.waitstatus_to_exitcode(status)
        print(end, flush=True)
        lived += end == 0
        if lived == 2:
            break


if __name__ == "__main__":
    main()
