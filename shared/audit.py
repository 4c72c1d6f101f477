"""What a check of `farebox audit` found."""

from collections.abc import Mapping
from dataclasses import dataclass

from shared.money import EXPONENTS


@dataclass(frozen=True)
class CheckResult:
    """`id` as in ARCHITECTURE.md (S1, S2, …); `counted` is how many things were looked at."""

    id: str
    ok: bool
    counted: int
    detail: str


def currencies(service: str, counts: Mapping[str, int]) -> CheckResult:
    """S5: an ISO 4217 code stands beside every amount.  `counts`: how many amounts, by currency."""
    wrong = sorted(code for code in counts if code not in EXPONENTS)
    fine = f"{service} currencies are ISO 4217"
    detail = f"{service} currencies: {', '.join(map(repr, wrong))} is not ISO 4217"
    return CheckResult("S5", not wrong, sum(counts.values()), detail if wrong else fine)
