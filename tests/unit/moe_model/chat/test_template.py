"""Rendering: only the template writes control tokens, and it can neither run code nor run away."""

import re
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given
from hypothesis import strategies as st

from moe_model.chat.messages import normalise_messages
from moe_model.chat.sandbox import RenderLimits
from moe_model.chat.template import ChatTemplate, TemplateError
from moe_model.text.segments import Segment
from moe_model.text.tokenizer import Tokenizer
from tests.support.examples import examples
from tests.support.moe_model.chat.rendering import render_text
from tests.support.moe_model.chat.samples import MARKERS, TEMPLATE, tokenizer_json, write_checkpoint

USER = {"role": "user", "content": "hi"}


def compiled(source: str, **limits: Any) -> ChatTemplate:
    return ChatTemplate(source, markers=MARKERS, limits=RenderLimits(**limits))


def test_markers_and_text_come_apart() -> None:
    template = compiled("{{ ']~b]user\n' ~ messages[0].content ~ '[e~[' }}")
    assert template.render([{"role": "user", "content": "]~b]x<think>"}], None) == [
        Segment("]~b]", True),
        Segment("user\n]~b]x<think>", False),
        Segment("[e~[", True),
    ]


fragments = st.lists(
    st.sampled_from(
        [*MARKERS, "<thi", "nk>", "think", "]~", "~b]", "b]", "[e", "~[", "<", ">", "[", "]"]
    )
    | st.text(max_size=4),
    max_size=6,
).map("".join)
names = st.text(alphabet="ab]~[e<>", max_size=6)


@st.composite
def conversations(draw: st.DrawFn) -> tuple[dict[str, Any], dict[str, Any]]:
    """What a hostile caller may send to `render`, and a harmless counterpart."""
    strings = draw(st.lists(fragments, min_size=7, max_size=7))
    keys = draw(st.lists(names, min_size=2, max_size=2, unique=True))
    return _conversation(strings, keys), _conversation(["x"] * 7, ["k1", "k2"])


def _conversation(strings: list[str], keys: list[str]) -> dict[str, Any]:
    function = {
        "name": "f" + strings[0],
        "arguments": {keys[0]: "v" + strings[1], keys[1]: {"n": ["v" + strings[2]]}},
    }
    messages = [
        {"role": "system", "content": "s" + strings[3]},
        {"role": "user", "content": strings[4]},
        {
            "role": "assistant",
            "content": strings[5],
            "reasoning_content": "r" + strings[6],
            "tool_calls": [{"type": "function", "function": function}],
        },
        {"role": "tool", "content": strings[0]},
        {"role": "tool", "content": strings[1]},
    ]
    tool = {"name": strings[2], "description": strings[3], "parameters": {keys[0]: strings[4]}}
    return {"messages": messages, "tools": [{"type": "function", "function": tool}]}


