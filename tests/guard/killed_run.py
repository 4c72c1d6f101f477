"""Whole guarded runs in children, each killed by SIGKILL when it is about to write a certain line into the trail.

Reads `url folder point` from stdin: `folder` holds `versions`, `backups` and `audit`; `point` is STAGE/KIND, or
STAGE/KIND/N for the nth such line, or `-` for never.  Answers with the signal or the exit code of the child.
"""

import os
import signal
import sys
import traceback
from collections import Counter
from collections.abc import Mapping
from pathlib import Path

from psycopg import Connection

from migrations.faults import MigrationFault
from migrations.guard.preflight import models
from migrations.guard.run import Options, Run, Show
from migrations.guard.trail import Trail
from tests.guard.conftest import IMPATIENT


class KillingTrail(Trail):
    point = "-"
    stage = "begin"
    passed: Counter[str]

    def _append(self, kind: str, fields: Mapping[str, object], *, durable: bool) -> None:
        if kind == "stage_started":
            self.stage = str(fields["stage"])
        line = f"{self.stage}/{kind}"
        self.passed[line] += 1
        if self.point in (line if self.passed[line] == 1 else "", f"{line}/{self.passed[line]}"):
            os.kill(os.getpid(), signal.SIGKILL)
        super()._append(kind, fields, durable=durable)


def child(url: str, folder: Path, point: str) -> None:
    trail = KillingTrail(folder / "audit")
    trail.point, trail.passed = point, Counter()

    def after(connection: Connection) -> None:
        trail.record("after_work", database=connection.info.dbname)

    options = Options(
        backup_folder=folder / "backups",
        policy=IMPATIENT,
        more_versions=folder / "versions",
        after=after,
    )
    Run(url, options, trail, Show(lambda text: None)).go()


def main() -> None:
    # Once for all children: of what a run does before its first query, it takes longest.
    assert list(models()) == []
    for line in sys.stdin:
        url, folder, point = line.strip().split(" ", 2)
        pid = os.fork()
        if pid == 0:
            code = 1
            try:
                child(url, Path(folder), point)
                code = 0
            except MigrationFault as fault:
                print(fault, file=sys.stderr)
                code = fault.exit_code
            except Exception:  # noqa: BLE001  # the exit code alone would tell nobody why
                traceback.print_exc()
            finally:
                os._exit(code)
        _, status = os.waitpid(pid, 0)
        print(os.waitstatus_to_exitcode(status), flush=True)


if __name__ == "__main__":
    main()
