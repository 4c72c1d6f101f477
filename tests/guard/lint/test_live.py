"""What the rules take for granted about PostgreSQL, seen in its own pg_locks; and what a live database changes."""

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import psycopg
import pytest
from psycopg.rows import TupleRow

from migrations.guard.lint import LiveFacts, command, lint, lint_files
from migrations.guard.lint.command import NotAFile, NotAnOverride
from migrations.guard.lint.locks import Mode
from migrations.guard.lint.source import Source
from tests.conftest import Database

Connection = psycopg.Connection[TupleRow]

SETUP = """
CREATE TABLE users (id int PRIMARY KEY);
CREATE TABLE orders (id int PRIMARY KEY, total int CHECK (total IS NOT NULL), note varchar(20),
    price numeric(7, 2), user_id int);
CREATE INDEX ix ON orders (total);
CREATE UNIQUE INDEX uq ON orders (note);
ALTER TABLE orders ADD CONSTRAINT late CHECK (price > 0) NOT VALID;
CREATE TABLE logs (id int) PARTITION BY RANGE (id);
CREATE TABLE logs_1 PARTITION OF logs FOR VALUES FROM (0) TO (10);
CREATE TABLE logs_2 (id int);
CREATE MATERIALIZED VIEW sums AS SELECT count(*) FROM orders;
CREATE UNIQUE INDEX us ON sums (count);
CREATE FUNCTION f() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NEW; END';
CREATE TRIGGER tr AFTER INSERT ON orders FOR EACH ROW EXECUTE FUNCTION f();
"""
FOREIGN_KEY = "FOREIGN KEY (user_id) REFERENCES users (id)"
LOCKS = {
    "ALTER TABLE orders ADD COLUMN a int": {"orders": Mode.ACCESS_EXCLUSIVE},
    "ALTER TABLE orders ADD COLUMN a int REFERENCES users (id)": {
        "orders": Mode.ACCESS_EXCLUSIVE,
        "users": Mode.SHARE_ROW_EXCLUSIVE,
    },
    f"ALTER TABLE orders ADD CONSTRAINT k {FOREIGN_KEY} NOT VALID": {
        "orders": Mode.SHARE_ROW_EXCLUSIVE,
        "users": Mode.SHARE_ROW_EXCLUSIVE,
    },
    "ALTER TABLE orders ADD CONSTRAINT k CHECK (total > 0) NOT VALID": {
        "orders": Mode.ACCESS_EXCLUSIVE
    },
    "ALTER TABLE orders VALIDATE CONSTRAINT late": {"orders": Mode.SHARE_UPDATE_EXCLUSIVE},
    "CREATE TABLE l (u int REFERENCES users (id))": {"users": Mode.SHARE_ROW_EXCLUSIVE},
    "CREATE INDEX iy ON orders (note)": {"orders": Mode.SHARE},
    "DROP INDEX ix": {"orders": Mode.ACCESS_EXCLUSIVE},
    "REINDEX TABLE orders": {"orders": Mode.SHARE},
    "CREATE TRIGGER t AFTER INSERT ON orders FOR EACH ROW EXECUTE FUNCTION f()": {
        "orders": Mode.SHARE_ROW_EXCLUSIVE
    },
    "DROP TRIGGER tr ON orders": {"orders": Mode.ACCESS_EXCLUSIVE},
    "ALTER TABLE orders DISABLE TRIGGER ALL": {"orders": Mode.SHARE_ROW_EXCLUSIVE},
    "ALTER TABLE orders ALTER COLUMN total SET NOT NULL": {"orders": Mode.ACCESS_EXCLUSIVE},
    "ALTER TABLE orders ALTER COLUMN total SET STATISTICS 9": {
        "orders": Mode.SHARE_UPDATE_EXCLUSIVE
    },
    "ALTER TABLE orders SET (fillfactor = 80)": {"orders": Mode.SHARE_UPDATE_EXCLUSIVE},
    "ALTER TABLE orders ALTER COLUMN note SET STORAGE external": {"orders": Mode.ACCESS_EXCLUSIVE},
    "ALTER TABLE orders RENAME COLUMN note TO notes": {"orders": Mode.ACCESS_EXCLUSIVE},
    "ALTER TABLE orders ENABLE ROW LEVEL SECURITY": {"orders": Mode.ACCESS_EXCLUSIVE},
    "CREATE POLICY p ON orders": {"orders": Mode.ACCESS_EXCLUSIVE},
    "CREATE TABLE logs_3 PARTITION OF logs FOR VALUES FROM (20) TO (30)": {
        "logs": Mode.ACCESS_EXCLUSIVE
    },
    "ALTER TABLE logs ATTACH PARTITION logs_2 FOR VALUES FROM (10) TO (20)": {
        "logs": Mode.SHARE_UPDATE_EXCLUSIVE,
        "logs_2": Mode.ACCESS_EXCLUSIVE,
    },
    "ALTER TABLE logs DETACH PARTITION logs_1": {"logs": Mode.ACCESS_EXCLUSIVE},
    "REFRESH MATERIALIZED VIEW sums": {"sums": Mode.ACCESS_EXCLUSIVE},
    "TRUNCATE orders": {"orders": Mode.ACCESS_EXCLUSIVE},
}
REWRITES = {
    "ALTER TABLE orders ADD COLUMN a int DEFAULT 0 NOT NULL": False,
    "ALTER TABLE orders ADD COLUMN a timestamptz DEFAULT now()": False,
    "ALTER TABLE orders ADD COLUMN a uuid DEFAULT gen_random_uuid()": True,
    "ALTER TABLE orders ADD COLUMN a serial": True,
    "ALTER TABLE orders ADD COLUMN a int GENERATED ALWAYS AS IDENTITY": True,
    "ALTER TABLE orders ADD COLUMN a int GENERATED ALWAYS AS (total + 1) STORED": True,
    "ALTER TABLE orders ALTER COLUMN note TYPE text": False,
    "ALTER TABLE orders ALTER COLUMN note TYPE varchar(40)": False,
    "ALTER TABLE orders ALTER COLUMN price TYPE numeric(9, 2)": False,
    "ALTER TABLE orders ALTER COLUMN price TYPE numeric": False,
    "ALTER TABLE orders ALTER COLUMN price TYPE numeric(9, 3)": True,
    "ALTER TABLE orders ALTER COLUMN id TYPE bigint": True,
    "ALTER TABLE orders SET UNLOGGED": True,
}
REWRITE_RULES = {
    "add-column-volatile-default",
    "add-column-generated-stored",
    "alter-column-type",
    "table-rewrite",
}


