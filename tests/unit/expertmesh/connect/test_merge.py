"""Merging keeps all else, twice is once, and taking out undoes it; in each format."""

import json
import re
import tomllib
from typing import Any

import pytest
import yaml
from hypothesis import example, given
from hypothesis import strategies as st

from expertmesh.connect import merge as merging
from expertmesh.connect.formats.format import Format, UnmergeableError
from expertmesh.connect.formats.json_text import JsonText
from expertmesh.connect.formats.toml_text import TomlText
from expertmesh.connect.formats.yaml_text import YamlText
from expertmesh.connect.merge import Trace, Values, Wanted, unmerge, values_of
from tests.support.examples import examples

KEYS = st.sampled_from(["a", "b", "env", "x y", "", "ü", 'q"', "model"])
LEAVES = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.text(max_size=5)
    | st.floats(allow_nan=False, allow_infinity=False)
)
TREES = st.dictionaries(
    KEYS,
    st.recursive(
        LEAVES,
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(KEYS, inner, max_size=3),
        max_leaves=5,
    ),
    max_size=4,
)
NESTED = st.dictionaries(
    KEYS,
    st.recursive(  # None: must not be there
        LEAVES | st.lists(st.integers(), max_size=2),
        lambda inner: st.dictionaries(KEYS, inner, min_size=1, max_size=2),
        max_leaves=3,
    ),
    min_size=1,
    max_size=3,
)
LOOKS: Any = st.sampled_from(
    [{"indent": None}, {"indent": 2}, {"indent": "\t"}, {"indent": 4, "ensure_ascii": False}]
)


def merge(
    kind: Format, text: str, values: Values, earlier: Trace | None = None
) -> tuple[str, Trace]:
    return merging.merge(kind, text, Wanted(values), earlier)


def deep(said: dict[str, Any], path: tuple[str, ...]) -> Any:
    for key in path:
        said = said.get(key) if isinstance(said, dict) else None
    return said


@given(TREES, NESTED, NESTED, LOOKS, st.booleans())
@example({}, {"a": {"a": False}}, {"a": {"a": None}}, {"indent": None}, False)
@examples(100)
def test_any_json_keeps_all_else(
    tree: dict[str, Any],
    first: dict[str, Any],
    second: dict[str, Any],
    look: dict[str, Any],
    dos: bool,
) -> None:
    kind, trace, merged = JsonText(), None, json.dumps(tree, **look) + "\n"
    merged = merged.replace("\n", "\r\n") if dos else merged
    both = [values_of(first), values_of(second)]
    for values in both:
        try:
            merged, trace = merge(kind, merged, values, trace)
        except UnmergeableError as error:
            if "is no object" in str(error) or one_is_in_another([*both[0], *both[1]]):
                return
            raise
        said = json.loads(merged)
        assert all(deep(said, path) == value for path, value in values.items())
        assert merge(kind, merged, values, trace) == (merged, trace)
    assert dos or "\r" not in merged
    assert trace is not None
    assert json.loads(unmerge(kind, merged, trace)) == tree


def one_is_in_another(paths: list[tuple[str, ...]]) -> bool:
    return any(len(a) < len(b) and b[: len(a)] == a for a in paths for b in paths)


COMMENTED = """\
// mine
{
  "theme": "dark", // I like it
  /* providers */
  "provider": {
    "other": {"options": {"apiKey": "sk-secret"}}, // the other
  },
  "model": "other/big", // the best
  // the end
}
"""
OURS = values_of(
    {"model": "expertmesh/m", "provider": {"expertmesh": {"npm": "x", "models": {"m": {"n": 1}}}}}
)


def test_comments_and_trailing_commas_stay() -> None:
    merged, trace = merge(JsonText(), COMMENTED, OURS)
    for kept in ("// mine", "// I like it", "/* providers */", "// the other", "// the end"):
        assert kept in merged
    assert '"model": "expertmesh/m", // the best' in merged
    assert merged.index("// the other") < merged.index('"expertmesh": {')
    assert unmerge(JsonText(), merged, trace) == COMMENTED


def test_new_members_look_like_the_file() -> None:
    text = '{\n\t"env": {\n\t\t"A": "1"\n\t}\n}\n'
    merged, _ = merge(JsonText(), text, {("env", "B"): "2", ("deep", "list"): [{"c": 1}]})
    assert merged == (
        '{\n\t"env": {\n\t\t"A": "1",\n\t\t"B": "2"\n\t},\n'
        '\t"deep": {\n\t\t"list": [\n\t\t\t{\n\t\t\t\t"c": 1\n\t\t\t}\n\t\t]\n\t}\n}\n'
    )


