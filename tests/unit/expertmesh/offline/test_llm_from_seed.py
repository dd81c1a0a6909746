"""`LLM(load="random:SEED")` needs no weights on a disk, and computes what the reference does."""

import shutil
from pathlib import Path

import pytest

from expertmesh import LLM, SamplingParams
from moe_model.reference import ReferenceModel
from moe_model.text.tokenizer import Tokenizer
from moe_model.weights.load_flag import parse_load
from moe_model.weights.seeded import SeededWeights


@pytest.fixture(scope="module")
def bare(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The model without its weights."""
    only = shutil.ignore_patterns("*.safetensors", "*.index.json")
    return Path(shutil.copytree(folder, tmp_path_factory.mktemp("bare") / "model", ignore=only))


def test_answers_are_those_of_the_reference(bare: Path, tokenizer: Tokenizer) -> None:
    load = parse_load("random:11,skew=1")
    assert load is not None
    ids = tokenizer.encode_text("Hello, my name is")
    expected = ReferenceModel(SeededWeights(bare, load)).greedy(ids, 12, frozenset())
    params = SamplingParams(temperature=0, max_tokens=12, ignore_eos=True)
    with LLM(bare, load=str(load), kv_memory="8MiB") as llm:
        (output,) = llm.generate(["Hello, my name is"], params)
    assert output.outputs[0].token_ids == expected
    with LLM(bare, load="random:12", kv_memory="8MiB") as llm:
        (other,) = llm.generate(["Hello, my name is"], params)
    assert other.outputs[0].token_ids != expected


def test_without_a_seed_the_weights_must_be_there(bare: Path) -> None:
    with pytest.raises(ValueError, match=r"model\.safetensors"):
        LLM(bare)
    with pytest.raises(ValueError, match=r"^load takes random:SEED"):
        LLM(bare, load="dummy")


def test_weights_are_held_in_the_formats_asked_for(bare: Path) -> None:
    def logprob(**formats: str) -> float:
        params = SamplingParams(temperature=0, max_tokens=1, logprobs=1)
        with LLM(bare, load="random:1", dtype="bf16", kv_memory="8MiB", **formats) as llm:
            (output,) = llm.generate(["Hello"], params)
        (entries,) = output.outputs[0].logprobs or []
        return max(entry.logprob for entry in entries.values())

    found = {logprob(), logprob(expert_dtype="int4"), logprob(linear_dtype="int4")}
    assert len(found) == 3
    with pytest.raises(ValueError, match=r"^expert_dtype must be one of"):
        LLM(bare, load="random:1", expert_dtype="int5")
