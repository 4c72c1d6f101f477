"""What README.md and ARCHITECTURE.md say is looked up in the code, so that it cannot grow untrue unnoticed."""

import re
from pathlib import Path

import pytest

from migrations.models import target_metadata
from shared.events import EVENTS
from shared.settings import PORTS, Settings

ROOT = Path(__file__).resolve().parent.parent
PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")])
LINK = re.compile(r"\[[^]]*\]\((?!https?:)([^)#\s]+)[^)]*\)")


def words_in_code(text: str) -> set[str]:
    return set(re.findall(r"`([^`\n]+)`", text))


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_link_leads_somewhere(page: Path) -> None:
    dead = [link for link in LINK.findall(page.read_text()) if not (page.parent / link).exists()]
    assert dead == []


def test_the_architecture_names_every_table_and_no_other() -> None:
    page = (ROOT / "ARCHITECTURE.md").read_text()
    rows = dict(re.findall(r"^\| `(\w+)`[^|]*\| (`.*`) \|$", page, re.MULTILINE))
    shared = words_in_code(page.partition("In every service's schema: ")[2].partition(".\n")[0])
    said = {
        f"{schema}.{table}"
        for schema, cell in rows.items()
        for table in words_in_code(cell) | (shared if schema in PORTS else set())
    }
    assert said == set(target_metadata().tables)


def test_the_architecture_names_every_fact() -> None:
    page = (ROOT / "ARCHITECTURE.md").read_text()
    assert set(EVENTS) <= words_in_code(page)


def test_the_readme_names_every_variable_that_the_settings_know() -> None:
    page = (ROOT / "README.md").read_text()
    names = {name.upper() for name in Settings.model_fields}
    spelled = words_in_code(page)
    # `PAYMENTS_…` in the row of PRICING_DATABASE_URL stands for the same ending.
    shortened = {word.replace("…", "DATABASE_URL") for word in spelled if word.endswith("_…")}
    assert names - spelled - shortened == set()


def test_decisions_are_numbered_without_a_gap_and_say_when_to_revisit() -> None:
    pages = sorted((ROOT / "docs" / "decisions").glob("*.md"))
    assert [page.name[:4] for page in pages] == [f"{n:04}" for n in range(1, len(pages) + 1)]
    for page in pages:
        text = page.read_text()
        for part in ("**Context.**", "**Decision.**", "**Consequences.**", "**Revisit when**"):
            assert part in text, f"{page.name} lacks {part}"