@pytest.mark.parametrize(
    ("kind", "text", "told"),
    [
        (JsonText(), '{"model": }', "line 1 cannot be read"),
        (JsonText(), '{"a": 1, "a": 2}', "'a' twice"),
        (JsonText(), '{"model": "x"} {}', "cannot be read"),
        (JsonText(), '{"a": 01}', "cannot be read"),
        (JsonText(), '{"a": NaN}', "cannot be read"),
        (JsonText(), '{"a": 1 "b": 2}', "cannot be read"),
        (JsonText(), '["model"]', "not a JSON object"),
        (JsonText(), '{"provider": null}', "provider is there, but is no object"),
        (JsonText(), '{"a": ' + "[" * 200 + "]" * 200 + "}", "deep"),
        (TomlText(), "model = ", "not TOML"),
        (TomlText(), 'provider = {expertmesh = {npm = "a"}}', "TOML"),
        (TomlText(), "[[provider]]\nname = 1", "array of tables"),
        (YamlText(), "{model: a}", "line 1"),
        (YamlText(), "model: a\n---\nmodel: b", "line 2"),
        (YamlText(), "model: a\nmodel: b\n", "'model' twice"),
        (YamlText(), "a: {\nmodel: b}\n", "does not end"),
        (YamlText(), 'a: "\nmodel: b"\n', "does not end"),
        (YamlText(), "- model\n", "belongs to no setting"),
    ],
)
def test_what_cannot_be_merged_is_said(kind: Format, text: str, told: str) -> None:
    values = {("model",): "m"} if isinstance(kind, YamlText) else OURS
    with pytest.raises(UnmergeableError, match=told.replace("(", r"\(")):
        merge(kind, text, values)


CODEX = {("model",): "m", ("model_providers", "expertmesh", "base_url"): "http://h/v1"}
TOML_SCALARS = (
    '"a # = b"', "'[x]'", "1", "nan", "true", "1979-05-27T07:32:00Z",
    '"""\n[model_providers]\n"""',
    "'''\nmodel = 1\n'''", '[1, # a ]\n "]", {x = "]"}]', '{a.b = 1, "c" = [2]}', '"\\"\\\\"',
    '""""quoted" text"""', "0x1F",
)  # fmt: skip
TOML_KEYS = st.sampled_from(["model", "a.b", '"q.r"', "'s'", "zeta", "a . c", "model_provider"])
TOML_HEADS = st.sampled_from(
    ["[tui]", "[ model_providers . other ]", "[mcp_servers.'x.y']", "[[rules]]",
     "[model_providers.expertmesh]", "[model_providers.expertmesh.query]"]
)  # fmt: skip


@st.composite
def tomls(draw: st.DrawFn) -> str:
    lines = []
    for head in [None, *draw(st.lists(TOML_HEADS, max_size=3, unique=True))]:
        lines += draw(st.lists(st.sampled_from(["", "# [model]", "  # model = 1"]), max_size=2))
        lines += [head + draw(st.sampled_from(["", " # note"]))] if head else []
        for key in draw(st.lists(TOML_KEYS, max_size=3, unique=True)):
            value, note = (
                draw(st.sampled_from(TOML_SCALARS)),
                draw(st.sampled_from(["", "  # why"])),
            )
            lines.append(f"{key} = {value}{note}")
    return "\n".join(lines) + draw(st.sampled_from(["", "\n", "\n\n"]))


def without_models(text: str) -> str:
    """Without the values of lines that begin as the one whose value is replaced."""
    longest_first = sorted(map(re.escape, TOML_SCALARS), key=len, reverse=True)
    return re.sub(f"(?m)^model = (?:{'|'.join(longest_first)})", "model = ", text)


@given(tomls(), st.booleans())
@example(text='model = """\n[model_providers]\n"""  # why', dos=True)
@examples(100)
def test_any_toml_keeps_all_else(text: str, dos: bool) -> None:
    kind = TomlText()
    said, kept = repr(tomllib.loads(text)), without_models(text)
    text = text.replace("\n", "\r\n") if dos else text
    merged, trace = merge(kind, text, CODEX)
    told = kind.parse(merged)
    assert (told["model"], told["model_providers"]["expertmesh"]["base_url"]) == (
        "m",
        "http://h/v1",
    )
    for line in kept.split("\n"):
        assert line.partition("model = ")[0] in merged
    assert merge(kind, merged, CODEX, trace) == (merged, trace)
    assert repr(tomllib.loads(unmerge(kind, merged, trace).replace("\r\n", "\n"))) == said


def test_toml_gets_its_lines_where_a_person_would_put_them() -> None:
    text = '# mine\nmodel = "old" # note\n\n[tui]\nx = 1\n'
    merged, trace = merge(TomlText(), text, {**CODEX, ("model_provider",): "expertmesh"})
    assert merged == (
        '# mine\nmodel = "m" # note\nmodel_provider = "expertmesh"\n\n[tui]\nx = 1\n'
        '\n[model_providers.expertmesh]\nbase_url = "http://h/v1"\n'
    )
    assert unmerge(TomlText(), merged, trace) == text


