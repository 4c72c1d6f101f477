"""The checker that guards the contracts: what it lets pass and what it stops."""

from typing import Any

import pytest

from cli.contracts import breaking_changes

LINE: dict[str, Any] = {
    "type": "object",
    "properties": {"quantity": {"type": "integer", "minimum": 1}},
    "required": ["quantity"],
}
OLD: dict[str, Any] = {
    "title": "Paid",
    "type": "object",
    "properties": {
        "id": {"type": "string", "format": "uuid"},
        "status": {"type": "string", "enum": ["open", "paid"]},
        "note": {"anyOf": [{"type": "string"}, {"type": "null"}]},
        "lines": {"type": "array", "items": {"$ref": "#/$defs/Line"}},
        "rates": {"type": "object", "additionalProperties": {"type": "string"}},
    },
    "required": ["id", "status"],
    "$defs": {"Line": LINE},
}


def changed(**fields: dict[str, Any] | None) -> dict[str, Any]:
    kept = {name: field for name, field in OLD["properties"].items() if name not in fields}
    added = {name: field for name, field in fields.items() if field is not None}
    return OLD | {"properties": kept | added}


def with_line(**parts: dict[str, Any]) -> dict[str, Any]:
    return OLD | {"$defs": {"Line": LINE | parts}}


@pytest.mark.parametrize(
    "new",
    [
        OLD,
        changed(colour={"type": "string", "default": "red"}),
        OLD | {"title": "PaidFor", "description": "other words"},
        OLD | {"required": ["status", "id"]},
        changed(status={"type": "string", "enum": ["paid", "open"], "description": "of it"}),
        with_line(properties=LINE["properties"] | {"gift": {"type": "boolean"}}),
    ],
    ids=["same", "optional field", "words", "order", "order of an enum", "optional field below"],
)
def test_what_every_reader_can_read_passes(new: dict[str, Any]) -> None:
    assert breaking_changes(OLD, new) == []


@pytest.mark.parametrize(
    ("new", "said"),
    [
        (changed(note=None), "/note: removed"),
        (OLD | {"required": ["id"]}, "/status: optional now, an older reader requires it"),
        (
            OLD | {"required": ["id", "status", "note"]},
            "/note: required now, older facts do not carry it",
        ),
        (changed(note={"type": "string"}), "/note: null is no longer allowed"),
        (
            changed(id={"anyOf": [{"type": "string", "format": "uuid"}, {"type": "null"}]}),
            "/id: null is new, an older reader does not know it",
        ),
        (changed(id={"type": "string"}), "/id: string (uuid) is no longer allowed"),
        (
            changed(status={"type": "string", "enum": ["open", "paid", "lost"]}),
            "/status: enum was ['open', 'paid'], is ['open', 'paid', 'lost']",
        ),
        (
            changed(status={"type": "string", "enum": ["open"]}),
            "/status: enum was ['open', 'paid'], is ['open']",
        ),
        (
            changed(status={"type": "string"}),
            "/status: enum was ['open', 'paid'], is None",
        ),
        (
            with_line(properties={"quantity": {"type": "integer", "minimum": 5}}),
            "/lines/*/quantity: minimum was 1, is 5",
        ),
        (with_line(properties={}), "/lines/*/quantity: removed"),
        (
            changed(rates={"type": "object", "additionalProperties": {"type": "number"}}),
            "/rates/*: string is no longer allowed",
        ),
        (OLD | {"additionalProperties": False}, "/: additionalProperties was None, is False"),
    ],
)
def test_what_some_reader_cannot_read_is_named(new: dict[str, Any], said: str) -> None:
    assert said in breaking_changes(OLD, new)
