"""How is a checkpoint's Jinja template compiled so that it can neither run code nor run away?

Jinja's immutable sandbox, with the filters and functions that Transformers gives to chat
templates, plus limits on time, loop turns, and the size of any string it builds.
"""

import json
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import jinja2
import jinja2.ext
from jinja2 import nodes
from jinja2.sandbox import ImmutableSandboxedEnvironment, SecurityError
from jinja2.visitor import NodeTransformer

_TICK = "expertmesh_tick"
_CONCAT = "expertmesh_concat"
_MAX_STRING_CHARS = 32 * 2**20
_MAX_INTEGER_BITS = 4096


@dataclass(frozen=True, kw_only=True)
class RenderLimits:
    """What one rendering may use at most."""

    time_limit_s: float = 5.0
    max_loop_turns: int = 1_000_000
    max_output_chars: int = 24 * 2**20


class Budget:
    """What one rendering has left."""

    def __init__(self, limits: RenderLimits) -> None:
        self._deadline = time.monotonic() + limits.time_limit_s
        self._turns_left = limits.max_loop_turns
        self._chars_left = limits.max_output_chars

    def tick(self) -> str:
        """Count one loop turn or macro call."""
        self._turns_left -= 1
        if self._turns_left < 0:
            raise SecurityError("the chat template loops too often")
        self._check_time()
        return ""

    def spend(self, num_chars: int) -> None:
        """Count output."""
        self._chars_left -= num_chars
        if self._chars_left < 0:
            raise SecurityError("the rendered prompt is too long")
        self._check_time()

    def variables(self) -> dict[str, Callable[..., str]]:
        """What the compiled template needs among its variables to be limited by this budget."""
        return {_TICK: self.tick}

    def _check_time(self) -> None:
        if time.monotonic() > self._deadline:
            raise SecurityError("the chat template takes too long")


class TemplateSandbox(ImmutableSandboxedEnvironment):
    """The immutable sandbox with bounded operators and Transformers' helpers."""

    intercepted_binops = frozenset({"+", "*", "**", "%"})

    def __init__(self) -> None:
        super().__init__(
            trim_blocks=True,
            lstrip_blocks=True,
            extensions=[jinja2.ext.loopcontrols, GenerationTag],
        )
        self.filters["tojson"] = to_json
        self.globals["raise_exception"] = raise_exception
        self.globals["strftime_now"] = strftime_now
        self.globals[_CONCAT] = concat

    def compile_limited(
        self, source: str, replace_literal: Callable[[str], str]
    ) -> jinja2.Template:
        """Compile with loop counting; `replace_literal` may change the template's own texts."""
        tree = self.parse(source)
        for data in tree.find_all(nodes.TemplateData):
            data.data = replace_literal(data.data)
        for const in tree.find_all(nodes.Const):
            if isinstance(const.value, str):
                const.value = replace_literal(const.value)
        tree = _Limiter().visit(tree)
        tree.set_environment(self)
        return self.from_string(tree)

    def call_binop(self, context: Any, operator: str, left: Any, right: Any) -> Any:
        """Refuse operators whose result would be huge, before computing it."""
        if operator == "**":
            _check_power(left, right)
        elif operator == "*":
            _check_product(left, right)
        elif operator == "+" and isinstance(left, str) and isinstance(right, str):
            _check_chars(len(left) + len(right))
        elif operator == "%" and isinstance(left, str):
            raise SecurityError("the % operator on strings is not available in chat templates")
        return super().call_binop(context, operator, left, right)


class GenerationTag(jinja2.ext.Extension):
    """`{% generation %}` marks the assistant's text for training; here it changes nothing."""

    tags = {"generation"}  # noqa: RUF012 - jinja2 declares it so

    def parse(self, parser: Any) -> Any:
        """Keep the body as it is."""
        next(parser.stream)
        return parser.parse_statements(("name:endgeneration",), drop_needle=True)


class _Limiter(NodeTransformer):
    """Counts turns of loops and calls of macros, and bounds `~`."""

    def visit_Concat(self, node: nodes.Concat) -> nodes.Node:
        self.generic_visit(node)
        return _call(_CONCAT, node.nodes, node.lineno)

    def _count(self, node: nodes.For | nodes.Macro) -> nodes.Node:
        self.generic_visit(node)
        tick = nodes.ExprStmt(_call(_TICK, [], node.lineno), lineno=node.lineno)
        node.body.insert(0, tick)
        return node

    visit_For = visit_Macro = _count


def _call(name: str, arguments: list[nodes.Expr], lineno: int) -> nodes.Call:
    function = nodes.Name(name, "load", lineno=lineno)
    return nodes.Call(function, arguments, [], None, None, lineno=lineno)


def concat(*parts: Any) -> str:
    """Jinja's `~` with a bound on the result."""
    texts = [str(part) for part in parts]
    _check_chars(sum(map(len, texts)))
    return "".join(texts)


def to_json(
    value: Any,
    ensure_ascii: bool = False,
    indent: int | None = None,
    separators: tuple[str, str] | None = None,
    sort_keys: bool = False,
) -> str:
    """JSON as Transformers' `tojson` writes it: no HTML escapes, non-ASCII text kept."""
    return json.dumps(
        value,
        ensure_ascii=ensure_ascii,
        indent=indent,
        separators=separators,
        sort_keys=sort_keys,
    )


def raise_exception(message: Any) -> None:
    """What templates call to refuse a conversation."""
    raise jinja2.TemplateError(str(message))


def strftime_now(pattern: str) -> str:
    """Local time by a `strftime` pattern."""
    return datetime.now().strftime(pattern)


def _check_chars(num_chars: int) -> None:
    if num_chars > _MAX_STRING_CHARS:
        raise SecurityError("the chat template builds too long a string")


def _check_product(left: Any, right: Any) -> None:
    for value, factor in ((left, right), (right, left)):
        if isinstance(value, str | list | tuple) and isinstance(factor, int):
            _check_chars(len(value) * factor)
    if isinstance(left, int) and isinstance(right, int):
        _check_bits(left.bit_length() + right.bit_length())


def _check_power(left: Any, right: Any) -> None:
    if isinstance(left, int) and isinstance(right, int):
        _check_bits(left.bit_length() * max(right, 0))


def _check_bits(num_bits: int) -> None:
    if num_bits > _MAX_INTEGER_BITS:
        raise SecurityError("the chat template computes too large a number")
