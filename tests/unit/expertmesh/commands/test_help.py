"""Does every command's --help show whole names in a narrow terminal?"""

import re
from collections.abc import Collection, Iterator

import pytest
import typer

from expertmesh.cli import app
from expertmesh.cluster.service_flags import CONFIGS
from rpc.process.flags import flags_of, parse_config
from tests.support.expertmesh.command import run_command

COLUMNS = 80
ELLIPSIS = "\u2026"
NAME = re.compile(r"--[a-z][a-z0-9-]*|EXPERTMESH_[A-Z0-9_]+")


def commands(command: object, *path: str) -> Iterator[tuple[tuple[str, ...], object]]:
    """Each command and group with the words that call it; the services' help is argparse's."""
    yield path, command
    for name, one in getattr(command, "commands", {}).items():
        if path != ("serve",):
            yield from commands(one, *path, name)


def examples(path: tuple[str, ...]) -> list[str]:
    text = COMMANDS[path].help or ""
    return [line for line in text.splitlines() if line.startswith("  ")]


COMMANDS = dict(commands(typer.main.get_command(app)))


def check(shown: str, names: set[str], examples: Collection[str] = ()) -> None:
    """That `names` are shown, and nothing but an example is too wide, cut or broken in a name."""
    assert names <= set(NAME.findall(shown)), names - set(NAME.findall(shown))
    for line in shown.splitlines():
        if line.removeprefix("  ") not in examples:
            assert len(line) <= COLUMNS, line
            assert not line.endswith((ELLIPSIS, "-")), line


@pytest.mark.parametrize("path", COMMANDS, ids=" ".join)
def test_a_commands_help_shows_whole_names_at_80_columns(path: tuple[str, ...]) -> None:
    done = run_command(*path, "--help", COLUMNS=str(COLUMNS))
    assert done.returncode == 0, done.stderr
    shown_params = [one for one in COMMANDS[path].params if not getattr(one, "hidden", False)]
    names = {name for one in shown_params for name in (*one.opts, *one.secondary_opts)}
    names |= {one.envvar for one in shown_params if one.envvar}
    check(done.stdout, {name for name in names if NAME.fullmatch(name)}, examples(path))


@pytest.mark.parametrize("path", COMMANDS, ids=" ".join)
def test_a_commands_examples_stay_as_they_are_written(path: tuple[str, ...]) -> None:
    shown = run_command(*path, "--help", COLUMNS=str(COLUMNS)).stdout
    assert {"  " + line for line in examples(path)} <= set(shown.splitlines())


def test_the_flags_of_services_have_a_heading_each_in_the_help_of_up() -> None:
    shown = run_command("up", "--help", COLUMNS=str(COLUMNS)).stdout
    ours, theirs = shown.split("\nPassed on to the gateway:\n")
    assert "  --http-port <int>" in ours
    assert "  --max-connections-per-address <int>" in theirs
    assert "\nPassed on to several services:\n" in shown


@pytest.mark.parametrize("module", CONFIGS)
def test_a_services_help_shows_whole_names_at_80_columns(
    module: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", str(COLUMNS))
    config = CONFIGS[module]
    with pytest.raises(SystemExit):
        parse_config(config, ["--help"], prog=f"python -m {module}", description="A service.")
    check(capsys.readouterr().out, {one.option for one in flags_of(config)})
