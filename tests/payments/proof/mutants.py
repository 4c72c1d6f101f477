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
from importlib import import_module
from types import CodeType, FunctionType, ModuleType

from tests.payments.proof.battery import notices

# By name: in the package `state` is the function of that module.
NAMES = (
    "domain.fold",
    "domain.state",
    "gateway.parts",
    "gateway.afterwards",
    "gateway.translate",
    "reconcile.compare",
)
MODULES = tuple(import_module(f"services.payments.{name}") for name in NAMES)
SWAPPED_NAMES = {"max": "min", "min": "max"}
SWAPPED_OPERATORS: dict[type[ast.AST], type[ast.AST]] = {
    ast.Gt: ast.GtE, ast.GtE: ast.Gt, ast.Lt: ast.LtE, ast.LtE: ast.Lt,
    ast.Eq: ast.NotEq, ast.NotEq: ast.Eq, ast.Is: ast.IsNot, ast.IsNot: ast.Is,
    ast.In: ast.NotIn, ast.NotIn: ast.In, ast.And: ast.Or, ast.Or: ast.And,
    ast.Add: ast.Sub, ast.Sub: ast.Add,
}  # fmt: skip
# Changes that leave the rule what it is: short cuts past a result that comes out the same, ranks above or below all
# others, and how much is remembered.
HARMLESS = {
    "fold: ANSWER_RANK = 9  ->  ANSWER_RANK = 10",
    "fold: if not unsettled or not fees: return unsettled  ->  if False: return unsettled",
    "fold: not unsettled or not fees  ->  not unsettled and (not fees)",
    "fold: if not listed or not claims: return claims  ->  if False: return claims",
    "fold: not listed or not claims  ->  not listed and (not claims)",
    "fold: if not a or not b: return a or b  ->  if False: return a or b",
    "fold: not a or not b  ->  not a and (not b)",
    "parts: PAYMENT_LINK_RANK = 1  ->  PAYMENT_LINK_RANK = 2",
    "parts: SUBSCRIPTION_LINK_RANK = -2  ->  SUBSCRIPTION_LINK_RANK = -3",
    "parts: NAMES_REMEMBERED = 8192  ->  NAMES_REMEMBERED = 8193",
    # Of one payment the least is the greatest.
    "afterwards: payment = min(payments, default=None)  ->  payment = max(payments, default=None)",
}


@dataclass(frozen=True)
class Mutant:
    """One change: where, and what it reads like before and after."""

    module: ModuleType
    before: str
    after: str
    code: CodeType

    def __str__(self) -> str:
        name = self.module.__name__.rpartition(".")[2]
        return f"{name}: {self.before}  ->  {self.after}"


def mutants(module: ModuleType) -> Iterator[Mutant]:
    tree = ast.parse(inspect.getsource(module))
    for top in tree.body:
        # A class's fields and what is imported are no rules.
        if not isinstance(top, ast.FunctionDef | ast.Assign | ast.AnnAssign):
            continue
        for place, node in enumerate(ast.walk(top)):
            for number in range(len(_changes(node))):
                yield _changed(module, tree, (tree.body.index(top), place, number))


def _changed(module: ModuleType, tree: ast.Module, where: tuple[int, int, int]) -> Mutant:
    body, place, number = where
    top = copy.deepcopy(tree.body[body])
    target = list(ast.walk(top))[place]
    statement = _statement(top, target)
    before = _shown(statement, target)
    _changes(target)[number]()
    after = _shown(statement, target)
    changed = ast.Module([*tree.body[:body], top, *tree.body[body + 1 :]], [])
    code = compile(ast.fix_missing_locations(changed), module.__file__ or "", "exec")
    return Mutant(module, before, after, code)


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
        case ast.UnaryOp(op=ast.USub()):
            found.append(lambda: setattr(node, "op", ast.UAdd()))
        case ast.UnaryOp(op=ast.Not(), operand=operand):
            found.append(lambda: setattr(node, "operand", ast.UnaryOp(ast.Not(), operand)))
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


def _swap(node: ast.IfExp) -> None:
    node.body, node.orelse = node.orelse, node.body


def _joins(node: ast.keyword) -> bool:
    return any(
        isinstance(each, ast.Name) and each.id in ("a", "b") for each in ast.walk(node.value)
    )


def _statement(top: ast.stmt, target: ast.AST) -> ast.stmt:
    """The smallest that holds the target."""
    holding = [
        each
        for each in ast.walk(top)
        if isinstance(each, ast.stmt) and any(part is target for part in ast.walk(each))
    ]
    return holding[-1]


def _shown(statement: ast.stmt, target: ast.AST) -> str:
    small = isinstance(target, ast.expr | ast.keyword)
    alone = small and not isinstance(target, ast.Constant | ast.Name | ast.UnaryOp)
    return " ".join(ast.unparse(target if alone else statement).split())


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


def survivors(
    module: ModuleType, shown: Callable[[str], None] = lambda line: None
) -> tuple[int, list[str]]:
    """How many mutants there were, and those that no test noticed."""
    total, alive = 0, []
    for mutant in mutants(module):
        total += 1
        with living(mutant):
            noticed = notices()
        if noticed is None and str(mutant) not in HARMLESS:
            alive.append(str(mutant))
        shown(f"{'killed by ' + noticed if noticed else 'SURVIVED':60} {mutant}")
    return total, alive


def main() -> int:
    found = [survivors(module, print) for module in MODULES]
    left = [each for _, alive in found for each in alive]
    print(
        f"{sum(total for total, _ in found)} mutants, {len(left)} noticed by no test:",
        *left,
        sep="\n",
    )
    return 1 if left else 0


if __name__ == "__main__":
    sys.exit(main())
