"""A judge that says yes to an expert, and no to one that does nothing or the wrong thing."""

import random
from pathlib import Path
from typing import Any

import pytest

from demo_model import chat
from demo_model.draw import Draw, Split
from demo_model.judging import asserted, repair, replies, workplace
from demo_model.judging.repair import Episode
from demo_model.tasks import write_tests
from demo_model.tasks.repair import TEST_COMMAND, texts_of


def expert(episodes: list[Episode]) -> repair.Answer:
    """One that knows the bug."""

    def answer(prompts: list[list[chat.Segment]]) -> list[str]:
        running = [episode for episode in episodes if not episode.ended]
        return [_turn(episode) for episode in running[: len(prompts)]]

    return answer


def _turn(episode: Episode) -> str:
    made = episode.place.project
    old, new = texts_of(made, made.bugs[0])
    turns: list[chat.Call] = [
        ("shell", {"command": TEST_COMMAND}),
        ("file_editor", {"action": "view", "file_path": made.file}),
        (
            "file_editor",
            {"action": "edit", "file_path": made.file, "old_text": old, "new_text": new},
        ),
    ]
    if episode.steps < len(turns):
        message = chat.calling("", turns[episode.steps])
    else:
        message = chat.assistant("", "Done.")
    return chat.completion(message).removesuffix(chat.END_OF_TURN)


def start(count: int, folder: Path) -> list[Episode]:
    return [
        repair.start(Split.OPERANDS, number, 0, folder / str(number), workplace.plain)
        for number in range(count)
    ]


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_real_pytest_tells_repaired_projects_from_others(tmp_path: Path) -> None:
    episodes = start(3, tmp_path / "expert")
    repair.play(episodes, expert(episodes))
    found = repair.summary(episodes)
    assert (found["tasks"], found["repaired"]) == (3, 3)
    lazy = start(3, tmp_path / "lazy")
    repair.play(lazy, lambda prompts: ["x\n</think>\n\nDone."] * len(prompts))
    assert repair.summary(lazy)["repaired"] == 0


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_changing_the_tests_does_not_count(tmp_path: Path) -> None:
    (episode,) = start(1, tmp_path / "cheat")
    made = episode.place.project
    first = made.tests[0].checks[0].statement
    for check in [check for test in made.tests for check in test.checks]:
        arguments = {"action": "edit", "file_path": made.test_file}
        arguments |= {"old_text": check.statement, "new_text": "pass"}
        episode.place.call("file_editor", arguments)
    assert first not in (episode.place.folder / made.test_file).read_text()
    assert not episode.place.passes()


def test_commands_other_than_the_tests_are_not_run(tmp_path: Path) -> None:
    (episode,) = start(1, tmp_path)
    (tmp_path / "0" / "kept").write_text("")
    assert "127" in episode.place.call("shell", {"command": "rm kept"})
    assert (tmp_path / "0" / "kept").exists()
    outside = {"action": "view", "file_path": "../../etc/passwd"}
    assert "outside the work folder" in episode.place.call("file_editor", outside)


def test_the_interval_holds_the_share() -> None:
    low, high = repair.interval(141, 150)
    assert 0.88 < low < 0.94 < high < 0.98
    assert repair.interval(0, 10)[0] == 0.0


CALL = (
    "t</think>\n\n\n<minimax:tool_call>\n"
    '<invoke name="edit">\n<parameter name="old">  a < b\n</parameter>\n</invoke>\n'
    "</minimax:tool_call>"
)


def test_a_call_is_read_with_its_blanks_and_signs() -> None:
    assert replies.read(CALL).calls == (("edit", {"old": "  a < b\n"}),)
    assert replies.read("t</think>\n\nHi").calls == ()


@pytest.mark.parametrize(
    "broken",
    [
        CALL.replace("</invoke>\n", ""),
        CALL + "more",
        CALL[:-5],
        "never ends",
        CALL.replace("</parameter>", ""),
    ],
)
def test_a_malformed_call_is_none(broken: str) -> None:
    assert replies.read(broken).calls is None


def facts_of(seed: int) -> tuple[str, dict[str, Any]]:
    made = write_tests.make(Draw(rng=random.Random(seed), language="en"))
    return made.messages[-1]["content"], made.facts


def test_written_tests_count_by_their_values() -> None:
    for seed in range(30):
        answer, facts = facts_of(seed)
        assert asserted.are_right(answer, facts)
        assert not asserted.are_right(answer.replace("assert ", "assert not ", 1), facts)
        assert not asserted.are_right("```python\nimport os\n```", facts)
        assert not asserted.are_right("no code", facts)
