"""How does a conversation become a prompt in which only the template writes control tokens?

When the template is compiled, every added token's text among its own literals is replaced by a
lone surrogate code point. Text from callers cannot contain those (`render` refuses it), so in the
output each surrogate is a marker of the template's own, and everything else is text, even where
it reads like a marker: whole, nested, or put together across the seam of two strings.

A template that assembles a marker from pieces would lose it this way. `load` finds such a
template by rendering sample conversations with and without the replacement, and refuses it.
"""

import re
from collections.abc import Collection, Iterable, Mapping
from pathlib import Path
from typing import Any

import jinja2
from jinja2 import meta

from moe_model.chat.sandbox import Budget, RenderLimits, TemplateSandbox
from moe_model.chat.template_samples import SAMPLES
from moe_model.json_files import read_json, read_text
from moe_model.text import files
from moe_model.text.added_tokens import parse_added_tokens
from moe_model.text.segments import Segment
from moe_model.text.unicode_text import require_valid_text

_FIRST_SURROGATE = 0xD800
_NUM_SURROGATES = 0x800
_SURROGATE = re.compile("([\ud800-\udfff])")
_SPECIAL_VARIABLES = ("bos_token", "eos_token", "pad_token", "unk_token")


class TemplateError(ValueError):
    """The template refused the conversation, failed on it, or went over a limit."""


class ChatTemplate:
    """A checkpoint's chat template. Thread-safe: each rendering has its own state."""

    def __init__(
        self,
        source: str,
        *,
        markers: Iterable[str],
        variables: Mapping[str, str] | None = None,
        limits: RenderLimits | None = None,
    ) -> None:
        """Compile `source`.

        Args:
            markers: texts of all added tokens.
            variables: further variables (`bos_token` and the like).

        Raises:
            ValueError: the template does not compile, or makes markers from pieces.
        """
        self.source = source
        """As the checkpoint has it."""
        self._limits = limits or RenderLimits()
        ordered = sorted(markers, key=len, reverse=True)
        self._any_marker = re.compile("|".join(map(re.escape, ordered)) or r"(?!)")
        self._surrogate_of: dict[str, str] = {}
        sandbox = TemplateSandbox()
        try:
            self._template = sandbox.compile_limited(source, self._hide_markers)
            as_written = sandbox.compile_limited(source, lambda literal: literal)
        except (jinja2.TemplateError, RecursionError) as error:
            raise ValueError(f"chat template does not compile ({error})") from error
        self.variables = frozenset(meta.find_undeclared_variables(sandbox.parse(source)))
        """Names that the template reads and does not set itself."""
        given = dict(variables or {})
        self._variables = {name: self._hide_markers(text) for name, text in given.items()}
        self._marker_of = {surrogate: text for text, surrogate in self._surrogate_of.items()}
        self._check_samples(as_written, given)

    @classmethod
    def load(cls, folder: Path, markers: Collection[str] = ()) -> "ChatTemplate":
        """Read chat_template.jinja, or `chat_template` of tokenizer_config.json.

        Raises a one-line ValueError naming the file. `markers`: texts that must be among the
        added tokens.
        """
        config = files.read_tokenizer_config(folder)
        path, source = _read_source(folder, config)
        tokenizer_path = folder / files.TOKENIZER_FILE
        tokenizer_json = read_json(tokenizer_path, limit_bytes=files.MAX_TOKENIZER_BYTES)
        added = parse_added_tokens(tokenizer_path, tokenizer_json, markers)
        try:
            return cls(source, markers=added, variables=_special_variables(config))
        except ValueError as error:
            raise ValueError(f"{path}: {error}") from error

    def render(
        self,
        messages: list[dict[str, Any]],
        tools: list[dict[str, Any]] | None,
        *,
        add_generation_prompt: bool = True,
    ) -> list[Segment]:
        """The prompt as text stretches and markers, for `Tokenizer.encode_segments`.

        Args:
            messages: as `normalise_messages` gives them.
            tools: as `validate_tools` accepts them, or None.
            add_generation_prompt: end with the opening of an assistant turn.

        Raises:
            TemplateError: `raise_exception` in the template, a failing expression, a limit.
            ValueError: a string with a lone surrogate.
        """
        require_valid_text("messages", messages)
        require_valid_text("tools", tools)
        output = self._run(self._template, self._variables, messages, tools, add_generation_prompt)
        return [
            Segment(self._marker_of[part], True)
            if part in self._marker_of
            else Segment(part, False)
            for part in _SURROGATE.split(output)
            if part
        ]

    def _hide_markers(self, literal: str) -> str:
        """Replace each marker in one of the template's own literals by its surrogate."""
        if _SURROGATE.search(literal):
            raise jinja2.TemplateError("a literal has a lone surrogate")
        return self._any_marker.sub(self._surrogate, literal)

    def _surrogate(self, match: re.Match[str]) -> str:
        used = len(self._surrogate_of)
        if match[0] not in self._surrogate_of and used == _NUM_SURROGATES:
            raise jinja2.TemplateError(f"more than {_NUM_SURROGATES} different markers")
        return self._surrogate_of.setdefault(match[0], chr(_FIRST_SURROGATE + used))

    def _run(
        self,
        template: jinja2.Template,
        variables: Mapping[str, str],
        messages: list[dict[str, Any]],
        tools: list[dict[str, Any]] | None,
        add_generation_prompt: bool,
    ) -> str:
        budget = Budget(self._limits)
        chunks: list[str] = []
        try:
            for chunk in template.generate(
                **variables,
                **budget.variables(),
                messages=messages,
                tools=tools or None,
                documents=None,
                add_generation_prompt=add_generation_prompt,
            ):
                budget.spend(len(chunk))
                chunks.append(chunk)
        except jinja2.TemplateError as error:
            raise TemplateError(f"chat template: {error.message or 'refused'}") from error
        except Exception as error:  # any expression of the template may fail in any way
            kind = type(error).__name__
            raise TemplateError(f"chat template: fails on these messages ({kind})") from error
        return "".join(chunks)

    def _check_samples(self, as_written: jinja2.Template, variables: Mapping[str, str]) -> None:
        """Require the same markers at the same places with and without the replacement."""
        for sample in SAMPLES:
            try:
                text = self._run(as_written, variables, sample.messages, sample.tools, True)
            except TemplateError:
                if sample.required:
                    raise
                continue
            segments = self.render(sample.messages, sample.tools)
            markers = [segment.text for segment in segments if segment.is_marker]
            joined = "".join(segment.text for segment in segments)
            if text != joined or markers != self._any_marker.findall(text):
                raise ValueError("chat template makes a marker from pieces, write it as one text")


def _read_source(folder: Path, config: Mapping[str, Any]) -> tuple[Path, str]:
    path = folder / files.TEMPLATE_FILE
    if path.exists():
        return path, read_text(path, files.MAX_TEMPLATE_BYTES)
    path = folder / files.TOKENIZER_CONFIG_FILE
    source = config.get("chat_template")
    if isinstance(source, list):  # several named templates
        named = {
            item.get("name"): item.get("template") for item in source if isinstance(item, dict)
        }
        source = named.get("default")
    if not isinstance(source, str) or not source:
        raise ValueError(f"{path}: no chat_template there and no {files.TEMPLATE_FILE} beside it")
    return path, source


def _special_variables(config: Mapping[str, Any]) -> dict[str, str]:
    """`bos_token` and the like, written as a string or as an object with `content`."""
    variables = {}
    for name in _SPECIAL_VARIABLES:
        value = config.get(name)
        if isinstance(value, dict):
            value = value.get("content")
        if isinstance(value, str):
            variables[name] = value
    return variables
