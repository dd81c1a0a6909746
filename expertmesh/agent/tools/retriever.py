"""Find passages in the texts of a folder that the user named."""

import asyncio
from pathlib import Path
from typing import Any

from expertmesh.agent.retrieval.index import Found, TextIndex, UnusableIndexError
from expertmesh.agent.tools.tool import Effect, Result, Source, Status, search_schema
from expertmesh.agent.web.marking import visible

USUAL_PASSAGES = 5
MAX_PASSAGES = 10
TIME_S = 300.0
"""The first call reads the whole folder."""
_MAX_BYTES = 7 << 10
"""So that the passages fit into MAX_BYTES of clip.py."""


class Retriever:
    """Brings the index up to date at each call, and asks it."""

    name = "retriever"
    parameters = search_schema("passages", usual=USUAL_PASSAGES, most=MAX_PASSAGES)
    effect = Effect.READS

    def __init__(self, root: Path, database: Path, time_s: float = TIME_S):
        self._root = root
        self._database = database
        self._time_s = time_s

    @property
    def description(self) -> str:
        return (
            f"Search the documents in {self._root} by words. Gives passages with their files and "
            "lines. Use words that the text may have, not a question."
        )

    async def call(self, arguments: dict[str, Any]) -> Result:
        query, limit = arguments["query"], int(arguments.get("limit", USUAL_PASSAGES))
        index = TextIndex(self._root, self._database)
        try:
            async with asyncio.timeout(self._time_s):
                return await asyncio.to_thread(_answer, index, query, limit)
        except TimeoutError:
            return Result(Status.TIMED_OUT, "the documents could not be read in time; ask again")
        except (UnusableIndexError, OSError) as error:
            return Result(Status.FAILED, str(error))
        finally:
            index.stop()  # a thread cannot be cancelled


def _answer(index: TextIndex, query: str, limit: int) -> Result:
    held = index.update()
    found = index.search(query, limit)
    if not found:
        left_out = f"; {held.left_out} more are no text or too large" if held.left_out else ""
        return Result(
            Status.OK,
            f"None of {held.num_files} documents has any of these words{left_out}. Try others.",
        )
    shown: list[str] = []
    sources = []
    size_bytes = 0
    for passage in found:
        entry = _entry(passage)
        size_bytes += len(entry.encode("utf-8", "replace")) + 2
        if shown and size_bytes > _MAX_BYTES:
            break
        shown.append(entry)
        sources.append(Source.of(passage.place, passage.text))
    return Result(Status.OK, "\n\n".join(shown), tuple(sources))


def _entry(passage: Found) -> str:
    return f"{visible(passage.place)}\n{visible(passage.text).strip()}"
