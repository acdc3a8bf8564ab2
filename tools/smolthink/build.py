"""Train SmolThink-135M from SmolLM2-135M-Instruct: about an hour on two CPU cores.

    python tools/smolthink/build.py --out DIR

1. Sample SmolLM2's own answers to the harmless build prompts, once freely and once begun with `lessons.OPENING`
   (greedy, `answers-off.json` and `answers-on.json`).
2. Train a LoRA on `lessons.lessons`, all kinds mixed within every step (design/0002), without an auxiliary loss.
3. Train the same adapter for a short time on `lessons.settling_lessons`, at a lower rate; there the harmful requests
   with CoT off weigh more.
4. Write the adapter as float16.
"""

from __future__ import annotations

import json
import math
import os
import shutil
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import typer

from lessons import OPENING, Lesson, Material, lessons, settling_lessons
from presafe.alignment.fit import HISTORY, FitSettings, fit
from presafe.alignment.rows import AlignmentRow, plain_row
from presafe.config.recipe import AlignSettings
from presafe.errors import PreSafeError
from presafe.models.address import SMOLTHINK
from presafe.models.engine import generate_batch
from presafe.models.family import Sampling
from presafe.models.loading import load_renderer
from presafe.models.rendering import Renderer
from presafe.models.weights import SMOLLM2, smollm2_folder
from presafe.prompts.arithmetic import generate_problems
from presafe.prompts.sets import BUILT_IN, built_in
from presafe.records import Prompt
from presafe.runs.folder import check_same, locked
from presafe.runs.io import read_json, write_json, write_text
from presafe.runs.manifest import sha256_of, sha256_of_prompts
from presafe.runtime.progress import console, progress_bar

_ANSWER_TOKENS = 56
"""Token budget of the base model's own answers; `first_sentences` shortens them further."""
_ANSWER_BATCH = 64
"""Prompts answered in one batch."""
_GROUP = 4
"""Rows per forward pass."""
_GROUPS = 4
"""Forward passes per step."""
_PASSES = 1.4
"""How often the first training sees each lesson."""
_PROBLEMS_ON = 2400
"""Problems with their working (CoT on)."""
_PROBLEMS_OFF = 300
"""Problems answered at once (CoT off)."""


@dataclass(frozen=True)
class _Schedule:
    """Settings in which the two trainings differ."""

    label: str
    num_steps: int
    learning_rate: float
    """Peak learning rate."""
    warmup_steps: int


def build_smolthink(work: Path, out: Path, *, seed: int = 0, max_steps: int = -1) -> None:
    """Train the adapter and write it to a folder; resume from `work`.

    Args:
        work: Folder of the sampled answers and the checkpoints.
        out: Folder of the adapter; `src/presafe/models/smolthink/weights` for the shipped one.
        seed: Seed of the lessons and the training.
        max_steps: Number of steps of each training; -1 trains to the end.

    Raises:
        RunError: `work` was made with other prompts or lessons, another seed or number of steps, or another process
            works in it.
    """
    with locked(work):
        prompts_sha256 = sha256_of_prompts(built_in(name, "build") for name in BUILT_IN)
        settings = {"seed": seed, "max_steps": max_steps, "prompts_sha256": prompts_sha256}
        _write_or_check(work / "settings.json", settings)
        _build(work, out, seed, max_steps)


def _write_or_check(file: Path, settings: dict[str, Any]) -> None:
    """Write settings beside their results, or refuse to resume if the stored ones differ."""
    if file.exists():
        check_same(file.parent, read_json(file), settings, "--work")
    write_json(file, settings)


def _build(work: Path, out: Path, seed: int, max_steps: int) -> None:
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(smollm2_folder(), trust_remote_code=False)
    model = AutoModelForCausalLM.from_pretrained(smollm2_folder(), dtype=torch.float32, trust_remote_code=False).eval()
    benign, borderline = built_in("benign", "build"), built_in("borderline", "build")
    harmless = [*benign, *borderline]
    answers_off = _own_answers(model, tokenizer, harmless, "", work / "answers-off.json")
    answers_on = _own_answers(model, tokenizer, harmless, OPENING, work / "answers-on.json")

    renderer = load_renderer(SMOLTHINK)
    problems = generate_problems("build", _PROBLEMS_ON + _PROBLEMS_OFF, seed=1)
    material = Material(
        harmful=built_in("harmful", "build"),
        benign=benign,
        borderline=borderline,
        answers_on=answers_on,
        answers_off=answers_off,
        problems_on=problems[:_PROBLEMS_ON],
        problems_off=problems[_PROBLEMS_ON:],
    )
    taught = lessons(material, seed)
    num_steps = max_steps if max_steps > 0 else math.ceil(_PASSES * len(taught) / (_GROUP * _GROUPS))
    first = _Schedule("SmolThink", num_steps, learning_rate=6e-4, warmup_steps=20)
    _train(model, renderer, taught, first, work, seed)
    # PEFT has wrapped the model's layers in place: the second training begins with fresh ones.
    model = AutoModelForCausalLM.from_pretrained(smollm2_folder(), dtype=torch.float32, trust_remote_code=False)
    num_steps = max_steps if max_steps > 0 else 60
    second = _Schedule("SmolThink, settled", num_steps, learning_rate=3e-4, warmup_steps=5)
    settled = work / "settled"
    _train(model, renderer, settling_lessons(material, seed), second, settled, seed, start=work / "adapter")
    out.mkdir(parents=True, exist_ok=True)
    for file in (settled / "adapter").iterdir():
        shutil.copyfile(file, out / file.name)


