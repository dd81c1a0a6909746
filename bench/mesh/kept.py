"""What does it cost to keep answers? The end of an answer, and what comes before the next one.

In a SQLite file with 10,000 responses, in chains of 50:

1. `put`: the milliseconds in which one more answer is kept, which its end waits for.
2. `chain`: the milliseconds from a `previous_response_id` 50 answers deep to rendered text: found,
   parsed, made messages, and rendered, all beside tokenising.

The last line on standard output is JSON.

    .venv/bin/python bench/mesh/kept.py [--responses 10000] [--rounds 500] [--folder DIR]
"""

import argparse
import asyncio
import json
import os
import random
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))


from gateway.responses.earlier import Earlier
from gateway.responses.history import ItemReader
from gateway.store.response_store import Entry, Kind
from gateway.store.sql_store import SqlStore, StoreLimits
from gateway.store.sqlite import SqliteDatabase
from gateway.store.thread_rows import Bounds
from gateway.text.model_files import load_model_files
from moe_model.chat.lossless_json import loads
from moe_model.chat.messages import normalise_messages

MODEL = Path(__file__).resolve().parents[2] / "demo_model" / "model"
DEPTH = 50
WORDS = [
    "the",
    "of",
    "a",
    "file",
    "path",
    "command",
    "run",
    "test",
    "error",
    "line",
    "number",
    "string",
    "value",
    "list",
    "user",
    "project",
]
GIB = 2**30


def prose(num_chars: int, rng: random.Random) -> str:
    text = ""
    while len(text) < num_chars:
        text += rng.choice(WORDS) + " "
    return text[:num_chars]


def response(number: int, rng: random.Random) -> Entry:
    """One turn of a chat: 300 characters asked, 600 thought, 900 answered."""
    said = {"type": "input_text", "text": prose(300, rng)}
    thought = {"type": "reasoning_text", "text": prose(600, rng)}
    answer = {"type": "output_text", "text": prose(900, rng), "annotations": [], "logprobs": []}
    return Entry(
        id=f"resp_{number:048x}",
        kind=Kind.RESPONSE,
        created_s=time.time(),
        document=json.dumps({"metadata": prose(1200, rng)}).encode(),
        input=json.dumps([{"type": "message", "role": "user", "content": [said]}]).encode(),
        output=json.dumps(
            [
                {"type": "reasoning", "id": "rs", "summary": [], "content": [thought]},
                {"type": "message", "role": "assistant", "content": [answer]},
            ]
        ).encode(),
        parent_id=f"resp_{number - 1:048x}" if number % DEPTH else None,
    )


def quantiles(values: list[float]) -> dict[str, float]:
    cuts = statistics.quantiles(values, n=100)
    return {"p50_ms": round(cuts[49], 3), "p99_ms": round(cuts[98], 3)}


async def measure(folder: Path, responses: int, rounds: int) -> dict[str, Any]:
    rng, model = random.Random(1), load_model_files(MODEL, ())
    store = SqlStore(
        SqliteDatabase(folder / "responses.sqlite", max_bytes=GIB),
        StoreLimits(max_bytes=GIB, ttl_s=86_400.0, chain=Bounds(entries=1024, bytes=2**24)),
        where="the store",
    )
    await store.open()
    responses -= responses % DEPTH
    for number in range(responses):
        await store.put("tenant", response(number, rng))
    print(f"{responses} responses are kept", file=sys.stderr, flush=True)
    puts, chains, found = [], [], []
    for number in range(responses, responses + rounds):
        entry = response(number, rng)
        start = time.perf_counter()
        await store.put("tenant", entry)
        puts.append((time.perf_counter() - start) * 1e3)
        last = rng.randrange(responses // DEPTH) * DEPTH + DEPTH - 1
        start = time.perf_counter()
        entries = await store.chain("tenant", f"resp_{last:048x}")
        found.append((time.perf_counter() - start) * 1e3)
        items = [i for e in entries for part in (e.input, e.output) for i in loads(part.decode())]
        earlier = Earlier(items=items, place="previous_response_id")
        messages = ItemReader(lambda sealed: None).read(None, "and?", earlier)
        text = model.template.render(normalise_messages(messages), None)
        chains.append((time.perf_counter() - start) * 1e3)
    assert len(entries) == DEPTH
    size_bytes = (folder / "responses.sqlite").stat().st_size
    await store.close()
    return {
        "responses": responses,
        "file_mib": round(size_bytes / 2**20, 1),
        "load": [round(one, 1) for one in os.getloadavg()],
        "put": quantiles(puts),
        "chain": {
            "depth": DEPTH,
            "characters": sum(len(segment.text) for segment in text),
            "found": quantiles(found),
            "rendered": quantiles(chains),
        },
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--responses", type=int, default=10_000)
    parser.add_argument("--rounds", type=int, default=500)
    parser.add_argument("--folder", type=Path, default=None, help="where the file is made")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=options.folder) as folder:
        print(json.dumps(asyncio.run(measure(Path(folder), options.responses, options.rounds))))


if __name__ == "__main__":
    main()
