"""PgBouncer in front of a test's database."""

import os
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psycopg
import pytest
from sqlalchemy import make_url

PATIENCE_SECONDS = 20.0


@contextmanager
def pgbouncer(url: str, mode: str, folder: Path) -> Iterator[str]:
    """The pooler's URL for the database of `url`."""
    program = shutil.which("pgbouncer")
    if program is None:
        pytest.skip("pgbouncer is not installed on this machine")
    server = make_url(url)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    users = folder / "users.txt"
    users.write_text(f'"{server.username}" ""\n')
    config = folder / "pgbouncer.ini"
    config.write_text(
        f"[databases]\n{server.database} = host=127.0.0.1 port={server.port} user={server.username}\n"
        f"[pgbouncer]\nlisten_addr = 127.0.0.1\nlisten_port = {port}\nunix_socket_dir =\n"
        f"auth_type = trust\nauth_file = {users}\npool_mode = {mode}\n"
        "ignore_startup_parameters = extra_float_digits\n"
    )
    for path in (folder, users, config):
        path.chmod(0o755)
    # It refuses to be root.
    as_user = ["-u", "nobody"] if os.geteuid() == 0 else []
    process = subprocess.Popen([program, "-q", *as_user, str(config)], stderr=subprocess.DEVNULL)
    pooled = server.set(port=port).render_as_string(hide_password=False)
    try:
        _until_it_answers(pooled)
        yield pooled
    finally:
        process.terminate()
        process.wait(10)


def _until_it_answers(url: str) -> None:
    deadline = time.monotonic() + PATIENCE_SECONDS
    while True:
        try:
            psycopg.connect(url).close()
        except psycopg.OperationalError:
            assert time.monotonic() < deadline
            time.sleep(0.05)
        else:
            return
