"""How good is the demonstration model when it is asked through an OpenAI endpoint?

    python -m demo_model.evaluate --base-url http://127.0.0.1:8000/v1
    python -m demo_model.evaluate --base-url URL --sampled --per-skill 25
    python -m demo_model.evaluate --base-url URL --split phrasings --json

Each question has one right answer: the content must equal it, or the one tool call must
run the right code. Greedy unless --sampled, which sends no sampling parameters and so gets
what the server serves by default.
"""

import argparse
import asyncio
import json
import sys
import time
from dataclasses import dataclass
from typing import Any

import openai

from demo_model import scoring
from demo_model.chat import TOOL_CALL
from demo_model.draw import Split
from demo_model.scoring import Question, Reply

MAX_TOKENS = 400
SHOWN_MISTAKES = 10
TIMEOUT_S = 120.0


@dataclass(frozen=True, kw_only=True)
class Run:
    """What to ask and how."""

    base_url: str
    api_key: str
    model: str | None
    split: Split
    per_skill: int
    sampled: bool
    concurrency: int
    seed: int


def to_openai(messages: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The messages as a client sends them: arguments as JSON strings, tool results with ids."""
    sent = []
    for message in messages:
        out = dict(message)
        if out.get("tool_calls"):
            out["tool_calls"] = [
                {
                    **call,
                    "function": {
                        "name": call["function"]["name"],
                        "arguments": json.dumps(call["function"]["arguments"]),
                    },
                }
                for call in out["tool_calls"]
            ]
        if out["role"] == "tool":
            out["tool_call_id"] = "call_0"
        sent.append(out)
    return sent


def read_message(message: Any) -> Reply:
    """The reply in a chat completion's message."""
    content = message.content or ""
    calls = message.tool_calls or []
    code = None
    if len(calls) == 1 and calls[0].function.name == "python_executor" and TOOL_CALL not in content:
        try:
            code = json.loads(calls[0].function.arguments).get("code")
        except (ValueError, AttributeError):
            code = None
    return Reply(content=content, code=code, called=bool(calls))


async def ask_all(
    run: Run, questions: list[Question], client: openai.AsyncOpenAI | None = None
) -> list[tuple[Question, Reply]]:
    """Ask all, `concurrency` questions at a time, with a progress line on stderr."""
    client = client or openai.AsyncOpenAI(
        base_url=run.base_url, api_key=run.api_key, timeout=TIMEOUT_S
    )
    model = run.model or (await client.models.list()).data[0].id
    gate = asyncio.Semaphore(run.concurrency)
    started = time.monotonic()
    right = done = 0
    choice: dict[str, Any] = {} if run.sampled else {"temperature": 0}

    async def ask(asked: Question) -> tuple[Question, Reply]:
        nonlocal right, done
        tools: dict[str, Any] = {"tools": asked.tools} if asked.tools else {}
        async with gate:
            answer = await client.chat.completions.create(
                model=model,
                messages=to_openai(asked.messages),  # type: ignore[arg-type]
                max_tokens=MAX_TOKENS,
                **tools,
                **choice,
            )
        reply = read_message(answer.choices[0].message)
        done += 1
        right += scoring.is_right(asked, reply)
        _progress(done, len(questions), right, time.monotonic() - started)
        return asked, reply

    async with client:
        return list(await asyncio.gather(*map(ask, questions)))


def _progress(done: int, total: int, right: int, seconds: float) -> None:
    end = "\n" if done == total else "\r"
    line = f"{done}/{total} asked, {100 * right / done:.1f} % right, {seconds:.0f} s"
    print(line, end=end, file=sys.stderr, flush=True)


def report(run: Run, pairs: list[tuple[Question, Reply]], seconds: float) -> dict[str, Any]:
    mistakes = [
        {
            "skill": asked.skill,
            "asked": asked.text,
            "wanted": asked.code or asked.content,
            "got": reply.code or reply.content,
        }
        for asked, reply in pairs
        if not scoring.is_right(asked, reply)
    ]
    return {
        "split": run.split.value,
        "sampled": run.sampled,
        "asked": len(pairs),
        "right": len(pairs) - len(mistakes),
        "seconds": round(seconds, 1),
        "table": scoring.tally(pairs),
        "well_formed_calls": scoring.well_formed_calls(pairs),
        "mistakes": mistakes,
    }


def parse(arguments: list[str] | None = None) -> tuple[Run, bool]:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--base-url", required=True, help="for example http://127.0.0.1:8000/v1")
    parser.add_argument("--api-key", default="none")
    parser.add_argument("--model", help="default: the first that the endpoint lists")
    parser.add_argument(
        "--split",
        choices=("operands", "phrasings"),
        default="operands",
        help="what is new to the model",
    )
    parser.add_argument(
        "--per-skill", type=int, default=10, help="questions for each skill and language"
    )
    parser.add_argument("--sampled", action="store_true", help="the served sampling defaults")
    parser.add_argument("--concurrency", type=int, default=8)
    parser.add_argument("--seed", type=int, default=0, help="another one asks other questions")
    parser.add_argument("--json", action="store_true")
    given = parser.parse_args(arguments)
    run = Run(
        base_url=given.base_url,
        api_key=given.api_key,
        model=given.model,
        split=Split(given.split),
        per_skill=given.per_skill,
        sampled=given.sampled,
        concurrency=given.concurrency,
        seed=given.seed,
    )
    return run, given.json


def main() -> None:
    run, as_json = parse()
    questions = scoring.questions(run.split, run.per_skill, run.seed)
    started = time.monotonic()
    try:
        pairs = asyncio.run(ask_all(run, questions))
    except openai.OpenAIError as error:
        raise SystemExit(f"{run.base_url}: {error}") from error
    found = report(run, pairs, time.monotonic() - started)
    if as_json:
        print(json.dumps(found, ensure_ascii=False))
        return
    mode = "sampled" if run.sampled else "greedy"
    print(scoring.render_table({f"{mode}, held-out {run.split.value}": found["table"]}))
    good, due = found["well_formed_calls"]
    print(f"{good} of {due} tool calls well-formed")
    for mistake in found["mistakes"][:SHOWN_MISTAKES]:
        print(f"{mistake['skill']}: {mistake['asked']!r}: {mistake['got']!r}")


if __name__ == "__main__":
    main()
