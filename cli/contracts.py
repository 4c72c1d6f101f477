"""The contracts of shared/events.py as documents, and what in a new one an older or a newer reader could not read."""

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from shared.events import EVENTS, TOPICS, Event

Schema = Mapping[str, Any]

DIALECT = "https://json-schema.org/draft/2020-12/schema"
ASYNCAPI = "3.0.0"
# Facts only gain optional fields, so the page as a whole stays at its first major version.
CONTRACTS_VERSION = "1.0.0"
# What a schema says to people; readers do not depend on it.
ANNOTATIONS = {"$id", "$schema", "title", "description", "default", "examples", "deprecated"}
STRUCTURE = {"properties", "required", "anyOf", "items", "additionalProperties", "$ref", "$defs"}
HEADERS: dict[str, str] = {
    "ce_specversion": "CloudEvents version, 1.0",
    "ce_id": "the fact's id; the same id is the same fact",
    "ce_type": "the fact's type",
    "ce_source": "the service that says it",
    "ce_subject": "the message key",
    "ce_time": "when it became true",
    "ce_dataschema": "the contract's name and version",
    "ce_causationid": "the event, Stripe event or request that made this one",
    "traceparent": "W3C trace context",
}


def file_name(event: type[Event]) -> str:
    return f"{event.type}.v{event.version}.json"


def json_schema(event: type[Event]) -> dict[str, Any]:
    """What stands on the wire, as JSON Schema 2020-12."""
    body = event.model_json_schema(mode="serialization")
    return {"$schema": DIALECT, "$id": event.dataschema(), **body}


def asyncapi(heard: Mapping[str, Iterable[type[Event]]]) -> dict[str, Any]:
    """The whole conversation: a channel for each topic, a message for each fact, and who hears it.

    `heard`: the facts each service handles.
    """
    return {
        "asyncapi": ASYNCAPI,
        "info": {
            "title": "farebox",
            "version": CONTRACTS_VERSION,
            "description": "What the services tell each other over Kafka.",
        },
        "defaultContentType": "application/json",
        "channels": {topic: _channel(topic) for topic in TOPICS},
        "operations": {
            **{f"send.{topic}": _sends(topic) for topic in TOPICS},
            **{
                f"{service}.receive.{topic}": _receives(service, topic, names)
                for service, topics in sorted(_by_topic(heard).items())
                for topic, names in sorted(topics.items())
            },
        },
        "components": {
            "messages": {name: _message(event) for name, event in sorted(EVENTS.items())},
            "messageTraits": {"cloudevent": {"headers": _headers()}},
        },
    }


def _channel(topic: str) -> dict[str, Any]:
    said = sorted(name for name, event in EVENTS.items() if event.topic == topic)
    return {
        "address": f"{{prefix}}.{topic}",
        "parameters": {"prefix": {"default": "farebox", "description": "FAREBOX_TOPIC_PREFIX"}},
        "messages": {name: {"$ref": f"#/components/messages/{name}"} for name in said},
    }


def _by_topic(heard: Mapping[str, Iterable[type[Event]]]) -> dict[str, dict[str, list[str]]]:
    """Service -> topic -> names of the facts."""
    found: dict[str, dict[str, list[str]]] = {}
    for service, events in heard.items():
        for event in events:
            found.setdefault(service, {}).setdefault(event.topic, []).append(event.type)
    return found


def _receives(service: str, topic: str, names: list[str]) -> dict[str, Any]:
    return {
        "action": "receive",
        "summary": f"{service} applies each of these once",
        "channel": {"$ref": f"#/channels/{topic}"},
        "messages": [{"$ref": f"#/channels/{topic}/messages/{name}"} for name in sorted(names)],
    }


def _sends(topic: str) -> dict[str, Any]:
    service = topic.split(".")[0]
    return {
        "action": "send",
        "summary": f"{service} publishes its facts",
        "channel": {"$ref": f"#/channels/{topic}"},
    }


