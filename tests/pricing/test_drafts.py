from decimal import Decimal
from uuid import UUID

import pytest
from pydantic import ValidationError

from services.pricing.drafts import ConfigDraft, stored_changes

DRAFT = {
    "admin_percentage": "12.5",
    "delivery_cost_minor": {"USD": {"standard": 500}},
    "tax_rates": {"DE": "0.19", "US-CA": "0.0725"},
}


def test_a_draft_reads_exact_numbers() -> None:
    terms = ConfigDraft.model_validate(DRAFT).changes
    assert (terms.admin_percentage, terms.tax_rates["US-CA"]) == (
        Decimal("12.5"),
        Decimal("0.0725"),
    )
    assert terms.delivery_cost_minor == {"USD": {"standard": 500}}


@pytest.mark.parametrize("percentage", ["0.1", "50", 50, "50.0000", Decimal("0.1000")])
def test_the_bounds_of_the_percentage_are_inside(percentage: object) -> None:
    ConfigDraft.model_validate(DRAFT | {"admin_percentage": percentage})


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("admin_percentage", "0.0999"),
        ("admin_percentage", "50.0001"),
        ("admin_percentage", 0),
        ("admin_percentage", 12.5),  # a float is never exact
        ("admin_percentage", True),
        ("admin_percentage", "1e1"),
        ("admin_percentage", "NaN"),
        ("admin_percentage", "-1"),
        ("admin_percentage", "1.00001"),
        ("admin_percentage", None),
        ("tax_rates", {"DE": "1.01"}),
        ("tax_rates", {"DE": 0.19}),
        ("tax_rates", {"DE": "0.1234567"}),
        ("tax_rates", {"de": "0.19"}),
        ("tax_rates", {"USA": "0.19"}),
        ("tax_rates", {}),
        ("delivery_cost_minor", {}),
        ("delivery_cost_minor", {"USD": {}}),
        ("delivery_cost_minor", {"USD": {"standard": -1}}),
        ("delivery_cost_minor", {"USD": {"standard": 5.0}}),
        ("delivery_cost_minor", {"USD": {"standard": True}}),
        ("delivery_cost_minor", {"USD": {"Standard!": 5}}),
        ("delivery_cost_minor", {"usd": {"standard": 5}}),
        ("unknown", 1),
    ],
)
def test_what_is_out_of_bounds_is_refused(field: str, value: object) -> None:
    with pytest.raises(ValidationError, match=field):
        ConfigDraft.model_validate(DRAFT | {field: value})


def test_a_currency_that_is_none_is_refused() -> None:
    with pytest.raises(ValidationError, match="'XXQ' is not an ISO 4217 currency"):
        ConfigDraft.model_validate(DRAFT | {"delivery_cost_minor": {"XXQ": {"standard": 5}}})


def test_stored_changes_are_written_in_one_way() -> None:
    variant = UUID(int=7)
    changes = stored_changes(
        Decimal("10.0000"),
        {"USD": {"standard": 5}},
        {"DE": "0.190"},
        ["DE"],
        {"USD": {str(variant): 1}},
    )
    assert (str(changes.admin_percentage), str(changes.tax_rates["DE"])) == ("10", "0.19")
    assert set(changes.tax_inclusive or ()) == {"DE"}
    assert changes.variant_prices == {"USD": {variant: 1}}


@pytest.mark.parametrize("missing", sorted(DRAFT))
def test_a_version_for_everything_is_whole_and_a_cohort_s_leaves_out_what_it_does_not_change(
    missing: str,
) -> None:
    rest = {key: value for key, value in DRAFT.items() if key != missing}
    with pytest.raises(ValidationError, match=f"for everything gives {missing} too"):
        ConfigDraft.model_validate(rest)
    cohort = ConfigDraft.model_validate(rest | {"scope": {"places": ["DE"]}})
    assert cohort.stored()[missing] is None
    kept = set(DRAFT) - {missing}
    assert all(cohort.stored()[name] is not None for name in kept)
