"""What is in a file of tests, what is wrong with it, and how is it without some of them?"""

import ast
from collections.abc import Container, Iterator

from expertmesh.assistants.reviewing.passages import MAX_PIECE_CHARS
from expertmesh.assistants.testing.mutants import Function, functions_of


def fault_of(code: str) -> str:
    """Why this can be no file of tests, in a line; "" if it can."""
    try:
        found = [name for name, _ in _tests(ast.parse(code))]
    except (SyntaxError, ValueError, RecursionError) as error:
        return f"this is no Python: {error}"
    return "" if found else "there is no function in it whose name begins with test_"


def without(code: str, names: Container[str]) -> str:
    """The code without these tests (a method is "Class::method"), and else as it was."""
    tree = ast.parse(code)
    gone: set[int] = set()
    for node in tree.body:
        if isinstance(node, ast.ClassDef):
            methods = [one for one in node.body if isinstance(one, Function)]
            wrong = [one for one in methods if f"{node.name}::{one.name}" in names]
            # Without its only content a class would be no Python.
            for one in [node] if len(wrong) == len(node.body) else wrong:
                gone.update(_lines(one))
        elif isinstance(node, Function) and node.name in names:
            gone.update(_lines(node))
    lines = code.splitlines(keepends=True)
    return "".join(line for number, line in enumerate(lines, 1) if number not in gone)


def shown_source(source: str, function: str | None) -> str:
    """A module as the model is shown it: as a whole, or what a function needs of a long one."""
    if len(source) <= MAX_PIECE_CHARS or function is None:
        return source[:MAX_PIECE_CHARS]
    tree = ast.parse(source)
    wanted = functions_of(tree)[function]
    parts = [
        ast.get_source_segment(source, node) or ""
        for node in tree.body
        if isinstance(node, ast.Import | ast.ImportFrom | ast.Assign | ast.AnnAssign)
    ]
    own = ast.get_source_segment(source, wanted, padded=True) or ""
    owner, _, method = function.rpartition(".")
    head = f"class {owner}:\n    ...\n\n" if method and owner else ""
    return "\n".join(parts)[: MAX_PIECE_CHARS // 2] + f"\n\n\n{head}{own}"[:MAX_PIECE_CHARS]


def _tests(tree: ast.Module) -> Iterator[tuple[str, Function]]:
    for node in tree.body:
        if isinstance(node, Function) and node.name.startswith("test"):
            yield node.name, node
        elif isinstance(node, ast.ClassDef) and node.name.startswith("Test"):
            for one in node.body:
                if isinstance(one, Function) and one.name.startswith("test"):
                    yield f"{node.name}::{one.name}", one


def _lines(node: Function | ast.ClassDef) -> range:
    first = min([node.lineno, *(one.lineno for one in node.decorator_list)])
    return range(first, (node.end_lineno or node.lineno) + 1)
