"""Train SmolThink-135M from SmolLM2-135M-Instruct: sample the base model's own answers, then LoRA on the lessons.

1. SmolLM2 answers the harmless build prompts in its own words, once as it likes and once begun with `rows.OPENING`
   (greedy, `answers-off.json` and `answers-on.json`).
2. LoRA on `rows.lessons`, all kinds mixed within every step (design/0002).
3. The adapter is written as float16.
"""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

from presafe.models.engine import generate_batch
from presafe.models.family import Sampling, families
from presafe.models.loading import smolthink_adapter
from presafe.models.rendering import Renderer
from presafe.models.weights import SMOLLM2, smollm2_folder
from presafe.progress import console, progress_bar
from presafe.prompts.arithmetic import generate_problems
from presafe.prompts.sets import built_in
from presafe.records import Prompt, write_text
from presafe.run_folder import check_same, locked, read_json, write_json
from presafe.smolthink.rows import OPENING, Lesson, lessons
from presafe.training import bar_callback, last_checkpoint

_ANSWER_TOKENS = 56
"""Budget of the base model's own answers; `first_sentences` cuts them shorter."""
_GROUP, _GROUPS = 4, 4
"""Rows of a forward pass, and forward passes of a step."""
_LEARNING_RATE = 6e-4
"""Peak learning rate."""
_PASSES = 1.3
"""How often each lesson is seen."""
_RANK = 16
_PROBLEMS_ON, _PROBLEMS_OFF = 2000, 300
"""Problems with working (CoT on), and answered at once (CoT off)."""


def build_smolthink(work: Path, out: Path, *, seed: int = 0, max_steps: int = -1) -> None:
    """Train the adapter and write it to a folder. Resumes from `work`.

    Args:
        work: Folder of the sampled answers and the checkpoints.
        out: Folder of the adapter; `models/smolthink/weights` for the one that ships.
        seed: Seed of the lessons and the training.
        max_steps: Stop after so many steps; -1 trains to the end.

    Raises:
        RunError: `work` was made with another seed or number of steps, or another process works in it.
    """
    with locked(work):
        settings = {"seed": seed, "max_steps": max_steps}
        if (work / "settings.json").exists():
            check_same(work, read_json(work / "settings.json"), settings)
        write_json(work / "settings.json", settings)
        _build(work, out, seed, max_steps)


def _build(work: Path, out: Path, seed: int, max_steps: int) -> None:
    import torch
    from datasets import Dataset
    from peft import LoraConfig
    from transformers import AutoModelForCausalLM, AutoTokenizer, PrinterCallback

    from presafe.alignment.export import export_adapter
    from presafe.alignment.order import mixed_order
    from presafe.alignment.trainer import PreSafeConfig, PreSafeTrainer

    tokenizer = AutoTokenizer.from_pretrained(smollm2_folder())
    model = AutoModelForCausalLM.from_pretrained(smollm2_folder(), dtype=torch.float32).eval()
    benign, borderline = built_in("benign", "build"), built_in("borderline", "build")
    harmless = [*benign, *borderline]
    answers_off = _own_answers(model, tokenizer, harmless, "", work / "answers-off.json")
    answers_on = _own_answers(model, tokenizer, harmless, OPENING, work / "answers-on.json")

    tokenizer.chat_template = (smolthink_adapter() / "chat_template.jinja").read_text(encoding="utf-8")
    tokenizer.pad_token = tokenizer.unk_token
    problems = generate_problems("build", _PROBLEMS_ON + _PROBLEMS_OFF, seed=1)
    taught = lessons(
        harmful=built_in("harmful", "build"),
        benign=benign,
        borderline=borderline,
        answers_on=answers_on,
        answers_off=answers_off,
        problems_on=problems[:_PROBLEMS_ON],
        problems_off=problems[_PROBLEMS_ON:],
        seed=seed,
    )
    renderer = Renderer(tokenizer, families()["smolthink"])
    made = [_row(renderer, lesson) for lesson in taught]
    order = mixed_order([len(row["input_ids"]) for row in made], _GROUP, math.ceil(_PASSES * len(made)), seed)
    rows = [made[index] for index in order]
    console.print(f"{len(made)} lessons, {len(rows)} rows, {sum(len(row['input_ids']) for row in rows)} tokens")
    args = PreSafeConfig(
        output_dir=str(work / "checkpoints"),
        lambda_align=0.0,
        per_device_train_batch_size=_GROUP,
        gradient_accumulation_steps=_GROUPS,
        num_train_epochs=1,
        max_steps=max_steps,
        learning_rate=_LEARNING_RATE,
        lr_scheduler_type="cosine",
        warmup_steps=20,
        train_sampling_strategy="sequential",  # `mixed_order` has drawn it
        max_length=None,
        bf16=False,
        use_cpu=not torch.cuda.is_available(),
        gradient_checkpointing=False,
        logging_steps=10,
        save_steps=25,
        save_total_limit=1,
        report_to=[],
        disable_tqdm=True,
        seed=seed,
    )
    num_steps = max_steps if max_steps > 0 else math.ceil(len(rows) / (_GROUP * _GROUPS))
    with progress_bar("SmolThink", num_steps) as bar:
        trainer = PreSafeTrainer(
            model,
            args,
            train_dataset=Dataset.from_list(rows),
            processing_class=tokenizer,
            peft_config=LoraConfig(
                r=_RANK,
                lora_alpha=2 * _RANK,
                target_modules=["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"],
                task_type="CAUSAL_LM",
            ),
            callbacks=[bar_callback(bar)],
        )
        trainer.remove_callback(PrinterCallback)
        trainer.train(resume_from_checkpoint=last_checkpoint(work / "checkpoints"))
    export_adapter(trainer.model, out, dtype=torch.float16, base_model=SMOLLM2.hub_id)


def _row(renderer: Renderer, lesson: Lesson) -> dict[str, Any]:
    prompt = renderer.render(lesson.text, lesson.thinking)
    if lesson.thinking == "on":
        completion = renderer.completion(lesson.thought, lesson.answer)
    else:
        completion = renderer.answer_ids(lesson.answer)
    return {
        "input_ids": prompt.ids + completion,
        "labels": [-100] * len(prompt.ids) + completion,
        "decision_index": prompt.decision_index,
        "signal": 0.0,
    }


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
