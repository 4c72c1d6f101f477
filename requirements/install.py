"""`python requirements/install.py demo|dev`: `.venv` with the pinned packages, made once, reused while pins are unchanged.

Standard library only: it runs before anything is installed.  Two at once take turns.
"""

import errno
import fcntl
import hashlib
import importlib.util
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
# Each set holds the ones before it, in the same versions (compile.sh sees to that).
SETS = ("runtime", "demo", "dev")
# Unpacked packages, and the downloads that pip keeps beside them while it installs.
NEEDED_MB = 1_200
# These would send pip's work elsewhere; everything else of the user's (mirror, proxy, certificates) is honoured.
MISLEADING = (
    "PIP_TARGET",
    "PIP_PREFIX",
    "PIP_ROOT",
    "PIP_REQUIRE_VIRTUALENV",
    "PYTHONHOME",
    "PYTHONPATH",
)
EXIT_FAILED, EXIT_USAGE = 1, 2
COMMAND = """#!/bin/sh
# farebox, from any folder.
venv=$(dirname -- "$(dirname -- "$(readlink -f -- "$0")")")
PYTHONPATH=$(dirname -- "$venv") exec "$venv/bin/python" -P -m cli "$@"
"""


class CannotInstall(Exception):
    """One line: what is wrong and what to do."""


def main(arguments: Sequence[str]) -> int:
    if len(arguments) != 1 or arguments[0] not in SETS:
        print(f"usage: install.py {'|'.join(SETS)}", file=sys.stderr)
        return EXIT_USAGE
    try:
        ensure(ROOT, arguments[0], os.environ)
    except CannotInstall as error:
        print(f"farebox: {error}", file=sys.stderr)
    except OSError as error:
        print(f"farebox: {explain(error)}", file=sys.stderr)
    except KeyboardInterrupt:
        print("farebox: interrupted; the next run goes on from here", file=sys.stderr)
        return 130
    else:
        return 0
    return EXIT_FAILED


def ensure(root: Path, name: str, environment: Mapping[str, str]) -> bool:
    """Make `.venv` hold the set `name`; True if anything had to be installed.  Raises CannotInstall, OSError."""
    venv = root / ".venv"
    if is_current(root, name):
        return False
    with turn(root):
        if is_current(root, name):  # the other one did it while we waited
            return False
        check_modules()
        check_space(root)
        if not works(venv):
            make_venv(venv)
        for stamp in venv.glob("farebox-*.stamp"):
            stamp.unlink()
        install(root, name, environment)
        write_command(root)
        stamp_of(root, name).write_text(wanted(root, name))
    return True


def is_current(root: Path, name: str) -> bool:
    larger = SETS[SETS.index(name) :]
    return (
        works(root / ".venv")
        and command_of(root).is_file()
        and any(
            stamp_of(root, each).is_file()
            and stamp_of(root, each).read_text() == wanted(root, each)
            for each in larger
        )
    )


def stamp_of(root: Path, name: str) -> Path:
    return root / ".venv" / f"farebox-{name}.stamp"


def command_of(root: Path) -> Path:
    return root / ".venv" / "bin" / "farebox"


def write_command(root: Path) -> None:
    """`farebox` beside the venv's Python: an activated `.venv` then knows it."""
    command_of(root).write_text(COMMAND)
    command_of(root).chmod(0o755)


def wanted(root: Path, name: str) -> str:
    """The pins' checksum and the place: a moved `.venv` has scripts that point nowhere."""
    pins = (root / "requirements" / f"{name}.txt").read_bytes()
    return f"{hashlib.sha256(pins).hexdigest()} {root}\n"


def works(venv: Path) -> bool:
    """Whether its Python starts: the one it was made from may be gone."""
    python = venv / "bin" / "python"
    if not python.exists():
        return False
    probe = subprocess.run([python, "-c", ""], capture_output=True, check=False)
    return probe.returncode == 0


@contextmanager
def turn(root: Path) -> Iterator[None]:
    """A lock that the system gives up when its holder dies."""
    with (root / ".venv.lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            print("farebox: another make installs packages here; waiting for it", flush=True)
            fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def check_modules() -> None:
    for module in ("venv", "ensurepip"):
        if importlib.util.find_spec(module) is None:
            version = f"{sys.version_info[0]}.{sys.version_info[1]}"
            raise CannotInstall(
                f"this Python ({sys.executable}) has no module {module}: install it"
                f" (Debian, Ubuntu: apt install python{version}-venv) or use another: make PYTHON=…"
            )


def check_space(root: Path) -> None:
    for folder in (root, Path(tempfile.gettempdir())):
        free_mb = shutil.disk_usage(folder).free // 2**20
        if free_mb < NEEDED_MB:
            raise CannotInstall(
                f"{folder} has {free_mb} MB free, installing needs {NEEDED_MB} MB: free some space"
                " (or point TMPDIR elsewhere) and try again"
            )


def make_venv(venv: Path) -> None:
    print(f"farebox: making .venv with Python {sys.version.split()[0]}", flush=True)
    made = subprocess.run(
        [sys.executable, "-m", "venv", "--clear", venv], capture_output=True, text=True, check=False
    )
    if made.returncode:
        said = (made.stderr or made.stdout).strip().splitlines()
        raise CannotInstall(
            f"python -m venv failed: {said[-1] if said else 'it said nothing'}"
            " (Debian, Ubuntu: apt install python3-venv)"
        )


def install(root: Path, name: str, environment: Mapping[str, str]) -> None:
    print(f"farebox: installing requirements/{name}.txt into .venv (once)", flush=True)
    own = {key: value for key, value in environment.items() if key not in MISLEADING}
    command = [
        str(root / ".venv" / "bin" / "python"),
        *("-m", "pip", "install", "--quiet", "--require-hashes", "--only-binary=:all:"),
        *("--requirement", str(root / "requirements" / f"{name}.txt")),
    ]
    done = subprocess.run(
        command,
        cwd=root,
        env=own | {"PIP_USER": "0", "PIP_DISABLE_PIP_VERSION_CHECK": "1", "PIP_NO_INPUT": "1"},
        stdin=subprocess.DEVNULL,
        check=False,
    )
    if done.returncode < 0:
        raise CannotInstall(f"pip was stopped by signal {-done.returncode}; run make again")
    if done.returncode:
        raise CannotInstall(
            "pip could not install the packages, see above; behind a mirror set PIP_INDEX_URL,"
            " without a network put the wheels in a folder and set PIP_NO_INDEX=1 PIP_FIND_LINKS=folder"
        )


def explain(error: OSError) -> str:
    where = f" ({error.filename})" if error.filename else ""
    match error.errno:
        case errno.ENOSPC | errno.EDQUOT:
            return f"the disk is full{where}: free some space and try again"
        case errno.EACCES | errno.EPERM | errno.EROFS:
            return f"this folder cannot be written{where}: clone farebox into a folder of your own"
        case _:
            return f"{error.strerror or error}{where}"


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
