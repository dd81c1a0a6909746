"""What is written as the output of pytest is what pytest prints."""

import os
import random
import re
import subprocess
import sys
from pathlib import Path

import pytest

from demo_model.programs import catalogue, project, pytest_text
from demo_model.programs.project import Project, RedrawError
from demo_model.programs.pytest_text import Outcome

OFF = ("cacheprovider", "xdist", "asyncio", "anyio", "hypothesispytest", "timeout", "randomly")


def made(seed: int) -> tuple[Project, Outcome]:
    """A project and the outcome of its tests."""
    rng = random.Random(seed)
    pools = (
        catalogue.trained(),
        catalogue.held_out_pairs(),
        catalogue.pairs_of_held_out_templates(),
    )
    while True:
        drawn = project.make(
            rng,
            (rng.choice(pools).pick(rng),),
            held_out_names=rng.random() < 0.5,
            others=rng.choice((0, 1, 2)),
            documented=rng.random() < 0.5,
        )
        try:
            outcome = pytest_text.run(drawn, rng, folder="FOLDER")
        except RedrawError:
            continue
        if not outcome.endless:
            return drawn, outcome


def printed(folder: Path, drawn: Project, *more: str) -> tuple[int, str]:
    (folder / drawn.file).write_text(drawn.source)
    (folder / drawn.test_file).write_text(drawn.test_source)
    flags = [*more, *(part for name in OFF for part in ("-p", f"no:{name}"))]
    environment = {"PATH": os.environ["PATH"], "PYTHONDONTWRITEBYTECODE": "1", "COLUMNS": "80"}
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-c", os.devnull, "--rootdir", ".", *flags],
        cwd=folder, env=environment, capture_output=True, text=True, timeout=60,
    )  # fmt: skip
    return done.returncode, done.stdout.replace(str(folder), "FOLDER")


def scrubbed(text: str) -> str:
    """Without times, and without pytest's own frames above an import that failed."""
    text = re.sub(r"in \d+\.\d+s", "in 0s", text)
    return re.sub(r"(?m)^(/|<frozen).*\n(?:    .*\n)*", "", text)


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize("seed", range(40))
def test_the_text_is_pytests_own(seed: int, tmp_path: Path) -> None:
    drawn, outcome = made(seed)
    code, text = printed(tmp_path, drawn)
    assert code == outcome.exit_code
    assert scrubbed(outcome.text) == scrubbed(text)


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize("seed", range(8))
def test_the_short_text_is_pytests_own(seed: int, tmp_path: Path) -> None:
    """With the flags with which `expertmesh dev tests` runs it."""
    rng = random.Random(f"short-{seed}")
    for _ in range(100):
        drawn, _ = made(rng.randrange(10**6))
        try:
            outcome = pytest_text.run(drawn, rng, short=True)
        except RedrawError:
            continue
        if not outcome.broken:
            break
    _, text = printed(tmp_path, drawn, "--no-header", "--color=no", "--tb=short", "-rfEp")
    assert scrubbed(outcome.text) == scrubbed(text)


@pytest.mark.parametrize("seed", range(30))
def test_wrong_projects_fail_and_mended_ones_pass(seed: int) -> None:
    drawn, outcome = made(seed)
    assert not outcome.passed
    mended = drawn.mended(drawn.bugs[0])
    assert mended.source == drawn.right
    assert pytest_text.run(mended, random.Random(0)).passed


def test_values_are_written_as_python_reads_them() -> None:
    for value in ('a"b', "it's", "\\n\n", "", [1, "x"], {"a": [True, None]}, -3, 2.5):
        assert eval(project.literal(value), {}) == value
    assert project.literal("a") == '"a"'
