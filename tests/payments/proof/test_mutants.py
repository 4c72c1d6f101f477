"""Every small change of the fold's rules is noticed by a test of the rules."""

from types import ModuleType

import pytest

from tests.payments.proof.mutants import MODULES, survivors

# Fewer would mean that the rules are no longer what is changed here.
FEWEST = {
    "domain.fold": 80,
    "domain.state": 100,
    "gateway.parts": 30,
    "gateway.afterwards": 50,
    "gateway.translate": 60,
    "reconcile.compare": 15,
}


@pytest.mark.parametrize("module", MODULES, ids=lambda module: module.__name__)
def test_no_change_of_the_rules_goes_unnoticed(module: ModuleType) -> None:
    total, alive = survivors(module)
    assert alive == []
    assert total >= FEWEST[module.__name__.removeprefix("services.payments.")]
