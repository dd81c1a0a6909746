"""What do assistants tell a model? One text for each purpose and language."""

from importlib.resources import files

from expertmesh.agent.prompts import language_of

__all__ = ["LANGUAGES", "language_of", "prompt"]

LANGUAGES = ("en", "zh")


def prompt(name: str, language: str, **values: object) -> str:
    """The text NAME.LANGUAGE.txt with each {value} in it replaced; other braces stay."""
    text = files(__name__).joinpath(f"{name}.{language}.txt").read_text(encoding="utf-8").strip()
    parts = text.split("{")
    filled = [parts[0]]
    for part in parts[1:]:
        key, ends, rest = part.partition("}")
        is_value = bool(ends) and key in values
        filled.append(f"{values[key]}{rest}" if is_value else "{" + part)
    return "".join(filled)
