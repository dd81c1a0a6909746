"""OpenAI's library for Node, unmodified, on a scripted model behind the real gateway."""

from pathlib import Path

from moe_model.text.tokenizer import Tokenizer
from tests.support.clients.frameworks import OPENAI_NODE as SDK
from tests.support.clients.scripted import text
from tests.support.clients.sdks import at
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
