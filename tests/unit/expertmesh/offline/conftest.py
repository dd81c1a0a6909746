"""A tiny model, and an engine for it in this process."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from expertmesh import LLM
from moe_model.reference import ReferenceModel
from moe_model.text.tokenizer import Tokenizer
from moe_model.weights.checkpoint import Checkpoint
from tests.support.moe_model.tiny_text_model import write_tiny_text_model


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny_text_model(tmp_path_factory.mktemp("offline") / "model")


@pytest.fixture(scope="module")
def tokenizer(folder: Path) -> Tokenizer:
    return Tokenizer.load(folder)


@pytest.fixture(scope="module")
def reference(folder: Path) -> ReferenceModel:
    return ReferenceModel(Checkpoint.open(folder))


@pytest.fixture(scope="module")
def llm(folder: Path) -> Iterator[LLM]:
    with LLM(model=str(folder), kv_memory="8MiB") as one:
        yield one
