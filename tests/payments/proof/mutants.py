"""Every small change of the fold's rules, made in the running code and taken back: which does no test notice?

`python -m tests.payments.proof.mutants` tells of each; tests/payments/proof/test_mutants.py holds that none survives.
"""

import ast
import copy
import inspect
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from types import CodeType, FunctionType, ModuleType

from services.payments.domain import fold, state
from tests.payments.proof.battery import notices

MODULES = (fold, state)
SWAPPED_NAMES = {"max": "min", "min": "max"}
SWAPPED_OPERATORS: dict[type[ast.AST], type[ast.AST]] = {
    ast.Gt: ast.GtE, ast.GtE: ast.Gt, ast.Lt: ast.LtE, ast.LtE: ast.Lt,
    ast.Eq: ast.NotEq, ast.NotEq: ast.Eq, ast.Is: ast.IsNot, ast.IsNot: ast.Is,
    ast.In: ast.NotIn, ast.NotIn: ast.In, ast.And: ast.Or, ast.Or: ast.And,
    ast.Add: ast.Sub, ast.Sub: ast.Add,
}  # fmt: skip
Change = Callable[[ast.AST], ast.AST | None]


@dataclass(frozen=True)
class Mutant:
    """One change: where, and what it reads like before and after."""

    module: ModuleType
    line: int
    before: str
    after: str
    code: CodeType

    def __str__(self) -> str:
        name = self.module.__name__.rpartition(".")[2]
        return f"{name}: {self.before}  ->  {self.after}"


def mutants() -> Iterator[Mutant]:
    for module in MODULES:
        tree = ast.parse(inspect.getsource(module))
        for place, _ in enumerate(ast.walk(tree)):
            yield from _at(module, tree, place)


def _at(module: ModuleType, tree: ast.Module, place: int) -> Iterator[Mutant]:
    [node] = [each for index, each in enumerate(ast.walk(tree)) if index == place]
    for number in range(len(_changes(node))):
        changed = copy.deepcopy(tree)
        [target] = [each for index, each in enumerate(ast.walk(changed)) if index == place]
        if not _in_a_rule(changed, target):
            continue
        before = _shown(changed, target)
        _changes(target)[number]()
        code = compile(ast.fix_missing_locations(changed), module.__file__ or "", "exec")
        yield Mutant(module, _line(changed, target), before, _shown(changed, target), code)


def _changes(node: ast.AST) -> list[Callable[[], None]]:
    """What can be made of a node, in place."""
    found: list[Callable[[], None]] = []
    match node:
        case ast.Name(id=name) if name in SWAPPED_NAMES:
            found.append(lambda: setattr(node, "id", SWAPPED_NAMES[name]))
        case ast.Compare(ops=[operator]) if type(operator) in SWAPPED_OPERATORS:
            found.append(lambda: setattr(node, "ops", [SWAPPED_OPERATORS[type(operator)]()]))
        case ast.BoolOp(op=operator) | ast.BinOp(op=operator):
            swapped = SWAPPED_OPERATORS.get(type(operator))
            if swapped:
                found.append(lambda: setattr(node, "op", swapped()))
        case ast.IfExp():
            found.append(lambda: _swap(node))
        case ast.UnaryOp(op=ast.USub() | ast.Not()):
            found.append(lambda: setattr(node, "op", ast.UAdd() if _negative(node) else _BOTH))
        case ast.Constant(value=bool(value)):
            found.append(lambda: setattr(node, "value", not value))
        case ast.Constant(value=int(value)):
            found.append(lambda: setattr(node, "value", value + 1))
        case ast.keyword(arg=str(name), value=ast.expr()) if _joins(node):
            # What the other side knows is forgotten.
            found.append(lambda: setattr(node, "value", ast.parse(f"a.{name}", mode="eval").body))
        case ast.If(orelse=[]):
            found.append(lambda: setattr(node, "test", ast.Constant(value=False)))
    return found


_BOTH = ast.Not()


