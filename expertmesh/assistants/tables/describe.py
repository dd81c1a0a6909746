"""How is a profile put into words? Short for a model and a terminal, in English or Chinese."""

from collections.abc import Iterator, Mapping
from functools import cache
from importlib.resources import files

from expertmesh.assistants.tables.cells import quoted
from expertmesh.assistants.tables.columns import Column
from expertmesh.assistants.tables.kinds import Kind
from expertmesh.assistants.tables.profile import Profile

MOST_CHARS = 6_000

_LONG_CHARS = 60
_NUMBERED = frozenset((Kind.INTEGER, Kind.DECIMAL))


def describe(profile: Profile, language: str = "en", most_chars: int = MOST_CHARS) -> str:
    """Several lines, of at most about `most_chars` characters; columns beyond are counted."""
    head = [summary(profile, language)]
    notes = [_say(language, "Note: {note}", note=note) for note in profile.facts.notes[:10]]
    rows = [" | ".join(map(quoted, row)) for row in profile.first_rows if row]
    rows = [one[: most_chars // 6] for one in rows]
    tail = [_say(language, "First rows:"), *rows] if rows else []
    room = most_chars - sum(len(line) + 1 for line in (*head, *notes, *tail))
    lines, described = [_say(language, "Columns:")], 0
    for column in profile.columns:
        line = f"- {quoted(column.name)}: {'; '.join(details(column, language))}"
        if len(line) > room and described:
            break
        lines.append(line)
        room -= len(line) + 1
        described += 1
    more = len(profile.columns) - described + profile.facts.more_columns
    if more:
        lines.append(_say(language, "and {more} more columns, not described", more=f"{more:,}"))
    return "\n".join([*head, *notes, *lines, *tail])


def summary(profile: Profile, language: str = "en") -> str:
    """The file in one line."""
    facts, rows = profile.facts, f"{profile.num_rows:,}"
    parts = [
        _say(
            language,
            "{format}, {rows} rows, {columns} columns, {size}",
            format=facts.format,
            rows=_say(language, "about {rows}", rows=rows)
            if profile.num_rows_is_estimate
            else rows,
            columns=f"{len(profile.columns) + facts.more_columns:,}",
            size=size_text(profile.size_bytes),
        )
    ]
    if facts.encoding is not None:
        parts.append(_say(language, "encoding {encoding}", encoding=facts.encoding))
    if facts.delimiter is not None:
        shown = {"\t": '"\\t"'}.get(facts.delimiter, f'"{facts.delimiter}"')
        parts.append(_say(language, "delimiter {delimiter}", delimiter=shown))
    if not facts.has_header:
        parts.append(_say(language, "no header row"))
    parts[0] = _say(language, "{name}: {parts}", name=quoted(profile.name), parts=parts[0])
    return ", ".join(parts)


def details(column: Column, language: str = "en") -> list[str]:
    """What there is to say of a column, the kind first."""
    return [one for one in _details(column, language) if one]


def _details(column: Column, language: str) -> Iterator[str]:
    yield _say(language, column.kind.value)
    if column.kind is Kind.EMPTY:
        return
    if column.missing:
        yield _say(language, "{missing} missing", missing=f"{column.missing:,}")
    distinct = (
        "more than {distinct} different" if column.distinct_is_least else "{distinct} different"
    )
    yield _say(language, distinct, distinct=f"{column.distinct:,}")
    if column.least is not None:
        ends = {"least": column.least, "greatest": column.greatest}
        yield _say(language, "from {least} to {greatest}", **ends)
    if column.mean is not None:
        yield _say(language, "mean {mean}", mean=f"{column.mean:.6g}")
    if column.quartiles is not None and column.distinct > 2:
        about = (
            "quartiles about {quartiles}"
            if column.quartiles_are_sampled
            else "quartiles {quartiles}"
        )
        numbers = ", ".join(f"{one:.6g}" for one in column.quartiles)
        yield _say(language, about, quartiles=numbers)
    if column.longest_chars > _LONG_CHARS:
        yield _say(language, "up to {longest} characters", longest=f"{column.longest_chars:,}")
    if column.common and column.kind not in _NUMBERED:
        common = ", ".join(f"{quoted(text)} ({count:,})" for text, count in column.common)
        yield _say(language, "most common {common}", common=common)
    elif column.examples:
        yield _say(language, "such as {examples}", examples=", ".join(map(quoted, column.examples)))
    if column.exceptions:
        yield _say(
            language,
            "{exceptions} cells of another kind, such as {examples}",
            exceptions=f"{column.exceptions:,}",
            examples=", ".join(map(quoted, column.exception_examples)),
        )
    elif column.mixture:
        kinds = ", ".join(f"{_say(language, kind.value)} ({n:,})" for kind, n in column.mixture)
        yield _say(language, "holding {mixture}", mixture=kinds)


def size_text(size_bytes: int) -> str:
    """For people: 512 bytes, 1.2 MB."""
    size = float(size_bytes)
    for unit in ("bytes", "kB", "MB"):
        if size < 1000:
            return f"{size:.0f} {unit}" if unit == "bytes" else f"{size:.1f} {unit}"
        size /= 1000
    return f"{size:.1f} GB"


def _say(language: str, text: str, **values: object) -> str:
    return (_chinese()[text] if language == "zh" else text).format(**values)


@cache
def _chinese() -> Mapping[str, str]:
    text = files("expertmesh.assistants.tables").joinpath("words.zh.txt").read_text("utf-8")
    pairs = (line.partition(" = ") for line in text.splitlines())
    return {english: chinese for english, _, chinese in pairs}
