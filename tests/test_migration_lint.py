"""The lint of `make check` reads what would really run, and says no to what would stop a live storefront."""

import psycopg
from alembic.config import Config
from alembic.script import ScriptDirectory

from migrations.guard.lint import LiveFacts, lint
from migrations.lint import LIVE_FROM, ROOT, findings, rendered
from migrations.steps import Migrations
from tests.conftest import Database

RELEASE_BEFORE = "014"


def test_every_live_revision_is_rendered_as_sql_and_free_of_findings() -> None:
    config = _config()
    revisions = dict(rendered(config))
    chain = ScriptDirectory.from_config(config).walk_revisions(LIVE_FROM, "heads")
    assert set(revisions) == {script.revision for script in chain} - {LIVE_FROM}
    for revision, sql in revisions.items():
        assert f"version_num='{revision}'" in sql
        assert findings(revision, sql) == []


def test_a_foreign_key_that_locks_the_storefront_while_it_checks_is_found() -> None:
    said = findings(
        "999",
        "ALTER TABLE public.subscriptions ADD CONSTRAINT fk FOREIGN KEY (user_id)"
        " REFERENCES public.users (id);",
    )
    assert sorted(each.rule for each in said) == [
        "adding-foreign-key-constraint",
        "constraint-missing-not-valid",
    ]
    assert said[0].revision == "999"
    assert said[0].line == 1


def test_a_plain_index_on_an_existing_table_is_found() -> None:
    said = findings("999", "CREATE INDEX ix ON public.subscriptions (status);")
    assert [each.rule for each in said] == ["require-concurrent-index-creation"]


def test_an_exception_that_is_not_needed_any_more_is_found() -> None:
    said = findings("007", "SELECT 1;")
    assert [each.rule for each in said] == ["require-concurrent-index-creation"]
    assert "not needed" in said[0].message


def test_what_is_new_is_safe_on_a_database_of_the_release_before(empty_database: Database) -> None:
    """There its tables are not new, as they are to who reads the whole chain: locks count."""
    migrations, sqls = Migrations(empty_database.url), dict(rendered(_config()))
    steps = migrations.pending()
    first = [step.revision for step in steps].index(RELEASE_BEFORE) + 1
    for step in steps[:first]:
        migrations.apply(step)
    with psycopg.connect(empty_database.url, autocommit=True) as connection:
        for step in steps[first:]:
            bounded = f"SET lock_timeout = '2s';\n{sqls[step.revision]}"
            facts = LiveFacts.read(connection)
            assert lint(bounded, file=step.revision, facts=facts).findings == (), step.revision
            migrations.apply(step)


def _config() -> Config:
    return Config(toml_file=ROOT / "pyproject.toml")
