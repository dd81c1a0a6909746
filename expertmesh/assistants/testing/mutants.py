"""Which small mistakes could a function have? Copies of its module with one of them each.

Tests that notice none of them check nothing. A comparison is shifted, an operator exchanged, a
constant changed, a condition negated, a result dropped, the function left at once.
"""

import ast
import random
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import chain, zip_longest

_COMPARED: dict[type[ast.cmpop], type[ast.cmpop]] = {
    ast.Lt: ast.LtE, ast.LtE: ast.Lt, ast.Gt: ast.GtE, ast.GtE: ast.Gt, ast.Eq: ast.NotEq,
    ast.NotEq: ast.Eq, ast.In: ast.NotIn, ast.NotIn: ast.In, ast.Is: ast.IsNot, ast.IsNot: ast.Is,
}  # fmt: skip
_COMPUTED: dict[type[ast.operator], type[ast.operator]] = {
    ast.Add: ast.Sub, ast.Sub: ast.Add, ast.Mult: ast.Add, ast.Div: ast.Mult,
    ast.FloorDiv: ast.Div, ast.Mod: ast.FloorDiv, ast.Pow: ast.Mult, ast.BitAnd: ast.BitOr,
    ast.BitOr: ast.BitAnd, ast.LShift: ast.RShift, ast.RShift: ast.LShift,
}  # fmt: skip
Function = ast.FunctionDef | ast.AsyncFunctionDef


@dataclass(frozen=True)
class Mutant:
    """A module with one mistake."""

    line: int
    kind: str
    before: str
    after: str
    source: str

    def text(self) -> str:
        return f"line {self.line}: `{self.before}` became `{self.after}`"


def mutants(source: str, names: Sequence[str] = (), most: int = 20) -> list[Mutant]:
    """At most so many, of every kind, by line; of all functions or of these. Always the same.

    Raises SyntaxError, and ValueError for a name that there is not.
    """
    tree = ast.parse(source)
    known = functions_of(tree)
    unknown = [name for name in names if name not in known]
    if unknown:
        raise ValueError(f"there is no {unknown[0]}; there are {', '.join(known) or 'none'}")
    by_kind: dict[str, list[_Mistake]] = {}
    for name in names or known:
        for mistake in _mistakes(known[name]):
            by_kind.setdefault(mistake.kind, []).append(mistake)
    order = random.Random(0)
    for of_kind in by_kind.values():
        order.shuffle(of_kind)
    in_turn = [one for one in chain(*zip_longest(*by_kind.values())) if one is not None]
    written = {ast.unparse(tree)}
    made: list[Mutant] = []
    for mistake in in_turn:
        if len(made) == most:
            break
        mutant = _made(tree, mistake)
        if mutant.source not in written:
            written.add(mutant.source)
            made.append(mutant)
    return sorted(made, key=lambda one: one.line)


def functions_of(tree: ast.Module) -> dict[str, Function]:
    """Name -> function, and "Class.method", of those at the top."""
    found: dict[str, Function] = {}
    for node in tree.body:
        if isinstance(node, Function):
            found[node.name] = node
        elif isinstance(node, ast.ClassDef):
            methods = [one for one in node.body if isinstance(one, Function)]
            found.update({f"{node.name}.{one.name}": one for one in methods})
    return found


@dataclass(frozen=True)
class _Mistake:
    """A change of one node that can be taken back."""

    kind: str
    node: ast.AST
    line: int
    change: Callable[[], None]
    undo: Callable[[], None]


def _mistakes(function: Function) -> Iterator[_Mistake]:
    start = 1 if ast.get_docstring(function) is not None else 0
    body = function.body
    rest = body[start:]
    if len(rest) > 1 or (rest and not isinstance(rest[0], ast.Return | ast.Pass)):
        left = [*body[:start], ast.Return(ast.Constant(None)), *rest]
        kind, change, undo = _set("early return", function, "body", left)
        yield _Mistake(kind, function, function.lineno, change, undo)
    for node in chain.from_iterable(_parts(one) for one in rest):
        for kind, change, undo in _changes(node):
            yield _Mistake(kind, node, getattr(node, "lineno", function.lineno), change, undo)


def _made(tree: ast.Module, mistake: _Mistake) -> Mutant:
    node = mistake.node
    before = node.name if isinstance(node, Function) else ast.unparse(node)
    mistake.change()
    try:
        source = ast.unparse(ast.fix_missing_locations(tree))
        after = "return None" if isinstance(node, Function) else ast.unparse(node)
    finally:
        mistake.undo()
    return Mutant(mistake.line, mistake.kind, before, after, source)


def _parts(node: ast.AST) -> Iterator[ast.AST]:
    """The node and what is in it, without annotations, decorators, docstrings and f-strings'
    texts."""
    yield node
    skipped: set[int] = set()
    if isinstance(node, Function):
        skipped = {id(one) for one in (*node.decorator_list, node.returns) if one is not None}
        if ast.get_docstring(node) is not None:
            skipped.add(id(node.body[0]))
    elif isinstance(node, ast.AnnAssign):
        skipped = {id(node.annotation)}
    elif isinstance(node, ast.JoinedStr):
        skipped = {id(one) for one in node.values if isinstance(one, ast.Constant)}
    elif isinstance(node, ast.FormattedValue) and node.format_spec is not None:
        skipped = {id(node.format_spec)}
    elif isinstance(node, ast.arg) or (
        isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)
    ):
        return
    for child in ast.iter_child_nodes(node):
        if id(child) not in skipped:
            yield from _parts(child)


Change = tuple[str, Callable[[], None], Callable[[], None]]


def _changes(node: ast.AST) -> Iterator[Change]:
    """(kind, change, undo) of a node."""
    if isinstance(node, ast.Compare):
        for place, old in enumerate(node.ops):
            yield _set_item("comparison", node.ops, place, _COMPARED[type(old)]())
    elif isinstance(node, ast.BinOp | ast.AugAssign) and type(node.op) in _COMPUTED:
        yield _set("operator", node, "op", _COMPUTED[type(node.op)]())
    elif isinstance(node, ast.BoolOp):
        yield _set("operator", node, "op", ast.Or() if isinstance(node.op, ast.And) else ast.And())
    elif isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.Not | ast.USub):
        yield _set("operator", node, "operand", ast.UnaryOp(node.op, node.operand))
    elif isinstance(node, ast.If | ast.IfExp):
        yield _set("condition", node, "test", ast.UnaryOp(ast.Not(), node.test))
    elif isinstance(node, ast.Return) and node.value is not None:
        if not (isinstance(node.value, ast.Constant) and node.value.value is None):
            yield _set("result", node, "value", ast.Constant(None))
    elif isinstance(node, ast.Constant):
        other = _other_value(node.value)
        if other is not None:
            yield _set("constant", node, "value", other)


def _other_value(value: object) -> object:
    """None where there is no other."""
    if isinstance(value, bool):
        return not value
    if isinstance(value, int | float):
        return value + 1
    if isinstance(value, str):
        return "" if value else "x"
    return None


def _set(kind: str, node: ast.AST, field: str, new: object) -> Change:
    old = getattr(node, field)
    return kind, lambda: setattr(node, field, new), lambda: setattr(node, field, old)


def _set_item(kind: str, items: list[ast.cmpop], place: int, new: ast.cmpop) -> Change:
    old = items[place]
    return kind, lambda: items.__setitem__(place, new), lambda: items.__setitem__(place, old)
