"""What is the model told before the task? In the language of the task."""

import re
from collections.abc import Container
from importlib.resources import files
from pathlib import Path

_HAN = re.compile(r"[\u4e00-\u9fff\u3400-\u4dbf]")
_OF_TOOL = re.compile(r"\[(\w+)\]")
"""Before a line that is about one tool."""
_WORD = re.compile(r"[A-Za-z]+")


def language_of(task: str) -> str:
    """ "zh" if it has at least as many Chinese characters as words in Latin letters, else "en"."""
    chinese = len(_HAN.findall(task))
    return "zh" if chinese and chinese >= len(_WORD.findall(task)) else "en"


def system_prompt(
    task: str, work_dir: Path, tools: Container[str], language: str | None = None
) -> str:
    """With the lines about the tools that there are; `language` instead of the task's."""
    text = (
        files(__name__)
        .joinpath(f"system.{language or language_of(task)}.txt")
        .read_text(encoding="utf-8")
    )
    kept = []
    for line in text.strip().splitlines():
        of_tool = _OF_TOOL.match(line)
        if of_tool is None or of_tool[1] in tools:
            kept.append(line[of_tool.end() :] if of_tool else line)
    return "\n".join(kept).replace("{folder}", str(work_dir))
