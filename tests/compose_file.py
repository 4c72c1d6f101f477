"""docker-compose.yml read as Docker would: variables filled in, each service's command and environment."""

import re
from collections.abc import Mapping
from pathlib import Path

import yaml
from pydantic import BaseModel, Field, TypeAdapter

ROOT = Path(__file__).resolve().parent.parent
OUR_IMAGE = "farebox:local"
# ${NAME}, ${NAME:-default}, ${NAME:?what to do}; nothing else is used.
VARIABLE = re.compile(r"\$\{([A-Z_]+)(?:(:-|:\?)([^}]*))?\}")


class Condition(BaseModel):
    condition: str


class Health(BaseModel):
    test: list[str]


class ComposeService(BaseModel):
    image: str
    command: list[str] = Field(default_factory=list)
    environment: dict[str, str] = Field(default_factory=dict)
    depends_on: dict[str, Condition] = Field(default_factory=dict)
    healthcheck: Health | None = None
    ports: list[str] = Field(default_factory=list)
    profiles: list[str] = Field(default_factory=list)

    @property
    def is_ours(self) -> bool:
        return self.image == OUR_IMAGE


class MissingValue(Exception):
    """A variable that must stand in .env does not."""


def filled_in(text: str, values: Mapping[str, str]) -> str:
    """Raises MissingValue."""

    def replace(found: re.Match[str]) -> str:
        name, how, rest = found.groups()
        if values.get(name):
            return values[name]
        if how == ":?":
            raise MissingValue(name)
        return rest or ""

    return VARIABLE.sub(replace, text)


def compose_services(values: Mapping[str, str]) -> dict[str, ComposeService]:
    """Raises MissingValue."""
    document = yaml.safe_load((ROOT / "docker-compose.yml").read_text())
    services = _filled_in_everywhere(document["services"], values)
    return TypeAdapter(dict[str, ComposeService]).validate_python(services)


def _filled_in_everywhere(node: object, values: Mapping[str, str]) -> object:
    """As Docker does it: after the file is parsed, in every text of it."""
    match node:
        case str():
            return filled_in(node, values)
        case list():
            return [_filled_in_everywhere(each, values) for each in node]
        case dict():
            return {key: _filled_in_everywhere(each, values) for key, each in node.items()}
        case _:
            return node


def required_names() -> set[str]:
    found = VARIABLE.findall((ROOT / "docker-compose.yml").read_text())
    return {name for name, how, _ in found if how == ":?"}


def named_in_example() -> set[str]:
    lines = (ROOT / ".env.example").read_text().splitlines()
    return {line.partition("=")[0] for line in lines if line and not line.startswith("#")}
