"""Which numbers of the sampling do several APIs take by the same names, and in which ranges?"""

from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from gateway.generate.parameters import bounds, range_text


def number(parameter: str, text: str = "") -> Any:
    """A field with the range that the core checks; `text`: what else is said of it."""
    return Field(
        None, description=range_text(parameter) + text, json_schema_extra=bounds(parameter)
    )


class NucleusFields(BaseModel):
    """What every API takes."""

    model_config = ConfigDict(strict=True)

    temperature: float | None = number("temperature", "; 0 is greedy")
    top_p: float | None = Field(
        None,
        description="above 0, up to 1",
        json_schema_extra={"exclusiveMinimum": 0, "maximum": 1},
    )
    top_k: int | None = Field(
        None, description="0 or -1: all tokens", json_schema_extra={"minimum": -1}
    )


class SamplingNumbers(NucleusFields):
    """What all but one take."""

    min_p: float | None = number("min_p", "; 0 is off")
    presence_penalty: float | None = number("presence_penalty")
    frequency_penalty: float | None = number("frequency_penalty")
