"""A program in SGLang's frontend language: it runs here as it does on an SGLang server.

    pip install sglang
    python examples/sglang_program.py --base-url http://127.0.0.1:8000 "Name a prime above 40."

The frontend sends text to /generate. Roles are written as the frontend knows them; the model's own
chat, with its thinking and its tools, is at /v1/chat/completions.
"""

import argparse
import os

import sglang as sgl


@sgl.function
def review(s, question):
    """A number, two opinions of it side by side, and a verdict."""
    s += sgl.system("You answer briefly.")
    s += sgl.user(question)
    s += sgl.assistant(sgl.gen("number", max_tokens=8, regex="[0-9]{1,4}"))
    opinions = s.fork(2)
    for opinion, view in zip(opinions, ("for", "against"), strict=True):
        opinion += sgl.user(f"Say one thing that speaks {view} it.")
        opinion += sgl.assistant(sgl.gen("said", max_tokens=16, stop="."))
    s += sgl.user(f"For: {opinions[0]['said']}. Against: {opinions[1]['said']}. Is it right?")
    s += sgl.assistant(sgl.select("verdict", choices=["yes", "no"]))


@sgl.function
def continued(s, text):
    """What follows a text."""
    s += text + sgl.gen("rest", max_tokens=16, stop="\n")


def main() -> None:
    """One run, a batch, and a stream."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("question", nargs="?", default="Name a prime above 40.")
    parser.add_argument("--base-url", default="http://127.0.0.1:8000")
    flags = parser.parse_args()
    key = os.environ.get("EXPERTMESH_API_KEY", "none")
    sgl.set_default_backend(sgl.RuntimeEndpoint(flags.base_url, api_key=key))
    state = review.run(question=flags.question, temperature=0)
    print("number:", state["number"])
    print("verdict:", state["verdict"])
    texts = [{"text": "12 + 30 ="}, {"text": "The capital of Italy is"}]
    for asked, done in zip(texts, continued.run_batch(texts, temperature=0), strict=True):
        print("batch:", asked["text"] + done["rest"])
    streamed = continued.run(text="Experts are", temperature=0, stream=True)
    print("stream:", "".join(streamed.text_iter("rest")))


if __name__ == "__main__":
    main()
