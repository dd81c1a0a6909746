"""SGLang's frontend language, unmodified, on a scripted model behind the real gateway."""

from pathlib import Path
from typing import Any

from moe_model.text.tokenizer import Tokenizer
from protos import attention_pb2
from tests.support.clients.other_servers import SGLANG
from tests.support.clients.programs import printed
from tests.support.clients.sdks import KEY, at
from tests.support.gateway.fake_attention import Script, length, say
from tests.support.gateway.harness import Harness
from tests.support.gateway.model import EOS
from tests.support.places import ROOT


def model(tokenizer: Tokenizer, answer: str, preferred: str) -> Script:
    """Says `answer`; of prompts it likes those best that end with `preferred`."""

    def script(request: attention_pb2.GenerateRequest) -> Any:
        if request.sampling.max_tokens:
            return say(tokenizer.encode_text(answer), eos=EOS, step=2)(request)
        if not request.sampling.prompt_logprobs:
            return [length(0)]
        ids = list(request.prompt_token_ids)
        liked = tokenizer.decode(ids).endswith(preferred)
        known = [attention_pb2.TokenLogprobs(logprob=-0.1 if liked else -5.0) for _ in ids[1:]]
        told = attention_pb2.PromptLogprobs(position=1, logprobs=known)
        return [attention_pb2.GenerateResponse(prompt_logprobs=told), length(0)]

    return script


def test_gen_whole_and_streamed(gateway: Harness, home: Path, tokenizer: Tokenizer) -> None:
    gateway.script(model(tokenizer, " Rome.\nNext", ""))
    program = """
@sgl.function
def capital(s, country):
    s += "The capital of " + country + " is" + sgl.gen("answer", max_tokens=60, stop="\\n")

state = capital.run(country="Italy", temperature=0)
streamed = capital.run(country="Italy", stream=True)
text = "".join(streamed.text_iter("answer"))
batch = [one["answer"] for one in capital.run_batch([{"country": "a"}, {"country": "b"}])]
reason = state.get_meta_info("answer")["finish_reason"]["type"]
print(json.dumps([state["answer"], reason, text, batch]))
"""
    told = SGLANG.run(at(gateway), home, program)
    assert told == [" Rome.", "stop", " Rome.", [" Rome.", " Rome."]]
    prompt = tokenizer.decode(list(gateway.fake.requests[0].prompt_token_ids))
    assert prompt == "The capital of Italy is"


def test_select_takes_what_the_model_likes_best(
    gateway: Harness, home: Path, tokenizer: Tokenizer
) -> None:
    gateway.script(model(tokenizer, "", "43"))
    program = """
@sgl.function
def add(s):
    s += "12 + 30 = " + sgl.select("sum", choices=["42", "43", "the moon"])

print(json.dumps(add.run()["sum"]))
"""
    assert SGLANG.run(at(gateway), home, program) == "43"


def test_a_small_program_with_roles_regex_schema_and_a_fork(
    gateway: Harness, home: Path, tokenizer: Tokenizer
) -> None:
    gateway.script(model(tokenizer, "42", "yes"))
    program = """
@sgl.function
def review(s, question):
    s += sgl.system("You help.")
    s += sgl.user(question)
    s += sgl.assistant(sgl.gen("number", max_tokens=8, regex="[0-9]+"))
    forks = s.fork(2)
    for fork, what in zip(forks, ("short", "long")):
        fork += sgl.user("Is it " + what + "?")
        fork += sgl.assistant(sgl.select("verdict", choices=["yes", "no"]))
    s += sgl.user("Both: " + forks[0]["verdict"] + forks[1]["verdict"])
    s += sgl.assistant(sgl.gen("typed", dtype=int, max_tokens=4))

state = review.run(question="What is 12 + 30?")
print(json.dumps([state["number"], state["typed"]]))
"""
    assert SGLANG.run(at(gateway), home, program) == ["42", "42"]
    grammars = [request.grammar.text for request in gateway.fake.requests if request.grammar.text]
    assert len(grammars) == 2
    assert "[0-9]+" in grammars[0]


def test_the_example_runs(gateway: Harness, home: Path, tokenizer: Tokenizer) -> None:
    gateway.script(model(tokenizer, "42", "yes"))
    example = str(ROOT / "examples" / "sglang_program.py")
    command = [str(SGLANG.interpreter()), example, "--base-url", gateway.base_url]
    told = printed(command, home, {"EXPERTMESH_API_KEY": KEY})
    assert told.splitlines() == [
        "number: 42",
        "verdict: yes",
        "batch: 12 + 30 =42",
        "batch: The capital of Italy is42",
        "stream: 42",
    ]


def test_a_wrong_parameter_is_told(gateway: Harness, home: Path) -> None:
    program = """
from sglang.utils import http_request
asked = {"text": "a", "sampling_params": {"top_p": 7}}
told = http_request(URL + "/generate", json=asked, api_key=KEY)
print(json.dumps([told.status_code, told.json()["error"]["param"]]))
"""
    assert SGLANG.run(at(gateway), home, program) == [400, "sampling_params.top_p"]
