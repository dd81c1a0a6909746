"""Command lines, flags and `make` targets that documents name exist."""

import re
from functools import cache
from typing import Any

import pytest
import typer

from expertmesh.cli import app
from expertmesh.cluster.service_flags import CONFIGS
from expertmesh.commands.serve import MODULES
from rpc.process.flags import flags_of
from tests.support.documents import commands, pages, paragraphs, spans
from tests.support.places import ROOT

PAGES = pages()
FLAG = re.compile(r"--[a-z][a-z0-9-]*")
SCRIPT = re.compile(r"(?:bench|demo_model)[/.]\w+(?:[/.]\w+)*")
FOREIGN = {
    "--inplace",  # setuptools
    "--local-dir",  # Hugging Face's command
    "--help",
    "--scale",  # docker-compose
    "--lf", "--ff",  # pytest
}  # fmt: skip
"""Flags in prose that are another program's."""


@cache
def root() -> Any:
    return typer.main.get_command(app)


def flags_of_command(command: Any) -> set[str]:
    return {flag for one in command.params for flag in (*one.opts, *one.secondary_opts)}


@cache
def flags_of_service(name: str) -> set[str]:
    options = {one.option for one in flags_of(CONFIGS[MODULES[name][0]])}
    return options | {"--no-" + option.removeprefix("--") for option in options}


@cache
def flags_of_scripts(folder: str) -> set[str]:
    """Of the benches and trainers of a folder."""
    texts = (path.read_text(encoding="utf-8") for path in (ROOT / folder).glob("*.py"))
    return {flag for text in texts for flag in re.findall(r'"(--[a-z][a-z0-9-]*)"', text)}


@cache
def every_flag() -> set[str]:
    found = {"--version"}
    pending = [root()]
    while pending:
        one = pending.pop()
        found |= flags_of_command(one)
        pending += getattr(one, "commands", {}).values()
    for name in MODULES:
        found |= flags_of_service(name)
    for folder in (
        "bench/agent",
        "bench/engine",
        "bench/faults",
        "bench/kernels",
        "bench/mesh",
        "demo_model",
    ):
        found |= flags_of_scripts(folder)
    return found


def problem_of(words: list[str]) -> str | None:
    """What is wrong with an `expertmesh` command line, given what follows the program's name."""
    command, path = root(), []
    while words and hasattr(command, "commands") and re.fullmatch(r"[a-z][a-z-]*", words[0]):
        path.append(words.pop(0))
        command = command.commands.get(path[-1])
        if command is None:
            return f"there is no `expertmesh {' '.join(path)}`"
    known = flags_of_command(command) | {"--help"}
    if path[:1] == ["serve"]:
        known |= flags_of_service(path[1]) if path[1:] else every_flag()
    unknown = set(FLAG.findall(" ".join(words))) - known
    return f"`expertmesh {' '.join(path)}` has no {sorted(unknown)}" if unknown else None


@pytest.mark.parametrize("page", PAGES)
def test_command_lines_are_ones_that_exist(page: str) -> None:
    problems = []
    for command in commands(page):
        found = re.search(r"(?:^|[\s/])(?:expertmesh|run --rm cli) (?!import)([^|;&)]+)", command)
        if found:
            problems.append(problem_of(found[1].split()))
        elif script := SCRIPT.search(command):
            name = script[0].removesuffix(".py").replace(".", "/")
            known = flags_of_scripts(name.rpartition("/")[0]) | FOREIGN
            unknown = set(FLAG.findall(command)) - known
            problems.append(f"{command}: no {sorted(unknown)}" if unknown else None)
    assert [one for one in problems if one] == []


@pytest.mark.parametrize(
    ("command", "is_right"),
    [
        ("up --replicas 2 --attention 2", True),
        ("up --no-follow-load", True),
        ("up --replicated 2", False),
        ("serve expert --layers 0-30 --tls-ca ca.pem", True),
        ("serve gateway --layers 0-30", False),
        ("serve pool --layers 0-30", False),
        ("model verify FOLDER --write-manifest", True),
        ("model check FOLDER", False),
        ("model quantise A B --linear-format int8", True),
        ("pool drain west --cert cli.pem", False),
    ],
)
def test_a_command_line_is_judged_by_its_own_commands_flags(command: str, is_right: bool) -> None:
    assert (problem_of(command.split()) is None) is is_right


@pytest.mark.parametrize("page", PAGES)
def test_flags_in_the_text_exist(page: str) -> None:
    for paragraph in paragraphs(page):
        for span in spans(paragraph):
            if span.startswith("--"):
                known = every_flag() | FOREIGN
                for flag in FLAG.findall(span):
                    several = f"{flag}*" in span and any(one.startswith(flag) for one in known)
                    assert several or flag in known, span


def test_the_table_of_commands_is_the_commands() -> None:
    """After `expertmesh model info` a lone `verify` is of the same group."""
    table = (ROOT / "README.md").read_text(encoding="utf-8").partition("## Commands\n")[2]
    told = set()
    for row in re.findall(r"^\| `expertmesh .*", table.partition("\n## ")[0], re.MULTILINE):
        group: list[str] = []
        for span in spans(row.split("|")[1]):
            words = [word for word in span.split() if word.islower() and word != "expertmesh"]
            group = words[:-1] if len(words) > 1 else group
            told.add(" ".join([*group, words[-1]]))
    there = set()
    for name, command in root().commands.items():
        inner = [] if name == "serve" else getattr(command, "commands", [])  # SERVICE says it
        there |= {f"{name} {one}" for one in inner}
        if not command.hidden and (not inner or command.invoke_without_command):
            there.add(name)
    assert told == there


@pytest.mark.parametrize("page", PAGES)
def test_make_targets_exist(page: str) -> None:
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    targets = set(re.findall(r"^([a-z-]+):", makefile, re.MULTILINE))
    named = [one for command in commands(page) for one in re.findall(r"^make ([a-z-]+)", command)]
    assert set(named) <= targets
