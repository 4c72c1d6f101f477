"""One price version on its way to the subscriptions that are there: what it makes of each.  Pure.

Subscriptions of one group (priced by the same versions, in the same currency, sent the same way to the same place)
get the same terms: SQL asks once for a group and does the arithmetic for its rows, and both agree to the cent.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Literal
from uuid import UUID
from zoneinfo import ZoneInfo

from services.pricing.composition import Layer, compose, numbers
from services.pricing.domain import (
    Box,
    Terms,
    cost,
    delivery_cost,
    moved_lines,
    priced_lines,
    tax_included,
    tax_rate,
)
from services.pricing.timing import Due, Situation, Stays, Timing, plan
from shared.errors import FareboxError
from shared.events import BoxLine, CostBreakdown
from shared.money import payable_step

Outcome = Literal["moved", "kept", "excluded", "deferred", "failed"]
OUTCOMES: tuple[Outcome, ...] = ("moved", "kept", "excluded", "deferred", "failed")

# Why a subscription ended as it did, in a sentence; what has more to say says it itself.
DETAILS: Mapping[str, str] = {
    "same_cents": "not a cent differs",
    "grandfathered": "it was there before this version and keeps its price",
    "restored": "it has its earlier price back",
    "not_told": "its customer was not told in time",
    "changed": "its result is not the one that was approved",
    "new_since_preview": "it was not there when the preview was made",
    "replaced": "a newer version of the same scope reaches it no later",
    "canceled": "the rollout was canceled",
}
# Above these a product of two numbers might not fit SQL's bigint; such subscriptions are priced one by one.
PERCENT_SCALE = 10_000  # pricing_configs.admin_percentage is numeric(7, 4)
RATE_SCALE = 1_000_000  # rates have six places at most
SQL_AMOUNT_MAX = 2**40


@dataclass(frozen=True)
class Group:
    """What subscriptions have in common that their terms depend on."""

    on: tuple[int, ...]  # the versions they are priced by
    currency: str
    delivery_type: str
    place: str
    before: tuple[int, ...] | None = None  # the ones that a version to be reverted took them from


@dataclass(frozen=True)
class Verdict:
    """What becomes of a group: its terms, or an outcome with its code and reason."""

    outcome: Outcome | None
    code: str | None = None
    detail: str | None = None
    versions: tuple[int, ...] = ()
    terms: Terms | None = None
    restores: bool = False
    currency: str = ""


@dataclass(frozen=True)
class Campaign:
    """A version, published or still a draft, and all that its results depend on."""

    layer: Layer
    layers: Mapping[int, Layer]  # every version that a subscription may be on, and this one
    timing: Timing
    started: datetime
    zone: ZoneInfo
    in_force: tuple[Layer, ...] = ()  # beside it: for whoever was never priced
    reverts: Layer | None = None
    replaced_by: int | None = None  # of the same scope, and at once for everybody
    # Composed once for all who are priced alike: there may be thousands of rates.
    verdicts: dict[Group, Verdict] = field(default_factory=dict, compare=False)

    @property
    def at_once(self) -> bool:
        """Whether it reaches everybody the moment it takes effect."""
        return self.timing.at_once

    @property
    def gives_lines_back(self) -> bool:
        """Whether what it reverts named unit prices: each subscription then gets its own back, one by one."""
        return self.reverts is not None and bool(self.reverts.changes.variant_prices)

    def named(self, currency: str) -> Mapping[UUID, int]:
        """What it names unit prices for."""
        return self.layer.changes.variant_prices.get(currency, {})

    def verdict(self, group: Group) -> Verdict:
        """Never raises: what cannot be priced fails with its reason and stops nobody else."""
        if group not in self.verdicts:
            self.verdicts[group] = self._verdict(group)
        return self.verdicts[group]

    def _verdict(self, group: Group) -> Verdict:
        if self.replaced_by is not None:
            return Verdict("deferred", "replaced", f"price version {self.replaced_by} replaced it")
        unknown = [n for n in group.on if n not in self.layers]
        if unknown:
            return Verdict("failed", "unknown_version", f"there is no price version {unknown[0]}")
        on = [self.layers[number] for number in group.on]
        for other in on:
            if other.scope_id == self.layer.scope_id and _order(other) >= _order(self.layer):
                return Verdict("kept", "came_first", f"price version {other.number} came first")
        if self.reverts is not None and on and not self._takes_back(on):
            detail = f"price version {self.reverts.number} never moved it"
            return Verdict("kept", "never_moved", detail)
        before = group.before or ()
        earlier = self._earlier(before)
        # Who signed up under the reverted version has nothing from before: he is priced as the revert says.
        known = self.reverts is not None and bool(before) and self.reverts.number not in before
        # A cohort that had no version of its own before has none again.
        restores = known and (bool(earlier) or not self.layer.scope.everything)
        after = [layer for layer in on if layer.scope_id != self.layer.scope_id]
        after += earlier if restores else [self.layer]
        try:
            terms, versions = compose(after), numbers(after)
            delivery_cost(terms, group.currency, group.delivery_type)
            tax_rate(terms, group.place)
        except FareboxError as error:
            return Verdict("failed", code_of(error), error.detail)
        return Verdict(None, None, None, versions, terms, restores, group.currency)

    def priced(self, verdict: Verdict, box: Box, given: Mapping[UUID, int]) -> CostBreakdown:
        """`box` after the move; lines that are not `given` a price keep the one they carry.

        Raises what `cost` raises; ValueError where the verdict is no price.
        """
        if verdict.terms is None:
            raise ValueError(f"{verdict.outcome} is no price")
        lines = moved_lines((BoxLine(**line.model_dump()) for line in box.variants), given)
        variants = priced_lines(lines, {}, box.currency)
        return cost(verdict.terms, replace(box, variants=variants), verdict.versions)

    def plan(self, situation: Situation) -> Due | Stays:
        effective_from = self.layer.effective_from
        return plan(self.timing, effective_from, situation, self.started, self.zone)

    def _takes_back(self, on: list[Layer]) -> bool:
        return self.reverts is not None and self.reverts.number in {layer.number for layer in on}

    def _earlier(self, before: tuple[int, ...]) -> list[Layer]:
        """Of the scope that is reverted: what the subscription was on."""
        known = (self.layers[number] for number in before if number in self.layers)
        return [layer for layer in known if layer.scope_id == self.layer.scope_id]


def row_of(campaign: Campaign, group: Group) -> dict[str, object]:
    """A group as pricing_sql reads it; `alone` sends its subscriptions to the pure function one by one."""
    verdict = campaign.verdict(group)
    row: dict[str, object] = {
        "versions": list(group.on),
        "before": None if group.before is None else list(group.before),
        "currency": group.currency,
        "delivery_type": group.delivery_type,
        "place": group.place,
        "verdict": verdict.outcome,
        "code": "restored" if verdict.restores else verdict.code,
        "detail": verdict.detail,
        "alone": False,
    }
    return row if verdict.terms is None else row | _arithmetic(campaign, group, verdict)


def _arithmetic(campaign: Campaign, group: Group, verdict: Verdict) -> dict[str, object]:
    if verdict.terms is None:
        raise ValueError(f"{verdict.outcome} is no price")
    terms, restores = verdict.terms, verdict.restores
    delivery = delivery_cost(terms, group.currency, group.delivery_type)
    rate, inclusive = tax_rate(terms, group.place), tax_included(terms, group.place)
    percentage, tax = terms.admin_percentage * PERCENT_SCALE, rate * RATE_SCALE
    exact = percentage == int(percentage) and tax == int(tax)
    return {
        "alone": not exact or delivery > SQL_AMOUNT_MAX or campaign.gives_lines_back,
        "part": {
            "price_versions": list(verdict.versions),
            "admin_percentage": str(terms.admin_percentage),
            "tax_rate": str(rate),
            "tax_inclusive": inclusive,
            "delivery_minor": delivery,
        },
        "percentage": int(percentage),
        "delivery": delivery,
        "rate": int(tax),
        "divisor": RATE_SCALE + int(tax) if inclusive else RATE_SCALE,
        "step": payable_step(group.currency),
        "names": not restores and bool(campaign.named(group.currency)),
    }


def code_of(error: FareboxError) -> str:
    """`NoTaxRate` as `no_tax_rate`: what a program may ask for."""
    return re.sub(r"(?<!^)(?=[A-Z])", "_", type(error).__name__).lower()


def _order(layer: Layer) -> tuple[datetime, int]:
    return layer.effective_from, layer.number
