"""Parameters as Stripe's clients send them: `metadata[user_id]=…`, `expand[0]=…`, `types[]=…`."""

import re
from collections.abc import Collection, Mapping
from urllib.parse import parse_qsl

from embedded.stripe_sandbox.errors import invalid

# One bracketed step of a name; an index, or nothing, stands for "the next one of a list".
STEP = re.compile(r"\[([^\[\]]*)\]")
LARGEST_AMOUNT_MINOR = 99_999_999


class Form:
    """Flat names to values, with readers that answer a fault as Stripe does."""

    def __init__(self, encoded: str) -> None:
        self.pairs = parse_qsl(encoded, keep_blank_values=True)
        self.values = dict(self.pairs)

    def require_known(self, known: Collection[str]) -> None:
        for name, _ in self.pairs:
            if name.split("[", 1)[0] not in known:
                raise invalid(f"Received unknown parameter: {name}", "parameter_unknown", name)

    def text(self, name: str) -> str | None:
        return self.values.get(name) or None

    def required(self, name: str) -> str:
        value = self.text(name)
        if value is None:
            raise invalid(f"Missing required param: {name}.", "parameter_missing", name)
        return value

    def integer(self, name: str) -> int | None:
        value = self.text(name)
        if value is None:
            return None
        if not re.fullmatch(r"-?[0-9]{1,15}", value):
            raise invalid(f"Invalid integer: {value}", "parameter_invalid_integer", name)
        return int(value)

    def amount(self, name: str) -> int | None:
        """An amount in minor units: positive and no longer than eight digits."""
        value = self.integer(name)
        if value is not None and value < 1:
            raise invalid(
                "This value must be greater than or equal to 1.", "parameter_invalid_integer", name
            )
        if value is not None and value > LARGEST_AMOUNT_MINOR:
            raise invalid(
                f"Amount must be no more than {LARGEST_AMOUNT_MINOR}.", "amount_too_large", name
            )
        return value

    def boolean(self, name: str, default: bool) -> bool:
        value = self.text(name)
        if value is None:
            return default
        if value not in ("true", "false"):
            raise invalid(f"Invalid boolean: {value}", "parameter_invalid_boolean", name)
        return value == "true"

    def choice(self, name: str, choices: Collection[str]) -> str | None:
        value = self.text(name)
        if value is not None and value not in choices:
            raise invalid(f"Invalid {name}: must be one of {', '.join(choices)}", param=name)
        return value

    def listed(self, name: str) -> list[str]:
        return [value for key, value in self.pairs if STEP.sub("", key) == name and "[" in key]

    def mapping(self, name: str) -> Mapping[str, str]:
        found = {}
        for key, value in self.pairs:
            match = re.fullmatch(rf"{re.escape(name)}\[([^\[\]]+)\]", key)
            # An empty value removes a key of the metadata.
            if match and value:
                found[match[1]] = value
        return found

    def changed(self, name: str, before: Mapping[str, str]) -> dict[str, str]:
        """`before` with the keys that are given changed, and those that are given empty removed."""
        given = re.compile(rf"{re.escape(name)}\[([^\[\]]+)\]")
        changes = {match[1]: value for key, value in self.pairs if (match := given.fullmatch(key))}
        return {key: value for key, value in {**before, **changes}.items() if value}

    def canonical(self) -> str:
        """The same for the same parameters, in whatever order they came."""
        return repr(sorted(self.pairs))
