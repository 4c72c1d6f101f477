"""Runs guarded steps in a child that is killed by SIGKILL when it is about to write its nth line into the trail.

The folder of versions is its argument.  Reads `url audit n` from stdin, answers with the signal or the exit code of the child.
"""

import os
import signal
import sys
from collections.abc import Mapping
from pathlib import Path

import psycopg

from migrations.faults import MigrationFault
from migrations.guard.apply import Applier
from migrations.guard.statements import Chain, PlannedStep
from migrations.guard.trail import Trail
from migrations.guard.watch import Watcher
from migrations.run_lock import connect
from shared.schema import WANTED_REVISION
from tests.guard.conftest import IMPATIENT

REVISIONS = "SELECT version_num FROM public.alembic_version"


class KillingTrail(Trail):
    """0: never."""

    left = 0

    def _append(self, kind: str, fields: Mapping[str, object], *, durable: bool) -> None:
        self.left -= 1
        if self.left == 0:
            os.kill(os.getpid(), signal.SIGKILL)
        super()._append(kind, fields, durable=durable)


def child(url: str, steps: dict[str, tuple[PlannedStep, ...]], audit: Path, at: int) -> None:
    trail = KillingTrail(audit)
    trail.left = at
    with connect(url) as connection:
        [current] = [str(row[0]) for row in connection.execute(REVISIONS)]
        watcher = Watcher(url)
        applier = Applier(connection, watcher, trail, IMPATIENT, lambda text: None)
        applier.apply(steps[current])


def main() -> None:
    chain = Chain(Path(sys.argv[1]))
    # Rendered once: that takes longer than all the rest.
    steps = {revision: chain.upgrade((revision,)) for revision in (WANTED_REVISION, *chain.heads())}
    for line in sys.stdin:
        url, audit, at = line.split()
        pid = os.fork()
        if pid == 0:
            code = 1
            try:
                child(url, steps, Path(audit), int(at))
                code = 0
            except (MigrationFault, psycopg.Error) as error:
                print(error, file=sys.stderr)
            finally:
                os._exit(code)
        _, status = os.waitpid(pid, 0)
        print(os.waitstatus_to_exitcode(status), flush=True)


if __name__ == "__main__":
    main()
