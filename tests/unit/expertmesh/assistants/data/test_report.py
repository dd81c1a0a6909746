"""The report: everything is in it, and nothing that others wrote can pass for ours."""

from pathlib import Path

import pytest

from expertmesh.assistants.data.analyse import Analysis, Try
from expertmesh.assistants.data.claims import unfounded
from expertmesh.assistants.data.judging import Fault
from expertmesh.assistants.data.produced import Produced
from expertmesh.assistants.data.report import as_json, report
from expertmesh.assistants.tables.profile import Profile, profile_file

SCRIPT = 'print("""\n```\n# not a heading\n""")\n'


@pytest.fixture
def profile(tmp_path: Path) -> Profile:
    path = tmp_path / "sales.csv"
    path.write_text("city,price\nOslo,1.5\n")
    return profile_file(path)


def analysis(language: str = "en", conclusion: str = "It is 5, not 7.") -> Analysis:
    output = "total: 5\n````\n# also none\n"
    return Analysis(
        goal="Which is the total?\n# Not a heading <b>",
        language=language,
        installed={"python": "3.11.2", "pandas": "2.2.0"},
        tries=[
            Try(1, "oops", Fault("exit code 1", "NameError: `x` <script>")),
            Try(2, SCRIPT, None),
        ],
        output=output,
        seconds=1.25,
        produced=(Produced("a plot (1).png", 1500, True), Produced("sums.csv", 12, False)),
        conclusion=conclusion,
        unfounded=unfounded(conclusion, [output]),
    )


PLACES = {"a plot (1).png": "a plot (1).png", "sums.csv": "sums.csv"}


def told(done: Analysis, profile: Profile) -> str:
    return report(
        done, profile, places=PLACES, model="m2", sandbox="bubblewrap", when="2026-01-02 03:04"
    )


def outside_of_fences(text: str) -> list[str]:
    lines, fence = [], ""
    for line in text.splitlines():
        ticks = line[: len(line) - len(line.lstrip("`"))]
        if not fence and len(ticks) >= 3:
            fence = ticks
        elif fence and line == fence:
            fence = ""
        elif not fence:
            lines.append(line)
    assert not fence
    return lines


def test_everything_is_in_it(profile: Profile) -> None:
    text = told(analysis(), profile)
    for part in (
        "> It is 5, not 7 [not in the output].",
        "total: 5",
        '- "price": decimal',
        "![a plot (1).png](a%20plot%20%281%29.png)",
        "- [sums.csv](sums.csv): 12 bytes",
        SCRIPT,
        "in 2 tries",
        "python 3.11.2, pandas 2.2.0",
        "1. exit code 1: NameError",
        "round to them at their last digit: 7.",
    ):
        assert part in text, part


@pytest.mark.parametrize("language", ["en", "zh"])
def test_nothing_of_others_passes_for_ours(profile: Profile, language: str) -> None:
    lines = outside_of_fences(told(analysis(language), profile))
    headings = [line for line in lines if line.startswith("#")]
    assert len(headings) == 8
    assert sum(line.startswith("# ") for line in headings) == 1
    assert not [line for line in lines if "<script>" in line.replace("\\<", "")]
    assert "{" not in "".join(lines)


def test_in_the_language_of_the_goal(profile: Profile) -> None:
    text = told(analysis("zh"), profile)
    assert "## \u7ed3\u8bba" in text
    assert "7 [\u8f93\u51fa\u4e2d\u6ca1\u6709]" in text


def test_a_conclusion_whose_numbers_were_printed_is_not_called_right(profile: Profile) -> None:
    text = told(analysis(conclusion="It is 5."), profile)
    assert "says nothing about the words around them" in text
    assert "not in the output" not in text


def test_without_a_conclusion_the_reason_stands_there(profile: Profile) -> None:
    done = analysis(conclusion="")
    done.no_conclusion = "the server went away"
    assert "There is none: the server went away" in told(done, profile)


def test_as_json(profile: Profile) -> None:
    found = as_json(analysis(), profile, places=PLACES, report_path="report")
    assert found["numbers_not_in_output"] == ["7"]
    assert found["files"][0] == {"path": "a plot (1).png", "size_bytes": 1500, "is_picture": True}
    assert found["tries"] == [
        {"number": 1, "fault": "exit code 1: NameError: `x` <script>"},
        {"number": 2, "fault": None},
    ]
    assert found["profile"]["rows"] == 1
