"""The tests of the fold's rules as plain calls: the first that fails, by its name."""

import itertools
from collections.abc import Callable, Iterator
from functools import partial
from inspect import iscoroutinefunction
from random import Random
from types import ModuleType
from typing import Any

import pytest

from embedded.stripe_sandbox import LIFECYCLES
from tests.payments import (
    test_details,
    test_fold_rules,
    test_gateway,
    test_release,
    test_shapes,
    test_state,
    test_words,
)
from tests.payments.proof import test_rules

# Cheap and telling first: most mutants die at once.
MODULES = (
    test_rules,
    test_state,
    test_release,
    test_words,
    test_gateway,
    test_shapes,
    test_fold_rules,
    test_details,
)
ALL_LIVES = sorted(LIFECYCLES)
# What Hypothesis would draw, for the tests that it feeds.
# What they see, the others see too, in a hundredth of the time.
SLOW = {
    "test_every_permutation_of_a_short_life_is_one_row",
    "test_joining_is_commutative_associative_and_idempotent",
}
DRAWN: dict[str, list[dict[str, Any]]] = {
    "test_any_order_and_duplication_folds_to_the_same_bytes_and_to_the_truth": [
        {"seed": 5, "lifecycles": ALL_LIVES, "ties": ties} for ties in (0.0, 0.5)
    ],
    "test_whatever_order_the_details_are_the_truth": [{"seed": 6, "lifecycles": ALL_LIVES}],
}


def notices() -> str | None:
    """The name of the first test that fails under the rules as they are now; None where all pass."""
    for name, call in CALLS:
        try:
            call()
        except (Exception, pytest.fail.Exception):  # noqa: BLE001 - however it fails, it noticed
            return name
    return None


def _calls(module: ModuleType) -> Iterator[tuple[str, Callable[[], None]]]:
    for name, test in vars(module).items():
        if not name.startswith("test_") or name in SLOW or iscoroutinefunction(test):
            continue
        drawn = getattr(test, "hypothesis", None)
        if drawn is not None:
            for given in DRAWN.get(name, []):
                yield name, partial(_draw, drawn.inner_test, given)
        else:
            for given in _parametrized(test):
                yield name, partial(test, **given)


def _draw(test: Callable[..., None], given: dict[str, Any]) -> None:
    test(**given, dice=Random(1))


def _parametrized(test: Callable[..., None]) -> list[dict[str, Any]]:
    axes = []
    for mark in getattr(test, "pytestmark", []):
        if mark.name != "parametrize":
            continue
        names = mark.args[0] if isinstance(mark.args[0], tuple) else (mark.args[0],)
        axes.append([dict(zip(names, _values(v, len(names)), strict=True)) for v in mark.args[1]])
    return [{k: v for part in parts for k, v in part.items()} for parts in itertools.product(*axes)]


def _values(value: Any, count: int) -> tuple[Any, ...]:
    return tuple(value) if count > 1 else (value,)


CALLS = [call for module in MODULES for call in _calls(module)]
