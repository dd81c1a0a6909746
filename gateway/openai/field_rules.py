"""Which fields are refused because they would change the answer, and which are ignored?

A field in `REFUSED` is a 400 naming it unless its value asks for nothing. Every other field that
the request models do not know is harmless: it is accepted and logged once per name.
"""

from collections.abc import Callable, Collection, Mapping
from typing import Any

from gateway.errors import unsupported
from gateway.http.typed_body import note_ignored


def _empty(value: Any) -> bool:
    return value is None or value is False or value in ("", [], {})


def _is(*allowed: Any) -> Callable[[Any], bool]:
    return lambda value: value is None or any(value is one or value == one for one in allowed)


def _keeps_template(value: Any) -> bool:
    """M2 always thinks: asking for that changes nothing, everything else would."""
    return value is None or (
        isinstance(value, dict)
        and all(
            name in ("enable_thinking", "thinking") and flag is True for name, flag in value.items()
        )
    )


_LATER = "is not supported yet"

REFUSED: Mapping[str, tuple[Callable[[Any], bool], str]] = {
    "chat_template": (_empty, "a request cannot bring its own template"),
    "chat_template_kwargs": (_keeps_template, "nothing may change the template"),
    "add_generation_prompt": (_is(True), "the model's turn is always opened"),
    "continue_final_message": (_empty, "a completion always goes on from its prompt"),
    "documents": (_empty, "this field is not supported"),
    "prompt_embeds": (_empty, "this field is not supported"),
    "input_embeds": (_empty, "this field is not supported"),
    "mm_processor_kwargs": (_empty, "this model reads text only"),
    "audio": (_empty, "this model writes text only"),
    "modalities": (_is(["text"], []), "this model writes text only"),
    "web_search_options": (_empty, "this server makes no outbound requests"),
    "functions": (_empty, "use tools"),
    "function_call": (_is("auto", "none"), "use tools and tool_choice"),
    "grammar": (_empty, _LATER),
    "json_schema": (_empty, _LATER),
    "logits_processors": (_empty, "this field is not supported"),
    "prompt_logprobs": (_empty, _LATER),
    "truncate_prompt_tokens": (_empty, _LATER),
    "use_beam_search": (_empty, "beam search is not supported"),
    "best_of": (_is(1), "only 1 is supported"),
    "suffix": (_empty, "the model cannot fill in the middle"),
    "include_stop_str_in_output": (_empty, _LATER),
    "skip_special_tokens": (_is(True), "role and turn markers are never part of the text"),
}

_REFUSED_PREFIXES = ("guided_", "lora")


class FieldRules:
    """Refuses, and logs each ignored name once."""

    def __init__(self, logged: set[str] | None = None) -> None:
        """`logged`: names that were logged before."""
        self._logged = set() if logged is None else logged

    def check(self, body: Mapping[str, Any], known: Collection[str]) -> None:
        """Raises RequestError for a field that must not be ignored."""
        for name, value in body.items():
            if name in known:
                continue
            if name in REFUSED:
                is_harmless, why = REFUSED[name]
                if not is_harmless(value):
                    raise unsupported(name, why)
            elif name.startswith(_REFUSED_PREFIXES):
                if not _empty(value):
                    raise unsupported(name)
            else:
                note_ignored([name], self._logged)
