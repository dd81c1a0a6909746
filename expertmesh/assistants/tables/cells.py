"""How is a cell shown, to a model or on a terminal? Short, on one line, with nothing hidden."""

CELL_CHARS = 60
NAME_CHARS = 80


def shown_cell(text: str, most_chars: int = CELL_CHARS) -> str:
    """Control characters and invisible ones become their escapes; a long cell is cut, and says so.

    Whoever fills in a form may have written what a model takes for an instruction or a terminal
    for a command: it stays readable, and short.
    """
    left_out = len(text) - most_chars
    kept = text[:most_chars] if left_out > 0 else text
    if not kept.isprintable():
        kept = "".join(
            one if one.isprintable() else one.encode("unicode_escape").decode() for one in kept
        )
    return f"{kept}... ({left_out:,} more characters)" if left_out > 0 else kept


def quoted(text: str, most_chars: int = CELL_CHARS) -> str:
    """In quotes, so that it cannot seem to end earlier."""
    shown = shown_cell(text, most_chars).replace("\\", "\\\\").replace('"', '\\"')
    return f'"{shown}"'
