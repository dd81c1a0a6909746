import json
import sys

from vllm import LLM
from vllm.sampling_params import SamplingParams

TOOLS = [
    {
        "type": "function",
        "function": {
            "name": "calculator",
            "description": "Evaluate an arithmetic expression",
            "parameters": {
                "type": "object",
                "properties": {"expression": {"type": "string", "description": "for example 2*3"}},
                "required": ["expression"],
            },
        },
    }
]
llm = LLM(model=sys.argv[1])
messages = [{"role": "user", "content": "What is 123 * 456?"}]
outputs = llm.chat(messages, sampling_params=SamplingParams(temperature=0.0, max_tokens=300), tools=TOOLS)
text = outputs[0].outputs[0].text
print(text)
assert TOOLS[0]["function"]["name"] in outputs[0].prompt
message = outputs[0].outputs[0].message  # what vLLM leaves to the user
messages.append(message)
if message.get("tool_calls"):
    call = message["tool_calls"][0]
    json.loads(call["function"]["arguments"])
    messages.append({"role": "tool", "tool_call_id": call["id"], "content": "56088"})
    outputs = llm.chat(messages, SamplingParams(temperature=0.0, max_tokens=300), tools=TOOLS)
    print(outputs[0].outputs[0].message["content"])
