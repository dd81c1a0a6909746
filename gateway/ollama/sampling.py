"""What do Ollama's options and format ask of the core?"""

from typing import Any

from gateway.errors import bad_field
from gateway.generate.form import ANY_OBJECT, AnswerForm
from gateway.generate.parameters import (
    OutputLength,
    Parameters,
    check_stop_strings,
    check_top_logprobs,
    sampling_params,
    set_logprobs,
)
from gateway.generate.request import Answers, ChatOptions
from gateway.http.context import Gateway
from gateway.http.schemas import check_schema
from gateway.http.typed_body import note_ignored
from gateway.limits import Limits
from gateway.ollama.fields import CommonFields, Options
from gateway.shapes.nested import fields_within
from moe_model.chat.answer_grammar import JsonAnswer

_RENAMED = {"repetition_penalty": "repeat_penalty"}


def read_answers(gateway: Gateway, fields: CommonFields, chat: ChatOptions | None) -> Answers:
    """Everything that needs no prompt. Raises RequestError naming the field."""
    limits, options = gateway.limits, fields.options or Options.model_validate({})
    note_ignored((f"options.{name}" for name in options.model_extra or ()), gateway.ignored_fields)
    with fields_within("options", _RENAMED):
        sampling = sampling_params(
            _parameters(options),
            gateway.model.defaults,
            vocab_size=gateway.model.config.vocab_size,
            limits=limits,
        )
        stops = _stops(options.stop, limits)
    check_top_logprobs(fields.top_logprobs, "top_logprobs", limits)
    if fields.logprobs:
        set_logprobs(sampling, fields.top_logprobs or 0, "top_logprobs", limits)
    most = options.num_predict
    field = "options.num_predict"
    return Answers(
        sampling=sampling,
        length=OutputLength(
            most=most if most is not None and most > 0 else None,
            most_field=field,
            least_field=field,
        ),
        stops=stops,
        form=AnswerForm(json=_json_answer(fields.format, limits), field="format"),
        chat=chat,
    )


def _parameters(options: Options) -> Parameters:
    return Parameters(
        temperature=options.temperature,
        top_k=options.top_k,
        top_p=options.top_p,
        min_p=options.min_p,
        repetition_penalty=options.repeat_penalty,
        presence_penalty=options.presence_penalty,
        frequency_penalty=options.frequency_penalty,
        seed=None if options.seed == -1 else options.seed,
    )


def _stops(stop: Any, limits: Limits) -> list[str]:
    stops = [] if stop is None else [stop] if isinstance(stop, str) else stop
    if not isinstance(stops, list):
        raise bad_field("stop", "must be a string or a list of strings", "invalid_type")
    check_stop_strings(stops, "stop", limits)
    return stops


def _json_answer(value: Any, limits: Limits) -> JsonAnswer | None:
    if value is None or value == "":
        return None
    if value == "json":
        return JsonAnswer(schema=ANY_OBJECT, lenient=False)
    if not isinstance(value, dict):
        raise bad_field("format", "must be 'json' or a JSON Schema")
    return JsonAnswer(schema=check_schema("format", value, limits), lenient=True)
