"""What a check of `farebox audit` found."""

from dataclasses import dataclass


@dataclass(frozen=True)
class CheckResult:
    """`id` as in ARCHITECTURE.md (S1, S2, …); `counted` is how many things were looked at."""

    id: str
    ok: bool
    counted: int
    detail: str