@pytest.fixture
def shop(empty_database: Database) -> Iterator[Connection]:
    with psycopg.connect(empty_database.url, autocommit=True) as connection:
        connection.execute(SETUP)
        yield connection


def locks_of(connection: Connection, table: str) -> Mode:
    rows = connection.execute(
        "SELECT mode FROM pg_locks WHERE pid = pg_backend_pid() AND granted"
        " AND relation = %s::regclass",
        [table],
    ).fetchall()
    names = {f"{mode.name.replace('_', '').lower()}lock": mode for mode in Mode}
    return max(names[mode.lower()] for (mode,) in rows)


def test_postgresql_takes_the_locks_that_the_rules_presume(shop: Connection) -> None:
    for sql, expected in LOCKS.items():
        with shop.transaction(force_rollback=True):
            before = {table: shop.execute("SELECT %s::regclass", [table]) for table in expected}
            assert before
            shop.execute(sql.encode())
            assert {table: locks_of(shop, table) for table in expected} == expected, sql


def test_a_missing_timeout_is_reported_exactly_for_locks_that_stop_somebody() -> None:
    for sql, expected in LOCKS.items():
        said = [
            each for each in lint(sql, file="x").findings if each.rule == "missing-lock-timeout"
        ]
        stopping = {table: mode for table, mode in expected.items() if mode >= Mode.SHARE}
        if sql == "DROP INDEX ix":  # without a database its table has no name
            stopping = {"ix": Mode.ACCESS_EXCLUSIVE}
        for table, mode in stopping.items():
            assert any(f"{mode} on {table};" in each.message for each in said), sql
        assert len(said) == len(stopping), sql


def test_postgresql_rewrites_where_the_rules_say_so(shop: Connection) -> None:
    facts = LiveFacts.read(shop)
    unsized = LiveFacts(0, 0, facts.server_version, columns=facts.columns)
    for sql, rewritten in REWRITES.items():
        with shop.transaction(force_rollback=True):
            node = "SELECT pg_relation_filenode('orders')"
            before = shop.execute(node).fetchone()
            shop.execute(sql.encode())
            assert (shop.execute(node).fetchone() != before) is rewritten, sql
        rules = {each.rule for each in lint(sql, file="x", facts=unsized).findings}
        assert bool(rules & REWRITE_RULES) is rewritten, sql


