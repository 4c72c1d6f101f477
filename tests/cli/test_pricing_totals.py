"""What `farebox pricing preview` prints of a finished preview, and what it says of a file that is none."""

from pathlib import Path
from uuid import UUID

import pytest

from cli.pricing.totals import print_totals
from services.pricing.totals import Counted, Extreme, Totals
from tests.cli.conftest import Farebox

GERMANS = Counted(
    outcome="moved",
    currency="EUR",
    place="DE",
    delivery_type="express",
    tier="gold",
    bucket=20,
    count=30,
    old_minor=30_000,
    new_minor=30_900,
)
SMALLER = {"tier": "bronze", "bucket": -1, "count": 2, "old_minor": 2_000, "new_minor": 1_998}
THE_SAME = {"bucket": 0, "count": 5, "old_minor": 5_000, "new_minor": 5_000}
JAPANESE = {"currency": "JPY", "place": "JP", "delivery_type": "pickup", "tier": "bronze"}
WORLD = (
    GERMANS,
    GERMANS.model_copy(update=SMALLER | {"place": "FR"}),
    GERMANS.model_copy(update=JAPANESE | THE_SAME | {"outcome": "kept", "code": "same_cents"}),
    Counted(outcome="excluded", code="no_delivery_address", count=3),
)
SHOWN = """\
preview of price version 7: 40 subscriptions
  moved             32
  kept               5  (same_cents 5)
  excluded           3  (no_delivery_address 3)
  deferred           0
  failed             0
by             of       subscriptions  moved  rise  fall  before      after
currency       EUR      32             32     30    2     320.00 EUR  328.98 EUR
currency       JPY      5              0      0     0     5,000 JPY   5,000 JPY
delivery type  express  32             32     30    2     320.00 EUR  328.98 EUR
delivery type  pickup   5              0      0     0     5,000 JPY   5,000 JPY
place          DE       30             30     30    0     300.00 EUR  309.00 EUR
place          FR       2              2      0     2     20.00 EUR   19.98 EUR
place          JP       5              0      0     0     5,000 JPY   5,000 JPY
tier           bronze   2              2      0     2     20.00 EUR   19.98 EUR
tier           bronze   5              0      0     0     5,000 JPY   5,000 JPY
tier           gold     30             30     30    0     300.00 EUR  309.00 EUR

largest rises
subscription                          before     after      difference
00000000-0000-0000-0000-000000000001  10.00 EUR  10.30 EUR  +0.30 EUR

largest falls
subscription                          before     after     difference
00000000-0000-0000-0000-000000000002  10.00 EUR  9.99 EUR  -0.01 EUR

subscriptions by what changes for them, EUR
               -0.01 EUR  ### 2
  +0.20 EUR to +0.49 EUR  ######################################## 30

subscriptions by what changes for them, JPY
  0 JPY  ######################################## 5

hash abc
"""


def test_a_preview_shows_all_that_it_adds_up_to(capsys: pytest.CaptureFixture[str]) -> None:
    totals = Totals()
    for counted in WORLD:
        totals.add(counted)
    changes = ((1, 1_000, 1_030), (2, 1_000, 999))
    totals.note(
        Extreme(subscription_id=UUID(int=number), currency="EUR", old_minor=old, new_minor=new)
        for number, old, new in changes
    )
    said = totals.model_dump(mode="json")
    # as JSONB gives it back: keys in an order of its own
    said["outcomes"] = dict(sorted(said["outcomes"].items()))
    print_totals({"price_version": 7, "counted": 40, "hash": "abc", "totals": said})
    shown = [line.rstrip() for line in capsys.readouterr().out.splitlines()]
    assert shown == SHOWN.splitlines()


def test_of_many_places_those_with_most_are_shown(capsys: pytest.CaptureFixture[str]) -> None:
    totals = Totals()
    for number in range(40):
        place = f"US-{number:02}"
        totals.add(
            Counted(outcome="moved", currency="USD", place=place, count=number + 1, new_minor=1)
        )
    said = totals.model_dump(mode="json")
    print_totals({"price_version": 1, "counted": 820, "hash": "abc", "totals": said})
    shown = capsys.readouterr().out
    places = [line.split()[1] for line in shown.splitlines() if line.startswith("place")]
    assert places == [f"US-{number:02}" for number in range(25, 40)] + ["25"]
    assert "25 more: --json" in shown


@pytest.mark.parametrize(
    ("content", "why"),
    [
        (None, "cannot be read: No such file"),
        (b"", "is no JSON"),
        (b"\xff\xfe", "is no JSON"),
        (b"[1]", "write an object"),
        (b'{"admin_percentage": NaN}', "NaN is no number"),
        (b"[" * 100_000, "is no JSON"),
    ],
)
def test_a_file_that_is_no_draft_is_named_in_one_line(
    farebox: Farebox,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    content: bytes | None,
    why: str,
) -> None:
    monkeypatch.setenv("FAREBOX_API_KEY", "fbx_any")
    file = tmp_path / "draft.json"
    if content is not None:
        file.write_bytes(content)
    for command in (("draft", str(file)), ("revert", "1", str(file))):
        ended = farebox("pricing", *command)
        assert (ended.code, ended.out) == (2, "")
        [line] = ended.err.splitlines()
        assert str(file) in line
        assert why in line
