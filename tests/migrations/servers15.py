"""PostgreSQL 15, the oldest that must do, where the machine has it installed."""

import os
import shutil
import signal
import subprocess
from pathlib import Path

from embedded import processes
from embedded.postgres import SUPERUSER, EmbeddedPostgres

MAJOR = 15
USUAL_PLACE = Path(f"/usr/lib/postgresql/{MAJOR}/bin")


def installed_programs() -> Path | None:
    """The folder of `postgres` and `initdb` 15, or None."""
    if (USUAL_PLACE / "initdb").exists():
        return USUAL_PLACE
    found = shutil.which("pg_config")
    if found is None:
        return None
    asked = subprocess.run(
        [found, "--version", "--bindir"], check=False, capture_output=True, text=True
    )
    version, folder = [*asked.stdout.splitlines(), "", ""][:2]
    fits = version.startswith(f"PostgreSQL {MAJOR}.") and (Path(folder) / "initdb").exists()
    return Path(folder) if fits else None


class InstalledPostgres(EmbeddedPostgres):
    """The embedded server's handling, on another server's programs."""

    def __init__(self, data_dir: Path, programs: Path) -> None:
        super().__init__(data_dir, durable=False)
        self._programs = programs

    def server_programs(self) -> Path:
        return self._programs

    def initialise(self) -> None:
        self.data_dir.mkdir(mode=0o700)
        if self.user is not None:
            shutil.chown(self.data_dir, self.user)
        command = [
            *(str(self._programs / "initdb"), "-D", str(self.data_dir), "-U", SUPERUSER),
            *("--auth=trust", "--encoding=UTF8", "--locale=C", "--no-sync"),
        ]
        tethered = processes.tethered(command, signal.SIGTERM, os.getpid(), self.user or "-")
        subprocess.run(tethered, check=True, capture_output=True, cwd="/")
