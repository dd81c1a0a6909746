"""What can the demonstration model do? One generator of questions per skill."""

from collections.abc import Callable
from functools import partial

from demo_model.draw import Draw, Turn
from demo_model.skills import arithmetic, calendar, ordering, smalltalk, spelling, structured

JSON_ASKS: tuple[Callable[[Draw], Turn], ...] = (
    partial(arithmetic.ask, operation="add"),
    partial(arithmetic.ask, operation="subtract"),
    partial(arithmetic.ask, operation="multiply"),
    ordering.compare,
    ordering.sort,
    spelling.count,
    spelling.reverse,
    calendar.weekday,
)
"""Skills whose answer can also be asked for as JSON."""

SKILLS: dict[str, Callable[[Draw], Turn]] = {
    "add": partial(arithmetic.ask, operation="add"),
    "subtract": partial(arithmetic.ask, operation="subtract"),
    "multiply": partial(arithmetic.ask, operation="multiply"),
    "compare": ordering.compare,
    "sort": ordering.sort,
    "count_letters": spelling.count,
    "reverse": spelling.reverse,
    "uppercase": spelling.uppercase,
    "weekday": calendar.weekday,
    "dates": calendar.dates,
    "greeting": smalltalk.greeting,
    "identity": smalltalk.identity,
    "refusal": smalltalk.refusal,
    "too_large": smalltalk.too_large,
    "json": partial(structured.ask, questions=JSON_ASKS),
}
"""Single questions. Follow-ups and tool use need a conversation: see conversation.py."""
