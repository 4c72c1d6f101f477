"""PostgreSQL refuses to run as root: choose the user it runs as, and places that this user can enter."""

import hashlib
import os
import pwd
import shutil
import subprocess
import tempfile
from pathlib import Path

from embedded.errors import FolderNotUsable

# Present on every Unix and owner of nothing, so no account has to be created on the machine.
ORDINARY_USER = "nobody"
# Entered by everyone by the file system standard; used only by root, and only when a folder is private.
ROOT_CACHE = Path("/var/cache/farebox")
ROOT_STATE = Path("/var/lib/farebox")


def ordinary_user() -> str | None:
    """The user servers must run as, None when the present user will do."""
    return ORDINARY_USER if os.geteuid() == 0 else None


def can_reach(folder: Path, user: str) -> bool:
    """Whether the user can pass every folder above and enter this one; asked of the system itself."""
    asked = subprocess.run(
        ["test", "-x", str(folder)],
        check=False,
        user=user,
        group=group_of(user),
        extra_groups=[],
        cwd="/",
    )
    return asked.returncode == 0


def group_of(user: str) -> int:
    return pwd.getpwnam(user).pw_gid


def reachable_data_dir(wanted: Path, user: str) -> Path:
    """`wanted`, or a folder of the same identity under /var/lib when `wanted` lies in a private folder."""
    try:
        wanted.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise FolderNotUsable(wanted.parent, str(error.strerror)) from error
    if can_reach(wanted.parent, user):
        return wanted
    identity = hashlib.sha256(str(wanted.resolve()).encode()).hexdigest()[:16]
    return ROOT_STATE / identity


def reachable_copy(installation: Path, version: str, user: str) -> Path:
    """The installation itself, or a copy under /var/cache when it lies in a private folder."""
    if can_reach(installation / "bin", user):
        return installation
    home = ROOT_CACHE / f"postgresql-{version}"
    copy = home / installation.parent.name / installation.name
    if not copy.exists():
        copy_whole(installation, home)
    return copy


def copy_whole(installation: Path, home: Path) -> None:
    """Copy beside, then rename: a copy cut short is never taken for a whole one."""
    package = installation.parent
    libraries = package.parent / f"{package.name}.libs"
    try:
        home.parent.mkdir(parents=True, exist_ok=True)
        beside = Path(tempfile.mkdtemp(prefix=f"{home.name}-", dir=home.parent))
    except OSError as error:
        raise FolderNotUsable(
            home.parent, f"{error.strerror}; it is needed to run as root"
        ) from error
    try:
        without_headers = shutil.ignore_patterns("include")
        target = beside / package.name / installation.name
        shutil.copytree(installation, target, ignore=without_headers)
        if libraries.exists():
            shutil.copytree(libraries, beside / libraries.name)
        subprocess.run(["chmod", "-R", "a+rX", str(beside)], check=True)
        beside.rename(home)
    except FileExistsError:
        shutil.rmtree(beside)
    except BaseException:
        shutil.rmtree(beside, ignore_errors=True)
        raise
