"""What was published can be read for ever; docs/events/ says what the code says."""

import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from jsonschema import Draft202012Validator

from cli import events
from cli.contracts import file_name, json_schema
from shared.events import EVENTS, Event

GOLDEN = sorted((Path(__file__).parent / "golden").glob("*.json"))


def test_the_committed_documents_are_the_generated_ones() -> None:
    committed = {path.name: path.read_text() for path in events.FOLDER.iterdir()}
    assert committed == events.documents(), "run `make events` and commit docs/events/"


def test_no_reader_of_the_committed_contracts_is_broken() -> None:
    assert events.broken_contracts(events.FOLDER) == []


def test_a_fact_that_disappears_breaks_its_readers(tmp_path: Path) -> None:
    (tmp_path / "payments.payment_forgotten.v1.json").write_text("{}")
    assert events.broken_contracts(tmp_path) == [
        "payments.payment_forgotten.v1.json: the fact is gone, but facts are kept for ever"
    ]


@pytest.mark.parametrize("path", GOLDEN, ids=lambda path: path.stem)
def test_a_fact_once_published_still_parses_and_says_the_same(path: Path) -> None:
    body = json.loads(path.read_text())
    event = EVENTS[path.name.rsplit(".v", 1)[0]].model_validate(body)
    said = event.body()
    assert _of_what(body, said) == body


def _of_what(asked: Any, said: Any) -> Any:
    """What is said of the fields that are asked for, at any depth: a fact and its parts only gain fields."""
    match asked:
        case dict():
            return {field: _of_what(asked[field], said[field]) for field in asked}
        case list():
            return [_of_what(*pair) for pair in zip(asked, said, strict=True)]
        case _:
            return said


@pytest.mark.parametrize("event", EVENTS.values(), ids=lambda event: event.type)
def test_every_fact_has_a_golden_example_that_its_schema_accepts(event: type[Event]) -> None:
    Draft202012Validator.check_schema(json_schema(event))
    validator = Draft202012Validator(
        json_schema(event), format_checker=Draft202012Validator.FORMAT_CHECKER
    )
    example = next(path for path in GOLDEN if path.name == file_name(event))
    body = json.loads(example.read_text())
    validator.validate(body)
    assert not validator.is_valid(body | {"occurred_at": 5})


def test_every_reference_of_the_asyncapi_page_leads_somewhere() -> None:
    page = yaml.safe_load((events.FOLDER / "asyncapi.yaml").read_text())
    references = list(_references(page))
    assert len(references) > len(EVENTS)
    for reference in references:
        if reference.startswith("./"):
            assert (events.FOLDER / reference).is_file()
            continue
        target = page
        for step in reference.removeprefix("#/").split("/"):
            target = target[step]


def _references(node: object) -> list[str]:
    match node:
        case {"$ref": str(reference)}:
            return [reference]
        case dict():
            return [found for each in node.values() for found in _references(each)]
        case list():
            return [found for each in node for found in _references(each)]
        case _:
            return []
