"""Pricing's API as a terminal speaks to it: the caller's key, one line for what is refused."""

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any
from uuid import UUID

import httpx

from cli.edge import UsageFault, current_settings
from shared.errors import FareboxError

Json = dict[str, Any]

KEY = "FAREBOX_API_KEY"
URL = "FAREBOX_PRICING_URL"
# A publication waits for whoever is being priced at this moment.
TIMEOUT_SECONDS = 60.0
PAGE = 500


class Refused(FareboxError):
    """Pricing's own words."""

    title = "Pricing says no"


@dataclass(frozen=True)
class Door:
    client: httpx.Client

    def ask(self, method: str, path: str, body: Json | None = None) -> Json:
        """Raises Refused."""
        answer = self.client.request(method, path, json=body)
        if answer.is_error:
            raise Refused(_problem(answer))
        found: Json = answer.json()
        return found

    def lines(self, path: str) -> list[Json]:
        """A list that has no pages.  Raises Refused."""
        answer = self.client.get(path)
        if answer.is_error:
            raise Refused(_problem(answer))
        found: list[Json] = answer.json()
        return found

    @contextmanager
    def stream(self, path: str) -> Iterator[httpx.Response]:
        """An answer to be read as it comes.  Raises Refused."""
        with self.client.stream("GET", path) as answer:
            if answer.is_error:
                answer.read()
                raise Refused(_problem(answer))
            yield answer

    def pages(self, path: str, most: int, after: str | int | UUID | None = None) -> list[Json]:
        """A list, page by page, up to `most`; where there are more it says after which to go on."""
        items: list[Json] = []
        joint = "&" if "?" in path else "?"
        while True:
            mark = "" if after is None else f"&after={after}"
            page = self.ask("GET", f"{path}{joint}limit={min(PAGE, most - len(items))}{mark}")
            items += page["items"]
            after = page["next"]
            if after is None or len(items) == most:
                break
        if after is not None:
            print(f"the first {most:,}; --after {after} goes on", file=sys.stderr)
        return items


@contextmanager
def pricing_door() -> Iterator[Door]:
    """Raises UsageFault without a key."""
    key = os.environ.get(KEY)
    if not key:
        raise UsageFault(f"{KEY} is not set; `farebox keys create --service pricing` makes a key")
    settings = current_settings()
    url = os.environ.get(URL) or f"http://{settings.farebox_host}:{settings.pricing_port}"
    headers = {"Authorization": f"Bearer {key}"}
    with httpx.Client(
        base_url=url, headers=headers, timeout=TIMEOUT_SECONDS, trust_env=False
    ) as client:
        yield Door(client)


def _problem(answer: httpx.Response) -> str:
    try:
        said = answer.json()
    except ValueError:
        return f"pricing answered {answer.status_code}"
    if not isinstance(said, dict):
        return f"pricing answered {answer.status_code}"
    where = "; ".join(
        f"{each.get('pointer', '')}: {each.get('detail', '')}" for each in said.get("errors", [])
    )
    text = f"{said.get('title', answer.status_code)}: {said.get('detail', '')}"
    return f"{text} ({where})" if where and where not in text else text
