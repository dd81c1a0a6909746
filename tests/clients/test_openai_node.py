"""OpenAI's library for Node, unmodified, on a scripted model behind the real gateway."""

from pathlib import Path

from moe_model.text.tokenizer import Tokenizer
from tests.support.clients.frameworks import OPENAI_NODE as SDK
from tests.support.clients.scripted import call, grammars, text
from tests.support.clients.sdks import at
from tests.support.gateway.fake_attention import in_turn
from tests.support.gateway.harness import Harness
from tests.support.gateway.model import NAME


def test_a_stream_is_the_same_answer(gateway: Harness, home: Path, tokenizer: Tokenizer) -> None:
    gateway.script(text(tokenizer, "hi there"))
    program = """
const whole = (await client.chat.completions.create(asked)).choices[0].message
let plain = ""
for await (const chunk of await client.chat.completions.create({...asked, stream: true})) {
  plain += chunk.choices[0]?.delta?.content ?? ""
}
const helper = client.chat.completions.stream(asked)
let heard = ""
helper.on("content", (delta) => { heard += delta })
const last = (await helper.finalChatCompletion()).choices[0]
return [whole.content, whole.reasoning_content, plain, heard, last.message.content,
        last.finish_reason]
"""
    told = ["hi there", "hm", "hi there", "hi there", "hi there", "stop"]
    assert SDK.run(at(gateway), home, program) == told


def test_zods_types_are_parsed_from_answers_and_calls(
    gateway: Harness, home: Path, tokenizer: Tokenizer
) -> None:
    gateway.script(
        in_turn(
            text(tokenizer, '{"place": "Rome", "days": 2}'),
            call(tokenizer, "weather", place="Rome", days="3"),
            text(tokenizer, '{"place": "Rome", "days": 4}'),
        )
    )
    program = """
const { z } = require("zod")
const { zodFunction, zodResponseFormat, zodTextFormat } = require("openai/helpers/zod")
const Weather = z.object({place: z.string(), days: z.number().int()})
const whole = await client.chat.completions.parse({
  ...asked, response_format: zodResponseFormat(Weather, "weather"),
})
const called = await client.chat.completions.parse({
  ...asked, tools: [zodFunction({name: "weather", parameters: Weather})], tool_choice: "required",
})
const response = await client.responses.parse({
  model: MODEL, input: "hello", text: {format: zodTextFormat(Weather, "weather")},
})
return [whole.choices[0].message.parsed.days,
        called.choices[0].message.tool_calls[0].function.parsed_arguments,
        response.output_parsed.days]
"""
    assert SDK.run(at(gateway), home, program) == [2, {"place": "Rome", "days": 3}, 4]
    assert all(grammars(gateway))


def test_it_speaks_responses_and_completions(
    gateway: Harness, home: Path, tokenizer: Tokenizer
) -> None:
    gateway.script(text(tokenizer, "hi there"))
    program = """
const response = await client.responses.create({model: MODEL, input: "hello"})
let streamed = ""
for await (const event of await client.responses.create({
  model: MODEL, input: "hello", stream: true,
})) {
  if (event.type === "response.output_text.delta") streamed += event.delta
}
const plain = await client.completions.create({model: MODEL, prompt: "one", echo: true})
return [response.output_text, streamed, plain.choices[0].text.slice(0, 3)]
"""
    assert SDK.run(at(gateway), home, program) == ["hi there", "hi there", "one"]


def test_it_lists_models(gateway: Harness, home: Path) -> None:
    program = """
const names = []
for await (const model of client.models.list()) names.push(model.id)
return [...names, (await client.models.retrieve(MODEL)).id]
"""
    assert SDK.run(at(gateway), home, program) == [NAME, "alias", NAME]


def test_errors_are_of_the_class_and_code_that_programs_catch(gateway: Harness, home: Path) -> None:
    program = """
const told = []
const fail = async (changes) => {
  try {
    await client.chat.completions.create({...asked, ...changes})
  } catch (error) {
    told.push(error.constructor.name, error.code)
  }
}
await fail({model: "other"})
await fail({messages: [{role: "user", content: "y ".repeat(300_000)}]})
return told
"""
    assert SDK.run(at(gateway), home, program) == [
        *("NotFoundError", "model_not_found"),
        *("BadRequestError", "context_length_exceeded"),
    ]
