"""Kafka's jars, exactly those of the lock file: fetched once by jgo into a cache of the user's, checked before every use.

`python -m embedded.jars` resolves anew and rewrites the lock.
"""

import fcntl
import hashlib
import os
import shutil
import sys
import tempfile
import tomllib
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import platformdirs
from jgo.config import GlobalSettings
from jgo.constants import MAVEN_CENTRAL_URL
from jgo.env import LockFile
from jgo.maven import MavenContext
from jgo.parse import Coordinate

from embedded.errors import FolderNotUsable, JarNotAsLocked, JarsUnavailable

LOCK_FILE = Path(__file__).with_name("jars.lock.toml")
# The second gives the broker a log: without it Kafka's messages go nowhere. The `!`: its own POM must not manage
# versions of the rest (it would bring a kafka-clients of years ago).
ENDPOINTS = (
    "org.apache.kafka:kafka_2.13:4.1.0",
    "org.apache.logging.log4j:log4j-slf4j-impl:2.24.3!",
)
# Jars are small and many: a few at once hide the latency without leaning on the repository.
PARALLEL_DOWNLOADS = 6
DOWNLOAD_TIMEOUT_SECONDS = 60


@dataclass(frozen=True)
class LockedJar:
    group: str
    artifact: str
    version: str
    sha256: str

    @property
    def file_name(self) -> str:
        return f"{self.artifact}-{self.version}.jar"

    def __str__(self) -> str:
        return f"{self.group}:{self.artifact}:{self.version}"


def read_lock(lock_file: Path = LOCK_FILE) -> list[LockedJar]:
    with lock_file.open("rb") as source:
        rows = tomllib.load(source)["dependencies"]
    return [
        LockedJar(row["groupId"], row["artifactId"], row["version"], row["sha256"]) for row in rows
    ]


def cache_folder() -> Path:
    return platformdirs.user_cache_path("farebox") / "jars"


def class_path(lock_file: Path = LOCK_FILE, cache: Path | None = None) -> list[Path]:
    """The jars, each with the locked hash; what is missing is fetched, what differs is never used."""
    folder = cache or cache_folder()
    jars = read_lock(lock_file)
    with exclusive(folder):
        wanted = [jar for jar in jars if not is_as_locked(folder / jar.file_name, jar)]
        if wanted:
            fetch(wanted, folder)
    return [folder / jar.file_name for jar in jars]


def is_as_locked(path: Path, jar: LockedJar) -> bool:
    return path.exists() and sha256_of(path) == jar.sha256


def sha256_of(path: Path) -> str:
    with path.open("rb") as source:
        return hashlib.file_digest(source, "sha256").hexdigest()


@contextmanager
def exclusive(folder: Path) -> Iterator[None]:
    """Two runs that start at once must not write one cache."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        gate = (folder / ".lock").open("w")
    except OSError as error:
        raise FolderNotUsable(folder, f"{error.strerror}; set XDG_CACHE_HOME elsewhere") from error
    with gate:
        fcntl.flock(gate, fcntl.LOCK_EX)
        yield


def fetch(jars: list[LockedJar], folder: Path) -> None:
    """Download beside the cache, check, then move in: the cache never holds half a jar."""
    with tempfile.TemporaryDirectory(prefix="fetch-", dir=folder) as beside:
        with ThreadPoolExecutor(PARALLEL_DOWNLOADS) as pool:
            fetched = list(pool.map(lambda jar: fetch_one(jar, Path(beside)), jars))
        for jar, path in zip(jars, fetched, strict=True):
            os.replace(path, folder / jar.file_name)


def fetch_one(jar: LockedJar, beside: Path) -> Path:
    """From the user's own Maven cache if it is the same there, else from the configured repositories."""
    local = GlobalSettings.load().repo_cache / maven_path(jar)
    if is_as_locked(local, jar):
        return Path(shutil.copy2(local, beside / jar.file_name))
    path = download(jar, beside)
    actual = sha256_of(path)
    if actual != jar.sha256:
        raise JarNotAsLocked(str(jar), jar.sha256, actual)
    return path


def download(jar: LockedJar, beside: Path) -> Path:
    context = maven(beside)
    artifact = context.project(jar.group, jar.artifact).at_version(jar.version).artifact()
    try:
        return Path(artifact.resolve())
    except (OSError, RuntimeError) as error:
        # jgo says "not found" as a RuntimeError; requests' errors are OSErrors.
        reason = "not found in any repository" if isinstance(error, RuntimeError) else str(error)
        raise JarsUnavailable(str(jar), reason) from error


def maven_path(jar: LockedJar) -> Path:
    return Path(*jar.group.split("."), jar.artifact, jar.version, jar.file_name)


def maven(repo_cache: Path) -> MavenContext:
    """The repositories of jgo's own configuration file, as its command line takes them."""
    repositories = {"central": MAVEN_CENTRAL_URL, **GlobalSettings.load().repositories}
    return MavenContext(
        repo_cache=repo_cache, remote_repos=repositories, timeout=DOWNLOAD_TIMEOUT_SECONDS
    )


def rewrite_lock(lock_file: Path = LOCK_FILE) -> int:
    """Resolve the endpoints and write what was found, with hashes and without addresses."""
    with tempfile.TemporaryDirectory(prefix="farebox-lock-") as repo_cache:
        context = maven(Path(repo_cache))
        wanted = [
            context.create_dependency(replace(Coordinate.parse(endpoint), scope="compile"))
            for endpoint in ENDPOINTS
        ]
        inputs, transitive = context.resolver.resolve(wanted)
        needed = [*inputs, *(each for each in transitive if each.scope in ("compile", "runtime"))]
        needed.sort(key=lambda each: (each.groupId, each.artifactId))
        LockFile.from_resolved_dependencies(needed, environment_name="kafka").save(lock_file)
    return len(needed)


if __name__ == "__main__":
    sys.stdout.write(f"{rewrite_lock()} jars locked in {LOCK_FILE.name}\n")
