"""Describe model judges as data: one TOML file per judge in `descriptions/`.

A description holds the prompt, the form of a reply, and the verdict of each reply. Judges that work with any model use
our own words. Models that were fine-tuned on one prompt get exactly that prompt.
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
    """A model judge."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    name: str
    asks: Asks
    reads: str
    """The judge's input, for `presafe list judges`."""
    says: str
    """The judge's output, for `presafe list judges`."""
    source: str
    agreement: str
    """Published agreement with people."""
    model: str | None = None
    """Inspect address of the default model."""
    send: Literal["chat", "completion", "conversation"]
    """One user message; a raw text without a chat template; or request and answer as turns of a chat."""
    prompt: str
    """Text with {request}, {answer} and {key}, a random word that only a reply to this prompt can hold."""
    marks: tuple[str, ...] = ()
    """Dividing lines of the prompt; a line of request or answer that begins like one gets a dot before it."""
    answer_characters: int | None = None
    """Characters of an answer that the judge sees; None for all."""
    max_tokens: int
    """Token budget of a reply, the judge's own thought included."""
    reply: Literal["lines", "word", "guard", "grades"]
    """Lines "name: value"; a single word; Llama Guard's verdict and categories; or probabilities of grades 1 to 5."""
    fields: dict[str, tuple[str, ...]] = {}
    """For a reply in lines: the required lines, and the allowed values of each."""
    decides: str | None = None
    """The line that holds the verdict."""
    verdicts: dict[str, Verdict] = {}
    """Verdict of each value of the deciding line."""
    score: Literal["rubric"] | None = None
    """Formula of a graded score from the lines."""

    @model_validator(mode="after")
    def _check_lines(self) -> Self:
        if self.reply == "lines" and (
            self.decides not in self.fields or set(self.fields[self.decides]) != set(self.verdicts)
        ):
            raise ValueError("a reply in lines needs a deciding line, and a verdict for each of its values")
        return self

    def with_reversed_labels(self) -> Description:
        """Return the judge with the lines of its prompt that name its classes in the reverse order.

        Such lines define a class ("safe: …"), or show how a reply ends ("verdict {key}: safe").
        """
        prompt = self.prompt
        for start in ("", f"{self.decides} {{key}}: "):
            lines = prompt.split("\n")
            named = [start + value + (":" if not start else "") for value in self.verdicts]
            places = [place for place, line in enumerate(lines) if line.startswith(tuple(named))]
            reordered = [lines[place] for place in reversed(places)]
            for place, line in zip(places, reordered, strict=True):
                lines[place] = line
            prompt = "\n".join(lines)
        return self.model_copy(update={"prompt": prompt})


@cache
def descriptions() -> dict[str, Description]:
    """Load all model judges, by name."""
    folder = resources.files("presafe.judges") / "descriptions"
    files = (file for file in folder.iterdir() if file.name.endswith(".toml"))
    judges = (Description.model_validate(tomllib.loads(file.read_text(encoding="utf-8"))) for file in files)
    return {judge.name: judge for judge in sorted(judges, key=lambda judge: judge.name)}
