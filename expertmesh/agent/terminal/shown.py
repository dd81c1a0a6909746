"""How is a call shown to people? In one line, and in full where they are asked about it."""

from typing import Any

BRIEF_CHARS = 100
_MAIN = ("command", "code", "file_path", "query", "url", "pattern", "files")
"""Arguments that say most; the first that a call has stands alone."""
_MOST_LINES = 60


def brief(arguments: dict[str, Any], most_chars: int = BRIEF_CHARS) -> str:
    """One line for a call."""
    action = str(arguments.get("action", ""))
    name = next((one for one in _MAIN if arguments.get(one)), None)
    if name is not None:
        text = f"{action} {arguments[name]}".strip()
    elif "steps" in arguments:
        text = f"{len(arguments['steps'])} steps"
    else:
        text = ", ".join(f"{key}={value}" for key, value in arguments.items())
    return one_line(text, most_chars)


def one_line(text: str, most_chars: int = BRIEF_CHARS) -> str:
    lines = [line.strip() for line in text.strip().splitlines() if line.strip()]
    line = lines[0] if lines else ""
    more = len(line) > most_chars or len(lines) > 1
    return line[:most_chars] + ("..." if more else "")


def in_full(arguments: dict[str, Any]) -> str:
    """Every argument, with nothing that could hide or reorder what stands there."""
    parts = []
    for key, value in arguments.items():
        text = value if isinstance(value, str) else repr(value)
        lines = [_visible(line) for line in text.split("\n")]
        if len(lines) > _MOST_LINES:
            left_out = len(lines) - _MOST_LINES
            lines[_MOST_LINES // 2 : -_MOST_LINES // 2] = [f"... {left_out} more lines ..."]
        block = "\n".join(f"    {line}" for line in lines)
        parts.append(f"  {_visible(key)}: {lines[0]}" if len(lines) == 1 else f"  {key}:\n{block}")
    return "\n".join(parts)


def _visible(text: str) -> str:
    """Control characters, and those that change the direction of writing, as their escapes."""
    return "".join(
        one if one.isprintable() or one == "\t" else one.encode("unicode_escape").decode()
        for one in text
    )
