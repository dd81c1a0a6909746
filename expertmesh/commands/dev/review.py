"""`expertmesh dev review`: findings about files or about a change, for people and for CI."""

import sys
from pathlib import Path

import typer

from expertmesh.assistants.asking.model import TextModel
from expertmesh.assistants.prompts import language_of
from expertmesh.assistants.reviewing.findings import Review, Severity
from expertmesh.assistants.reviewing.git_diff import git_diff
from expertmesh.assistants.reviewing.passages import Passage, of_diff, of_text, read_text
from expertmesh.assistants.reviewing.review import Reviewer, language_of_code
from expertmesh.assistants.view import View
from expertmesh.clients.live_lines import shown
from expertmesh.commands.assisting import EXIT_NOT_HELD, run_assistant
from expertmesh.commands.model_flags import Asked, asks_model
from expertmesh.console import (
    EXIT_FAILED,
    EXIT_USAGE,
    JSON,
    CommandError,
    command_errors,
    help_text,
    print_json,
    stderr,
    stdout,
)

_HELP = """Review files, or what a change adds, with the model.

Findings go to standard output, one below the other, by file and line; each names a line that
exists, in a change one that it adds. What the model reports elsewhere is left out and counted.
Long files are reviewed in pieces. Nothing is run, and nothing is changed.

With --diff the argument is a revision as `git diff` understands it, by default HEAD (files that
git does not know yet are no part of it), or - for a diff from a pipe.

Examples:

  expertmesh dev review shapes.py

  expertmesh dev review --diff

  expertmesh dev review --diff main...HEAD --fail-on error --github

  git diff --cached | expertmesh dev review --diff - --focus "Is it safe with several threads?"

Exit codes: 0 reviewed; 1 failed, or a part was not reviewed; 2 usage; 3 not running; 5 findings
that --fail-on asks about; 130 interrupted.
"""


def register(group: typer.Typer) -> None:
    group.command("review", help=help_text(_HELP))(review)


@asks_model
def review(
    asked: Asked,
    what: list[str] | None = typer.Argument(
        None, metavar="FILE", help="Files; with --diff a revision, or - for a diff from a pipe."
    ),
    diff: bool = typer.Option(
        False, "--diff", envvar="EXPERTMESH_DIFF", help="Review what has changed."
    ),
    focus: str | None = typer.Option(
        None, envvar="EXPERTMESH_FOCUS", help="What to look for above all, in your words."
    ),
    fail_on: Severity | None = typer.Option(
        None, envvar="EXPERTMESH_FAIL_ON", help="Exit with 5 if a finding is at least as severe."
    ),
    github: bool = typer.Option(
        False, envvar="EXPERTMESH_GITHUB", help="Print annotations for a workflow on GitHub."
    ),
    as_json: bool = JSON,
) -> None:
    if github and as_json:
        raise CommandError("--github, --json: give one of them", EXIT_USAGE)
    with command_errors(EXIT_USAGE):
        passages = _passages(what or [], diff)
    if not any(one.rows for one in passages):
        stderr().print(f"nothing to review: {'no line was added' if diff else 'no lines'}")
        _tell(Review(), as_json, github)
        return
    texts = [row.text for one in passages for row in one.rows]
    language = language_of(focus) if focus else language_of_code(texts)

    async def work(model: TextModel, view: View) -> int:
        reviewer = Reviewer(model, watching=view, language=language, focus=focus)
        found = await reviewer.review(passages)
        view.close()
        _tell(found, as_json, github)
        if found.failures:
            return EXIT_FAILED
        return EXIT_NOT_HELD if fail_on is not None and found.reaches(fail_on) else 0

    raise typer.Exit(run_assistant(asked, work))


def _passages(what: list[str], diff: bool) -> list[Passage]:
    """Raises ValueError and OSError."""
    if not diff:
        if not what:
            raise ValueError("nothing to review: give a file, or --diff")
        return [of_text(read_text(Path(one)), one) for one in dict.fromkeys(what)]
    if len(what) > 1:
        raise ValueError(f"--diff takes one revision, got {len(what)}")
    if what == ["-"]:
        return of_diff(sys.stdin.read())
    return of_diff(git_diff(what[0] if what else "HEAD"))


def _tell(review: Review, as_json: bool, github: bool) -> None:
    notes, out = stderr(), stdout()
    if as_json:
        print_json(review.as_json())
    for one in [] if as_json else review.findings:
        text = one.annotation() if github else one.text()
        out.print(shown(text, out), markup=False, soft_wrap=True)
    for line in review.notes():
        notes.print(shown(line, notes), style="yellow", markup=False, soft_wrap=True)
    if review.files:
        line = f"{review.summary()}; {review.completion_tokens} tokens"
        notes.print(shown(line, notes), style="dim", markup=False, soft_wrap=True)
