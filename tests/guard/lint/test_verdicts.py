"""Both ways of being wrong count: missing what hurts, and crying wolf."""

import pytest
from alembic.config import Config

from migrations.guard.lint import LiveFacts, Override, lint
from migrations.guard.lint.judge import judge
from migrations.guard.lint.world import World
from migrations.lint import ROOT, rendered
from tests.guard.lint.dangerous import DANGEROUS
from tests.guard.lint.safe import SAFE


@pytest.mark.parametrize("name", DANGEROUS)
def test_what_would_hurt_is_found_where_it_stands(name: str) -> None:
    sql, rule, line = DANGEROUS[name]
    report = lint(sql, file=name)
    assert report.verdict == "dangerous"
    assert (rule, line) in [(each.rule, each.line) for each in report.findings]
    assert all(each.message and each.rewrite for each in report.findings)


@pytest.mark.parametrize("name", SAFE)
def test_what_nobody_would_notice_is_safe(name: str) -> None:
    report = lint(SAFE[name], file=name)
    assert [each for each in report.findings if not each.overridden] == []
    assert report.verdict == "safe"


@pytest.mark.parametrize("name", DANGEROUS)
def test_an_override_of_every_rule_found_makes_it_safe_and_stays_visible(name: str) -> None:
    sql, _, _ = DANGEROUS[name]
    rules = {each.rule for each in lint(sql, file=name).findings}
    report = lint(sql, file=name, overrides=[Override(rule, "at night") for rule in rules])
    assert report.verdict == "safe"
    assert all(
        each.overridden and "[overridden: at night]" in each.message for each in report.findings
    )


def test_one_override_excuses_no_other_rule() -> None:
    sql = "SET lock_timeout = '2s';\nALTER TABLE a DROP COLUMN b;\nTRUNCATE a;"
    report = lint(sql, file="x", overrides=[Override("drop-column", "unused")])
    assert report.verdict == "dangerous"
    assert [each.rule for each in report.findings if not each.overridden] == ["truncate"]


def test_our_own_chain_is_safe_under_the_timeout_of_its_connection() -> None:
    world, facts = World(), LiveFacts(5_000, 0, 150000)
    revisions = dict(rendered(Config(toml_file=ROOT / "pyproject.toml")))
    assert len(revisions) >= 7
    for revision, sql in revisions.items():
        assert judge(sql, revision, world, facts=facts, overrides=()).findings == ()
    unbounded = lint(revisions["003"], file="003")
    assert {each.rule for each in unbounded.findings} == {"missing-lock-timeout"}
