"""The texts for models: each in both languages, with the same values in it."""

import re
from importlib.resources import files

import pytest

from expertmesh.assistants import prompts
from expertmesh.assistants.prompts import LANGUAGES, prompt

NAMES = sorted(
    {one.name.split(".")[0] for one in files(prompts).iterdir() if one.name.endswith(".txt")}
)


@pytest.mark.parametrize("name", NAMES)
def test_each_text_exists_in_both_languages_with_the_same_values(name: str) -> None:
    found = {language: re.findall(r"\{(\w+)\}", prompt(name, language)) for language in LANGUAGES}
    assert sorted(found["en"]) == sorted(found["zh"])
    chinese, english = (prompt(name, language) for language in ("zh", "en"))
    assert prompts.language_of(chinese) == "zh"
    assert prompts.language_of(english) == "en"


def test_values_are_put_in_and_other_braces_stay(monkeypatch: pytest.MonkeyPatch) -> None:
    told = prompt("mend_json", "en", faults='- {"line": {x}} {faults}')
    assert '- {"line": {x}} {faults}' in told
    assert "{faults}" in prompt("mend_json", "en", other="x")
