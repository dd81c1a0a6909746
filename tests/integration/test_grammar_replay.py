"""Structured answers of the demo model are the same alone, in a crowd, preempted and resumed."""

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator
from typing import Any, cast

import pytest

from attention_svc.activations import ActivationCounts
from attention_svc.grammar.compiler import GrammarCompiler
from attention_svc.sequence.params import read_params
from attention_svc.sequence.sequence import Sequence
from attention_svc.servicer import AttentionServicer
from attention_svc.vocabulary import Vocabulary
from expertmesh.offline.local_pool import LocalContext
from moe_model.chat.answer_grammar import JsonAnswer, answer_grammar
from moe_model.text.tokenizer import Tokenizer
from moe_model.weights.checkpoint import Checkpoint
from protos import attention_pb2
from tests.support.attention_svc.engine_harness import run_to_end
from tests.support.places import DEMO_MODEL

CHECKPOINT = Checkpoint.open(DEMO_MODEL)
TOKENIZER = Tokenizer.load(DEMO_MODEL)
VOCABULARY = Vocabulary.load(DEMO_MODEL, CHECKPOINT.config)
END_OF_THINKING = TOKENIZER.marker_ids["</think>"]
GRAMMAR = attention_pb2.Grammar(
    kind=attention_pb2.GRAMMAR_KIND_LARK,
    text=answer_grammar(
        JsonAnswer(
            schema={
                "type": "object",
                "properties": {
                    "a": {"type": "integer", "minimum": -999, "maximum": 999},
                    "b": {"type": "array", "items": {"enum": ["x", "yy", None]}, "maxItems": 4},
                    "c": {"type": "string", "maxLength": 12},
                },
                "required": ["a", "b", "c"],
                "additionalProperties": False,
            },
            lenient=False,
        ).rules()
    ),
)


@contextlib.asynccontextmanager
async def compiler() -> AsyncIterator[GrammarCompiler]:
    made = GrammarCompiler(DEMO_MODEL, VOCABULARY)
    yield made
    await made.close()


async def sequence(grammars: GrammarCompiler, number: int, emitted: list[int]) -> Sequence:
    params = attention_pb2.SamplingParams(
        temperature=1.0,
        top_p=1.0,
        repetition_penalty=1.0,
        seed=number,
        max_tokens=200,
        min_tokens=190 if number == 0 else 0,
    )
    made = Sequence(
        request_id=str(number),
        prompt_ids=TOKENIZER.encode_text(f"{number} thoughts about the weather in Paris\n"),
        output_ids=list(emitted),
        params=read_params(params, VOCABULARY.size),
        stop_ids=VOCABULARY.default_stops,
    )
    # Half of them think first: a few given tokens, then the end of thinking.
    thinks = END_OF_THINKING if number % 2 else 0
    request = attention_pb2.GenerateRequest(grammar=GRAMMAR, end_of_thinking_id=thinks)
    made.grammar = await grammars.start(request, emitted_ids=emitted, ignore_eos=False)
    return made


def beginning(number: int) -> list[int]:
    return [*TOKENIZER.encode_text("hm, well"), END_OF_THINKING] if number % 2 else []


@pytest.mark.slow
@pytest.mark.timeout(120)
async def test_the_same_answer_however_it_was_computed():
    numbers = range(4)
    async with compiler() as grammars:
        alone = []
        for number in numbers:
            one = await sequence(grammars, number, beginning(number))
            await run_to_end(CHECKPOINT, [one])
            alone.append(one.output_ids)
            text = TOKENIZER.decode(one.output_ids[len(beginning(number)) :])
            assert list(json.loads(text)) == ["a", "b", "c"]  # whole, min_tokens or not
            _, outcome = await one.outbox.take()
            assert outcome is not None
            assert (outcome.reason, outcome.stop_token_id) == ("STOP", 0)
        assert len({tuple(ids) for ids in alone}) > 1
        starts = [beginning(n) for n in numbers]
        crowd = await asyncio.gather(*(sequence(grammars, n, starts[n]) for n in numbers))
        await run_to_end(CHECKPOINT, crowd, num_blocks=14, max_batch_tokens=16)
        assert [one.output_ids for one in crowd] == alone
        cut = [ids[: len(starts[n]) + 5] for n, ids in enumerate(alone)]
        resumed = await asyncio.gather(*(sequence(grammars, n, cut[n]) for n in numbers))
        await run_to_end(CHECKPOINT, resumed)
        assert [one.output_ids for one in resumed] == alone


async def test_a_sequence_that_moved_when_only_its_end_was_missing_ends_at_once():
    emitted = TOKENIZER.encode_text('{"a": 1, "b": [], "c": "x"}')
    async with compiler() as grammars:
        servicer = AttentionServicer(
            cast(Any, None),
            vocabulary=VOCABULARY,
            grammars=grammars,
            readiness=lambda: (True, ""),
            status=attention_pb2.GetStatusResponse(max_model_len=1000, default_timeout_ms=9000),
            activations=ActivationCounts(1, 1),
        )
        request = attention_pb2.GenerateRequest(
            prompt_token_ids=[5],
            emitted_token_ids=emitted,
            grammar=GRAMMAR,
            sampling=attention_pb2.SamplingParams(
                max_tokens=200, top_p=1.0, repetition_penalty=1.0
            ),
        )
        (only,) = [event async for event in servicer.Generate(request, LocalContext())]
    assert only.finished.reason == attention_pb2.FINISH_REASON_STOP
    assert only.finished.stop_token_id == 0
    assert only.finished.usage.generated_tokens == len(emitted)
