"""Grammars: what a sequence may still take, whatever was compiled before and however often."""

import asyncio
import functools
import hashlib
import itertools
import json
import random
import threading
from collections.abc import Callable
from typing import Any

import pytest

from attention_svc.grammar.compiler import GrammarCompiler
from attention_svc.grammar.limits import CACHED_GRAMMARS
from attention_svc.grammar.state import GrammarState
from attention_svc.vocabulary import Vocabulary
from moe_model.chat.answer_grammar import ToolCalls, answer_grammar
from moe_model.chat.events import ContentDelta, ToolCallArguments, ToolCallStart
from moe_model.families.minimax_m2.grammars import call_rules
from moe_model.families.minimax_m2.parser import OutputParser
from rpc.config import MAX_GRAMMAR_BYTES
from tests.support.attention_svc.grammar_harness import (
    BYTE_IDS,
    END_OF_THINKING,
    EOS,
    MARKERS,
    POINT,
    ROLE,
    TABLE,
    VOCABULARY,
    Compiler,
    allowed,
    feed,
    start,
    tool,
)
from tests.support.attention_svc.grammars import json_grammar
from tests.support.moe_model.chat.spelled_output import events_of
from tests.support.places import DEMO_MODEL

TOOLS = [
    tool(
        "add",
        type="object",
        required=["a", "b", 'not"declared', 5],
        properties={"a": {"type": "integer"}, "b": {"type": "number"}},
    ),
    tool(
        "w-x.y",
        type="object",
        required=["city \\é", "unit"],
        properties={
            "city \\é": {"type": "string"},
            "unit": {"type": "string", "enum": ["c", "f"]},
            "at": {"anyOf": [{"$ref": "#/$defs/p"}, {"type": "null"}]},
        },
        **{"$defs": {"p": POINT}},
    ),
    tool("free"),
    tool("nothing", type="object", properties={}, additionalProperties=False),
]


@pytest.fixture(scope="module")
def compiler():
    made = Compiler()
    yield made
    made.close()


def walk(state: GrammarState, seed: int, steps: int = 600) -> str | None:
    """Text of a random walk over what is allowed; None when it did not come to an end."""
    choose = random.Random(seed)
    closing = {b"<", b"</", b"parameter", b'"', b"]", b"}"}
    ids: list[int] = []
    for _ in range(steps):
        ids_allowed = allowed(state)
        ending = [i for i in ids_allowed if TABLE.bytes_of_id[i] in closing]
        token_id = choose.choice(ending if ending and choose.random() < 0.4 else ids_allowed)
        if token_id in (EOS, ROLE):
            break
        assert state.accept(token_id)
        ids.append(token_id)
        if state.is_complete:
            break
    else:
        return None
    return b"".join(TABLE.bytes_of_id[i] or b"" for i in ids).decode()


def test_a_json_answer_ends_where_it_is_whole(compiler: Compiler):
    state = compiler.start(json_grammar(POINT))
    assert EOS not in allowed(state)
    assert feed(state, '\n\n{"x": 1')
    assert EOS not in allowed(state)
    assert not state.is_complete
    assert feed(state, '2, "y": null}')
    assert state.is_complete
    assert allowed(state) == sorted([EOS, ROLE])
    number = compiler.start(json_grammar({"type": "integer"}))
    assert feed(number, "12")
    assert not number.is_complete  # more digits may follow
    assert EOS in allowed(number)


def test_random_walks_are_accepted_by_the_schema(compiler: Compiler):
    ended = [walk(compiler.start(json_grammar(POINT)), seed) for seed in range(12)]
    values = [json.loads(text) for text in ended if text is not None]
    assert len(values) > 5
    for value in values:
        assert list(value) == ["x", "y"]
        assert isinstance(value["x"], int)
        assert value["y"] in ("a", None, 2)


@pytest.mark.parametrize("seeds", [range(12), pytest.param(range(12, 25), marks=pytest.mark.slow)])
@pytest.mark.parametrize("several", [True, False])
def test_random_walks_are_calls_that_the_parser_understands(
    compiler: Compiler, several: bool, seeds: range
):
    calls = ToolCalls(tools=TOOLS, several=several, marker_ids=MARKERS)
    ended = [walk(compiler.start(answer_grammar(call_rules(calls))), seed) for seed in seeds]
    texts = [text for text in ended if text is not None]
    assert len(texts) > 0.4 * len(seeds)
    for text in texts:
        parser = OutputParser(tools=TOOLS, starts_in_reasoning=False)
        events = events_of(parser, text.lstrip("\n"))
        starts = [event for event in events if isinstance(event, ToolCallStart)]
        assert starts
        assert several or len(starts) == 1
        assert not any(isinstance(event, ContentDelta) for event in events), text
        for begun in starts:
            fragments = [
                e.fragment
                for e in events
                if isinstance(e, ToolCallArguments) and e.index == begun.index
            ]
            arguments = json.loads("".join(fragments))
            if begun.name == "add":
                assert isinstance(arguments["a"], int)
                assert isinstance(arguments["b"], int | float)
            elif begun.name == "w-x.y":
                assert arguments["unit"] in ("c", "f")
                assert isinstance(arguments["city \\é"], str)
                at = arguments.get("at")
                assert at is None or list(at) == ["x", "y"]
            elif begun.name == "nothing":
                assert arguments == {}


