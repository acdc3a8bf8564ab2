"""What a model judge is, as data: one TOML a judge in `descriptions/`.

A description says what is sent, how a reply must look, and which verdict it means. Judges that any model can be are
asked in our own words. Models that were fine-tuned on one prompt are sent that prompt.
"""

from __future__ import annotations

import tomllib
from functools import cache
from importlib import resources
from typing import Literal, Self

from pydantic import BaseModel, ConfigDict, model_validator

from presafe.records import Verdict

Asks = Literal["refusal", "harm"]
"""What a judge decides: whether an answer refuses, or whether it is safe. An answer can be safe and no refusal."""


class Description(BaseModel):
    """One judge."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    name: str
    asks: Asks
    reads: str
    """What it is shown, for people."""
    says: str
    """What it answers, for people."""
    source: str
    agreement: str
    """How far it agrees with people, as published."""
    model: str | None = None
    """Inspect's address of the model that it is by default."""
    send: Literal["chat", "completion", "conversation"]
    """As one user message; as a raw text, without a chat template; or request and answer as turns of a chat."""
    prompt: str
    """With {request}, {answer}, and {key}, drawn at random, which only a reply to this very prompt can name."""
    marks: tuple[str, ...] = ()
    """Lines that divide the prompt; a line of request or answer that begins like one is set off from them."""
    answer_characters: int | None = None
    """How much of an answer is shown."""
    max_tokens: int
    """Token budget of a reply, the judge's own thought included."""
    reply: Literal["lines", "word", "guard", "grades"]
    """Lines "name: value"; one bare word; Llama Guard's verdict and categories; or the odds of the grades 1 to 5."""
    fields: dict[str, tuple[str, ...]] = {}
    """Of a reply in lines: the lines that it must hold, and the values that each may have."""
    decides: str | None = None
    """The line that holds the verdict."""
    verdicts: dict[str, Verdict] = {}
    """What each value of it means."""
    score: Literal["rubric"] | None = None
    """How the lines make a graded score."""

    @model_validator(mode="after")
    def _whole(self) -> Self:
        if self.reply == "lines" and (
            self.decides not in self.fields or set(self.fields[self.decides]) != set(self.verdicts)
        ):
            raise ValueError("a reply in lines needs the line that decides, and a verdict for each of its values")
        return self


@cache
def descriptions() -> dict[str, Description]:
    """Every model judge by name."""
    folder = resources.files("presafe.judges") / "descriptions"
    files = (file for file in folder.iterdir() if file.name.endswith(".toml"))
    read = (Description.model_validate(tomllib.loads(file.read_text(encoding="utf-8"))) for file in files)
    return {each.name: each for each in sorted(read, key=lambda each: each.name)}
