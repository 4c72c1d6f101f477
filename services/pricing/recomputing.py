"""A line of the cost history computed once more, from the box and the versions it names.  Reads and writes nothing."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from pydantic import ValidationError

from services.pricing.composition import Layer, compose
from services.pricing.domain import Box, Terms, cost
from services.pricing.models import SubscriptionCostHistory
from shared.errors import FareboxError
from shared.events import CostBreakdown


@dataclass
class Composed:
    """What versions amount to together, computed once for each composition."""

    layers: Mapping[int, Layer]
    terms: dict[tuple[int, ...], Terms] = field(default_factory=dict)

    def of(self, numbers: tuple[int, ...]) -> Terms:
        """Raises KeyError for a version there is not, and what `compose` raises."""
        if numbers not in self.terms:
            self.terms[numbers] = compose([self.layers[number] for number in numbers])
        return self.terms[numbers]


def fault_of(line: SubscriptionCostHistory, known: Composed) -> str | None:
    """What is wrong with a line of the cost history, said of it, or None."""
    try:
        said = CostBreakdown.model_validate(line.new_breakdown)
        again = _again(said, known.of(versions_of(line, said)))
    except KeyError as missing:
        return f"names price version {missing}, which was never published"
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        return f"cannot be read: {'.'.join(map(str, first['loc']))}: {first['msg']}"
    except FareboxError as error:
        return f"cannot be computed again: {error}"
    if again != said:
        return f"says {said.total_minor}, recomputed it is {again.total_minor}"
    if (line.new_total_minor, line.currency) != (said.total_minor, said.currency):
        return f"says {line.new_total_minor} {line.currency} and {said.total_minor} {said.currency}"
    return None


def versions_of(line: SubscriptionCostHistory, said: CostBreakdown) -> tuple[int, ...]:
    """Lines of the first releases name one version, which was all there was."""
    return said.price_versions or (line.price_version,)


def _again(said: CostBreakdown, terms: Terms) -> CostBreakdown:
    box = Box(
        *(said.currency, said.variants, said.delivery_type, said.place),
        said.loyalty_discount_minor,
    )
    again = cost(terms, box, said.price_versions)
    if said.price_versions:
        return again
    # Written before totals were rounded to what can be paid.
    total = again.taxable_minor + again.tax_minor
    return again.model_copy(update={"rounding_minor": 0, "total_minor": total})
