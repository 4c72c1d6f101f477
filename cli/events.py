"""`python -m cli.events`: write docs/events/ from shared/events.py; refuses a change that breaks a reader."""

import json
import sys
from pathlib import Path

import yaml

from cli.contracts import asyncapi, breaking_changes, file_name, json_schema
from cli.services import HANDLERS
from shared.events import EVENTS

FOLDER = Path(__file__).resolve().parent.parent / "docs" / "events"


def documents() -> dict[str, str]:
    """File name -> text of everything that belongs into docs/events/."""
    made = {
        file_name(event): json.dumps(json_schema(event), indent=2) + "\n"
        for event in EVENTS.values()
    }
    page = yaml.safe_dump(asyncapi(HANDLERS), sort_keys=False, allow_unicode=True, width=100)
    return made | {"asyncapi.yaml": page}


def broken_contracts(folder: Path) -> list[str]:
    """Every difference to the committed contracts that some reader could not read."""
    found = []
    current = {file_name(event): json_schema(event) for event in EVENTS.values()}
    for path in sorted(folder.glob("*.v*.json")):
        if path.name not in current:
            found.append(f"{path.name}: the fact is gone, but facts are kept for ever")
            continue
        old = json.loads(path.read_text())
        found += [f"{path.name}{each}" for each in breaking_changes(old, current[path.name])]
    return found


def main() -> int:
    broken = broken_contracts(FOLDER)
    if broken:
        print("\n".join(broken), file=sys.stderr)
        print(
            "nothing written: contracts only gain optional fields; say a new fact", file=sys.stderr
        )
        return 1
    FOLDER.mkdir(parents=True, exist_ok=True)
    for name, text in documents().items():
        (FOLDER / name).write_text(text)
    print(f"{len(documents())} files in {FOLDER.relative_to(Path.cwd())}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
