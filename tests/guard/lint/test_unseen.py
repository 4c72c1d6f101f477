"""Whole files as tools and people write them; every verdict was reached before the linter had seen the file.

`-- case: name (why)` begins one, `-- found: line:rule …` says all that is to be found in it, lines counted from there.
"""

import json
import re
from pathlib import Path

import pytest

from migrations.guard.lint import Finding, command, lint
from migrations.guard.lint.judge import judge
from migrations.guard.lint.source import Source
from migrations.guard.lint.world import World

FOLDER = Path(__file__).parent / "unseen"
CASE = re.compile(
    r"^-- case: (\S+).*\n(?:-- found: (.*)\n)?((?:(?!-- case: ).*(?:\n|\Z))*)", re.MULTILINE
)
CASES = {
    name: (sql, found.split())
    for path in sorted(FOLDER.glob("*.sql"))
    for name, found, sql in CASE.findall(path.read_text())
}
# Their way out is a decision, a release or a program, not a statement.
BY_HAND = {
    "drop-column", "drop-table", "drop-view", "drop-schema", "drop-cascade", "truncate",
    "rename-column", "rename-enum-value", "cannot-judge", "table-rewrite", "tablespace-move",
    "attach-partition-without-check", "add-exclusion-constraint", "syntax-error", "drop-owned",
    "enable-row-security-without-policy", "add-column-constrained-domain", "alter-system",
    "drop-sequence",
    "drop-extension",
    "disable-trigger", "lock-table", "swap-loses-writes",
}  # fmt: skip


@pytest.mark.parametrize("name", CASES)
def test_exactly_what_hurts_is_found_where_it_stands(name: str) -> None:
    sql, expected = CASES[name]
    report = lint(sql, file=name)
    assert [f"{each.line}:{each.rule}" for each in report.findings] == expected
    assert report.verdict == ("dangerous" if expected else "safe")


def found(sql: str) -> tuple[Finding, ...]:
    """Without squawk: a process for each rewrite takes its time."""
    return judge(sql, "x", World(), facts=None, overrides=()).findings


@pytest.mark.parametrize("name", [name for name, (_, found) in CASES.items() if found])
def test_a_rewrite_is_sql_that_the_rule_has_nothing_against(name: str) -> None:
    for each in found(CASES[name][0]):
        if each.rule in BY_HAND:
            continue
        Source.of(each.rewrite).statements()
        timed = "SET lock_timeout = '2s';\n" + each.rewrite
        assert "…" not in each.rewrite
        assert each.rule not in {again.rule for again in found(timed)}


def test_there_are_enough_of_both_kinds() -> None:
    safe = [name for name, (_, found) in CASES.items() if not found]
    assert len(safe) > 100
    assert len(CASES) - len(safe) > 100


def test_a_folder_is_its_files_in_order_without_those_that_lead_back(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("V10__index.sql", "V2__table.sql", "sub/1.down.sql", "sub/down.sql", "notes.txt"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("DROP TABLE orders;")
    (tmp_path / "V2__table.sql").write_text("CREATE TABLE t (id int);")
    (tmp_path / "V10__index.sql").write_text("CREATE INDEX ON t (id);")
    assert command([tmp_path], None, ["drop-table=misread"], True) == 0
    said = capsys.readouterr()
    assert [Path(each["file"]).name for each in json.loads(said.out)] == [
        "V2__table.sql",
        "V10__index.sql",
    ]
    assert "down.sql: not judged" in said.err
    assert "--allow drop-table: no finding of that rule" in said.err


@pytest.mark.parametrize(
    ("raw", "verdict", "lines"),
    [
        (b"CREATE TABLE t (id int);\0 DROP TABLE orders;", "dangerous", [1]),
        (b"-- caf\xe9\nCREATE TABLE t (id int);", "safe", []),
        (b"\xef\xbb\xbf-- one\r\nSELECT 1;\r\n\r\nDROP VIEW v; -- x\r\n", "dangerous", [4, 4]),
        ("-- eins\nDROP VIEW v;".encode("utf-16"), "dangerous", [2, 2]),
        (b"A file of prose.", "dangerous", [1]),
        (
            b"\n" + b"SELECT 1" + b" UNION ALL SELECT 1" * 900 + b";\nDROP VIEW v;",
            "dangerous",
            [3, 3],
        ),
    ],
    ids=["nul", "latin-1", "bom-and-crlf", "utf-16", "prose", "deep"],
)
def test_bytes_of_every_kind_are_read(
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    raw: bytes,
    verdict: str,
    lines: list[int],
) -> None:
    path = tmp_path / "odd.sql"
    path.write_bytes(raw)
    assert command([path], None, [], True) == (verdict == "dangerous")
    (said,) = json.loads(capsys.readouterr().out)
    assert [each["line"] for each in said["findings"]] == lines