def test_the_size_of_a_table_decides_and_waiting_stays_a_danger(shop: Connection) -> None:
    sql = "ALTER TABLE orders ALTER COLUMN id TYPE bigint;"
    shop.execute("SET lock_timeout = '2s'")
    small = lint(sql, file="x", facts=LiveFacts.read(shop))
    assert small.verdict == "safe"
    assert [each.rule for each in small.notes] == ["alter-column-type"]
    shop.execute("INSERT INTO orders SELECT g, 1, g::text FROM generate_series(1, 20000) g")
    shop.execute("ANALYZE orders")
    big = lint(sql, file="x", facts=LiveFacts.read(shop))
    assert [each.rule for each in big.findings] == ["alter-column-type"]
    shop.execute("SET lock_timeout = 0")
    shop.execute("TRUNCATE orders")
    shop.execute("ANALYZE orders")
    waiting = lint(sql, file="x", facts=LiveFacts.read(shop))
    assert [each.rule for each in waiting.findings] == ["missing-lock-timeout"]


def test_the_message_names_the_rows(shop: Connection) -> None:
    shop.execute("SET lock_timeout = '2s'")
    sql = "ALTER TABLE {} ALTER COLUMN id TYPE bigint;"
    fresh = lint(sql.format("orders"), file="x", facts=LiveFacts.read(shop))
    assert "(orders: never analyzed, 0.0 MB)" in fresh.notes[0].message
    shop.execute("INSERT INTO orders SELECT g, 1, g::text FROM generate_series(1, 9999) g")
    shop.execute("ANALYZE orders")
    below = lint(sql.format("orders"), file="x", facts=LiveFacts.read(shop))
    assert below.verdict == "safe"
    assert "about 9,999 rows" in below.notes[0].message
    shop.execute("INSERT INTO orders VALUES (10000, 1, '10000')")
    shop.execute("ANALYZE orders")
    at = lint(sql.format("orders"), file="x", facts=LiveFacts.read(shop))
    assert "(orders: about 10,000 rows, " in at.findings[0].message
    unknown = lint(sql.format("nowhere"), file="x", facts=LiveFacts.read(shop))
    assert "(nowhere: not in this database, presumed large)" in unknown.findings[0].message
    parent = lint("CREATE INDEX i ON logs (id);", file="x", facts=LiveFacts.read(shop))
    assert [each.rule for each in parent.findings] == ["create-index-not-concurrent"]


def test_a_table_never_analyzed_is_judged_by_its_bytes(shop: Connection) -> None:
    shop.execute("SET lock_timeout = '2s'")
    shop.execute("CREATE TABLE heaps (t text) WITH (autovacuum_enabled = false)")
    shop.execute("INSERT INTO heaps SELECT repeat('x', 1000) FROM generate_series(1, 9000)")
    report = lint("CREATE INDEX i ON heaps (t);", file="x", facts=LiveFacts.read(shop))
    assert [each.rule for each in report.findings] == ["create-index-not-concurrent"]
    assert "never analyzed, " in report.findings[0].message


def test_a_table_of_the_database_is_not_new_although_a_file_creates_it(shop: Connection) -> None:
    shop.execute("SET lock_timeout = '2s'")
    shop.execute("INSERT INTO orders SELECT g, 1 FROM generate_series(1, 20000) g")
    shop.execute("ANALYZE orders")
    facts = LiveFacts.read(shop)
    again = "CREATE TABLE orders (id int);\nCREATE INDEX i ON orders (id);"
    assert [each.line for each in lint(again, file="x", facts=facts).findings] == [2]
    anew = "DROP TABLE orders;\n" + again
    assert [each.rule for each in lint(anew, file="x", facts=facts).findings] == ["drop-table"]
    aside = "ALTER TABLE orders RENAME TO o;\n" + again
    assert [each.rule for each in lint(aside, file="x", facts=facts).findings] == ["rename-table"]


