"""`stack.json`: what was started, so that exactly that, and nothing else, is stopped; written before it is needed."""

import os
from pathlib import Path

from pydantic import BaseModel, ConfigDict, ValidationError

from embedded.processes import ProcessMark
from embedded.supervisor import Address

FILE_NAME = "stack.json"


class StackRecord(BaseModel):
    """`processes` names every process ever started in this stack, the supervisor's own included."""

    model_config = ConfigDict(frozen=True)

    supervisor: ProcessMark
    address: Address
    processes: dict[str, ProcessMark]
    urls: dict[str, str]
    env: dict[str, str]
    ready: bool = False

    def write(self, folder: Path) -> None:
        """Whole or not at all; readable by its owner alone, for it holds keys."""
        beside = folder / f"{FILE_NAME}.new"
        beside.unlink(missing_ok=True)
        with os.fdopen(os.open(beside, os.O_WRONLY | os.O_CREAT, 0o600), "w") as target:
            target.write(self.model_dump_json(indent=2))
        beside.replace(folder / FILE_NAME)

    def alive(self) -> list[str]:
        return [name for name, mark in self.processes.items() if mark.is_alive()]


def read_record(folder: Path) -> StackRecord | None:
    """None when there is none, or one that cannot be understood (then there is nothing to go by)."""
    try:
        return StackRecord.model_validate_json((folder / FILE_NAME).read_text())
    except (FileNotFoundError, ValidationError):
        return None


def forget_record(folder: Path) -> None:
    (folder / FILE_NAME).unlink(missing_ok=True)
