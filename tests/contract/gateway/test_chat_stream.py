"""Streamed chat: OpenAI's own client must understand every chunk."""

import json
from typing import Any

from fake_attention import say
from gateway_harness import Harness
from gateway_model import END_OF_THINK, EOS, NAME
from openai.types.chat import ChatCompletionChunk

from minimax_m2.chat.tokenizer import Tokenizer

MESSAGES: Any = [{"role": "user", "content": "hello"}]


def thinking_answer(tokenizer: Tokenizer, thinking: str, answer: str) -> list[int]:
    return [
        *tokenizer.encode_text(thinking + "\n"),
        END_OF_THINK,
        *tokenizer.encode_text("\n\n" + answer),
    ]


def test_reasoning_and_content_stream_apart(gateway: Harness, tokenizer: Tokenizer) -> None:
    gateway.script(say(thinking_answer(tokenizer, "hm", "hello there"), eos=EOS))
    chunks = list(
        gateway.client().chat.completions.create(model=NAME, messages=MESSAGES, stream=True)
    )
    assert all(isinstance(chunk, ChatCompletionChunk) for chunk in chunks)
    deltas = [chunk.choices[0].delta for chunk in chunks]
    assert [delta.role for delta in deltas] == ["assistant"] + [None] * (len(deltas) - 1)
    assert "".join(getattr(d, "reasoning_content", None) or "" for d in deltas) == "hm"
    assert "".join(d.content or "" for d in deltas) == "hello there"
    assert [c.choices[0].finish_reason for c in chunks if c.choices[0].finish_reason] == ["stop"]
    assert len({(c.id, c.created, c.model) for c in chunks}) == 1


def test_whole_answer(gateway: Harness, tokenizer: Tokenizer) -> None:
    gateway.script(say(thinking_answer(tokenizer, "hm", "hello"), eos=EOS))
    reply = gateway.client().chat.completions.create(model=NAME, messages=MESSAGES)
    message = reply.choices[0].message
    assert message.content == "hello"
    assert message.reasoning_content == "hm"  # type: ignore[attr-defined]
    assert reply.choices[0].finish_reason == "stop"
    assert reply.usage is not None
    assert reply.usage.completion_tokens == len(thinking_answer(tokenizer, "hm", "hello")) + 1


def test_stream_ends_with_done(gateway: Harness, tokenizer: Tokenizer) -> None:
    gateway.script(say(thinking_answer(tokenizer, "hm", "hello"), eos=EOS))
    lines = [line for line in gateway.chat(stream=True).text.split("\n\n") if line]
    assert lines[-1] == "data: [DONE]"
    assert all(json.loads(line.removeprefix("data: ")) for line in lines[:-1])