def test_nothing_but_thought_comes_before_the_grammar(compiler: Compiler):
    state = compiler.start(json_grammar({"type": "integer"}), end_of_thinking_id=END_OF_THINKING)
    thinking = set(allowed(state))
    assert thinking & set(MARKERS.values()) == {END_OF_THINKING}
    assert not thinking & {EOS, ROLE, *VOCABULARY.missing_ids}
    assert feed(state, "any {text")
    assert state.accept(END_OF_THINKING)
    assert {TABLE.bytes_of_id[i] for i in allowed(state)} <= {b"\n", b"\n\n", b"-"} | {
        str(digit).encode() for digit in range(10)
    }


def test_the_state_is_replayed_from_what_was_emitted(compiler: Compiler):
    text = json_grammar(POINT)
    straight = compiler.start(text, end_of_thinking_id=END_OF_THINKING)
    emitted = [BYTE_IDS[b"h"], END_OF_THINKING, *(BYTE_IDS[bytes([b])] for b in b'{"x":4')]
    for token_id in emitted:
        assert straight.accept(token_id)
    resumed = compiler.start(text, emitted, end_of_thinking_id=END_OF_THINKING)
    assert allowed(resumed) == allowed(straight)
    with pytest.raises(ValueError, match="emitted_token_ids"):
        compiler.start(text, [*emitted, BYTE_IDS[b"x"]], end_of_thinking_id=END_OF_THINKING)


def test_default_stops_are_never_allowed_when_they_are_ignored(compiler: Compiler):
    state = compiler.start(json_grammar({"type": "integer"}), ignore_eos=True)
    assert feed(state, "12")
    assert not {EOS, ROLE} & set(allowed(state))


@pytest.mark.parametrize(
    "schema, reason",
    [
        ({"$ref": "#"}, "accepts no output"),
        (
            {"$ref": "#/$defs/a", "$defs": {"a": {"anyOf": [{"$ref": "#/$defs/a"}]}}},
            "accepts no output",
        ),
        ({"$ref": "https://example.com/x.json"}, "not present"),
        (False, "Unimplemented keys"),
        ({"type": "string", "pattern": "(["}, "regex parse error"),
        ({"type": "string", "pattern": "(" * 5000 + "a" + ")" * 5000}, "regex parse error"),
        ({"type": "integer", "minimum": 5, "maximum": 3}, "Unsatisfiable"),
        ({"type": "array", "uniqueItems": True}, "uniqueItems"),
        ({"type": 5}, ""),
        (
            {
                "allOf": [
                    {"oneOf": [{"properties": {f"a{i}{j}": {"type": "integer"}}} for j in range(6)]}
                    for i in range(6)
                ]
            },
            "too large",
        ),
    ],
    ids=lambda value: str(value)[:30],
)
def test_schemas_that_cannot_be_served_are_refused_with_the_reason(
    compiler: Compiler, schema: Any, reason: str
):
    with pytest.raises(ValueError, match=r"^grammar: ") as caught:
        compiler.start(json_grammar(schema))
    assert reason in str(caught.value)
    assert len(str(caught.value)) < 400
    assert "llguidance" not in str(caught.value)


def test_a_lenient_schema_may_have_keywords_that_cannot_be_enforced(compiler: Compiler):
    schema = {"type": "array", "uniqueItems": True, "items": {"not": {"const": 1}}}
    assert feed(compiler.start(json_grammar(schema, lenient=True)), "[1,1]")


def test_other_texts_are_refused(compiler: Compiler):
    for text in ("", "start: nothing", "(" * 10_000, "\x00"):
        with pytest.raises(ValueError, match=r"^grammar: "):
            compiler.start(text)
    with pytest.raises(ValueError, match=f"at most {MAX_GRAMMAR_BYTES} bytes"):
        compiler.start("x" * (MAX_GRAMMAR_BYTES + 1))
    assert feed(compiler.start(json_grammar({})), "1")  # the others were not affected


def test_a_checkpoint_without_a_tokenizer_takes_no_grammar():
    bare = Vocabulary(size=9, has_tokens=False, missing_ids=(), default_stops=frozenset({2}))
    starting = start(GrammarCompiler(DEMO_MODEL, bare), "start: /a/")
    with pytest.raises(ValueError, match=r"no tokenizer\.json"):
        asyncio.run(starting)


