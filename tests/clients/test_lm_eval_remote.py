"""lm-eval with the server's own tokenizer, on a scripted model behind the real gateway."""

from pathlib import Path
from typing import Any

from moe_model.text.tokenizer import Tokenizer
from protos import attention_pb2
from tests.support.clients.other_servers import LM_EVAL
from tests.support.clients.sdks import at
from tests.support.gateway.fake_attention import length, say
from tests.support.gateway.harness import Harness
from tests.support.gateway.model import EOS

PROGRAM = """
from lm_eval.api.instance import Instance
from lm_eval.models.openai_completions import LocalCompletionsAPI

model = LocalCompletionsAPI(
    model=MODEL, base_url=URL + "/v1/completions", tokenizer_backend="remote", max_length=4000,
)

def asked(kind, *arguments):
    return Instance(request_type=kind, doc={}, arguments=arguments, idx=0)

scored = model.loglikelihood([asked("loglikelihood", "12 + 30 =", end) for end in (" 42", " 43")])
rolled = model.loglikelihood_rolling([asked("loglikelihood_rolling", "12 + 30")])
told = model.generate_until([asked("generate_until", "hello", {"until": ["."], "max_gen_toks": 9})])
template = model.tokenizer.apply_chat_template([{"role": "user", "content": "hello"}], tools=None)
print(json.dumps([[list(one) for one in scored], rolled, told, model.tokenizer.eos_token,
                  "user" in template and "hello" in template]))
"""


def test_it_scores_and_generates(gateway: Harness, home: Path, tokenizer: Tokenizer) -> None:
    def script(request: attention_pb2.GenerateRequest) -> Any:
        if not request.sampling.prompt_logprobs:
            return say(tokenizer.encode_text(" world."), eos=EOS)(request)
        ids = list(request.prompt_token_ids)
        known = [
            attention_pb2.TokenLogprobs(logprob=-1.0, top_token_ids=[i], top_logprobs=[-1.0])
            for i in ids[1:]
        ]
        told = attention_pb2.PromptLogprobs(position=1, logprobs=known)
        ended = say([104], eos=None)(request) if request.sampling.max_tokens else [length(0)]
        return [attention_pb2.GenerateResponse(prompt_logprobs=told), *ended]

    gateway.script(script)
    scores, rolled, told, eos, has_template = LM_EVAL.run(at(gateway), home, PROGRAM)
    assert scores == [[-3.0, True], [-3.0, True]]
    assert rolled == [-7.0], "each token counts, the first one too"
    assert told == [" world"]
    assert (eos, has_template) == ("[e~[", True)
