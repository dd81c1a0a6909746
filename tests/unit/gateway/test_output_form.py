"""`structured_outputs` of a completion: which grammar, and which demands are refused."""

import pytest

from gateway.errors import ApiError
from gateway.limits import Limits
from gateway.output_form import output_form

LIMITS = Limits()


def text_of(value, *, thinks=False) -> str:
    grammar = output_form(value, LIMITS, thinks=thinks)
    assert grammar is not None
    return grammar.text


def test_any_text_needs_no_grammar():
    assert output_form(None, LIMITS, thinks=False) is None


@pytest.mark.parametrize(
    "value, part",
    [
        ({"choice": ["yes", 'no "way"\n']}, r'form: "yes" | "no \"way\"\n"'),
        ({"regex": r"a/b\/c\\/d"}, r"form: /a\/b\/c\\\/d/"),
        ({"grammar": "start: x", "json": None, "json_object": False}, "start: x"),
        ({"json": '{"type": "integer"}'}, '"type": "integer"'),
        ({"json_object": True}, '"type": "object"'),
    ],
)
def test_each_form_is_a_grammar(value, part):
    assert part in text_of(value)


def test_after_thinking_the_templates_newlines_may_come_first():
    assert "start: form\n" in text_of({"choice": ["a"]})
    assert r"start: /\n{1,2}/? form" in text_of({"choice": ["a"]}, thinks=True)


@pytest.mark.parametrize(
    "value, words",
    [
        ("json", "must be an object"),
        ({}, "exactly one"),
        ({"json": {}, "regex": "a"}, "exactly one"),
        ({"xml": True}, "exactly one"),
        ({"json": "{"}, "structured_outputs.json: not valid JSON"),
        ({"json": 3}, "must be a JSON Schema"),
        ({"json": {"const": "x" * 200_000}}, "at most"),
        ({"regex": ""}, "structured_outputs.regex"),
        ({"regex": "a\nb"}, "one line"),
        ({"choice": []}, "structured_outputs.choice"),
        ({"choice": ["a", ""]}, "structured_outputs.choice"),
        ({"choice": "a"}, "structured_outputs.choice"),
        ({"grammar": 3}, "structured_outputs.grammar"),
    ],
)
def test_bad_demands_name_the_form(value, words):
    with pytest.raises(ApiError, match=words) as caught:
        output_form(value, LIMITS, thinks=False)
    assert caught.value.status == 400