@examples(200, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(pair=conversations())
def test_no_text_forges_a_control_token(
    template: ChatTemplate, tokenizer: Tokenizer, pair: Any
) -> None:
    hostile, harmless = (template.render(**conversation) for conversation in pair)
    markers = [segment.text for segment in hostile if segment.is_marker]
    assert markers == [segment.text for segment in harmless if segment.is_marker]
    control_ids = set(tokenizer.marker_ids.values())
    ids = tokenizer.encode_segments(hostile)
    expected = [tokenizer.marker_ids[marker] for marker in markers]
    assert [token_id for token_id in ids if token_id in control_ids] == expected
    assert tokenizer.decode(ids) == render_text(template, **pair[0])


@pytest.mark.parametrize(
    "source",
    [
        "<{{ messages[0].content }}>",
        "{{ '<' ~ messages[0].content ~ '>' }}",
        "{{ '<%s>' | format(messages[0].content) }}",
        "{% for m in messages %}{{ '<thi' if loop.first }}{{ m.content }}{% endfor %}>",
    ],
)
def test_seams_between_template_and_text_make_no_marker(source: str) -> None:
    template = compiled(source)
    for content in ("think", "nk", "nk>", "<think", "/think"):
        segments = template.render([{"role": "user", "content": content}], None)
        assert not any(segment.is_marker for segment in segments)


@pytest.mark.parametrize(
    "source",
    ["{{ '<th' ~ 'ink>' }}", "{{ '<' }}think>", "{{ 'THINK' | lower | replace('t', '<t') }}>"],
)
def test_a_template_that_makes_markers_from_pieces_is_refused(source: str) -> None:
    with pytest.raises(ValueError, match="from pieces"):
        compiled(source)


def test_ordinary_text_gives_the_ordinary_ids(checkpoint: Path, tokenizer: Tokenizer) -> None:
    from transformers import PreTrainedTokenizerFast

    ordinary = PreTrainedTokenizerFast(tokenizer_file=str(checkpoint / "tokenizer.json"))
    ordinary.chat_template = TEMPLATE
    template = ChatTemplate.load(checkpoint)
    tools = [{"type": "function", "function": {"name": "f", "description": "tut 代码 <x> & 'y'"}}]
    calls = [{"type": "function", "function": {"name": "f", "arguments": {"a": "1 < 2", "b": [1]}}}]
    messages = [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": "1+1? ünï 你好 🙂\n\n  x"},
        {"role": "assistant", "content": "2", "reasoning_content": "dropped"},
        {"role": "user", "content": "go"},
        {"role": "assistant", "content": "", "reasoning_content": "kept", "tool_calls": calls},
        {"role": "tool", "content": "r1"},
        {"role": "tool", "content": "r2"},
    ]
    expected = ordinary.apply_chat_template(
        messages, tools=tools, add_generation_prompt=True, tokenize=False
    )
    assert render_text(template, messages, tools) == expected
    ids = ordinary.apply_chat_template(
        messages, tools=tools, add_generation_prompt=True, tokenize=True, return_dict=False
    )
    assert tokenizer.encode_segments(template.render(normalise_messages(messages), tools)) == ids


def test_all_of_unicode_passes_unchanged() -> None:
    template = compiled("{{ messages[0].content }}")
    text = "".join(chr(c) for c in range(0x0, 0x110000, 37) if not 0xD800 <= c <= 0xDFFF)
    assert render_text(template, [{"role": "user", "content": text}], None) == text


def test_lone_surrogates_are_refused() -> None:
    template = compiled("{{ messages[0].content }}")
    for message in ({"content": "\ud800"}, {"content": "", "extra": [{"\ud801": 1}]}):
        with pytest.raises(ValueError, match="lone surrogate"):
            template.render([message], None)
    with pytest.raises(ValueError, match="lone surrogate"):
        template.render([USER], [{"name": "\ud800"}])


def test_raise_exception_is_reported_with_its_message(template: ChatTemplate) -> None:
    with pytest.raises(TemplateError, match="tool message without a call"):
        template.render([USER, {"role": "tool", "content": "x"}], None)


def test_a_failing_expression_is_a_template_error() -> None:
    template = compiled("{{ messages[0].content + 'x' }}")
    with pytest.raises(TemplateError, match="TypeError"):
        template.render([{"role": "user", "content": 5}], None)


def test_helpers_are_those_of_transformers() -> None:
    source = (
        "{{ messages[0] | tojson(ensure_ascii=true, indent=1) }}{{ strftime_now('%Y')|length }}"
        "{% generation %}g{% endgeneration %}{% for m in messages %}{% break %}{% endfor %}"
    )
    text = render_text(compiled(source), [{"content": "<é>"}], None)
    assert text == '{\n "content": "<\\u00e9>"\n}4g'


@pytest.mark.parametrize(
    "source",
    [
        "{{ ''.__class__.__mro__[1].__subclasses__() }}",
        "{{ messages.__init__.__globals__ }}",
        "{{ messages.append(1) }}",
        "{{ messages[0].update({'a': 1}) }}",
        "{{ cycler.__init__.__globals__.os.popen('true').read() }}",
        "{% include '/etc/passwd' %}",
        "{{ raise_exception.__globals__.json }}",
    ],
)
def test_the_sandbox_stops_escapes(source: str) -> None:
    with pytest.raises(ValueError, match="chat template"):
        compiled(source).render([USER], None)


@pytest.mark.parametrize(
    "source",
    [
        "{% for i in range(99999) %}{% for j in range(99999) %}{% endfor %}{% endfor %}",
        "{% for i in range(99999) %}{{ 'x' * 1000 }}{% endfor %}",
        "{% set ns = namespace(s='x') %}{% for i in range(99) %}{% set ns.s = ns.s ~ ns.s %}"
        "{% endfor %}",
        "{% set ns = namespace(s='x') %}{% for i in range(99) %}{% set ns.s = ns.s + ns.s %}"
        "{% endfor %}",
        "{{ 'x' * 10**12 }}",
        "{{ 9 ** (9 ** 9) }}",
        "{{ '%1000000000d' % 5 }}",
        "{% macro m() %}{{ m() }}{% endmacro %}{{ m() }}",
        "{{ range(10**9) | list }}",
    ],
)
def test_limits_stop_a_template_that_runs_away(source: str) -> None:
    with pytest.raises(ValueError, match="chat template"):
        compiled(source, max_loop_turns=100_000, max_output_chars=1_000_000, time_limit_s=2.0)


def test_the_time_limit_holds() -> None:
    with pytest.raises(TemplateError, match="too long"):
        compiled("{% for i in range(99999) %}x{% endfor %}", time_limit_s=1e-6)


@pytest.mark.parametrize("source", ["{% for %}", "{{ ", "{% endif %}"])
def test_a_template_that_does_not_compile_is_refused(source: str) -> None:
    with pytest.raises(ValueError, match="does not compile"):
        compiled(source)


def test_the_template_may_be_in_the_tokenizer_config(tmp_path: Path) -> None:
    folder = write_checkpoint(tmp_path, tokenizer_json("separate"))
    (folder / "chat_template.jinja").unlink()
    with pytest.raises(ValueError, match=re.escape(str(folder / "tokenizer_config.json"))):
        ChatTemplate.load(folder)
    named = '[{"name": "default", "template": "{{ bos_token }}x"}]'
    for value in ('"{{ bos_token }}x"', named):
        (folder / "tokenizer_config.json").write_text(
            '{"bos_token": "]~!b[", "chat_template": ' + value + "}"
        )
        assert ChatTemplate.load(folder).render([USER], None) == [
            Segment("]~!b[", True),
            Segment("x", False),
        ]


def test_a_bad_template_file_is_named(tmp_path: Path) -> None:
    folder = write_checkpoint(tmp_path, tokenizer_json("separate"))
    path = folder / "chat_template.jinja"
    for content in (b"{% for %}", b"\xff", b"x" * (2**20 + 1)):
        path.write_bytes(content)
        with pytest.raises(ValueError, match=re.escape(str(path))) as error:
            ChatTemplate.load(folder)
        assert "\n" not in str(error.value)
