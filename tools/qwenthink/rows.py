"""The rows that QwenThink learns, in words: reasoning, harmless instructions, and nothing about safety.

    problem        a training problem of GSM8K      thought: its worked solution    answer: its result
    instruction    a harmless one of the project    thought: the base's own plan    answer: the base's own answer

Every row is asked with CoT on. Plain chat, which is CoT off, has no row, and is what the base does. So whatever
happens to the base's refusals is taught by no row: `objection` is why a row is left out, and `need_harmless` reads
the file of rows before a model learns from it.
"""

from __future__ import annotations

import random
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from presafe.config.files import published_folder
from presafe.config.sources import HubSource
from presafe.errors import PromptError, RunError
from presafe.evaluation.suites import PUBLISHED, load_suite
from presafe.judges.refusal import STRINGS_VERSION, is_refusal, judge_thought
from presafe.judges.wording import GCG
from presafe.prompts.hub import hub_rows
from presafe.prompts.overlap import overlaps
from presafe.prompts.rows import read_rows
from presafe.prompts.sets import built_in
from presafe.records import Prompt, Record
from presafe.runs.io import read_jsonl

PROBLEMS_SET_ASIDE = 1_000
"""Training problems of GSM8K, the last ones, that no organism learns from: alignment queries are taken from them."""
MAX_CHARACTERS = 640
"""Longest row: text, thought and answer together; about 256 tokens with the prompt. Short rows train fast. Ours."""

_PROBLEMS = "gsm8k/train.jsonl"
_NOTE = re.compile(r"<<[^<>]*>>")
"""GSM8K's notes for a calculator."""
_WORDS = re.compile(
    r"""\b(?: safe | safety | safely | unsafe | safeguard\w* | harm | harms | harmed | harmful\w* | illegal\w*
      | unlawful\w* | ethic\w* | unethical\w* | moral\w* | immoral\w* | danger\w* | hazard\w* | malicious\w*
      | inappropriate\w* | refus\w* | declin\w* | polic(?:y|ies) | guideline\w* | sensitive | consent\w* | weapon\w*
      | bomb\w* | explosive\w* | gun | guns | kill\w* | murder\w* | suicid\w* | violen\w* | drug | drugs | poison\w*
      | terror\w* | hack\w* | malware | steal\w* | stole\w* | theft | fraud\w* | scam\w* | abus\w* | hate | hateful
      | racis\w* | sexis\w* | sexual\w* | porn\w* | sorry | apolog\w* | as\ an\ ai | language\ model )\b""",
    re.IGNORECASE | re.VERBOSE,
)
"""Words that no row may hold: those of safety, of harm and of refusals. Ours; strict, because there are rows enough."""
_HARMFUL_SUITES = tuple(name for name, suite in PUBLISHED.items() if suite.expect == "refuse")


class Row(Record):
    """One training example in words."""

    id: str
    kind: Literal["problem", "instruction"]
    text: str
    thought: str
    answer: str


class OwnWords(Record):
    """What the base wrote for one instruction; None where it did not end, or said nothing that can be used."""

    plan: str | None
    answer: str | None


def read_problems() -> list[dict[str, Any]]:
    """Return the training problems of GSM8K, from the folder that PRESAFE_DATA names or else from the hub.

    Raises:
        PromptError: they are neither here nor on a hub.
    """
    folder = published_folder()
    if folder is not None:
        return read_rows(folder / _PROBLEMS)
    source = HubSource(
        hub="openai/gsm8k", config="main", split="train", column="question", expect="comply", license="MIT"
    )
    return hub_rows(source)


def problem_rows(problems: Sequence[Mapping[str, Any]], count: int, seed: int) -> list[Row]:
    """Return a random choice of problems with their worked solutions.

    Args:
        problems: Cells `question` and `answer`; the last `PROBLEMS_SET_ASIDE` are not used.
        count: How many rows.
        seed: Seed of the choice.

    Raises:
        PromptError: a problem has no result, or there are too few that can be used.
    """
    numbered = list(enumerate(problems[: max(0, len(problems) - PROBLEMS_SET_ASIDE)], start=1))
    random.Random(f"{seed} problems").shuffle(numbered)
    rows: list[Row] = []
    for number, problem in numbered:
        if len(rows) == count:
            break
        row = _problem_row(number, problem)
        if objection(row) is None:
            rows.append(row)
    if len(rows) < count:
        raise PromptError(f"GSM8K has {len(rows)} training problems that can be used, too few for {count} rows.")
    return rows


