"""Making `.venv`: once, by one process at a time, and with a clear line where it cannot be done."""

import errno
import fcntl
import hashlib
import os
import shutil
import subprocess
import sys
import threading
import zipfile
from pathlib import Path

import pytest

from requirements import install
from requirements.install import CannotInstall

ROOT = Path(__file__).resolve().parent.parent
FIND_PYTHON = ROOT / "requirements" / "find-python.sh"
# No package at all: what is tested here is the way there.
EMPTY = "# nothing\n"


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A virtual environment to copy: making one takes seconds."""
    venv = tmp_path_factory.mktemp("made") / ".venv"
    install.make_venv(venv)
    return venv


@pytest.fixture
def bare(tmp_path: Path) -> Path:
    (tmp_path / "requirements").mkdir()
    for name in install.SETS:
        (tmp_path / "requirements" / f"{name}.txt").write_text(EMPTY)
    return tmp_path


@pytest.fixture
def project(bare: Path, made: Path) -> Path:
    """As a first run leaves it that was interrupted: an environment, but nothing in it."""
    shutil.copytree(made, bare / ".venv", symlinks=True)
    return bare


def test_a_second_run_installs_nothing_and_changed_pins_do(
    project: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    assert install.ensure(project, "demo", os.environ)
    assert "once" in capfd.readouterr().out
    assert not install.ensure(project, "demo", os.environ)
    assert capfd.readouterr().out == ""
    (project / "requirements" / "demo.txt").write_text(EMPTY * 2)
    assert install.ensure(project, "demo", os.environ)


def test_the_command_runs_from_any_folder_with_what_it_is_given(
    project: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    elsewhere = tmp_path_factory.mktemp("else where")
    (elsewhere / "cli").mkdir()
    (elsewhere / "cli" / "__main__.py").write_text("print('not ours')")
    (project / "cli").mkdir()
    (project / "cli" / "__main__.py").write_text("import sys; print(sys.argv[1:])")
    install.ensure(project, "demo", os.environ)
    (elsewhere / "farebox").symlink_to(install.command_of(project))
    said = subprocess.run(
        [elsewhere / "farebox", "audit", "two words"],
        cwd=elsewhere,
        capture_output=True,
        text=True,
        check=True,
    )
    assert said.stdout == "['audit', 'two words']\n"
    install.command_of(project).unlink()
    assert install.ensure(project, "demo", os.environ)
    assert install.command_of(project).is_file()


def test_the_larger_set_serves_for_the_smaller_but_not_the_other_way(project: Path) -> None:
    assert install.ensure(project, "demo", os.environ)
    assert install.ensure(project, "dev", os.environ)
    assert not install.ensure(project, "demo", os.environ)
    assert not install.ensure(project, "runtime", os.environ)


def test_an_environment_whose_python_is_gone_is_made_anew(project: Path) -> None:
    python = project / ".venv" / "bin" / "python"
    python.unlink()
    python.symlink_to(project / "gone")
    assert install.ensure(project, "demo", os.environ)
    assert install.works(project / ".venv")


def test_an_environment_that_was_moved_is_not_taken_for_its_old_self(
    project: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    install.ensure(project, "demo", os.environ)
    moved = tmp_path_factory.mktemp("elsewhere") / "project"
    shutil.copytree(project, moved, symlinks=True)
    assert not install.is_current(moved, "demo")


def test_two_at_once_take_turns_and_the_second_finds_it_done(
    project: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    results: list[bool] = []
    with (project / ".venv.lock").open("w") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        waiting = threading.Thread(
            target=lambda: results.append(install.ensure(project, "demo", os.environ))
        )
        waiting.start()
        waiting.join(0.3)
        assert waiting.is_alive()
        install.write_command(project)
        install.stamp_of(project, "demo").write_text(install.wanted(project, "demo"))
    waiting.join(30)
    assert results == [False]
    assert "waiting for it" in capfd.readouterr().out


def make_wheel(folder: Path) -> str:
    """A package of nothing in `folder`; returns its sha256."""
    path = folder / "nothing-1.0-py3-none-any.whl"
    meta = "nothing-1.0.dist-info"
    with zipfile.ZipFile(path, "w") as wheel:
        wheel.writestr(f"{meta}/METADATA", "Metadata-Version: 2.1\nName: nothing\nVersion: 1.0\n")
        wheel.writestr(
            f"{meta}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
        )
        wheel.writestr(f"{meta}/RECORD", "")
    return hashlib.sha256(path.read_bytes()).hexdigest()


def test_without_a_network_a_folder_of_wheels_will_do(project: Path, tmp_path: Path) -> None:
    digest = make_wheel(tmp_path)
    pins = project / "requirements" / "demo.txt"
    pins.write_text(f"nothing==1.0 --hash=sha256:{digest}\n")
    offline = {"PIP_NO_INDEX": "1", "PIP_FIND_LINKS": str(tmp_path)}
    assert install.ensure(project, "demo", os.environ | offline)
    assert list((project / ".venv").glob("lib/*/site-packages/nothing-1.0.dist-info"))


@pytest.mark.parametrize("pin", ["nothing==1.0", f"nothing==1.0 --hash=sha256:{'0' * 64}"])
def test_a_package_without_its_hash_or_with_another_is_refused(
    pin: str, project: Path, tmp_path: Path
) -> None:
    make_wheel(tmp_path)
    (project / "requirements" / "demo.txt").write_text(f"{pin}\n")
    offline = {"PIP_NO_INDEX": "1", "PIP_FIND_LINKS": str(tmp_path)}
    with pytest.raises(CannotInstall, match="PIP_INDEX_URL"):
        install.ensure(project, "demo", os.environ | offline)
    assert not install.is_current(project, "demo")


def test_a_user_s_pip_settings_cannot_send_the_packages_elsewhere(
    project: Path, tmp_path: Path
) -> None:
    astray = os.environ | {"PIP_USER": "1", "PIP_TARGET": str(tmp_path / "astray")}
    assert install.ensure(project, "demo", astray)


@pytest.mark.parametrize("module", ["venv", "ensurepip"])
def test_a_missing_module_is_named_with_the_package_that_brings_it(
    module: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(CannotInstall, match=f"no module {module}.*apt install python3"):
        install.check_modules()


def test_too_little_space_is_said_before_anything_is_written(
    bare: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(install, "NEEDED_MB", 10**9)
    with pytest.raises(CannotInstall, match="MB free, installing needs"):
        install.ensure(bare, "demo", os.environ)
    assert not (bare / ".venv").exists()


@pytest.mark.parametrize(
    ("number", "said"),
    [
        (errno.ENOSPC, "the disk is full"),
        (errno.EACCES, "cannot be written"),
        (errno.EROFS, "cannot be written"),
        (errno.EIO, os.strerror(errno.EIO)),
    ],
)
def test_a_fault_of_the_system_is_one_line_with_its_place(number: int, said: str) -> None:
    line = install.explain(OSError(number, os.strerror(number), "some/place"))
    assert said in line
    assert "some/place" in line
    assert "\n" not in line


def find_python(tmp_path: Path, **commands: str) -> subprocess.CompletedProcess[str]:
    """With nothing on the path but `commands`, each a line of shell."""
    tools = tmp_path / "bin"
    tools.mkdir()
    for name, script in commands.items():
        (tools / name).write_text(f"#!/bin/sh\n{script}\n")
        (tools / name).chmod(0o755)
    return subprocess.run(
        ["/bin/sh", str(FIND_PYTHON)],
        env={"PATH": str(tools)},
        capture_output=True,
        text=True,
        check=False,
    )


def test_a_newer_python_beside_an_old_one_is_found(tmp_path: Path) -> None:
    found = find_python(
        tmp_path,
        python3='case "$2" in *exit*) exit 1;; *) echo 3.9;; esac',
        **{"python3.13": "echo a version manager knows it not; exit 127", "python3.12": "exit 0"},
    )
    assert found.stdout == "python3.12\n"


def test_without_a_python_that_will_do_it_says_what_there_is_and_what_to_do(tmp_path: Path) -> None:
    found = find_python(tmp_path, python3='case "$2" in *exit*) exit 1;; *) echo 3.9;; esac')
    assert found.returncode == 1
    assert "Python 3.11 or newer is needed; python3 is 3.9;" in found.stderr
    assert "make PYTHON=" in found.stderr
    assert found.stderr.count("\n") == 1
