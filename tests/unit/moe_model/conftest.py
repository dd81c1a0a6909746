"""Fixtures: an M2-shaped checkpoint's tokenizer files, loaded."""

from pathlib import Path

import pytest

from moe_model.chat.template import ChatTemplate
from moe_model.text.tokenizer import Tokenizer
from tests.support.moe_model.chat.samples import tokenizer_json, write_checkpoint


@pytest.fixture(scope="session", params=["separate", "in_vocab", "id_holes"])
def checkpoint(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp(f"checkpoint_{request.param}")
    return write_checkpoint(folder, tokenizer_json(request.param))


@pytest.fixture(scope="session")
def tokenizer(checkpoint: Path) -> Tokenizer:
    return Tokenizer.load(checkpoint)


@pytest.fixture(scope="session")
def template(tmp_path_factory: pytest.TempPathFactory) -> ChatTemplate:
    folder = tmp_path_factory.mktemp("template")
    return ChatTemplate.load(write_checkpoint(folder, tokenizer_json("separate")))
