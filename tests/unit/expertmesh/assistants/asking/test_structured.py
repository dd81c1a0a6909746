"""Data from a model: checked against its schema, asked for again once, and then an error."""

import pytest

from expertmesh.assistants.asking.model import Answer
from expertmesh.assistants.asking.structured import UselessAnswerError, ask_json
from expertmesh.clients.chat import Reply
from tests.support.expertmesh.scripted_text import ScriptedText, texts

SCHEMA = {
    "type": "array",
    "items": {
        "type": "object",
        "properties": {"line": {"type": "integer", "minimum": 1}},
        "required": ["line"],
    },
}
ASKED = [{"role": "user", "content": "Which lines?"}]


async def test_a_value_that_fits_is_taken() -> None:
    model = ScriptedText('Here:\n```json\n[{"line": 3}]\n```')
    value, answer = await ask_json(model, ASKED, SCHEMA)
    assert value == [{"line": 3}]
    assert answer.text.startswith("Here")
    assert (len(model.asked), model.schemas) == (1, [SCHEMA])


@pytest.mark.parametrize(
    ("first", "told"),
    [
        ("Lines 3 and 4.", "there is no JSON in the answer"),
        ('[{"line": 0}]', "[0].line must be at least 1, not 0"),
        ('{"line": 1}', "the whole: must be array"),
        ("", "there is no JSON in the answer"),
    ],
)
async def test_what_does_not_fit_is_asked_for_again_with_its_fault(first: str, told: str) -> None:
    model = ScriptedText(first, '[{"line": 1}]')
    value, _ = await ask_json(model, ASKED, SCHEMA)
    assert value == [{"line": 1}]
    assert told in texts(model.asked[1])
    assert [one["role"] for one in model.asked[1]] == ["user", "assistant", "user"]


async def test_the_model_is_told_in_the_language_of_the_task() -> None:
    model = ScriptedText("?", "[]")
    await ask_json(model, ASKED, SCHEMA, language="zh")
    assert "请重新回答" in texts(model.asked[1])


async def test_twice_the_wrong_form_is_an_error() -> None:
    with pytest.raises(UselessAnswerError, match=r"twice: \[0\].line is missing"):
        await ask_json(ScriptedText("?", "[{}]", "[]"), ASKED, SCHEMA)


async def test_an_answer_that_was_cut_is_an_error_that_says_what_to_do() -> None:
    cut = Answer("[]", True, Reply(completion_tokens=100))
    with pytest.raises(UselessAnswerError, match="after 100 tokens: allow more"):
        await ask_json(ScriptedText(cut), ASKED, SCHEMA)