def test_functions_and_domains_of_the_database_are_known(shop: Connection) -> None:
    shop.execute("SET lock_timeout = '2s'")
    shop.execute(
        "CREATE FUNCTION fill() RETURNS void LANGUAGE sql AS 'UPDATE orders SET total = 0';"
        "CREATE FUNCTION look() RETURNS int LANGUAGE sql STABLE AS 'SELECT 1';"
        "CREATE FUNCTION seed() RETURNS void LANGUAGE plpgsql AS"
        " 'BEGIN\n\nINSERT INTO users VALUES (1); END';"
        "CREATE FUNCTION batch(n int) RETURNS int LANGUAGE plpgsql AS"
        " 'BEGIN n := n + 1; DELETE FROM users; RETURN n; END';"
        "CREATE PROCEDURE hidden() LANGUAGE sql BEGIN ATOMIC DELETE FROM orders; END;"
        "CREATE DOMAIN positive AS int CHECK (value > 0); CREATE DOMAIN any_int AS int"
    )
    facts = LiveFacts.read(shop)
    unsized = replace(facts, tables={})
    verdicts = {
        "SELECT 1;\nSELECT fill();": [(2, "unbatched-change")],
        "SELECT look();": [],
        "SELECT seed();": [],
        "SELECT pg_sleep(0), now(), nextval('s');": [],
        "SELECT batch(1);": [(1, "unbatched-change")],
        "CALL hidden();": [(1, "cannot-judge")],
        "SELECT unknown();": [(1, "cannot-judge")],
        "ALTER TABLE orders ADD COLUMN n int DEFAULT look();": [],
        "ALTER TABLE orders ADD COLUMN n positive;": [(1, "add-column-constrained-domain")],
        "ALTER TABLE orders ADD COLUMN n any_int;": [],
    }
    for sql, expected in verdicts.items():
        report = lint(sql, file="x", facts=unsized)
        assert [(each.line, each.rule) for each in report.findings] == expected, sql


def test_the_rewrites_run(shop: Connection) -> None:
    shop.execute("INSERT INTO orders SELECT g, 1, g::text FROM generate_series(1, 9) g")
    ran = 0
    for sql in [*REWRITES, *LOCKS]:
        for each in lint(f"SET lock_timeout = '2s'; {sql}", file="x").findings:
            if "…" in each.rewrite or each.rule in ("truncate", "add-column-inline-foreign-key"):
                continue
            shop.execute("DROP SCHEMA public CASCADE; CREATE SCHEMA public;")
            shop.execute(SETUP)
            for statement in Source.of(each.rewrite).statements():
                shop.execute(statement.text.encode())
            ran += 1
    assert ran > 15


def test_a_valid_check_of_the_database_proves_not_null(shop: Connection) -> None:
    shop.execute("SET lock_timeout = '2s'")
    facts = LiveFacts.read(shop)
    unsized = LiveFacts(2000, 0, facts.server_version, checks=facts.checks)
    sql = "ALTER TABLE orders ALTER COLUMN {} SET NOT NULL;"
    assert lint(sql.format("total"), file="x", facts=unsized).verdict == "safe"
    assert lint(sql.format("price"), file="x", facts=unsized).verdict == "dangerous"


def test_a_table_made_by_an_earlier_file_is_new_to_the_next(tmp_path: Path) -> None:
    first, second = tmp_path / "1.sql", tmp_path / "2.sql"
    first.write_text("CREATE TABLE notes (id int);")
    second.write_text("CREATE INDEX ix ON notes (id);")
    assert [each.verdict for each in lint_files([first, second])] == ["safe", "safe"]
    assert [each.verdict for each in lint_files([second, first])] == ["dangerous", "safe"]


def test_the_command_speaks_json_and_leaves_with_one_when_a_file_is_dangerous(
    empty_database: Database, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    bad = tmp_path / "bad.sql"
    bad.write_text("SET lock_timeout = '2s';\nDROP TABLE ü;\n")
    assert command([bad], empty_database.url, [], True) == 1
    (said,) = json.loads(capsys.readouterr().out)
    assert set(said) == {"file", "verdict", "findings"}
    assert said["verdict"] == "dangerous"
    assert {frozenset(each) for each in said["findings"]} == {
        frozenset({"rule", "line", "message", "rewrite"})
    }
    assert [(each["rule"], each["line"]) for each in said["findings"]] == [("drop-table", 2)]
    assert command([bad], None, ["drop-table=unused since May"], False) == 0
    assert "overridden" in capsys.readouterr().out
    with pytest.raises(NotAnOverride):
        command([bad], None, ["drop-table"], True)
    with pytest.raises(NotAFile):
        command([tmp_path / "none.sql"], None, [], True)
