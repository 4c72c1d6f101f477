"""Folders for servers: in the run's own folder, but where a server that may not run as root can enter."""

import json
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest


@pytest.fixture
def open_folder(tmp_path: Path) -> Iterator[Path]:
    """Like `tmp_path`, which is private to the user; psutil finds what a test leaves running in it."""
    folder = Path(tempfile.mkdtemp(prefix="farebox-test-"))
    folder.chmod(0o711)
    own = psutil.Process()
    (folder / "owner.json").write_text(json.dumps([own.pid, own.create_time()]))
    try:
        yield folder
    finally:
        shutil.rmtree(folder)


def processes_in(folder: Path) -> list[str]:
    """Command lines that name the folder."""
    found = []
    for process in psutil.process_iter(["cmdline", "status"]):
        command = " ".join(process.info["cmdline"] or [])
        if str(folder) in command and process.info["status"] != psutil.STATUS_ZOMBIE:
            found.append(command)
    return found
