"""POST /generate: what does a request ask of the core? Text goes on; nothing is a chat."""

from dataclasses import replace

from starlette.requests import Request
from starlette.responses import Response

from gateway.errors import bad_field, unsupported
from gateway.generate.form import AnswerForm
from gateway.generate.parameters import (
    OutputLength,
    Parameters,
    check_stop_strings,
    check_top_logprobs,
    sampling_params,
    set_logprobs,
)
from gateway.generate.request import Answers, Generation
from gateway.http.auth import tenant_of
from gateway.http.context import Gateway
from gateway.http.requests import (
    client_of_request,
    gateway_of,
    off_loop,
    read_object,
    recorded,
    session_of,
)
from gateway.http.respond import answer
from gateway.http.typed_body import note_ignored, parse_model
from gateway.limits import Limits
from gateway.sglang.fields import (
    REFUSED,
    REFUSED_SAMPLING,
    SamplingFields,
    SGLangRequest,
    refuse,
)
from gateway.sglang.reply import GenerateReply
from gateway.shapes.nested import fields_within
from gateway.shapes.structured_outputs import structured_form
from gateway.shapes.text_prompts import check_prompt_logprobs, encode_prompts, prompts_of

_SAMPLING = "sampling_params"
_RENAMED = {
    "seed": "sampling_seed",
    "structured_outputs.regex": "regex",
    "structured_outputs.json": "json_schema",
}


async def generate(request: Request) -> Response:
    """What follows each text."""
    gateway = gateway_of(request)
    with recorded(request, "generate") as record:
        body = await read_object(request, gateway.limits)
        refuse(body, REFUSED)
        note_ignored(body.keys() - SGLangRequest.model_fields.keys(), gateway.ignored_fields)
        fields = parse_model(SGLangRequest, body)
        answers = _answers(gateway, fields)
        field, given = _prompt(fields)
        size_bytes = len(await request.body())
        prompts = await off_loop(request, size_bytes, lambda: prompts_of(gateway, field, given))
        if len(prompts) * answers.num_choices > gateway.limits.streams:
            raise bad_field(field, f"prompts times n: at most {gateway.limits.streams}")
        gateway.require_ready()
        client_id = client_of_request(request)
        encoded = await encode_prompts(gateway, field, given, prompts, client_id)
        num_tokens = answers.num_choices * sum(len(prompt.ids) for prompt in encoded)
        if answers.sampling.prompt_logprobs:
            check_prompt_logprobs(gateway, field, num_tokens, answers.sampling.top_logprobs)
        asked = Generation(
            request_id=request.state.request_id,
            prompts=encoded,
            answers=answers,
            tenant=tenant_of(request.state.key_id, ""),
            client_id=client_id,
            session=session_of(request.headers, fields.session_id),
            received_s=record.received_s,
        )
        choices = await off_loop(request, num_tokens, lambda: gateway.choices(asked))
        reply = GenerateReply(
            choices,
            gateway.model,
            one=answers.num_choices == 1 and len(prompts) == 1 and not _is_list_of(given),
            logprob_start=_start(fields, answers.length.most),
            with_text=bool(fields.return_text_in_logprobs),
        )
        return await answer(gateway, request, record, choices, reply, stream=bool(fields.stream))


def _prompt(fields: SGLangRequest) -> tuple[str, object]:
    """The field with the prompts, and what it holds."""
    if (fields.text is None) == (fields.input_ids is None):
        raise bad_field("text", "give either text or input_ids")
    return ("text", fields.text) if fields.text is not None else ("input_ids", fields.input_ids)


def _is_list_of(given: object) -> bool:
    """Whether prompts came in a list, and answers do too: one list of ids is one prompt."""
    return isinstance(given, list) and not isinstance(given[0], int)


def _start(fields: SGLangRequest, most: int | None) -> int | None:
    """From which token of the prompts on log-probabilities are told; None: not for prompts.

    Where nothing is generated (`most`), only those of the prompt can have been meant.
    """
    start = fields.logprob_start_len
    if start is None or start < 0:
        start = 0 if most == 0 else None
    return start if fields.return_logprob else None


def _answers(gateway: Gateway, fields: SGLangRequest) -> Answers:
    """Everything that needs no prompt. Raises RequestError naming the field."""
    limits, asked = gateway.limits, fields.sampling_params or SamplingFields.model_validate({})
    others = asked.model_extra or {}
    with fields_within(_SAMPLING, _RENAMED):
        refuse(others, REFUSED_SAMPLING)
        if others.get("skip_special_tokens") not in (None, True):
            raise unsupported("skip_special_tokens", "markers are never part of the text")
        sampling = sampling_params(
            _parameters(asked),
            gateway.model.defaults,
            vocab_size=gateway.model.config.vocab_size,
            limits=limits,
        )
        most, least = asked.max_new_tokens, asked.min_new_tokens or 0
        if most is not None and most < 0:
            raise bad_field("max_new_tokens", f"must be at least 0, got {most}")
        num_choices = 1 if asked.n is None else asked.n
        if not 1 <= num_choices <= limits.choices:
            raise bad_field("n", f"must be 1 to {limits.choices}, got {num_choices}")
        length = OutputLength(
            most=most, least=least, most_field="max_new_tokens", least_field="min_new_tokens"
        )
        stops = _stops(asked, limits)
        form = _form(asked, limits)
    length = replace(
        length,
        most_field=f"{_SAMPLING}.max_new_tokens",
        least_field=f"{_SAMPLING}.min_new_tokens",
    )
    check_top_logprobs(fields.top_logprobs_num, "top_logprobs_num", limits)
    if fields.return_logprob:
        set_logprobs(sampling, fields.top_logprobs_num or 0, "top_logprobs_num", limits)
        sampling.prompt_logprobs = _start(fields, most) is not None
    return Answers(
        sampling=sampling, length=length, num_choices=num_choices, stops=stops, form=form
    )


def _parameters(asked: SamplingFields) -> Parameters:
    return Parameters(
        temperature=asked.temperature,
        top_p=asked.top_p,
        top_k=asked.top_k,
        min_p=asked.min_p,
        frequency_penalty=asked.frequency_penalty,
        presence_penalty=asked.presence_penalty,
        repetition_penalty=asked.repetition_penalty,
        logit_bias=asked.logit_bias,
        seed=asked.sampling_seed,
        stop_token_ids=asked.stop_token_ids,
        ignore_eos=asked.ignore_eos,
    )


def _stops(asked: SamplingFields, limits: Limits) -> list[str]:
    stop = asked.stop
    stops = [] if stop is None or stop == "" else [stop] if isinstance(stop, str) else stop
    if not isinstance(stops, list):
        raise bad_field("stop", "must be a string or a list of strings", "invalid_type")
    check_stop_strings(stops, "stop", limits)
    return stops


def _form(asked: SamplingFields, limits: Limits) -> AnswerForm:
    if asked.regex is None and asked.json_schema is None:
        return AnswerForm()
    if asked.regex is not None and asked.json_schema is not None:
        raise bad_field("regex", "cannot be combined with json_schema")
    if asked.regex is not None:
        form = structured_form({"regex": asked.regex}, limits)
        return replace(form, field=f"{_SAMPLING}.regex")
    form = structured_form({"json": asked.json_schema}, limits)
    return replace(form, field=f"{_SAMPLING}.json_schema")
