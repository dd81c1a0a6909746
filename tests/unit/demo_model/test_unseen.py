"""What the model never saw: other people's wordings, and a question late in a long conversation."""

import random

import pytest

from demo_model import checkpoint_format, phrasings, scoring, self_check
from demo_model.conversation import _add_exchange, _history, make
from demo_model.dataset import Encoder
from demo_model.draw import Draw, Split
from demo_model.generate import GREEDY, Decoder
from demo_model.scoring import Question
from demo_model.skills.smalltalk import CAN, WHO
from tests.support.places import DEMO_MODEL

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]

# written before the lists were widened, and in none of them: keep it so
WHO_WORDINGS = """Could you introduce yourself briefly?|Which LLM am I chatting with?
Who developed this model?|What exactly is this thing?|Say who you are|Are you some kind of AI?
Who is behind you?|Whose model are you?|who r u|May I ask your name?|What do people call you?
Are you a neural network?|Where do you come from?"""
SHIPPED_CAN = CAN[0].partition(" With tools")[0]  # it was trained before there were such skills
CAN_WORDINGS = """What all can you do?|What sorts of problems can you solve?
How could you be useful to me?|Give me an overview of your capabilities|What tasks do you support?
What are you capable of?|Which topics do you cover?|Name a few things you can do
Explain what you can do|what do you do?|Do you have any special skills?|What are you used for?
What would you be able to help with?"""
NOT_WORDINGS = """Are you made by OpenAI?|Are you an actual human being?|So you are ChatGPT?
Is this ChatGPT?|Am I talking to a human?|Are you DeepSeek?|You're a real person, aren't you?
Are you a living thing?|Do you run on GPT-5?"""


def right(questions: list[Question]) -> int:
    decoder = Decoder(
        self_check.load_for(DEMO_MODEL, "cpu"), checkpoint_format.load_shape(DEMO_MODEL)
    )
    encoder = Encoder(DEMO_MODEL / "tokenizer.json")
    pairs = self_check.ask(decoder, encoder, questions, GREEDY, batch=16)
    return sum(scoring.is_right(asked, reply) for asked, reply in pairs)


def question(skill: str, messages: list[dict], content: str) -> Question:
    return Question(
        skill=skill, language="en", messages=messages, tools=[], content=content, code=None
    )


def test_wordings_of_identity_that_are_in_no_list() -> None:
    trained = {
        phrasings.gist(each)
        for _, line in phrasings.select("identity", "en", held_out=False)
        for each in phrasings.every(line)
    }
    questions = []
    for wordings, answer in (
        (WHO_WORDINGS, WHO[0]),
        (CAN_WORDINGS, SHIPPED_CAN),
        (NOT_WORDINGS, f"No. {WHO[0]}"),
    ):
        for text in wordings.replace("\n", "|").split("|"):
            assert phrasings.gist(text) not in trained
            questions.append(question("identity", [{"role": "user", "content": text}], answer))
    assert len(questions) == 35
    assert right(questions) >= 30


def test_questions_after_thirty_exchanges() -> None:
    questions = []
    for seed in range(12):
        draw = Draw(rng=random.Random(f"late-{seed}"), language="en", split=Split.OPERANDS)
        messages: list[dict] = []
        for _ in range(30):
            _add_exchange(messages, _history(draw))
        asked = scoring.question(make(draw, ("add", "sort", "weekday", "reverse")[seed % 4]))
        late = [m for m in asked.messages if m["role"] != "system"]
        questions.append(question(asked.skill, messages + late, asked.content))
    assert right(questions) >= 11
