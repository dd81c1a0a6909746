"""What does the engine ask of a model family? Its config keys, tensor names and chat format.

A family is one `Family` in a folder of its own, found by `model_type` (families/known.py);
docs/families.md says how to add one. No torch.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from moe_model.chat.answer_grammar import Alternative, ToolCalls
from moe_model.chat.events import ParserEvent
from moe_model.chat.thinking import ThinkTags
from moe_model.config import GenerationDefaults, ModelConfig


@dataclass(frozen=True, kw_only=True)
class TensorSpec:
    """A tensor that a checkpoint must hold."""

    name: str
    shape: tuple[int, ...]
    scale_name: str
    """Of the tensor with its scales, should it be stored in FP8."""
    quantised: bool = False
    """Stored in FP8 when the config says so."""


Specs = dict[str, TensorSpec]
"""By the names that this house has for them, the same for every family."""


class TensorNames(ABC):
    """Which tensors does a checkpoint of this config hold?"""

    def __init__(self, config: ModelConfig):
        self.config = config

    @abstractmethod
    def outer(self) -> Specs:
        """`embedding` [V, D], `final_norm` [D], `lm_head` [V, D]."""

    @abstractmethod
    def layer(self, layer_idx: int) -> Specs:
        """A layer without its experts.

        `input_norm`, `post_norm` [D], `q` [H*P, D], `k`, `v` [G*P, D], `o` [D, H*P], `routing`
        [E, D]; where the config has them `q_norm` [H*P], `k_norm` [G*P] and `bias` [E].
        """

    @abstractmethod
    def expert(self, layer_idx: int, expert_id: int) -> Specs:
        """One piece: `w1` (gate) and `w3` (up) [F, D], `w2` (down) [D, F]."""

    @abstractmethod
    def is_ignored(self, name: str) -> bool:
        """Whether a tensor that is not among these may be there all the same."""

    def attention(self) -> list[TensorSpec]:
        """Everything outside the experts."""
        layers = map(self.layer, range(self.config.num_layers))
        return [spec for specs in (self.outer(), *layers) for spec in specs.values()]

    def every(self) -> Iterator[tuple[str, TensorSpec]]:
        """Every tensor of a complete checkpoint but the scales, with its name here."""
        yield from self.outer().items()
        for layer_idx in range(self.config.num_layers):
            yield from self.layer(layer_idx).items()
            for expert_id in range(self.config.num_experts):
                yield from self.expert(layer_idx, expert_id).items()


class OutputParser(Protocol):
    """Reads one answer, piece by piece. Never raises."""

    num_doubtful_values: int
    """Values of parameters that may have ended elsewhere."""

    @property
    def in_reasoning(self) -> bool:
        """Whether the text is in the thinking now."""

    def feed(self, text: str) -> list[ParserEvent]:
        """Take more text, of ordinary tokens, and report what is certain."""

    def feed_marker(self, tag: str) -> list[ParserEvent]:
        """Take a marker token by its text, one of `ChatFormat.output_tags`."""

    def finish(self, *, is_cut: bool = False) -> list[ParserEvent]:
        """The output has ended, by a limit if `is_cut`: report what was held back."""


class MakeParser(Protocol):
    """Starts the parser of one answer."""

    def __call__(
        self,
        *,
        tools: Sequence[dict[str, Any]],
        starts_in_reasoning: bool = True,
        parallel_tool_calls: bool = True,
    ) -> OutputParser:
        """
        Args:
            tools: the tools of the request, as `validate_tools` accepts them.
            starts_in_reasoning: whether the prompt ended in thinking.
            parallel_tool_calls: if false, calls after the first are dropped.
        """


@dataclass(frozen=True, kw_only=True)
class ChatFormat:
    """How conversations and answers are written. Markers are added tokens of the tokenizer."""

    role_start: str
    """The marker that opens a turn; an answer never has one."""
    turn_markers: tuple[str, ...]
    """Markers around the turns, `role_start` among them: only a rendered conversation has them."""
    output_tags: tuple[str, ...]
    """Markers that an answer may contain, both think tags among them."""
    call_start: str
    """The one of them that begins tool calls: without it there is none."""
    think: ThinkTags
    make_parser: MakeParser
    call_rules: Callable[[ToolCalls], Alternative]
    """The grammar of an answer that calls tools, as `make_parser`'s parser reads it."""

    @property
    def markers(self) -> tuple[str, ...]:
        """What a tokenizer must have as added tokens."""
        return self.turn_markers + self.output_tags

    def opens_thinking(self, prompt_ids: Sequence[int], marker_ids: Mapping[str, int]) -> bool:
        """Whether the last think tag of a prompt opens thinking; `marker_ids`: by their text."""
        opening, closing = (marker_ids.get(tag) for tag in self.think)
        return opening == next((i for i in reversed(prompt_ids) if i in (opening, closing)), -1)


@dataclass(frozen=True, kw_only=True)
class Family:
    """What differs between models that are computed alike."""

    parse_config: Callable[[Mapping[str, Any]], ModelConfig]
    """From config.json's content. Raises ValueError naming the key when it cannot be served."""
    tensor_names: Callable[[ModelConfig], TensorNames]
    chat_format: ChatFormat
    generation_defaults: GenerationDefaults
    """For checkpoints without a generation_config.json."""
    tiny_config: Callable[[bool], dict[str, Any]]
    """A config.json of a tiny model, with FP8 weights if true: for tests and benchmarks."""
