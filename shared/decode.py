"""From a Kafka record to a fact, or to the reason why it is none.  Never raises for what a sender wrote."""

import base64
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from aiokafka import ConsumerRecord
from pydantic import ValidationError

from shared.errors import NotUnderstood
from shared.events import EVENTS, Event

# Kafka lets a header have no value at all.
Headers = Mapping[str, bytes | None]

ERROR_CHARACTERS = 1_000  # of a reason kept with what is parked
CONTRACTS_REMEMBERED = 64  # more than there are facts and versions
DATASCHEMA = re.compile(r"^urn:farebox:(?P<type>[a-z_.]+):v(?P<version>[0-9]{1,9})$")


@dataclass(frozen=True)
class Delivery:
    """One record: its fact, or why it cannot be understood, or neither where it is not for this consumer."""

    record: "ConsumerRecord[bytes, bytes]"
    key: str
    event_id: str | None
    event: Event | None
    error: str | None


def decode(record: "ConsumerRecord[bytes, bytes]", wanted: frozenset[str]) -> Delivery:
    """`wanted`: the fact types this consumer handles; others are let pass."""
    headers: Headers = dict(record.headers)
    event_id: str | None = None
    try:
        event_id = _text(headers, "ce_id")
        type_name = _text(headers, "ce_type")
        if type_name not in wanted:
            return Delivery(record, _key(record), event_id, None, None)
        return Delivery(record, _key(record), event_id, _event(record, type_name, headers), None)
    except Exception as error:  # noqa: BLE001 - whatever a sender wrote, it is parked, never lost
        return Delivery(record, _key(record), event_id, None, _short(error))


def parked_row(consumer: str, delivery: Delivery, error: str, attempts: int) -> dict[str, Any]:
    """A row of parked_events: everything needed to try again, byte for byte."""
    record = delivery.record
    return {
        "consumer": consumer,
        "event_id": _storable(delivery.event_id) if delivery.event_id is not None else None,
        "key": _storable(delivery.key),
        "topic": record.topic,
        "partition": record.partition,
        "offset": record.offset,
        "body": record.value or b"",
        "headers": [[_storable(name), _encoded(value)] for name, value in record.headers],
        "error": _storable(error[:ERROR_CHARACTERS]),
        "attempts": attempts,
    }


def event_of(body: bytes, headers: Iterable[tuple[str, str | None]]) -> Event:
    """A parked fact, read again.  Raises NotUnderstood or ValidationError."""
    raw: Headers = {
        name: None if value is None else base64.b64decode(value) for name, value in headers
    }
    return _parse(body, _text(raw, "ce_type"), raw)


def _event(record: "ConsumerRecord[bytes, bytes]", type_name: str, headers: Headers) -> Event:
    return _parse(record.value or b"", type_name, headers)


def _parse(body: bytes, type_name: str, headers: Headers) -> Event:
    known = _contract(type_name, _text(headers, "ce_dataschema"))
    event = known.model_validate_json(body)
    if _text(headers, "ce_id") != str(event.id):
        raise NotUnderstood(f"header ce_id and the body's id {event.id} differ")
    traceparent = headers.get("traceparent")
    if traceparent is not None:
        # Frozen for everyone else; nobody has seen it yet, and a copy costs more than reading the body.
        event.__dict__["traceparent"] = traceparent.decode("latin-1")
    return event


@lru_cache(maxsize=CONTRACTS_REMEMBERED)
def _contract(type_name: str, dataschema: str) -> type[Event]:
    known = EVENTS.get(type_name)
    if known is None:
        raise NotUnderstood(f"no fact is called {type_name!r}")
    schema = DATASCHEMA.match(dataschema)
    if schema is None or schema["type"] != type_name or int(schema["version"]) > known.version:
        raise NotUnderstood(
            f"schema {dataschema!r} is not known here; this release reads {known.dataschema()}"
        )
    return known


def _text(headers: Headers, name: str) -> str:
    value = headers.get(name)
    if value is None:
        raise NotUnderstood(f"the header {name} is missing")
    try:
        return value.decode()
    except UnicodeDecodeError:
        raise NotUnderstood(f"the header {name} is not UTF-8") from None


def _key(record: "ConsumerRecord[bytes, bytes]") -> str:
    if record.key is None:  # belongs to no customer: holds back nobody but itself
        return f"{record.topic}/{record.partition}/{record.offset}"
    return bytes(record.key).decode(errors="backslashreplace")


def _short(error: Exception) -> str:
    if isinstance(error, ValidationError):
        first = error.errors(include_url=False, include_input=False)[0]
        where = ".".join(str(part) for part in first["loc"]) or "body"
        return f"{where}: {first['msg']} ({error.error_count()} errors)"
    return str(error)[:ERROR_CHARACTERS]


def _encoded(value: bytes | None) -> str | None:
    return None if value is None else base64.b64encode(value).decode()


def _storable(text: str) -> str:
    return text.replace("\x00", "\\x00")  # PostgreSQL's text cannot hold a NUL
