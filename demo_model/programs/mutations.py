"""In which ways can one line of a program be wrong?

Each way has a kind, a pattern and what is put in its place, once for each place where it fits.
Which of the wrong programs behave differently is the catalogue's question.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass

KINDS = (
    "operator", "comparison", "off_by_one", "initial_value", "missing_return", "wrong_return",
    "condition", "index", "wrong_call", "indentation", "name", "syntax", "operand_order",
)  # fmt: skip

SWAPS: tuple[tuple[str, str, str], ...] = (
    ("operator", r" \+ ", " - "), ("operator", r" - ", " + "), ("operator", r" \* ", " + "),
    ("operator", r" // ", " % "), ("operator", r" % ", " // "), ("operator", r" \+= ", " -= "),
    ("operator", r" -= ", " += "), ("operator", r" \*= ", " += "), ("operator", r" / ", " * "),
    ("operator", r" \+= ", " = "),
    ("comparison", r" < ", " <= "), ("comparison", r" < ", " > "), ("comparison", r" <= ", " < "),
    ("comparison", r" > ", " >= "), ("comparison", r" > ", " < "), ("comparison", r" >= ", " > "),
    ("comparison", r" == ", " != "), ("comparison", r" != ", " == "),
    ("comparison", r" not in ", " in "), ("comparison", r"(if \S+) in ", r"\1 not in "),
    ("off_by_one", r"range\((\$\w+)\)", r"range(\1 - 1)"),
    ("off_by_one", r"range\((\$\w+)\)", r"range(1, \1)"),
    ("off_by_one", r"range\((len\([^)]*\))\)", r"range(\1 - 1)"),
    ("off_by_one", r"range\(len\(([^)]*)\)\)", r"range(1, len(\1))"),
    ("off_by_one", r"range\(1, ", "range(2, "), ("off_by_one", r"range\(2, ", "range(1, "),
    ("off_by_one", r" \+ 1\)", ")"), ("off_by_one", r" - 1\)", ")"),
    ("off_by_one", r" - 2\)", " - 1)"),
    ("off_by_one", r"\[1:\]", "[2:]"), ("off_by_one", r"\[1:\]", "[:]"),
    ("off_by_one", r"(len\([^)]*\)) - 1$", r"\1"), ("off_by_one", r" \+ 3\]", " + 2]"),
    ("off_by_one", r"\[:(\$\w+)\]", r"[:\1 - 1]"), ("off_by_one", r" \+ 1$", ""),
    ("off_by_one", r" - 1$", ""),
    ("initial_value", r"^( *\$\w+) = 0$", r"\1 = 1"),
    ("initial_value", r"^( *\$\w+) = 1$", r"\1 = 0"),
    ("initial_value", r"^( *\$\w+) = \$xs\[0\]$", r"\1 = 0"),
    ("initial_value", r" = 0, 1$", " = 1, 1"), ("initial_value", r' = ""$', ' = " "'),
    ("missing_return", r"return (.*)$", r"\1"),
    ("wrong_return", r"return True$", "return False"),
    ("wrong_return", r"return False$", "return True"),
    ("wrong_return", r"return (\$r)$", "return None"), ("wrong_return", r"return 0$", "return 1"),
    ("wrong_return", r"return -1$", "return 0"), ("wrong_return", r"return None$", "return 0"),
    ("wrong_return", r"return (\$lo)$", "return $hi"),
    ("wrong_return", r"return (\$hi)$", "return $lo"),
    ("wrong_return", r"return (\$x)$", "return $n"), ("wrong_return", r"return 1$", "return 0"),
    ("wrong_return", r"return (\$i)$", "return $i + 1"),
    ("condition", r" and ", " or "), ("condition", r" or ", " and "),
    ("condition", r"if not ", "if "), ("condition", r"if (\$\w+) and ", r"if not \1 and "),
    ("index", r"\[0\]", "[1]"), ("index", r"\[0\]", "[-1]"), ("index", r"\[-1\]", "[0]"),
    ("index", r"\[1\]", "[0]"), ("index", r"\[-2\]", "[-1]"), ("index", r"\[-2\]", "[1]"),
    ("index", r"\[(\$[ij]) - 1\]", r"[\1]"), ("index", r"\[(\$[ij]) \+ 1\]", r"[\1]"),
    ("index", r"\[(\$[ij])\]$", r"[\1 - 1]"),
    ("wrong_call", r"\bmin\(", "max("), ("wrong_call", r"\bmax\(", "min("),
    ("wrong_call", r"\.lower\(\)", ".upper()"), ("wrong_call", r"\.upper\(\)", ".lower()"),
    ("wrong_call", r"\bsum\(", "len("), ("wrong_call", r"\bsorted\(", "list("),
    ("wrong_call", r"\babs\(", "int("), ("wrong_call", r"\.capitalize\(\)", ".upper()"),
    ("wrong_call", r"\.append\((\$x)\)", r".insert(0, \1)"),
    ("wrong_call", r"\.insert\(0, ", ".append("),
    ("wrong_call", r"\.strip\(\)", ".upper()"), ("wrong_call", r", reverse=True", ""),
    ("wrong_call", r"\bstr\((\$\w+)\)", r"\1"), ("wrong_call", r"\.split\(\)", ""),
    ("wrong_call", r"\.items\(\)", ""), ("wrong_call", r"\bdict\(", "list("),
    ("name", r"return (\$\w+)$", r"return \g<1>2"), ("name", r"\blen\(", "length("),
    ("name", r"\.append\(", ".add("), ("name", r"\bsum\(", "add("),
    ("name", r"\.lower\(", ".lowercase("),
    ("name", r"\bTrue\b", "true"), ("name", r"\bsorted\(", "sort("),
    ("syntax", r":$", ""), ("syntax", r"\)$", ""),
    ("syntax", r"(if|elif|while) (.*) == (.*):$", r"\1 \2 = \3:"),
    ("operand_order", r"(\$\w+) - (\$\w+)$", r"\2 - \1"),
    ("operand_order", r"(\$\w+) // (\$\w+)", r"\2 // \1"),
    ("operand_order", r"replace\((.*), (.*)\)", r"replace(\2, \1)"),
    ("operand_order", r" = (\$\w+), (\$\w+) % ", r" = \2, \1 % "),
    ("operand_order", r"max\(\$xs\) - min\(\$xs\)", "min($xs) - max($xs)"),
)  # fmt: skip


@dataclass(frozen=True, order=True)
class Mutation:
    """`wrong` in place of `right` on the line with this index (from 0)."""

    line: int
    kind: str
    right: str
    wrong: str


def of_lines(lines: tuple[str, ...]) -> Iterator[Mutation]:
    """Every way in which one line of a template can be wrong."""
    for index, line in enumerate(lines):
        if index == 0:
            if line.endswith(":"):
                yield Mutation(0, "syntax", line, line[:-1])
            continue
        seen = {line}
        for kind, pattern, replacement in SWAPS:
            for place in re.finditer(pattern, line):
                wrong = line[: place.start()] + place.expand(replacement) + line[place.end() :]
                if wrong not in seen:
                    seen.add(wrong)
                    yield Mutation(index, kind, line, wrong)
        if index == len(lines) - 1 and line.startswith("    return") and _deeper(lines[index - 1]):
            yield Mutation(
                index, "indentation", line, " " * _deeper(lines[index - 1]) + line.strip()
            )


def _deeper(line: str) -> int:
    """Indentation of a line inside a loop or condition, else 0."""
    width = len(line) - len(line.lstrip())
    return width if width > 4 else 0
