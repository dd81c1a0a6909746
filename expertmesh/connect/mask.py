"""What of a file may be shown? All but keys, ours and those of other services."""

import difflib
import re

HIDDEN = "***"

_SECRET = re.compile(
    r"""((?:key|token|secret|password|credentials?|authorization)["']?\s*[:=]\s*)"""
    r"""("(?:[^"\\\n]|\\.)*"|'[^'\n]*'|[^\s,#\[{]+)""",
    re.IGNORECASE,
)
_PLAIN = re.compile(
    r"none|null|true|false|[-\d._]*|\$\w+|\{env:\w+\}|printenv \w+|[A-Z][A-Z0-9_]*_(KEY|TOKEN)"
)
_KNOWN = re.compile(r"\b(?:sk|pk|ghp|gho|github_pat|xox[abp]|AKIA|AIza|hf|gsk|glpat)[-_\w]{12,}")
_LOGIN = re.compile(r"(://)[^/\s\"'@]+@")


def masked(text: str, secret: str | None = None) -> str:
    """The text with *** for values that look like keys, and for this one wherever it stands."""

    def value(found: re.Match[str]) -> str:
        quote = found[2][0] if found[2][0] in "\"'" else ""
        inner = found[2][1:-1] if quote else found[2]
        return found[0] if _PLAIN.fullmatch(inner) else f"{found[1]}{quote}{HIDDEN}{quote}"

    text = _KNOWN.sub(HIDDEN, _SECRET.sub(value, without(text, secret)))
    return _LOGIN.sub(rf"\1{HIDDEN}@", text)


def without(text: str, secret: str | None) -> str:
    """The text with *** in place of this value."""
    return text.replace(secret, HIDDEN) if secret else text


def diff(path: str, old: str | None, new: str | None, secret: str | None = None) -> str:
    """What changes, as a unified diff with such values hidden; "" for nothing."""
    if old == new:
        return ""
    before, after = (masked(text or "", secret).splitlines() for text in (old, new))
    lines = difflib.unified_diff(
        before,
        after,
        path if old is not None else "/dev/null",
        path if new is not None else "/dev/null",
        n=1,
        lineterm="",
    )
    return "".join(f"{line}\n" for line in lines) or f"{path}: only keys change\n"
