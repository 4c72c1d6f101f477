"""Signed webhooks: sent with bounded concurrency, sent again until taken or given up."""

import asyncio
import time
from collections.abc import Sequence
from dataclasses import dataclass, field

from embedded.stripe_sandbox.ledger import API_VERSION
from embedded.stripe_sandbox.records import Record
from embedded.stripe_sandbox.signing import sign
from embedded.stripe_sandbox.versions import THIN
from embedded.stripe_sandbox.wire import Answer, Sender

USER_AGENT = "farebox-stripe-sandbox/1 (a stand-in for Stripe)"


@dataclass(frozen=True)
class Patience:
    """How long Stripe waits, and how often it tries; Stripe's own tries go on for three days."""

    concurrency: int = 32
    answer_within_seconds: float = 20.0
    first_retry_after_seconds: float = 0.5
    longest_retry_after_seconds: float = 10.0
    give_up_after_seconds: float = 600.0

    def wait_seconds(self, attempts: int) -> float:
        doubled: float = self.first_retry_after_seconds * 2.0 ** min(attempts - 1, 30)
        return min(doubled, self.longest_retry_after_seconds)


@dataclass(frozen=True)
class Endpoint:
    """Where webhooks go; several secrets while one is being rolled; a body shape of its own."""

    url: str
    secrets: Sequence[str]
    api_version: str = API_VERSION
    thin: bool = False

    @property
    def shape(self) -> str:
        return THIN if self.thin else self.api_version

    @property
    def key(self) -> tuple[str, str]:
        # During an upgrade one address takes two versions, each signed with a secret of its own.
        return self.url, self.shape


@dataclass(slots=True)
class Delivery:
    record: Record
    endpoint_key: tuple[str, str]
    attempts: int = 0
    first_tried: float = 0.0


@dataclass
class Counts:
    """Deliveries, duplicates included; `attempts` also counts those that failed and were retried."""

    pending: int = 0
    delivered: int = 0
    failed: int = 0
    dropped: int = 0
    attempts: int = 0
    last_error: str | None = None


@dataclass
class Deliverer:
    """Holds what is to be sent; from `start` to `stop` its workers send it."""

    patience: Patience = field(default_factory=Patience)
    endpoints: dict[tuple[str, str], Endpoint] = field(default_factory=dict)
    counts: Counts = field(default_factory=Counts)

    def __post_init__(self) -> None:
        self._sender = Sender()
        # Everything in it is in memory anyway, so the queue needs no bound of its own.
        self._due: asyncio.Queue[Delivery] = asyncio.Queue()
        self._idle = asyncio.Event()
        self._idle.set()
        self._workers: list[asyncio.Task[None]] = []

    def start(self) -> None:
        self._workers = [
            asyncio.create_task(self._work()) for _ in range(self.patience.concurrency)
        ]

    async def stop(self) -> None:
        """Stop sending.  What was on its way is queued again: an endpoint may see it twice."""
        for worker in self._workers:
            worker.cancel()
        await asyncio.gather(*self._workers, return_exceptions=True)
        self._workers = []
        self._sender.close()

    def expect(self, record: Record) -> None:
        """Note which endpoints are to take this event."""
        record.awaiting = set(self.endpoints)

    def send(self, record: Record, delay_seconds: float = 0.0) -> None:
        for key in self.endpoints:
            self.counts.pending += 1
            self._idle.clear()
            self._queue_after(Delivery(record, key), delay_seconds)

    def drop(self, record: Record) -> None:
        """Never deliver it: only the list of events knows."""
        self.counts.dropped += len(self.endpoints)

    async def drained(self, timeout_seconds: float) -> bool:
        """Wait, no longer than told, until nothing is pending."""
        try:
            async with asyncio.timeout(timeout_seconds):
                await self._idle.wait()
        except TimeoutError:
            return False
        return True

    def _queue_after(self, delivery: Delivery, seconds: float) -> None:
        if seconds > 0:
            asyncio.get_running_loop().call_later(seconds, self._due.put_nowait, delivery)
        else:
            self._due.put_nowait(delivery)

    async def _work(self) -> None:
        while True:
            delivery = await self._due.get()
            try:
                await self._try(delivery)
            except asyncio.CancelledError:
                self._due.put_nowait(delivery)
                raise

    async def _try(self, delivery: Delivery) -> None:
        # Looked up at each attempt: a rolled secret counts at once, a removed endpoint gets no more.
        endpoint = self.endpoints.get(delivery.endpoint_key)
        if endpoint is None:
            self._give_up(f"the endpoint {delivery.endpoint_key[0]} was removed")
            return
        delivery.attempts += 1
        delivery.first_tried = delivery.first_tried or time.monotonic()
        self.counts.attempts += 1
        try:
            answer = await self.post(endpoint, delivery.record.body(endpoint.shape))
            taken, problem = 200 <= answer.status < 300, f"{answer.status} from {endpoint.url}"
        except OSError as error:
            taken, problem = False, f"{type(error).__name__} at {endpoint.url}: {error}"
        if taken:
            self._took(delivery)
        else:
            self._again(delivery, problem)

    async def post(self, endpoint: Endpoint, body: bytes) -> Answer:
        """Sign and send once.  OSError, a TimeoutError among them, when there is no answer."""
        headers = {
            "Content-Type": "application/json; charset=utf-8",
            "Stripe-Signature": sign(body, endpoint.secrets, int(time.time())),
            "User-Agent": USER_AGENT,
        }
        return await self.post_as(endpoint.url, headers, body)

    async def post_as(self, url: str, headers: dict[str, str], body: bytes) -> Answer:
        async with asyncio.timeout(self.patience.answer_within_seconds):
            return await self._sender.post(url, headers, body)

    def _took(self, delivery: Delivery) -> None:
        delivery.record.awaiting.discard(delivery.endpoint_key)
        self.counts.delivered += 1
        self._done()

    def _again(self, delivery: Delivery, problem: str) -> None:
        if time.monotonic() - delivery.first_tried >= self.patience.give_up_after_seconds:
            self._give_up(problem)
            return
        self.counts.last_error = problem
        self._queue_after(delivery, self.patience.wait_seconds(delivery.attempts))

    def _give_up(self, problem: str) -> None:
        self.counts.last_error = problem
        self.counts.failed += 1
        self._done()

    def _done(self) -> None:
        self.counts.pending -= 1
        if self.counts.pending == 0:
            self._idle.set()