def test_a_grammar_that_wore_its_lexer_out_fails_and_is_made_anew(compiler: Compiler):
    """Many states in one regular expression reach a limit that all copies of a grammar share."""
    tag = r"/(?s:.*)<\s*(invoke|parameter)(?s:.*)/"
    text = (
        f'start: raw\nraw[lazy]: TEXT "</parameter>"\nTEXT: /(?s:.{{0,1000}})/ & ~TAG\nTAG: {tag}\n'
    )
    choose = random.Random(0)
    for _ in range(20):
        state = compiler.start(text)
        for _ in range(1_000):
            ids_allowed = allowed(state)
            if state.is_over_limit or state.is_complete:
                break
            assert state.accept(choose.choice(ids_allowed))
        if state.is_over_limit:
            break
    assert state.is_over_limit
    assert allowed(state) == []
    assert allowed(compiler.start(text))


def test_a_sequence_that_alone_went_too_far_costs_its_grammar_nothing(compiler: Compiler):
    """Otherwise it would be compiled again for every repeated request."""
    text = json_grammar(
        {"type": "object", "properties": {f"p{i}": {"type": "string"} for i in range(400)}}
    )
    digest, known = hashlib.sha256(text.encode()).digest(), set()
    for _ in range(3):
        state = compiler.start(text)
        assert not feed(state, "\n{")
        assert state.is_over_limit
        known.add(id(compiler.compiler.cache.compiled(digest)))
    assert len(known) == 1
    assert None is not compiler.compiler.cache.compiled(digest)


def test_the_cache_is_bounded(compiler: Compiler):
    for number in range(CACHED_GRAMMARS + 8):
        compiler.start(json_grammar({"const": number}))
    assert len(compiler.compiler.cache) == CACHED_GRAMMARS
    big = [
        json_grammar({"enum": [f"{i}" + "x" * 100 for i in range(900)], "title": t}) for t in "ab"
    ]
    for text in big:
        compiler.start(text)
    assert len(compiler.compiler.cache) == CACHED_GRAMMARS


def test_thinking_needs_no_thread_and_its_end_does(compiler: Compiler):
    state = compiler.start(json_grammar({"type": "integer"}), end_of_thinking_id=END_OF_THINKING)
    first = state.at_once(None, VOCABULARY.size)
    assert first is not None
    assert first.banned_V is not None
    assert (~first.banned_V).nonzero()[:, 0].tolist() == allowed(state)
    assert state.at_once(BYTE_IDS[b"h"], VOCABULARY.size) is first
    assert state.at_once(END_OF_THINKING, VOCABULARY.size) is None
    after = state.follow(END_OF_THINKING, VOCABULARY.size)
    assert after.banned_V is not None
    assert after.banned_V[END_OF_THINKING]
    assert state.at_once(BYTE_IDS[b"1"], VOCABULARY.size) is None


def test_what_follows_is_a_mask_or_an_end(compiler: Compiler):
    state = compiler.start(json_grammar({"const": 12}))
    size = VOCABULARY.size
    for token_id in (None, BYTE_IDS[b"1"]):
        verdict = state.follow(token_id, size)
        assert verdict.banned_V is not None
        assert (~verdict.banned_V).nonzero()[:, 0].tolist() == allowed(state)
    assert state.follow(BYTE_IDS[b"2"], size).is_complete
    refusing = compiler.start(json_grammar({"const": 12}))
    assert refusing.follow(BYTE_IDS[b"x"], size).is_over_limit


def test_other_threads_run_while_a_costly_grammar_is_asked(compiler: Compiler):
    """A row of 6,000 items: tens of milliseconds for its mask, and again for the token."""
    many = {"type": "object", "properties": {f"p{i}": {"type": "string"} for i in range(1_500)}}
    text = json_grammar(many)

    def turns_during(work: Callable[[], object]) -> int:
        """How often another thread ran meanwhile."""
        turns, done = itertools.count(), threading.Event()

        def turn() -> None:
            while not done.wait(0.0005):
                next(turns)

        other = threading.Thread(target=turn)
        other.start()
        work()
        done.set()
        other.join()
        return next(turns)

    def most(work: Callable[[GrammarState], object], *, masked: bool = False) -> int:
        found = 0
        for _ in range(4):  # on a busy machine it may not have got its turn
            state = compiler.start(text)
            assert state.accept(BYTE_IDS[b"\n"], is_masked=False)
            if masked:
                state.allowed(VOCABULARY.size)
            found = max(found, turns_during(functools.partial(work, state)))
        return found

    assert most(lambda state: state.accept_all([BYTE_IDS[b"{"]])) >= 4
    assert most(lambda state: state.accept(BYTE_IDS[b"{"]), masked=True) >= 4
    assert most(lambda state: state.allowed(VOCABULARY.size)) >= 4
