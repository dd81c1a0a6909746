"""How is an analysis told to people? `report.md`, in the goal's language, and JSON for scripts."""

import re
from collections.abc import Iterable, Mapping
from typing import Any
from urllib.parse import quote

from expertmesh.assistants.data.analyse import Analysis, first_line
from expertmesh.assistants.data.claims import with_marks
from expertmesh.assistants.prompts import prompt
from expertmesh.assistants.tables.cells import shown_cell
from expertmesh.assistants.tables.describe import describe, size_text
from expertmesh.assistants.tables.profile import Profile

_MARK = {"en": "not in the output", "zh": "\u8f93\u51fa\u4e2d\u6ca1\u6709"}
_NONE = {"en": "none", "zh": "\u65e0"}


def report(
    done: Analysis,
    profile: Profile,
    *,
    places: Mapping[str, str],
    model: str,
    sandbox: str,
    when: str,
) -> str:
    """`places`: where each file that the script made is, relative to the report."""
    pictures = [one for one in done.produced if one.is_picture]
    files = [f"- {_link(places[one.path])}: {size_text(one.size_bytes)}" for one in done.produced]
    if done.more_files:
        files.append(f"- ... {done.more_files:,}")
    installed = ", ".join(f"{name} {version}" for name, version in done.installed.items())
    return prompt(
        "report",
        done.language,
        title=_plain(first_line(done.goal)),
        goal=_quotation(done.goal),
        profile=_fenced(describe(profile, done.language)),
        conclusion=_conclusion(done),
        checked=_checked(done),
        output=_fenced(done.output.rstrip("\n")),
        clipped=prompt("report_clipped", done.language) if done.output_is_clipped else "",
        pictures=_lines(
            (f"![{_plain(one.path)}]({quote(places[one.path])})\n" for one in pictures), done
        ),
        files=_lines(files, done),
        script=_fenced(done.script.rstrip("\n"), "python"),
        tries=str(len(done.tries)),
        faults=_lines(
            (f"{one.number}. {_plain(str(one.fault or 'ok'))}" for one in done.tries), done
        ),
        seconds=f"{done.seconds:.1f}",
        model=_plain(model),
        sandbox=sandbox,
        installed=installed,
        when=when,
    )


def conclusion_text(done: Analysis) -> str:
    """With a mark after each number that was not printed."""
    return with_marks(done.conclusion, done.unfounded, _MARK[done.language])


def as_json(
    done: Analysis, profile: Profile, *, places: Mapping[str, str], report_path: str | None
) -> dict[str, Any]:
    """For scripts."""
    return {
        "goal": done.goal,
        "succeeded": done.succeeded,
        "conclusion": done.conclusion or None,
        "numbers_not_in_output": [one.text for one in done.unfounded],
        "output": done.output,
        "report": report_path,
        "files": [
            {"path": places[one.path], "size_bytes": one.size_bytes, "is_picture": one.is_picture}
            for one in done.produced
        ],
        "tries": [
            {"number": one.number, "fault": None if one.fault is None else str(one.fault)}
            for one in done.tries
        ],
        "seconds": round(done.seconds, 3),
        "completion_tokens": done.completion_tokens,
        "installed": dict(done.installed),
        "profile": profile.as_json(),
    }


def _conclusion(done: Analysis) -> str:
    if not done.conclusion:
        return prompt("report_no_conclusion", done.language, why=_plain(done.no_conclusion))
    return _quotation(conclusion_text(done))


def _checked(done: Analysis) -> str:
    if not done.conclusion:
        return ""
    name = "report_unfounded" if done.unfounded else "report_founded"
    numbers = ", ".join(one.text for one in done.unfounded)
    return prompt(name, done.language, numbers=numbers)


def _lines(lines: Iterable[str], done: Analysis) -> str:
    return "\n".join(lines) or _NONE[done.language]


def _fenced(text: str, language: str = "text") -> str:
    """In a fence longer than any in the text."""
    longest = max((len(one) for one in re.findall(r"`{3,}", text)), default=2)
    fence = "`" * (longest + 1)
    return f"{fence}{language}\n{text}\n{fence}"


def _quotation(text: str) -> str:
    """What others wrote cannot be taken for a part of the report."""
    return "\n".join(f"> {line}".rstrip() for line in text.strip().splitlines())


def _plain(text: str) -> str:
    """As a part of a line: nothing in it is Markdown or HTML."""
    return re.sub(r"([\\`*_\[\]<>#|!&])", r"\\\1", shown_cell(text, 400))


def _link(place: str) -> str:
    return f"[{_plain(place)}]({quote(place)})"