def _negative(node: ast.UnaryOp) -> bool:
    return isinstance(node.op, ast.USub)


def _swap(node: ast.IfExp) -> None:
    node.body, node.orelse = node.orelse, node.body


def _joins(node: ast.keyword) -> bool:
    return any(
        isinstance(each, ast.Name) and each.id in ("a", "b") for each in ast.walk(node.value)
    )


def _in_a_rule(tree: ast.Module, target: ast.AST) -> bool:
    """In a function, or in a table of the module; a class's fields and what is imported are no rules."""
    for top in tree.body:
        if any(each is target for each in ast.walk(top)):
            return isinstance(top, ast.FunctionDef | ast.Assign | ast.AnnAssign)
    return False


def _statement(tree: ast.Module, target: ast.AST) -> ast.stmt:
    """The smallest that holds the target."""
    holding = [
        each
        for each in ast.walk(tree)
        if isinstance(each, ast.stmt) and any(part is target for part in ast.walk(each))
    ]
    return holding[-1]


def _line(tree: ast.Module, target: ast.AST) -> int:
    return _statement(tree, target).lineno


def _shown(tree: ast.Module, target: ast.AST) -> str:
    shown = target if isinstance(target, ast.expr | ast.keyword) else _statement(tree, target)
    if isinstance(shown, ast.Constant | ast.Name):
        shown = _statement(tree, target)
    return " ".join(ast.unparse(shown).split())[:160]


@contextmanager
def living(mutant: Mutant) -> Iterator[None]:
    """The mutant in the place of the real rules, whoever holds them."""
    fresh: dict[str, object] = {"__name__": f"{mutant.module.__name__}_mutant", "__file__": ""}
    sys.modules[str(fresh["__name__"])] = ModuleType(str(fresh["__name__"]))
    exec(mutant.code, fresh)  # noqa: S102 - our own source, changed
    undo: list[Callable[[], object]] = []
    for name, mine in list(vars(mutant.module).items()):
        theirs = fresh.get(name)
        if isinstance(mine, FunctionType) and isinstance(theirs, FunctionType):
            if mine.__module__ == mutant.module.__name__:
                undo.append(_recode(mine, theirs.__code__))
        elif isinstance(mine, int | tuple) and mine != theirs:
            undo += [_rename(each, name, mine, theirs) for each in _holders(name, mine)]
        elif isinstance(mine, dict) and not name.startswith("__") and mine != theirs:
            undo.append(_refill(mine, theirs))
    try:
        yield
    finally:
        for each in undo:
            each()
        del sys.modules[str(fresh["__name__"])]


def _recode(function: FunctionType, code: CodeType) -> Callable[[], object]:
    old = function.__code__
    function.__code__ = code
    return lambda: setattr(function, "__code__", old)


def _holders(name: str, value: object) -> list[ModuleType]:
    """Everybody who imported a constant by its name."""
    return [
        module
        for key, module in list(sys.modules.items())
        if key.startswith(("services.payments", "tests.payments"))
        and vars(module).get(name) is value
    ]


def _rename(module: ModuleType, name: str, old: object, new: object) -> Callable[[], object]:
    setattr(module, name, new)
    return lambda: setattr(module, name, old)


def _refill(table: dict[object, object], new: object) -> Callable[[], object]:
    old = dict(table)
    assert isinstance(new, dict)
    table.clear()
    table.update(new)

    def back() -> None:
        table.clear()
        table.update(old)

    return back


def survivors(shown: Callable[[str], None] = lambda line: None) -> tuple[int, list[str]]:
    """How many mutants there were, and those that no test noticed."""
    total, alive = 0, []
    for mutant in mutants():
        total += 1
        with living(mutant):
            noticed = notices()
        if noticed is None:
            alive.append(str(mutant))
        shown(f"{'killed by ' + noticed if noticed else 'SURVIVED':60} {mutant}")
    return total, alive


if __name__ == "__main__":
    count, left = survivors(print)
    print(f"{count} mutants, {len(left)} noticed by no test")
    sys.exit(1 if left else 0)