YAMLS = st.lists(
    st.sampled_from(
        ["# model: no", "", "dark-mode: true", "read:\n  - a.md\n  - b.md", "lint-cmd:\n- 'a: b'",
         "model: sonnet  # the best", "note: |-\n  model: x\n\n  more", 'alias: ["f:g",\n  "h:i"]',
         "'quoted': \"x: y\"", "weak-model: 'it''s'", "timeout: 5"]
    ),
    unique=True,
)  # fmt: skip


@given(YAMLS, st.booleans(), st.sampled_from(["", "---\n"]), st.booleans())
@examples(100)
def test_settings_in_yaml_keep_all_else(parts: list[str], ends: bool, head: str, dos: bool) -> None:
    text = head + "\n".join(parts) + ("\n" if ends else "")
    before = yaml.safe_load(text) or {}
    text = text.replace("\n", "\r\n") if dos else text
    values = {("model",): "openai/m", ("timeout",): 1800, ("edit-format",): "diff"}
    merged, trace = merge(YamlText(), text, values)
    said = {path[0]: value for path, value in values.items()}
    assert yaml.safe_load(merged) == {**before, **said}
    assert merge(YamlText(), merged, values, trace) == (merged, trace)
    assert (yaml.safe_load(unmerge(YamlText(), merged, trace)) or {}) == before


def test_a_comment_behind_a_replaced_setting_comes_back() -> None:
    text = "model: sonnet  # the best\n"
    merged, trace = merge(YamlText(), text, {("model",): "openai/m"})
    assert merged == 'model: "openai/m"\n'
    assert unmerge(YamlText(), merged, trace) == "model: sonnet  # the best\n"


def test_what_somebody_changed_since_is_theirs() -> None:
    text = '{"model": "old"}'
    merged, trace = merge(JsonText(), text, {("model",): "ours", ("small",): "ours"})
    changed = merged.replace('"model": "ours"', '"model": "theirs"')
    assert json.loads(unmerge(JsonText(), changed, trace)) == {"model": "theirs"}
    again, later = merge(JsonText(), changed, {("model",): "ours"}, trace)
    assert json.loads(again) == {"model": "ours"}
    assert json.loads(unmerge(JsonText(), again, later)) == {"model": "theirs"}


def test_a_value_that_was_there_already_stays() -> None:
    merged, trace = merge(JsonText(), '{"model": "ours"}', {("model",): "ours"})
    assert unmerge(JsonText(), merged, trace) == '{"model": "ours"}'


def test_what_is_not_wanted_any_more_goes() -> None:
    text = '{"env": {"A": "1"}}'
    merged, trace = merge(JsonText(), text, {("env", "B"): "2", ("helper",): "h"})
    merged, trace = merge(JsonText(), merged, {("env", "C"): "3"}, trace)
    assert json.loads(merged) == {"env": {"A": "1", "C": "3"}}
    assert json.loads(unmerge(JsonText(), merged, trace)) == {"env": {"A": "1"}}


@pytest.mark.parametrize("kind", [JsonText(), TomlText(), YamlText()])
def test_an_empty_text_becomes_ours_and_empty_again(kind: Format) -> None:
    merged, trace = merge(kind, "", {("model",): "m"})
    assert kind.parse(merged)["model"] in ("m", '"m"')
    assert kind.parse(unmerge(kind, merged, trace)) == {}
    assert trace != Trace()


def test_what_must_not_be_there_comes_back() -> None:
    text = '{"env": {"KEY": "theirs"}}'
    merged, trace = merge(JsonText(), text, {("env", "KEY"): None, ("env", "OTHER"): None})
    assert json.loads(merged) == {"env": {}}
    assert merge(JsonText(), merged, {("env", "KEY"): None}, trace)[0] == merged
    assert json.loads(unmerge(JsonText(), merged, trace)) == {"env": {"KEY": "theirs"}}


def test_a_default_replaces_nothing() -> None:
    wanted = Wanted({("a",): 1}, {("version",): 1, ("when",): "then"})
    merged, trace = merging.merge(JsonText(), '{"version": 7}', wanted)
    assert json.loads(merged) == {"version": 7, "when": "then", "a": 1}
    moved = merged.replace('"then"', '"now"')
    assert merging.merge(JsonText(), moved, wanted, trace)[0] == moved
    assert json.loads(unmerge(JsonText(), merged, trace)) == {"version": 7}


def test_what_we_made_goes_with_what_others_put_into_it() -> None:
    wanted = Wanted({("p", "ours", "url"): "u"}, owned=(("p", "ours"),))
    merged, trace = merging.merge(JsonText(), '{"p": {"theirs": {}}}', wanted)
    used = merged.replace('"url": "u"', '"url": "u", "used": true')
    assert json.loads(unmerge(JsonText(), used, trace)) == {"p": {"theirs": {}}}
    merged, trace = merging.merge(JsonText(), '{"p": {"ours": {"x": 1}}}', wanted)
    assert json.loads(unmerge(JsonText(), merged, trace)) == {"p": {"ours": {"x": 1}}}
