"""Items of a YAML list are put and taken out by their names, and all else stays."""

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from expertmesh.connect.formats.format import UnmergeableError
from expertmesh.connect.formats.yaml_items import YamlItems
from expertmesh.connect.merge import Wanted, merge, unmerge
from tests.support.examples import examples

OURS = {"name": "hosted_vllm/m", "use": True, "extra": {"api_base": "http://h/v1", "n": 1}}
WANTED = Wanted({("hosted_vllm/m",): OURS})
ITEMS = st.lists(
    st.sampled_from(
        [
            "- name: gpt-4o # mine\n  edit_format: diff",
            "# about the next one\n- name: 'other'\n  extra_params:\n    max_tokens: 5",
            '-   name: "third"\n    list:\n      - name: inner\n      - 2',
            "- name: hosted_vllm/m\n  use: false\n\n  # inside\n  mine: 1",
            "# the end",
            "",
        ]
    ),
    unique=True,
)


@given(ITEMS, st.booleans(), st.sampled_from(["", "---\n"]), st.booleans())
@examples(100)
def test_any_list_keeps_all_else(parts: list[str], ends: bool, head: str, dos: bool) -> None:
    text = head + "\n".join(parts) + ("\n" if ends else "")
    before = yaml.safe_load(text) or []
    text = text.replace("\n", "\r\n") if dos else text
    merged, trace = merge(YamlItems(), text, WANTED)
    after = yaml.safe_load(merged)
    assert [one for one in after if one["name"] != OURS["name"]] == [
        one for one in before if one["name"] != OURS["name"]
    ]
    assert [one for one in after if one["name"] == OURS["name"]] == [OURS]
    assert merge(YamlItems(), merged, WANTED, trace) == (merged, trace)
    assert (yaml.safe_load(unmerge(YamlItems(), merged, trace)) or []) == before


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("a: 1\n", "line 1"),
        ("- 1\n", "line 1"),
        ("- edit_format: diff\n  name: x\n", "line 1"),
        ("- name: a\n- name: a\n", "'a' twice"),
        ("- name: a\n---\n- name: b\n", "line 2"),
        ("[{name: a}]\n", "line 1"),
    ],
)
def test_other_files_are_left(text: str, told: str) -> None:
    with pytest.raises(UnmergeableError, match=told):
        merge(YamlItems(), text, WANTED)