def _message(event: type[Event]) -> dict[str, Any]:
    return {
        "name": event.type,
        "summary": (event.__doc__ or "").strip(),
        "traits": [{"$ref": "#/components/messageTraits/cloudevent"}],
        "payload": {
            "schemaFormat": "application/schema+json;version=draft-2020-12",
            "schema": {"$ref": f"./{file_name(event)}"},
        },
        "bindings": {"kafka": {"key": {"type": "string"}}},
    }


def _headers() -> dict[str, Any]:
    return {
        "type": "object",
        "properties": {
            name: {"type": "string", "description": text} for name, text in HEADERS.items()
        },
        "required": [name for name in HEADERS if name != "traceparent"],
    }


def breaking_changes(old: Schema, new: Schema) -> list[str]:
    """Why a reader of `old` could not read a fact of `new`, or a reader of `new` one of `old`; empty if both can.

    Facts are kept for ever and readers are replaced one by one, so that only a new optional field is free.
    """
    return sorted(set(_compare("", _resolved(old, old), _resolved(new, new))))


def _compare(path: str, old: Schema, new: Schema) -> Iterator[str]:
    before, after = _alternatives(old), _alternatives(new)
    for kind in before.keys() - after.keys():
        yield f"{path or '/'}: {kind} is no longer allowed"
    for kind in after.keys() - before.keys():
        yield f"{path or '/'}: {kind} is new, an older reader does not know it"
    for kind in before.keys() & after.keys():
        yield from _compare_one(path, before[kind], after[kind])


def _compare_one(path: str, old: Schema, new: Schema) -> Iterator[str]:
    for keyword in sorted((old.keys() | new.keys()) - ANNOTATIONS - STRUCTURE):
        was, now = old.get(keyword), new.get(keyword)
        same = set(was) == set(now) if keyword == "enum" and was and now else was == now
        if not same:
            yield f"{path or '/'}: {keyword} was {was}, is {now}"
    for keyword in ("items", "additionalProperties"):
        was, now = old.get(keyword), new.get(keyword)
        if isinstance(was, Mapping) and isinstance(now, Mapping):
            yield from _compare(f"{path}/*", was, now)
        elif was != now:
            yield f"{path or '/'}: {keyword} was {was}, is {now}"
    yield from _compare_fields(path, old, new)


def _compare_fields(path: str, old: Schema, new: Schema) -> Iterator[str]:
    before, after = old.get("properties", {}), new.get("properties", {})
    must_before, must_after = set(old.get("required", ())), set(new.get("required", ()))
    for field in before.keys() - after.keys():
        yield f"{path}/{field}: removed"
    for field in must_after - must_before:
        yield f"{path}/{field}: required now, older facts do not carry it"
    for field in (must_before - must_after) & after.keys():
        yield f"{path}/{field}: optional now, an older reader requires it"
    for field in before.keys() & after.keys():
        yield from _compare(f"{path}/{field}", before[field], after[field])


def _alternatives(schema: Schema) -> dict[str, Schema]:
    """`anyOf` spread out, each alternative under the name of its kind, e.g. `string (uuid)`."""
    return {_kind(each): each for each in schema.get("anyOf", (schema,))}


def _kind(schema: Schema) -> str:
    form = f" ({schema['format']})" if "format" in schema else ""
    return f"{schema.get('type', 'anything')}{form}"


def _resolved(schema: Schema, root: Schema) -> Schema:
    """`schema` with every `$ref` into `root` replaced by what it names."""
    reference = schema.get("$ref")
    if reference is None:
        return {name: _within(part, root) for name, part in schema.items() if name != "$defs"}
    target = root
    for step in reference.removeprefix("#/").split("/"):
        target = target[step]
    return _resolved(target, root)


def _within(part: object, root: Schema) -> object:
    match part:
        case Mapping():
            return _resolved(part, root)
        case list():
            return [_within(each, root) for each in part]
        case _:
            return part
