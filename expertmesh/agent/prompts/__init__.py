"""What is the model told before the task? In the language of the task."""

import re
from importlib.resources import files
from pathlib import Path

_HAN = re.compile(r"[\u4e00-\u9fff\u3400-\u4dbf]")
_WORD = re.compile(r"[A-Za-z]+")


def language_of(task: str) -> str:
    """ "zh" if it has at least as many Chinese characters as words in Latin letters, else "en"."""
    chinese = len(_HAN.findall(task))
    return "zh" if chinese and chinese >= len(_WORD.findall(task)) else "en"


def system_prompt(task: str, work_dir: Path) -> str:
    text = files(__name__).joinpath(f"system.{language_of(task)}.txt").read_text(encoding="utf-8")
    return text.strip().replace("{folder}", str(work_dir))
