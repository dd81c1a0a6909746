"""Generate and chat from a program, without starting a server.

    python examples/offline_generate.py [--model FOLDER | --base-url http://127.0.0.1:8000]

Without a flag it uses the bundled demonstration model, in this process. With --base-url the same
script uses a running cluster (`expertmesh up`).
"""

import argparse

from expertmesh import LLM, SamplingParams

parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
parser.add_argument("--model", help="checkpoint folder, or the served name with --base-url")
parser.add_argument("--base-url", help="URL of a running cluster")
flags = parser.parse_args()

questions = ["What is 47 + 15?", "Sort 9, 4, 7.", "Write lemon in capital letters."]
conversations = [[{"role": "user", "content": question}] for question in questions]

with LLM(flags.model, base_url=flags.base_url) as llm:
    # A batch: all conversations share the engine's steps; the answers come in the same order.
    params = SamplingParams(temperature=0, max_tokens=200)
    for output in llm.chat(conversations, params):
        answer = output.outputs[0]
        print(f"{output.request_id}: {answer.message['content']!r} ({answer.finish_reason})")

    # A stream: each output holds the whole text so far.
    shown = ""
    for output in llm.generate_stream("Hello, my name is", SamplingParams(max_tokens=20, seed=1)):
        text = output.outputs[0].text
        print(text[len(shown) :], end="", flush=True)
        shown = text
    print()