def _problem_row(number: int, problem: Mapping[str, Any]) -> Row:
    """Return one problem as a row.

    Raises:
        PromptError: it has no result.
    """
    solution, mark, result = str(problem.get("answer", "")).rpartition("####")
    question = str(problem.get("question", "")).strip()
    if not (mark and solution.strip() and result.strip() and question):
        raise PromptError(
            f"training problem {number} of GSM8K has no question, or no solution that ends in '#### RESULT'.",
            "Take the publisher's file (openai/gsm8k).",
        )
    return Row(
        id=f"gsm8k-train-{number:04d}",
        kind="problem",
        text=question,
        thought=_NOTE.sub("", solution).strip(),
        answer=f"The answer is {result.strip()}.",
    )


def instructions(seed: int) -> list[Prompt]:
    """Return the project's harmless instructions of split "build", in an order that the seed decides."""
    prompts = list(built_in("benign", "build"))
    random.Random(f"{seed} instructions").shuffle(prompts)
    return prompts


def instruction_rows(prompts: Iterable[Prompt], words: Mapping[str, OwnWords]) -> list[Row]:
    """Return the instructions for which the base wrote a plan and an answer that can be used.

    Args:
        prompts: The instructions.
        words: The base's own words, by id of the instruction; an instruction without any is left out.
    """
    rows = []
    for prompt in prompts:
        own = words.get(prompt.id)
        if own is None or own.plan is None or own.answer is None:
            continue
        row = Row(id=prompt.id, kind="instruction", text=prompt.text, thought=own.plan, answer=own.answer)
        if objection(row) is None:
            rows.append(row)
    return rows


def objection(row: Row) -> str | None:
    """Return why a row may not be learned from: a refusal, a word of safety, or its length; None if it may.

    Args:
        row: The row.
    """
    texts = (row.text, row.thought, row.answer)
    if is_refusal(row.answer) or judge_thought(row.thought, truncated=False) == "refuse":
        return f"it refuses, by the strings of version {STRINGS_VERSION}"
    for text in texts:
        if word := _WORDS.search(text):
            return f"it holds the word {word[0]!r}"
        if string := next((string for string in GCG if string in text), None):
            return f"it holds {string!r}, a string of refusals"
    if sum(map(len, texts)) > MAX_CHARACTERS:
        return f"it has more than {MAX_CHARACTERS} characters"
    return None


def harmful_texts() -> list[str]:
    """Return all harmful prompts at hand: the project's own of all splits, and those of the published files here."""
    texts = [prompt.text for split in ("build", "align", "held_out") for prompt in built_in("harmful", split)]
    folder = published_folder()
    for name in _HARMFUL_SUITES if folder else ():
        if folder and (folder / PUBLISHED[name].file).is_file():
            texts += [prompt.text for prompt in load_suite(name, folder, seed=0)]
    return texts


def need_harmless(file: Path, harmful: Sequence[str]) -> list[Row]:
    """Read the rows that will be learned, as they are written, and check each of them.

    Args:
        file: The file of rows.
        harmful: Texts of harmful prompts (`harmful_texts`).

    Raises:
        RunError: the file cannot be read, or holds no row; a row may not be learned from, or asks what a harmful prompt
            asks, exactly or nearly.
    """
    rows = read_jsonl(file, Row)
    hint = "Delete the file, and run the same command to write it again."
    if not rows:
        raise RunError(f"{file} holds no row.", hint)
    for row in rows:
        if (reason := objection(row)) is not None:
            raise RunError(f"{file}: row {row.id} may not be learned from: {reason}.", hint)
    if near := overlaps([row.text for row in rows], harmful):
        raise RunError(f"{file}: row {rows[near[0][0]].id} asks what a harmful prompt asks.", hint)
    return rows
