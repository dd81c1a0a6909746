"""How do OpenAI chat messages become what M2's chat template takes?

Only what is asked now can be refused: the user's last message and system messages, as long as
nothing has answered them, and a last message of an unknown role. Whatever was said before is
rendered as what it means or shown as text. That includes an earlier user message without an answer:
it may be the one that was refused.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from moe_model.chat.message_parts import Content, asked_content, past_content, reminder
from moe_model.chat.repairs import Repair, Repairs
from moe_model.chat.thinking import THINK_TAGS, ThinkTags, separate_thinking
from moe_model.chat.tool_history import CallReader, order_tool_results
from moe_model.text.unicode_text import repaired

_SYSTEM_ROLES = ("system", "developer")
_TOOL_ROLES = ("tool", "function")
_SYSTEM_EXTRAS = ("current_date", "current_location")


def normalise_messages(
    messages: list[dict[str, Any]],
    repairs: Repairs | None = None,
    field: str = "messages",
    tags: ThinkTags = THINK_TAGS,
    *,
    reads_all: bool = False,
) -> list[dict[str, Any]]:
    """Messages for `ChatTemplate.render`; the input is not changed.

    - Content null or absent becomes ""; a list of text parts becomes their texts joined without
      separator, except in tool messages, whose parts the template writes one by one.
    - M2's template takes a system text only at the front: the system and developer messages that
      open the conversation are joined with a blank line between. A later one keeps its place and
      is no turn there, so that the turns before it do not change and the thinking of a running task
      stays: it becomes a reminder (`<system-reminder>`) at the end of the user's turn or of the
      tool results before it, or after an answer at the beginning of the user's next turn. Where
      there is no such turn, it is a user's turn.
    - An assistant's thinking, in any of its forms, becomes `reasoning_content`; see
      `separate_thinking`. Malformed thinking is never an error.
    - `function.arguments` becomes a mapping, see `tool_history.py`. Results of parallel calls are
      put in the order of the calls where ids tell it, because the template renders no ids. A
      result without a call, which the template would refuse, gets a stand-in call.
    - Lone surrogates become U+FFFD.
    - An assistant message at the end is rendered as a finished turn, not continued.

    Args:
        repairs: counts what was not rendered as it was sent.
        reads_all: content that is not text is never an error; what is asked now is read like the
            past.

    Raises:
        ValueError: naming `field` or the place in it: no messages, or in what is asked now an
            unknown role or a content part that is not text.
    """
    if not messages:
        raise ValueError(f"{field}: must not be empty")
    reader = _Reader(Counter() if repairs is None else repairs, tags, reads_all=reads_all)
    roles = [message.get("role") for message in messages]
    last_answer = _last_answer(roles)
    last_user = max((i for i, role in enumerate(roles) if role == "user"), default=-1)
    for index, message in enumerate(messages):
        is_asked = index > last_answer and (roles[index] != "user" or index == last_user)
        reader.read(message, f"{field}[{index}]" if is_asked else None)
    return reader.finish()


def answered_turn(
    content: str, calls: Sequence[Mapping[str, Any]], tags: ThinkTags = THINK_TAGS
) -> dict[str, Any]:
    """The turn that an answer is when it comes back; `calls` have ids, names and fragments."""
    sent = [
        {"id": call["id"], "function": {**call, "arguments": "".join(call["arguments"])}}
        for call in calls
    ]
    answer = {"role": "assistant", "content": content, "tool_calls": sent}
    return normalise_messages([{"role": "user", "content": ""}, answer], tags=tags)[-1]


def _last_answer(roles: list[Any]) -> int:
    """Index of the last message that answers others, -1 for none.

    An unknown role within the conversation counts as an answer; one that opens or ends it does not.
    """
    unknown = {i for i in range(1, len(roles) - 1) if roles[i] not in ("user", *_SYSTEM_ROLES)}
    known = {i for i, role in enumerate(roles) if role in ("assistant", *_TOOL_ROLES)}
    return max(unknown | known, default=-1)


class _Reader:
    """The conversation so far."""

    def __init__(self, repairs: Repairs, tags: ThinkTags, *, reads_all: bool) -> None:
        self._reads_all = reads_all
        self._repairs = repairs
        self._tags = tags
        self._calls = CallReader(repairs)
        self._system: dict[str, Any] | None = None
        self._system_texts: list[str] = []
        self._turns: list[dict[str, Any]] = []
        self._takes_results = False
        self._stand_ins: list[dict[str, Any]] | None = None
        """Calls made up for the results at the end so far."""

    def read(self, message: dict[str, Any], asked_where: str | None) -> None:
        """Take the next message; `asked_where` names it in errors, None if it was said before."""
        role = message.get("role")
        if role == "assistant":
            self._turns.append(self._assistant(message))
            self._takes_results = "tool_calls" in self._turns[-1]
            self._stand_ins = None
        elif role in _TOOL_ROLES:
            self._require_call(message)
            self._turns.insert(self._end_of_results(), self._tool(message))
        elif role in _SYSTEM_ROLES:
            self._read_system(message, self._content(message, asked_where).text)
        elif role == "user" or asked_where is None:
            self._repairs[Repair.ROLE] += role != "user"
            self._turns.append(_user(self._content(message, asked_where).text))
        else:
            raise ValueError(
                f"{asked_where}.role: must be system, developer, user, assistant or tool, "
                f"is {role!r:.40}"
            )

    def finish(self) -> list[dict[str, Any]]:
        """All of it, in order."""
        turns = _with_reminders(order_tool_results(self._turns))
        if self._system is not None:
            text = "\n\n".join(text for text in self._system_texts if text)
            turns.insert(0, {**self._system, "content": text})
        whole: list[dict[str, Any]] = [repaired(turn) for turn in turns]
        self._repairs[Repair.TEXT] += sum(
            new is not old for new, old in zip(whole, turns, strict=True)
        )
        return whole

    def _content(self, message: dict[str, Any], asked_where: str | None) -> Content:
        if asked_where is None or self._reads_all:
            return past_content(message.get("content"), self._repairs)
        return asked_content(asked_where, message.get("content"))

    def _read_system(self, message: dict[str, Any], text: str) -> None:
        if not self._turns:
            if self._system is None:
                extras = ((name, message.get(name)) for name in _SYSTEM_EXTRAS)
                known = {name: value for name, value in extras if isinstance(value, str)}
                self._system = {"role": "system", **known}
            self._system_texts.append(text)
        elif text:
            self._turns.append({"role": "system", "content": reminder(text)})

    def _assistant(self, message: dict[str, Any]) -> dict[str, Any]:
        content = past_content(message.get("content"), self._repairs, thinks=True)
        text = content.text
        if not text and isinstance(message.get("refusal"), str):
            text = message["refusal"]
        reasoning, text = separate_thinking(message, text, self._tags)
        turn: dict[str, Any] = {"role": "assistant", "content": text}
        reasoning = reasoning or "".join(content.thoughts)
        if (
            reasoning or self._tags.closing in text
        ):  # "" too: else M2's template cuts the text at its tags
            turn["reasoning_content"] = reasoning
        calls = self._calls.read(message)
        if calls:
            turn["tool_calls"] = calls
        return turn

    def _end_of_results(self) -> int:
        """Where the next result goes: beside those before it, reminders among them follow."""
        end = len(self._turns)
        while end > 0 and self._turns[end - 1]["role"] == "system":
            end -= 1
        return end

    def _require_call(self, result: dict[str, Any]) -> None:
        """Have a call before the result, one made up if there is none."""
        if self._takes_results:
            return
        call = self._calls.stand_in(result)
        if self._stand_ins is None or self._turns[-1]["role"] != "tool":
            self._stand_ins = []
            self._turns.append({"role": "assistant", "content": "", "tool_calls": self._stand_ins})
        self._stand_ins.append(call)

    def _tool(self, message: dict[str, Any]) -> dict[str, Any]:
        content = past_content(message.get("content"), self._repairs)
        turn: dict[str, Any] = {"role": "tool", "content": content.text}
        if content.texts and isinstance(message["content"], list):
            turn["content"] = [{"type": "text", "text": text} for text in content.texts]
        if isinstance(message.get("tool_call_id"), str):
            turn["tool_call_id"] = message["tool_call_id"]
        return turn


def _user(text: str) -> dict[str, Any]:
    return {"role": "user", "content": text}


def _with_reminders(turns: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Fold system turns into their neighbours; see `normalise_messages`."""
    folded: list[dict[str, Any]] = []
    waiting: list[str] = []
    for turn in turns:
        if turn["role"] == "system":
            if folded and folded[-1]["role"] in ("user", "tool"):
                folded[-1] = {
                    **folded[-1],
                    "content": _joined(folded[-1]["content"], turn["content"]),
                }
            else:
                waiting.append(turn["content"])
            continue
        if waiting and turn["role"] == "user":
            turn = _user("\n\n".join([*waiting, turn["content"]]))
            waiting = []
        elif waiting:
            folded.append(_user("\n\n".join(waiting)))
            waiting = []
        folded.append(turn)
    return [*folded, _user("\n\n".join(waiting))] if waiting else folded


def _joined(content: Any, text: str) -> Any:
    if isinstance(content, list):
        last = {"type": "text", "text": _joined(content[-1]["text"], text)}
        return [*content[:-1], last]
    return f"{content}\n\n{text}" if content else text
