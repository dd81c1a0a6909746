"""A second family: other keys, tensor names, markers and tool calls; the same maths."""

import json
from collections.abc import Mapping, Sequence
from typing import Any

from moe_model.chat.answer_grammar import Alternative, ToolCalls
from moe_model.chat.events import (
    ContentDelta,
    ParserEvent,
    ReasoningDelta,
    ToolCallArguments,
    ToolCallEnd,
    ToolCallStart,
)
from moe_model.chat.thinking import ThinkTags
from moe_model.config import GenerationDefaults, ModelConfig
from moe_model.config_values import integer, number, token_ids
from moe_model.families.family import ChatFormat, Family, Specs, TensorNames, TensorSpec

ROLE, END, HMM, AHA, USE = "<|turn|>", "<|over|>", "<|hmm|>", "<|aha|>", "<|use|>"
TOY_CONFIG = {
    "model_type": "toy", "n_vocab": 320, "width": 48, "depth": 3, "heads": [4, 2, 16], "rotate": 8,
    "theta": 5e6, "parts": 8, "parts_used": 2, "part_width": 40, "context": 512, "stop": 2,
}  # fmt: skip


def parse_config(raw: Mapping[str, Any]) -> ModelConfig:
    num_heads, num_kv_heads, head_dim = raw["heads"]
    return ModelConfig(
        model_type=raw["model_type"],
        vocab_size=integer(raw, "n_vocab"),
        hidden_size=integer(raw, "width"),
        num_layers=integer(raw, "depth"),
        num_heads=num_heads,
        num_kv_heads=num_kv_heads,
        head_dim=head_dim,
        rotary_dim=integer(raw, "rotate"),
        rope_theta=number(raw, "theta", 1e4),
        rms_norm_eps=1e-6,
        num_experts=integer(raw, "parts"),
        top_k=integer(raw, "parts_used"),
        expert_size=integer(raw, "part_width"),
        use_qk_norm=True,
        use_routing_bias=True,
        max_position_embeddings=integer(raw, "context"),
        eos_token_ids=token_ids(raw, "stop"),
        dtype="float32",
    )


class ToyNames(TensorNames):
    def outer(self) -> Specs:
        v, d = self.config.vocab_size, self.config.hidden_size
        return {
            "embedding": _spec("in", v, d),
            "final_norm": _spec("norm", d),
            "lm_head": _spec("out", v, d),
        }

    def layer(self, layer_idx: int) -> Specs:
        config = self.config
        d, q, kv, e = config.hidden_size, config.query_size, config.kv_size, config.num_experts
        shapes = {
            "input_norm": (d,), "q": (q, d), "k": (kv, d), "v": (kv, d), "o": (d, q),
            "post_norm": (d,), "routing": (e, d), "q_norm": (q,), "k_norm": (kv,), "bias": (e,),
        }  # fmt: skip
        return {key: _spec(f"floor{layer_idx}/{key}", *shape) for key, shape in shapes.items()}

    def expert(self, layer_idx: int, expert_id: int) -> Specs:
        d, f = self.config.hidden_size, self.config.expert_size
        prefix = f"floor{layer_idx}/part{expert_id}/"
        return {
            "w1": _spec(prefix + "gate", f, d),
            "w3": _spec(prefix + "up", f, d),
            "w2": _spec(prefix + "down", d, f),
        }

    def is_ignored(self, name: str) -> bool:
        return False


def _spec(name: str, *shape: int) -> TensorSpec:
    return TensorSpec(name=name, shape=shape, scale_name=name + "/scale")


class ToyParser:
    """`thinking <|aha|> answer <|use|> {"name": ..., "arguments": {...}}`."""

    num_doubtful_values = 0

    def __init__(
        self,
        *,
        tools: Sequence[dict[str, Any]],
        starts_in_reasoning: bool = True,
        parallel_tool_calls: bool = True,
    ) -> None:
        self.in_reasoning = starts_in_reasoning
        self._call: str | None = None

    def feed(self, text: str) -> list[ParserEvent]:
        if self._call is not None:
            self._call += text
            return []
        return [ReasoningDelta(text) if self.in_reasoning else ContentDelta(text)]

    def feed_marker(self, tag: str) -> list[ParserEvent]:
        self.in_reasoning = tag == HMM
        if tag == USE:
            self._call = ""
        return []

    def finish(self, *, is_cut: bool = False) -> list[ParserEvent]:
        if self._call is None:
            return []
        call = json.loads(self._call)
        arguments = json.dumps(call["arguments"])
        return [ToolCallStart(0, call["name"]), ToolCallArguments(0, arguments), ToolCallEnd(0)]


def call_rules(calls: ToolCalls) -> Alternative:
    names = [tool["function"]["name"] for tool in calls.tools]
    schema = {"type": "object", "properties": {"name": {"enum": names}}}
    return Alternative(
        start="use",
        rules=[f"use: <[{calls.marker_ids[USE]}]> call", f"call: %json {json.dumps(schema)}"],
    )


def tiny_config(fp8: bool) -> dict[str, Any]:
    assert not fp8
    return dict(TOY_CONFIG)


TOY = Family(
    parse_config=parse_config,
    tensor_names=ToyNames,
    chat_format=ChatFormat(
        role_start=ROLE,
        turn_markers=(ROLE, END),
        output_tags=(HMM, AHA, USE),
        call_start=USE,
        think=ThinkTags(HMM, AHA),
        make_parser=ToyParser,
        call_rules=call_rules,
    ),
    generation_defaults=GenerationDefaults(temperature=0.5, top_k=7),
    tiny_config=tiny_config,
)
TEMPLATE = f"""\
{{%- for message in messages -%}}
{{{{- '{ROLE}' + message.role + ':' -}}}}
{{%- if message.reasoning_content -%}}{{{{- '{HMM}' + message.reasoning_content + '{AHA}' -}}}}
{{%- endif -%}}
{{{{- message.content + '{END}' -}}}}
{{%- endfor -%}}
{{%- if add_generation_prompt -%}}{{{{- '{ROLE}assistant:{HMM}' -}}}}{{%- endif -%}}
"""
