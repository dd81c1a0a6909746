"""Does whoever waits for a command see, within two seconds, how far it is?"""

import io
from pathlib import Path

import pytest
from rich.console import Console

from expertmesh.commands.bench.run import Bar
from expertmesh.progress import EVERY_S, PacedLines, progress_note
from moe_model.tiny import write_tiny
from tests.support.expertmesh.command import run_command


def test_lines_are_told_at_once_and_then_every_two_seconds() -> None:
    shown, now_s = io.StringIO(), [0.0]
    lines = PacedLines(Console(file=shown), lambda: now_s[0])
    for step in range(50):
        now_s[0] = step / 10
        lines.say(f"{step} [of] 50")
    assert EVERY_S == 2.0
    assert shown.getvalue().splitlines() == ["0 [of] 50", "20 [of] 50", "40 [of] 50"]


def test_nothing_is_told_where_only_json_is_wanted(capsys: pytest.CaptureFixture[str]) -> None:
    with progress_note(hidden=True) as say:
        say("word")
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize("command", ["verify", "quantise"])
def test_commands_that_read_a_model_tell_their_layers_in_a_pipe(
    tmp_path: Path, command: str
) -> None:
    config = write_tiny(tmp_path / "model")
    out = ["--format", "int8", str(tmp_path / "out")] if command == "quantise" else []
    done = run_command("model", command, str(tmp_path / "model"), *out)
    assert done.returncode == 0, done.stderr
    layers = config.num_layers + (command == "quantise")
    assert f"layer 0 of {layers}" in done.stderr
    assert run_command("model", "verify", str(tmp_path / "model"), "--json").stderr == ""


def test_a_benchmark_tells_its_requests_in_a_pipe(capsys: pytest.CaptureFixture[str]) -> None:
    bar = Bar()
    bar.start(8)
    bar.stop()
    assert capsys.readouterr().err == "0 of 8 requests, 0 tokens\n"