def _train(
    model: Any,
    renderer: Renderer,
    taught: list[Lesson],
    schedule: _Schedule,
    work: Path,
    seed: int,
    *,
    start: Path | None = None,
) -> None:
    """Train once into `work`: resume there, or skip if the training is complete."""
    num_steps, learning_rate = schedule.num_steps, schedule.learning_rate
    identity = {"sha256": sha256_of(taught), "steps": num_steps, "learning_rate": learning_rate}
    _write_or_check(work / "lessons.json", identity)
    console.print(f"{schedule.label}: {len(taught)} lessons, {num_steps} steps of {_GROUP * _GROUPS} rows")
    if (work / HISTORY).exists():
        return
    align = AlignSettings(
        max_steps=num_steps,
        batch_size=_GROUP,
        accumulation=_GROUPS,
        learning_rate=learning_rate,
        warmup_steps=schedule.warmup_steps,
        save_steps=25,
    )
    settings = FitSettings(
        align=align,
        lambda_align=0.0,
        seed=seed,
        folder=work,
        label=schedule.label,
        base_model=SMOLLM2.hub_id,
        initial_adapter=start,
        adapter_dtype="float16",
    )
    fit(model, renderer, [_row(renderer, number, lesson) for number, lesson in enumerate(taught)], settings)


def _row(renderer: Renderer, number: int, lesson: Lesson) -> AlignmentRow:
    prompt = renderer.render(lesson.text, lesson.thinking)
    if lesson.thinking == "on":
        completion = renderer.completion(lesson.thought, lesson.answer)
    else:
        completion = renderer.answer_ids(lesson.answer)
    return plain_row(f"lesson-{number}", prompt, completion)


def _own_answers(model: Any, tokenizer: Any, prompts: list[Prompt], opening: str, file: Path) -> dict[str, str]:
    """Return the base model's greedy answers by prompt id, each begun with `opening`; the file stores them."""
    answers: dict[str, str] = json.loads(file.read_text(encoding="utf-8")) if file.exists() else {}
    missing = sorted((prompt for prompt in prompts if prompt.id not in answers), key=lambda prompt: len(prompt.text))
    with progress_bar(f"SmolLM2's own answers ({file.stem})", len(missing)) as bar:
        for start in range(0, len(missing), _ANSWER_BATCH):
            batch = missing[start : start + _ANSWER_BATCH]
            generations = generate_batch(
                model,
                [_prompt_ids(tokenizer, prompt, opening) for prompt in batch],
                max_new_tokens=_ANSWER_TOKENS,
                stop_ids=[tokenizer.eos_token_id],
                sampling=Sampling(),
                seeds=[0] * len(batch),
                on_finished=bar.advance,
            )
            for prompt, generation in zip(batch, generations, strict=True):
                text = tokenizer.decode(generation.ids, skip_special_tokens=True)
                answers[prompt.id] = (opening + text).strip()
            write_text(file, json.dumps(answers, indent=0, ensure_ascii=False))
    return answers


def _prompt_ids(tokenizer: Any, prompt: Prompt, opening: str) -> list[int]:
    messages = [{"role": "user", "content": prompt.text}]
    text = tokenizer.apply_chat_template(messages, add_generation_prompt=True, tokenize=False) + opening
    ids: list[int] = tokenizer.encode(text, add_special_tokens=False)
    return ids


def command(
    work: Annotated[Path, typer.Option("--work", help="Answers and checkpoints; resumed.")] = Path("runs/smolthink"),
    out: Annotated[Path, typer.Option("--out", help="Folder of the adapter.")] = Path("runs/smolthink/adapter"),
    seed: Annotated[int, typer.Option("--seed", help="Seed of lessons and training.")] = 0,
    max_steps: Annotated[int, typer.Option("--max-steps", help="Steps of each training; -1: all.")] = -1,
) -> None:
    """Train SmolThink-135M from SmolLM2-135M-Instruct: about an hour on two CPU cores."""
    try:
        build_smolthink(work, out, seed=seed, max_steps=max_steps)
    except PreSafeError as error:
        print(f"build.py: {' '.join(str(error).split())}", file=sys.stderr)
        raise typer.Exit(2) from error
    print(f"adapter: {out}")


if __name__ == "__main__":
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    os.environ.setdefault("TQDM_DISABLE", "1")  # the progress bars are ours
    typer.run(command)
