"""Train SmolThink-135M from SmolLM2-135M-Instruct: sample the base model's own answers, then LoRA on the lessons.

1. SmolLM2 answers the harmless build prompts in its own words, once as it likes and once begun with `rows.OPENING`
   (greedy, `answers-off.json` and `answers-on.json`).
2. LoRA on `rows.lessons`, all kinds mixed within every step (design/0002), with `alignment.fit` and no auxiliary loss.
3. A short second training of the same adapter on `rows.settling_lessons`, at a lower rate, in which harmful requests
   with CoT off weigh more.
4. The adapter is written as float16.
"""

from __future__ import annotations

import json
import math
import shutil
from pathlib import Path
from typing import Any

from presafe.alignment.rows import AlignmentRow, plain_row
from presafe.manifest import sha256_of, sha256_of_prompts
from presafe.models.address import SMOLTHINK
from presafe.models.engine import generate_batch
from presafe.models.family import Sampling
from presafe.models.loading import load_renderer
from presafe.models.rendering import Renderer
from presafe.models.weights import SMOLLM2, smollm2_folder
from presafe.progress import console, progress_bar
from presafe.prompts.arithmetic import generate_problems
from presafe.prompts.sets import BUILT_IN, built_in
from presafe.recipe import AlignSettings
from presafe.records import Prompt, write_text
from presafe.run_folder import check_same, locked, read_json, write_json
from presafe.smolthink.rows import OPENING, Lesson, lessons, settling_lessons

_ANSWER_TOKENS = 56
"""Budget of the base model's own answers; `first_sentences` cuts them shorter."""
_GROUP, _GROUPS = 4, 4
"""Rows of a forward pass, and forward passes of a step."""
_LEARNING_RATE = 6e-4
"""Peak learning rate."""
_PASSES = 1.4
"""How often each lesson is seen."""
_SETTLING_STEPS, _SETTLING_RATE = 60, 3e-4
"""Steps and peak learning rate of the second training."""
_PROBLEMS_ON, _PROBLEMS_OFF = 2400, 300
"""Problems with working (CoT on), and answered at once (CoT off)."""


def build_smolthink(work: Path, out: Path, *, seed: int = 0, max_steps: int = -1) -> None:
    """Train the adapter and write it to a folder. Resumes from `work`.

    Args:
        work: Folder of the sampled answers and the checkpoints.
        out: Folder of the adapter; `models/smolthink/weights` for the one that ships.
        seed: Seed of the lessons and the training.
        max_steps: Stop after so many steps; -1 trains to the end.

    Raises:
        RunError: `work` was made with other prompts or lessons, another seed or number of steps, or another process
            works in it.
    """
    with locked(work):
        prompts = sha256_of_prompts(built_in(name, "build") for name in BUILT_IN)
        _keep(work / "settings.json", {"seed": seed, "max_steps": max_steps, "prompts_sha256": prompts})
        _build(work, out, seed, max_steps)


def _keep(file: Path, settings: dict[str, Any]) -> None:
    """Write settings beside what they made; refuse to go on with others."""
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
    prompts: dict[str, Any] = {
        "harmful": built_in("harmful", "build"),
        "benign": benign,
        "borderline": borderline,
        "answers_on": answers_on,
        "answers_off": answers_off,
        "problems_on": problems[:_PROBLEMS_ON],
        "seed": seed,
    }
    taught = lessons(**prompts, problems_off=problems[_PROBLEMS_ON:])
    num_steps = max_steps if max_steps > 0 else math.ceil(_PASSES * len(taught) / (_GROUP * _GROUPS))
    _train(model, renderer, taught, work, "SmolThink", seed, num_steps, _LEARNING_RATE, warmup_steps=20)
    # PEFT has wrapped the model's layers in place: the second training begins with fresh ones.
    model = AutoModelForCausalLM.from_pretrained(smollm2_folder(), dtype=torch.float32, trust_remote_code=False)
    num_steps = max_steps if max_steps > 0 else _SETTLING_STEPS
    settled = work / "settled"
    _train(
        model,
        renderer,
        settling_lessons(**prompts),
        settled,
        "SmolThink, settled",
        seed,
        num_steps,
        _SETTLING_RATE,
        warmup_steps=5,
        start=work / "adapter",
    )
    out.mkdir(parents=True, exist_ok=True)
    for file in (settled / "adapter").iterdir():
        shutil.copyfile(file, out / file.name)


def _train(
    model: Any,
    renderer: Renderer,
    taught: list[Lesson],
    work: Path,
    label: str,
    seed: int,
    num_steps: int,
    learning_rate: float,
    *,
    warmup_steps: int,
    start: Path | None = None,
) -> None:
    """One training, into `work`; resumed there, and passed over where it is finished."""
    from presafe.alignment.fit import HISTORY, fit

    _keep(work / "lessons.json", {"sha256": sha256_of(taught), "steps": num_steps, "learning_rate": learning_rate})
    console.print(f"{label}: {len(taught)} lessons, {num_steps} steps of {_GROUP * _GROUPS} rows")
    if (work / HISTORY).exists():
        return
    fit(
        model,
        renderer,
        [_row(renderer, number, lesson) for number, lesson in enumerate(taught)],
        AlignSettings(
            max_steps=num_steps,
            batch_size=_GROUP,
            accumulation=_GROUPS,
            learning_rate=learning_rate,
            warmup_steps=warmup_steps,
            save_steps=25,
        ),
        lambda_align=0.0,
        seed=seed,
        folder=work,
        label=label,
        base_model=SMOLLM2.hub_id,
        start=start,
        dtype="float16",
    )


def _row(renderer: Renderer, number: int, lesson: Lesson) -> AlignmentRow:
    prompt = renderer.render(lesson.text, lesson.thinking)
    if lesson.thinking == "on":
        completion = renderer.completion(lesson.thought, lesson.answer)
    else:
        completion = renderer.answer_ids(lesson.answer)
    return plain_row(f"lesson-{number}", prompt, completion)


def _own_answers(model: Any, tokenizer: Any, prompts: list[Prompt], opening: str, file: Path) -> dict[str, str]:
    """The base model's greedy answers by prompt id, each begun with `opening`, sampled once and kept in a file."""
    answers: dict[str, str] = json.loads(file.read_text(encoding="utf-8")) if file.exists() else {}
    missing = sorted((prompt for prompt in prompts if prompt.id not in answers), key=lambda prompt: len(prompt.text))
    with progress_bar(f"SmolLM2's own answers ({file.stem})", len(missing)) as bar:
        for start in range(0, len(missing), 64):
            batch = missing[start : start + 64]
            texts = [
                tokenizer.apply_chat_template(
                    [{"role": "user", "content": prompt.text}], add_generation_prompt=True, tokenize=False
                )
                + opening
                for prompt in batch
            ]
            generations = generate_batch(
                model,
                [tokenizer.encode(text, add_special_tokens=False) for text in texts],
                max_new_tokens=_ANSWER_TOKENS,
                stop_ids=[tokenizer.eos_token_id],
                sampling=Sampling(),
                seeds=[0] * len(batch),
                on_finished=bar.advance,
            )
            answers |= {
                prompt.id: (opening + tokenizer.decode(generation.ids, skip_special_tokens=True)).strip()
                for prompt, generation in zip(batch, generations, strict=True)
            }
            write_text(file, json.dumps(answers, indent=0, ensure_ascii=False))
    return answers
