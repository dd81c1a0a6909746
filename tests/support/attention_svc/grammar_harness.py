"""A grammar compiler on the demo model's tokenizer, and how tests feed text to its states."""

import asyncio
from typing import Any

from attention_svc.grammar.compiler import GrammarCompiler
from attention_svc.grammar.state import GrammarState
from attention_svc.vocabulary import Vocabulary
from moe_model.families.known import load_config
from moe_model.text.token_table import TokenTable
from protos import attention_pb2
from tests.support.places import DEMO_MODEL

TABLE = TokenTable.load(DEMO_MODEL)
MARKERS = TABLE.added_ids
VOCABULARY = Vocabulary.load(DEMO_MODEL, load_config(DEMO_MODEL))
EOS, ROLE, END_OF_THINKING = MARKERS["[e~["], MARKERS["]~b]"], MARKERS["</think>"]
BYTE_IDS = {
    data: i for i, data in enumerate(TABLE.bytes_of_id) if data is not None and len(data) == 1
}
POINT = {
    "type": "object",
    "properties": {"x": {"type": "integer"}, "y": {"enum": ["a", None, 2]}},
    "required": ["x", "y"],
    "additionalProperties": False,
}


def tool(name: str, **parameters: Any) -> dict[str, Any]:
    return {"type": "function", "function": {"name": name, "parameters": parameters}}


def lark(text: str) -> attention_pb2.Grammar:
    return attention_pb2.Grammar(kind=attention_pb2.GRAMMAR_KIND_LARK, text=text)


async def start(
    compiler: GrammarCompiler,
    text: str,
    emitted: list[int] | None = None,
    *,
    ignore_eos: bool = False,
    **fields: Any,
) -> GrammarState:
    request = attention_pb2.GenerateRequest(grammar=lark(text), **fields)
    return await compiler.start(request, emitted_ids=emitted or [], ignore_eos=ignore_eos)


class Compiler:
    """A compiler for one test, with its process ended afterwards."""

    def __init__(self) -> None:
        self._runner = asyncio.Runner()
        self.compiler = GrammarCompiler(DEMO_MODEL, VOCABULARY)

    def start(self, text: str, emitted: list[int] | None = None, **fields: Any) -> GrammarState:
        return self._runner.run(start(self.compiler, text, emitted, **fields))

    def close(self) -> None:
        self._runner.run(self.compiler.close())
        self._runner.close()


def allowed(state: GrammarState) -> list[int]:
    return state.allowed(VOCABULARY.size).nonzero()[0].tolist()


def feed(state: GrammarState, text: str) -> bool:
    return all(state.accept(BYTE_IDS[bytes([byte])]) for byte in text.encode())
