"""What the sandbox plays, as raw events grouped by payment, ready to be shuffled and folded."""

from collections import defaultdict
from collections.abc import Iterable, Sequence
from random import Random
from uuid import UUID

import orjson

from embedded.stripe_sandbox import LIFECYCLES, PaymentSpec, Played, play
from services.payments.domain import Fold, StripeFact, join, merge
from services.payments.gateway import translate

START = 1_780_000_000
USER = UUID("11111111-1111-4111-8111-111111111111")
SUBSCRIPTION = UUID("22222222-2222-4222-8222-222222222222")


def played(seed: int, lifecycles: Sequence[str], ties: float = 0.0, amount: int = 9_000) -> Played:
    specs = [
        PaymentSpec(str(USER), str(SUBSCRIPTION), amount, currency, lifecycle)
        for lifecycle, currency in zip(lifecycles, ("USD", "EUR", "JPY") * 99, strict=False)
    ]
    return play(seed, specs, START, ties)


def every_life(seed: int, ties: float = 0.0) -> Played:
    return played(seed, sorted(LIFECYCLES), ties)


def facts_of(lives: Played) -> dict[str, list[StripeFact]]:
    """Every payment's facts, in the order in which they came about."""
    facts: dict[str, list[StripeFact]] = defaultdict(list)
    for event in lives.events:
        if event["type"] == "invoice.paid":
            continue  # in today's shape it names no payment: invoice_payment.paid does
        fact = translate(orjson.dumps(event))
        assert isinstance(fact, StripeFact)
        assert fact.payment is not None
        facts[fact.payment].append(fact)
    return facts


def fold(facts: Iterable[StripeFact]) -> Fold:
    result = Fold()
    for fact in facts:
        result = merge(result, fact)
    return result


def fold_in_two(facts: Sequence[StripeFact], rng: Random) -> Fold:
    """The same, grouped differently: two halves folded apart, then joined."""
    middle = rng.randint(0, len(facts))
    return join(fold(facts[middle:]), fold(facts[:middle]))


def shuffled(facts: Sequence[StripeFact], rng: Random) -> list[StripeFact]:
    """Any order, and some of them again."""
    delivered = [*facts, *rng.choices(facts, k=rng.randint(0, len(facts)))]
    rng.shuffle(delivered)
    return delivered
