"""Ollama's clients, unmodified, on a scripted model behind the real gateway."""

from pathlib import Path
from typing import Any

import pytest

from moe_model.text.tokenizer import Tokenizer
from tests.support.clients.other_servers import OLLAMA, OLLAMA_LANGCHAIN, run_ollama_js
from tests.support.clients.scripted import assert_thinking_came_back, script_tool_loop, text
from tests.support.clients.sdks import at
from tests.support.gateway.harness import Harness
from tests.support.gateway.model import NAME


class TestPython:
    def test_chat_and_generate_whole_and_streamed(
        self, gateway: Harness, home: Path, tokenizer: Tokenizer
    ) -> None:
        gateway.script(text(tokenizer, "hi there"))
        program = """
whole = client.chat(model=MODEL, messages=question, options={"temperature": 0, "num_ctx": 4096},
                    keep_alive="5m")
parts = list(client.chat(model=MODEL, messages=question, stream=True, think=True))
text = client.generate(model=MODEL, prompt="hello", think=False)
asked = client.generate(model=MODEL, prompt="hello", stream=True)
streamed = "".join(part.response for part in asked)
print(json.dumps([whole.message.content, whole.message.thinking, whole.done_reason,
                  "".join(p.message.content or "" for p in parts),
                  "".join(p.message.thinking or "" for p in parts), parts[-1].done,
                  text.response, text.thinking, streamed]))
"""
        told = OLLAMA.run(at(gateway), home, program)
        whole, streamed = ["hi there", "hm", "stop"], ["hi there", "hm", True]
        assert told == [*whole, *streamed, "hi there", None, "hi there"]

    def test_a_tool_loop_with_a_function(
        self, gateway: Harness, home: Path, tokenizer: Tokenizer
    ) -> None:
        script_tool_loop(gateway, tokenizer)
        program = """
def weather(place: str) -> str:
    '''The weather of a place

    Args:
      place: where
    '''
    return "rain in " + place

first = client.chat(model=MODEL, messages=question, tools=[weather])
call = first.message.tool_calls[0].function
result = {"role": "tool", "tool_name": call.name, "content": weather(**call.arguments)}
last = client.chat(model=MODEL, messages=[*question, first.message, result], tools=[weather])
print(json.dumps([call.name, dict(call.arguments), last.message.content]))
"""
        told = OLLAMA.run(at(gateway), home, program)
        assert told == ["weather", {"place": "Rome"}, "it rains"]
        assert_thinking_came_back(gateway, tokenizer, by_the_gateway=False)

    def test_formats_models_and_errors(
        self, gateway: Harness, home: Path, tokenizer: Tokenizer
    ) -> None:
        gateway.script(text(tokenizer, '{"a": 1}'))
        program = """
schema = {"type": "object", "properties": {"a": {"type": "integer"}}}
answers = [client.chat(model=MODEL, messages=question, format=form).message.content
           for form in ("json", schema)]
names = [model.model for model in client.list().models]
shown = client.show(MODEL)
running = client.ps().models[0].context_length
errors = []
for fail in (lambda: client.chat(model="other", messages=question), lambda: client.pull(MODEL),
             lambda: client.delete(MODEL),
             lambda: list(client.chat(model="other", messages=question, stream=True))):
    try:
        fail()
    except ResponseError as error:
        errors.append(error.status_code)
print(json.dumps([answers, names, shown.capabilities, running, errors]))
"""
        told = OLLAMA.run(at(gateway), home, program)
        capabilities = ["completion", "tools", "thinking"]
        answers = ['{"a": 1}', '{"a": 1}']
        assert told == [answers, [NAME, "alias"], capabilities, 400_000, [404, 403, 403, 404]]
        assert all(request.grammar.text for request in gateway.fake.requests)


class TestNode:
    def test_chat_whole_and_streamed(
        self, gateway: Harness, home: Path, tokenizer: Tokenizer
    ) -> None:
        gateway.script(text(tokenizer, "hi there"))
        program = """
const options = { temperature: 0 }
const whole = await client.chat({ model: MODEL, messages, think: true, options })
let streamed = "", thinking = ""
for await (const part of await client.chat({ model: MODEL, messages, stream: true })) {
  streamed += part.message.content
  thinking += part.message.thinking ?? ""
}
const text = await client.generate({ model: MODEL, prompt: "hello" })
const names = (await client.list()).models.map(model => model.name)
const shown = await client.show({ model: MODEL })
let refused
try {
  await client.chat({ model: "other", messages })
} catch (error) {
  refused = error.status_code
}
console.log(JSON.stringify([whole.message.content, whole.message.thinking, streamed, thinking,
                            text.response, names, shown.capabilities, refused]))
"""
        told = run_ollama_js(at(gateway), home, program)
        answers = ["hi there", "hm", "hi there", "hm", "hi there"]
        assert told == [*answers, [NAME, "alias"], ["completion", "tools", "thinking"], 404]

    def test_a_tool_loop(self, gateway: Harness, home: Path, tokenizer: Tokenizer) -> None:
        script_tool_loop(gateway, tokenizer)
        program = """
const parameters = { type: "object", properties: { place: { type: "string" } } }
const tools = [{ type: "function", function: { name: "weather", description: "", parameters } }]
const first = (await client.chat({ model: MODEL, messages, tools })).message
const call = first.tool_calls[0].function
const result = { role: "tool", tool_name: call.name, content: "rain in " + call.arguments.place }
const last = await client.chat({ model: MODEL, messages: [...messages, first, result], tools })
console.log(JSON.stringify([call.name, call.arguments, last.message.content]))
"""
        told = run_ollama_js(at(gateway), home, program)
        assert told == ["weather", {"place": "Rome"}, "it rains"]
        assert_thinking_came_back(gateway, tokenizer, by_the_gateway=False)


class TestLangChain:
    def test_invoke_stream_and_structured_output(
        self, gateway: Harness, home: Path, tokenizer: Tokenizer
    ) -> None:
        gateway.script(text(tokenizer, '{"place": "Rome"}'))
        program = """
from pydantic import BaseModel

class Weather(BaseModel):
    place: str

whole = model(reasoning=True, validate_model_on_init=True).invoke("hello")
streamed = "".join(part.content for part in model(temperature=0).stream("hello"))
parsed = model().with_structured_output(Weather).invoke("hello")
print(json.dumps([whole.content, whole.additional_kwargs["reasoning_content"], streamed,
                  parsed.place, whole.usage_metadata["output_tokens"] > 0]))
"""
        told = OLLAMA_LANGCHAIN.run(at(gateway), home, program)
        assert told == ['{"place": "Rome"}', "hm", '{"place": "Rome"}', "Rome", True]

    @pytest.mark.parametrize("reasoning", [True, None], ids=["returned", "dropped"])
    def test_an_agents_tool_loop_keeps_its_thinking(
        self, restoring: Harness, home: Path, tokenizer: Tokenizer, reasoning: Any
    ) -> None:
        script_tool_loop(restoring, tokenizer)
        program = f"""
from langchain.agents import create_agent

def weather(place: str) -> str:
    '''The weather of a place'''
    return "rain in " + place

agent = create_agent(model(reasoning={reasoning}), tools=[weather])
told = agent.invoke({{"messages": [("user", "hello")]}})
print(json.dumps(told["messages"][-1].content))
"""
        assert OLLAMA_LANGCHAIN.run(at(restoring), home, program) == "it rains"
        assert_thinking_came_back(restoring, tokenizer, by_the_gateway=reasoning is None)
