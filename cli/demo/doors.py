"""The public doors the story goes through: HTTP of the four services, and what it tells Stripe's stand-in."""

import asyncio
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import date, datetime
from typing import Any

import httpx

Json = dict[str, Any]

PAGE = 500
# Both sides of a request share this machine's cores.
AT_ONCE = 8
TIMEOUT_SECONDS = 120.0


class DoorClosed(Exception):
    """A service answered what the story cannot go on with."""


@dataclass(frozen=True)
class Doors:
    """`urls` by service; `key` opens pricing, `approver` is another one's, for what its writer may not do."""

    client: httpx.AsyncClient
    urls: Mapping[str, str]
    key: str
    approver: str

    async def ask(self, method: str, service: str, path: str, body: Json | None = None) -> Json:
        key = self.approver if path.endswith("/approve") else self.key
        headers = {"Authorization": f"Bearer {key}"} if service == "pricing" else {}
        answer = await self.client.request(
            method, f"{self.urls[service]}{path}", json=body, headers=headers
        )
        if answer.is_error:
            raise DoorClosed(f"{method} {service}{path}: {answer.status_code} {answer.text[:300]}")
        found: Json = answer.json()
        return found

    async def pages(self, service: str, path: str) -> list[Json]:
        """Everything a list holds, page by page."""
        items: list[Json] = []
        mark = ""
        while True:
            page = await self.ask("GET", service, f"{path}?limit={PAGE}{mark}")
            items += page["items"]
            if page["next"] is None:
                return items
            mark = f"&after={page['next']}"

    async def of_each(self, service: str, paths: Sequence[str]) -> list[list[Json]]:
        """`pages` of many lists, some at once; a list that is not there is empty."""
        gate = asyncio.Semaphore(AT_ONCE)

        async def one(path: str) -> list[Json]:
            async with gate:
                try:
                    return await self.pages(service, path)
                except DoorClosed as closed:
                    if " 404 " in str(closed):
                        return []
                    raise

        return list(await asyncio.gather(*map(one, paths)))

    async def preview_prices(self, terms: Json) -> int:
        """Draft a version and ask what it would do."""
        draft = await self.ask("POST", "pricing", "/drafts", terms)
        version = int(draft["version"])
        await self.ask("POST", "pricing", f"/drafts/{version}/preview")
        return version

    async def publish_prices(self, version: int, digest: str, reason: str) -> None:
        """Another key approves what the preview showed, then it is published."""
        path, said = f"/drafts/{version}", {"hash": digest, "reason": reason}
        await self.ask("POST", "pricing", f"{path}/approve", said)
        await self.ask("POST", "pricing", f"{path}/publish", said)

    async def play(
        self, seed: str, start: datetime, payments: Sequence[Json], faults: Json
    ) -> list[Json]:
        """Payments begin to live; their webhooks come by themselves."""
        order = {
            "seed": seed,
            "start_at": start.isoformat(),
            "payments": list(payments),
            "faults": faults,
        }
        played = await self.ask("POST", "stripe-sandbox", "/_sandbox/play", order)
        found: list[Json] = played["payments"]
        return found

    async def advance(self, stripe_id: str, action: str, after_seconds: int) -> None:
        """The next thing in a payment's life happens."""
        step = {"stripe_id": stripe_id, "action": action, "after_seconds": after_seconds}
        await self.ask("POST", "stripe-sandbox", "/_sandbox/advance", step)

    async def deliveries(self) -> Json:
        return await self.ask("GET", "stripe-sandbox", "/_sandbox/deliveries")

    async def drain(self) -> Json:
        body = {"timeout_seconds": TIMEOUT_SECONDS - 5}
        return await self.ask("POST", "stripe-sandbox", "/_sandbox/drain", body)

    async def truth(self) -> Mapping[str, Json]:
        return await self.ask("GET", "stripe-sandbox", "/_sandbox/truth")

    async def days(self, what: str, first: date, last: date) -> list[Json]:
        path = f"/{what}/daily?from={first}&to={last}"
        found: list[Json] = (await self.ask("GET", "analytics", path))["items"]
        return found


@asynccontextmanager
async def open_doors(urls: Mapping[str, str], key: str, approver: str) -> AsyncIterator[Doors]:
    async with httpx.AsyncClient(timeout=TIMEOUT_SECONDS, trust_env=False) as client:
        yield Doors(client, urls, key, approver)
