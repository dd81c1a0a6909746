"""How is code reviewed? Piece by piece; findings are data, at lines that exist."""

import re
from collections.abc import Sequence
from typing import Any

from expertmesh.assistants.asking.model import Messages, TextModel
from expertmesh.assistants.asking.structured import CutOffError, UselessAnswerError, ask_json
from expertmesh.assistants.prompts import language_of, prompt
from expertmesh.assistants.reviewing.findings import Finding, Review, Severity
from expertmesh.assistants.reviewing.passages import MAX_PIECE_CHARS, Passage, pieces
from expertmesh.assistants.watch import Watching
from expertmesh.clients.chat import Reply
from expertmesh.clients.chat_stream import RefusedError

SCHEMA: dict[str, Any] = {
    "type": "array",
    "maxItems": 30,
    "items": {
        "type": "object",
        "properties": {
            "line": {"type": "integer", "minimum": 1, "maximum": 9_999_999},
            "kind": {"type": "string", "minLength": 1, "maxLength": 60},
            "severity": {"type": "string", "enum": [one.value for one in Severity]},
            "message": {"type": "string", "minLength": 1, "maxLength": 600},
        },
        "required": ["line", "kind", "severity", "message"],
    },
}
"""Bounded everywhere: a small model that is held to a form may never end a string by itself."""
_COMMENT = re.compile(r"(?:#|//|/\*|\"\"\"|''')(.*)")
_LEAST_LINES = 40
"""A shorter piece is not halved when its review does not fit into an answer."""


def language_of_code(texts: Sequence[str]) -> str:
    """That of the comments: "en" or "zh"."""
    return language_of("\n".join(found for text in texts for found in _COMMENT.findall(text)))


class Reviewer:
    """Reviews passages with one model; use it once."""

    def __init__(
        self, model: TextModel, *, watching: Watching, language: str, focus: str | None = None
    ):
        """`focus`: what to look for above all, in the user's words."""
        self._model = model
        self._watching = watching
        self._language = language
        self._focus = f" {focus.strip()}" if focus and focus.strip() else ""
        self._review = Review()

    async def review(self, passages: Sequence[Passage]) -> Review:
        """All of them. A piece whose answer is of no use is told in `failures`.

        Raises ChatError, and UselessAnswerError if there is no answer of use at all.
        """
        max_chars = min(MAX_PIECE_CHARS, self._model.max_model_len or MAX_PIECE_CHARS)
        parts = [piece for one in passages for piece in pieces(one, max_chars)]
        for number, part in enumerate(parts, 1):
            of_all = f", {number} of {len(parts)}" if len(parts) > 1 else ""
            self._watching.begins(f"reviewing {part.place}{of_all}")
            try:
                await self._part(part)
            except UselessAnswerError as error:
                if len(parts) == 1:
                    raise
                self._review.failures.append(f"{part.place}: {error}")
            if part.file not in self._review.files:
                self._review.files.append(part.file)
            self._review.lines += len(part.reportable)
        if parts and len(self._review.failures) == len(parts):
            raise UselessAnswerError(self._review.failures[0])
        places = {one.file: number for number, one in enumerate(passages)}
        self._review.findings.sort(key=lambda one: (places[one.file], one.line))
        return self._review

    async def _part(self, part: Passage) -> None:
        """In halves if it does not fit into the context, or its review into an answer."""
        try:
            value, _ = await ask_json(
                self._model,
                self._messages(part),
                SCHEMA,
                language=self._language,
                on_piece=self._watching.piece,
                on_answer=self._count,
            )
        except (RefusedError, CutOffError) as error:
            least = _LEAST_LINES if isinstance(error, CutOffError) else 2
            is_too_long = isinstance(error, CutOffError) or error.is_too_long
            if not is_too_long or len(part.rows) < least:
                raise
            for half in part.halves():
                if half.reportable:
                    await self._part(half)
            return
        self._keep(part, value)

    def _messages(self, part: Passage) -> Messages:
        name = "review_diff" if part.is_diff else "review_file"
        user = prompt(name, self._language, file=part.file, focus=self._focus, code=part.block())
        return [
            {"role": "system", "content": prompt("review", self._language)},
            {"role": "user", "content": user},
        ]

    def _keep(self, part: Passage, value: list[dict[str, Any]]) -> None:
        reportable = part.reportable
        for one in value:
            line = int(one["line"])
            if line not in reportable:
                self._review.dropped += 1
                continue
            finding = Finding(
                file=part.file,
                line=line,
                kind=" ".join(one["kind"].split()),
                severity=Severity(one["severity"]),
                message=" ".join(one["message"].split()),
                code=reportable[line],
            )
            if finding not in self._review.findings:
                self._review.findings.append(finding)

    def _count(self, reply: Reply) -> None:
        self._watching.answered(reply)
        self._review.prompt_tokens += reply.prompt_tokens
        self._review.completion_tokens += reply.completion_tokens
