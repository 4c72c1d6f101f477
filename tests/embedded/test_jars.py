"""No jar runs that is not the one in the lock file, and the lock names no address."""

import hashlib
from pathlib import Path

import pytest

from embedded import jars
from embedded.errors import JarNotAsLocked, JarsUnavailable
from embedded.jars import LockedJar

JAR = LockedJar("org.example", "thing", "1.0", hashlib.sha256(b"the true one").hexdigest())


def lock_of(jar: LockedJar, folder: Path) -> Path:
    lock = folder / "lock.toml"
    lock.write_text(
        f'[[dependencies]]\ngroupId = "{jar.group}"\nartifactId = "{jar.artifact}"\n'
        f'version = "{jar.version}"\npackaging = "jar"\nsha256 = "{jar.sha256}"\n'
    )
    return lock


@pytest.fixture
def mirror(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """jgo configured, as a user would, to know an empty local repository and one mirror that nobody serves."""
    repository = tmp_path / "m2"
    monkeypatch.setenv("M2_REPO", str(repository))
    config = tmp_path / "jgo.conf"
    config.write_text("[repositories]\ncentral = http://127.0.0.1:9/nobody\n")
    monkeypatch.setenv("JGO_CONFIG_FILE", str(config))
    return repository


def put(repository: Path, content: bytes) -> None:
    path = repository / jars.maven_path(JAR)
    path.parent.mkdir(parents=True)
    path.write_bytes(content)


def test_every_locked_jar_has_a_hash_and_no_address() -> None:
    text = jars.LOCK_FILE.read_text()
    assert "://" not in text
    locked = jars.read_lock()
    assert any(str(jar) == "org.apache.kafka:kafka_2.13:4.1.0" for jar in locked)
    assert all(len(jar.sha256) == 64 for jar in locked)
    assert len({jar.file_name for jar in locked}) == len(locked)


def test_the_users_own_maven_cache_serves_without_network(mirror: Path, tmp_path: Path) -> None:
    put(mirror, b"the true one")
    paths = jars.class_path(lock_of(JAR, tmp_path), tmp_path / "cache")
    assert [path.read_bytes() for path in paths] == [b"the true one"]


def test_what_is_cached_is_used_again_without_network(mirror: Path, tmp_path: Path) -> None:
    cache = tmp_path / "cache"
    cache.mkdir()
    (cache / JAR.file_name).write_bytes(b"the true one")
    assert jars.class_path(lock_of(JAR, tmp_path), cache) == [cache / JAR.file_name]


def test_a_jar_altered_in_the_cache_is_not_used(mirror: Path, tmp_path: Path) -> None:
    cache = tmp_path / "cache"
    cache.mkdir()
    (cache / JAR.file_name).write_bytes(b"another")
    with pytest.raises(JarsUnavailable, match=r"org.example:thing:1.0 .* KAFKA_BOOTSTRAP_SERVERS"):
        jars.class_path(lock_of(JAR, tmp_path), cache)
    assert sorted(path.name for path in cache.iterdir()) == [".lock", JAR.file_name]


def test_a_jar_that_differs_from_the_lock_is_refused_and_not_kept(
    mirror: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def served(jar: LockedJar, beside: Path) -> Path:
        path = beside / jar.file_name
        path.write_bytes(b"another")
        return path

    monkeypatch.setattr(jars, "download", served)
    with pytest.raises(JarNotAsLocked, match="refused") as refused:
        jars.class_path(lock_of(JAR, tmp_path), tmp_path / "cache")
    assert refused.value.expected_sha256 == JAR.sha256
    assert list((tmp_path / "cache").glob("*.jar")) == []
