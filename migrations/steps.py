"""Alembic, revision by revision: what is to be done, and the doing of one step."""

from dataclasses import dataclass
from pathlib import Path

from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from alembic.util.exc import CommandError
from sqlalchemy import create_engine, pool
from sqlalchemy.engine import Engine, make_url
from sqlalchemy.exc import DBAPIError

from migrations.faults import MigrationFault

ROOT = Path(__file__).resolve().parent.parent
LOCK_NOT_AVAILABLE = "55P03"


@dataclass(frozen=True)
class Step:
    revision: str
    title: str


class TableBusy(MigrationFault):
    """A step could not have its lock in time and changed nothing."""


class StepFailed(MigrationFault):
    """PostgreSQL undid the step's transaction; earlier steps stand."""


class Migrations:
    """The chain of revisions against one database; connections last for one call each."""

    def __init__(self, url: str) -> None:
        self._engine: Engine = create_engine(
            make_url(url).set(drivername="postgresql+psycopg"), poolclass=pool.NullPool
        )
        self._config = Config(toml_file=ROOT / "pyproject.toml")
        self._scripts = ScriptDirectory.from_config(self._config)

    def current(self) -> tuple[str, ...]:
        with self._engine.connect() as connection:
            options = {"version_table_schema": "public"}
            return MigrationContext.configure(connection, opts=options).get_current_heads()

    def pending(self) -> list[Step]:
        """Steps from here to head, in the order they are to be done.  Raises MigrationFault."""
        try:
            done = self._ancestors(self.current())
            chain = list(self._scripts.walk_revisions("base", "heads"))
        except CommandError as error:
            raise MigrationFault(
                f"the database is at a revision this release does not know: {error}"
            ) from error
        return [Step(s.revision, s.doc) for s in reversed(chain) if s.revision not in done]

    def _ancestors(self, heads: tuple[str, ...]) -> set[str]:
        return {
            each.revision for head in heads for each in self._scripts.walk_revisions("base", head)
        }

    def apply(self, step: Step) -> None:
        """Raises TableBusy or StepFailed."""
        try:
            with self._engine.connect() as connection:
                self._config.attributes["connection"] = connection
                command.upgrade(self._config, step.revision)
        except DBAPIError as error:
            reason = " ".join(str(error.orig).split())
            if getattr(error.orig, "sqlstate", None) == LOCK_NOT_AVAILABLE:
                raise TableBusy(f"{step.revision} {step.title}: {reason}") from error
            raise StepFailed(f"{step.revision} {step.title} failed: {reason}") from error
        finally:
            self._config.attributes.pop("connection", None)
