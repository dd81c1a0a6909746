import sys

from vllm import LLM, RequestOutput, SamplingParams
from vllm.sampling_params import RequestOutputKind

llm = LLM(model=sys.argv[1], max_num_seqs=16, swap_space=0, enable_prefix_caching=True)

# Best of n by mean log-probability.
params = SamplingParams(n=4, temperature=1.0, top_k=20, top_p=0.9, min_p=0.01, seed=1234, max_tokens=24, logprobs=1,
                        repetition_penalty=1.05, presence_penalty=0.1, frequency_penalty=0.1)
(request,) = llm.generate("Write lemon in capital letters.", params)
assert isinstance(request, RequestOutput) and request.finished
best = max(request.outputs, key=lambda c: c.cumulative_logprob / len(c.token_ids))
assert [c.index for c in request.outputs] == [0, 1, 2, 3]
for completion in request.outputs:
    assert len(completion.logprobs) == len(completion.token_ids)
    for token_id, position in zip(completion.token_ids, completion.logprobs):
        assert position[token_id].logprob <= 0.0
        assert isinstance(position[token_id].decoded_token, str)
print("best:", best.index, round(best.cumulative_logprob, 3), repr(best.text))
again = llm.generate("Write lemon in capital letters.", params)[0]
assert [c.token_ids for c in again.outputs] == [c.token_ids for c in request.outputs]

# One set of parameters for each prompt, stop strings and stop tokens.
greedy = SamplingParams(temperature=0, max_tokens=30, ignore_eos=True)
text = llm.generate("Sort 3, 1, 2.", greedy, use_tqdm=False)[0].outputs[0].text
stop = text[4:7]
mixed = [greedy, SamplingParams(temperature=0, max_tokens=30, ignore_eos=True, stop=[stop],
                                include_stop_str_in_output=True)]
first, second = llm.generate(["Sort 3, 1, 2."] * 2, sampling_params=mixed)
assert first.outputs[0].text == text and first.outputs[0].finish_reason == "length"
assert second.outputs[0].text == text[: text.index(stop) + len(stop)]
assert second.outputs[0].finish_reason == "stop" and second.outputs[0].stop_reason == stop

clone = params.clone()
clone.output_kind = RequestOutputKind.FINAL_ONLY
try:
    SamplingParams(temperature=-1)
except ValueError as e:
    print("refused:", e)
