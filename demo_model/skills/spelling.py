"""Counting, reversing and upper-casing the letters of a word."""

from demo_model import vocabulary
from demo_model.chat import letter_by_letter
from demo_model.draw import Draw, Split, Turn

LONGEST = 14


def _word(draw: Draw, skill: str, longest: int = LONGEST) -> str:
    def pick() -> str:
        real = 0.8 if draw.split is Split.OPERANDS else 0.5
        dice = draw.rng.random()
        if dice < real:
            word = draw.rng.choice(vocabulary.words())
        elif dice < real + 0.12 and draw.split is Split.TRAIN:
            word = draw.rng.choice(vocabulary.spelling_material())[:longest].lower()
        else:
            word = vocabulary.invented_word(draw.rng, longest)
        style = draw.rng.random()
        if style < 0.1:
            return word.capitalize()
        return word.upper() if style < 0.13 else word

    return draw.operands(pick, lambda word: (skill, word.lower()))


def count(draw: Draw) -> Turn:
    """How often a letter occurs in a word, or how many letters it has."""
    tag, template = draw.phrase("count_letters")
    word = _word(draw, "count_letters")
    if tag == "length":
        steps = [f"{letter}({i})" for i, letter in enumerate(word.lower(), 1)]
        answer = draw.say(f"It has {len(word)} letters.", f"共有{len(word)}个字母。")
        return Turn(
            user=template.format(word=word),
            thinking=" ".join(steps),
            answer=answer,
            facts={"answer": len(word), "word": letter_by_letter(word)},
        )
    if draw.rng.random() < 0.8:
        letter = draw.rng.choice(word.lower())
    else:
        letter = draw.rng.choice(vocabulary.LETTERS)
    found, steps = 0, []
    for each in word.lower():
        found += each == letter
        steps.append(f"{each}({found})" if each == letter else each)
    times = "time" if found == 1 else "times"
    answer = draw.say(
        f"The letter {letter} appears {found} {times}.", f"字母{letter}出现{found}次。"
    )
    shown = letter.upper() if draw.rng.random() < 0.05 else letter
    user = template.format(word=word, letter=shown)
    head = draw.say(f"letter {letter}: ", f"字母{letter}: ")
    return Turn(
        user=user,
        thinking=head + " ".join(steps) + f"\n{found}",
        answer=answer,
        facts={"answer": found, "word": letter_by_letter(word), "letter": letter},
    )


def reverse(draw: Draw) -> Turn:
    word = _word(draw, "reverse")
    _, template = draw.phrase("reverse")
    numbered = [f"{i}{letter}" for i, letter in enumerate(word, 1)]
    thinking = f"{' '.join(numbered)}\n{' '.join(reversed(numbered))}"
    return Turn(
        user=template.format(word=word),
        thinking=thinking,
        answer=letter_by_letter(word[::-1]),
        facts={"answer": letter_by_letter(word[::-1]), "word": letter_by_letter(word)},
    )


def uppercase(draw: Draw) -> Turn:
    """One word, or up to three in quotation marks; the letters are numbered continuously."""
    count = draw.rng.choice((1, 1, 1, 2, 3))
    words = [_word(draw, "uppercase", LONGEST if count == 1 else 10) for _ in range(count)]
    _, template = draw.phrase("uppercase")
    if count > 1 and not any(mark in template for mark in ('"{word}"', "“{word}”")):
        template = template.replace("{word}", draw.say('"{word}"', "“{word}”"))
    number, lines = 0, []
    for word in words:
        lines.append(" ".join(f"{number + i}{letter}" for i, letter in enumerate(word, 1)))
        number += len(word)
    return Turn(
        user=template.format(word=" ".join(words)),
        thinking="\n".join(lines),
        answer=" ".join(letter_by_letter(word.upper()) for word in words),
    )
