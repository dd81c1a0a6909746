"""What does a Python file say: its tree, the nodes of it, its strings?

A file is parsed once, however many tests ask.
"""

import ast
from collections.abc import Iterator, Sequence
from functools import cache
from pathlib import Path


@cache
def parse(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"), filename=str(path))


@cache
def nodes(path: Path) -> Sequence[ast.AST]:
    """All nodes of a file, at any depth."""
    return tuple(ast.walk(parse(path)))


def strings(path: Path, *, docstrings: bool = False) -> Iterator[tuple[str, int]]:
    """(text, line) of each string, of docstrings only if asked, and of the parts of f-strings."""
    prose = {
        id(node.value)
        for node in nodes(path)
        if not docstrings and isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)
    }
    for node in nodes(path):
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in prose:
            yield node.value, node.lineno
