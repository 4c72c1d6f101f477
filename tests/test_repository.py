"""What holds for every file of the repository: sizes, names, and nothing that belongs to one machine."""

import ast
import re
import subprocess
import tomllib
from collections.abc import Iterator
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).resolve().parent.parent
FILE_LINES, FUNCTION_LINES, ARGUMENTS = 400, 60, 5
VAGUE_NAMES = {"utils.py", "util.py", "common.py", "helpers.py", "base.py", "misc.py"}
# Written by tools, and long because of what they list.
GENERATED = ("requirements/", "docs/events/", "embedded/jars.lock.toml", "LICENSE")
# In two halves, so that this file passes its own test.
REGISTRY = re.compile(
    "|".join(
        (
            "py" + r"pi\.org",
            r"files\.python" + "hosted",
            r"repo1?\.maven" + r"\.",
            "central\\.sona" + "type",
        )
    )
    + r"|artifact"
    + r"ory|nex"
    + r"us\.|--index-url https?:|registry\.\w+\.\w+"
)
MACHINE_PATH = re.compile(r"(?<![\w.}])/(?:work|root|home/\w+|Users/\w+)(?:/|\b)(?!\()")
# What runs in the image, which holds requirements/runtime.txt and no more.
IN_IMAGE = ("shared", "services", "migrations", "run_migration.py", "migration_utils.py")


def tracked() -> list[Path]:
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    paths = (ROOT / name for name in listed.stdout.split("\0") if name)
    return [path for path in paths if path.is_file()]


def relative(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def texts() -> Iterator[tuple[str, str]]:
    for path in tracked():
        try:
            yield relative(path), path.read_text()
        except UnicodeDecodeError:
            continue


def modules() -> list[tuple[str, ast.Module]]:
    return [(name, ast.parse(text)) for name, text in texts() if name.endswith(".py")]


def functions(tree: ast.Module) -> Iterator[ast.FunctionDef | ast.AsyncFunctionDef]:
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            yield node


def test_no_file_names_a_package_registry() -> None:
    found = [f"{name}: {hit[0]}" for name, text in texts() if (hit := REGISTRY.search(text))]
    assert found == []


def test_no_file_names_a_folder_of_somebodys_machine() -> None:
    found = [f"{name}: {hit[0]}" for name, text in texts() if (hit := MACHINE_PATH.search(text))]
    assert found == []


def test_every_file_can_be_read_in_one_sitting() -> None:
    long = {
        name: text.count("\n")
        for name, text in texts()
        if not name.startswith(GENERATED) and text.count("\n") > FILE_LINES
    }
    assert long == {}


def test_every_function_fits_on_a_screen() -> None:
    long = [
        f"{name}:{each.lineno} {each.name}"
        for name, tree in modules()
        for each in functions(tree)
        if (each.end_lineno or each.lineno) - each.lineno + 1 > FUNCTION_LINES
    ]
    assert long == []


def test_no_function_takes_more_than_five_arguments() -> None:
    many = [
        f"{name}:{each.lineno} {each.name}"
        for name, tree in modules()
        for each in functions(tree)
        if _argument_count(each.args) > ARGUMENTS and not name.startswith("tests/")
    ]
    assert many == []


def _argument_count(arguments: ast.arguments) -> int:
    """Of those a caller gives by place; `self` is not one.  Names after `*` explain themselves."""
    placed = [each.arg for each in (*arguments.posonlyargs, *arguments.args)]
    return len([name for name in placed if name not in ("self", "cls")])


def test_no_file_has_a_name_that_says_nothing() -> None:
    assert [relative(path) for path in tracked() if path.name in VAGUE_NAMES] == []


def test_every_module_says_what_it_is() -> None:
    silent = [
        name
        for name, tree in modules()
        if tree.body and ast.get_docstring(tree) is None and not name.startswith("tests/")
    ]
    assert silent == []


def test_the_image_holds_every_package_that_its_code_imports() -> None:
    owners = packages_distributions()
    installed = pins("runtime")
    missing = {
        f"{name} imports {package}"
        for name, tree in modules()
        if name.startswith(IN_IMAGE)
        for package in imported(tree)
        if package in owners
        and not {canonicalize_name(o) for o in owners[package]} & set(installed)
    }
    assert missing == set()


def test_every_package_that_is_imported_is_named_in_pyproject() -> None:
    """One that only comes along with another may leave with it."""
    owners = packages_distributions()
    named = declared()
    unnamed = {
        f"{name} imports {package}"
        for name, tree in modules()
        for package in imported(tree)
        if package in owners and not {canonicalize_name(o) for o in owners[package]} & named
    }
    assert unnamed == set()


def imported(tree: ast.Module) -> set[str]:
    found: set[str] = set()
    for node in ast.walk(tree):
        match node:
            case ast.Import(names=names):
                found |= {each.name.partition(".")[0] for each in names}
            case ast.ImportFrom(module=str(module), level=0):
                found.add(module.partition(".")[0])
    return found


def declared() -> set[str]:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    sets = [project["dependencies"], *project["optional-dependencies"].values()]
    return {canonicalize_name(Requirement(each).name) for wanted in sets for each in wanted}


@pytest.mark.parametrize(("smaller", "larger"), [("runtime", "demo"), ("demo", "dev")])
def test_a_larger_set_of_packages_holds_the_smaller_in_the_same_versions(
    smaller: str, larger: str
) -> None:
    assert pins(smaller).items() <= pins(larger).items()


@pytest.mark.parametrize("name", ["runtime", "demo", "dev"])
def test_every_package_is_pinned_by_hash(name: str) -> None:
    lines = (ROOT / "requirements" / f"{name}.txt").read_text()
    requirements = re.split(r"\n(?=[a-zA-Z0-9])", lines)
    unpinned = [
        each for each in requirements[1:] if "==" not in each or "--hash=sha256:" not in each
    ]
    assert unpinned == []


def pins(name: str) -> dict[str, str]:
    found = re.findall(
        r"^([A-Za-z0-9._-]+)(?:\[[^]]*\])?==([^\s;\\]+)",
        (ROOT / "requirements" / f"{name}.txt").read_text(),
        re.MULTILINE,
    )
    return {canonicalize_name(package): version for package, version in found}


def test_only_the_gateway_imports_stripe() -> None:
    """The import rules list modules by name; a new one must not slip through."""
    speakers = [name for name, tree in modules() if "stripe" in imported(tree)]
    product = [name for name in speakers if not name.startswith(("tests/", "bench/"))]
    assert product
    assert [each for each in product if not each.startswith("services/payments/gateway/")] == []


def test_tests_are_named_alike_in_every_process_that_collects_them() -> None:
    """A parameter's text becomes part of the test's name: pytest-xdist refuses names that change."""
    changing = [
        f"{name}:{call.lineno}"
        for name, tree in modules()
        if name.startswith("tests/")
        for function in functions(tree)
        for decorator in function.decorator_list
        for text in ast.walk(decorator)
        if isinstance(text, ast.JoinedStr)
        for call in ast.walk(text)
        if isinstance(call, ast.Call)
        and ast.unparse(call.func).startswith(("uuid", "random", "secrets"))
    ]
    assert changing == []
