"""Train SmolThink-135M from SmolLM2-135M-Instruct: sample the base model's own answers, then LoRA on the lessons.

1. SmolLM2 answers the harmless build prompts in its own words (greedy, `answers.json`).
2. `rows.lessons` turns prompts, answers and worked problems into lessons.
3. One pass of LoRA; the adapter is written as float16.
"""

from __future__ import annotations

import json
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
from presafe.smolthink.rows import Lesson, lessons
from presafe.training import bar_callback, last_checkpoint

_ANSWER_TOKENS = 56
"""Budget of the base model's own answers; `first_sentences` cuts them shorter."""
_GROUP, _GROUPS = 4, 4
"""Rows of a forward pass, and forward passes of a step."""
_LEARNING_RATE = 6e-4
_RANK = 16
_PROBLEMS = (2800, 400)
"""Problems with working (CoT on) and answered at once (CoT off)."""


def build_smolthink(work: Path, out: Path, *, seed: int = 0, max_steps: int = -1) -> None:
    """Train the adapter and write it to a folder. Resumes from `work`.

    Args:
        work: Folder of the sampled answers and the checkpoints.
        out: Folder of the adapter; `models/smolthink/weights` for the one that ships.
        seed: Seed of the lessons and the training.
        max_steps: Stop after so many steps; -1 takes one pass over the lessons.
    """
    import torch
    from datasets import Dataset
    from peft import LoraConfig
    from transformers import AutoModelForCausalLM, AutoTokenizer

    from presafe.alignment.export import export_adapter
    from presafe.alignment.order import mixed_order
    from presafe.alignment.trainer import PreSafeConfig, PreSafeTrainer

    tokenizer = AutoTokenizer.from_pretrained(smollm2_folder())
    model = AutoModelForCausalLM.from_pretrained(smollm2_folder(), dtype=torch.float32)
    borderline = built_in("borderline", "build")
    answers = _own_answers(model.eval(), tokenizer, [*built_in("benign", "build"), *borderline], work / "answers.json")

    tokenizer.chat_template = (smolthink_adapter() / "chat_template.jinja").read_text(encoding="utf-8")
    tokenizer.pad_token = tokenizer.unk_token
    renderer = Renderer(tokenizer, families()["smolthink"])
    problems = generate_problems("build", sum(_PROBLEMS), seed=1)
    rows = [
        _row(renderer, lesson)
        for lesson in lessons(
            harmful=built_in("harmful", "build"),
            harmless=[*built_in("benign", "build"), *borderline, *borderline],  # look-alikes need weight
            answers=answers,
            problems_on=problems[: _PROBLEMS[0]],
            problems_off=problems[_PROBLEMS[0] :],
            seed=seed,
        )
    ]
    order = mixed_order([len(row["input_ids"]) for row in rows], _GROUP, len(rows), seed)
    console.print(f"{len(rows)} lessons, {sum(len(row['input_ids']) for row in rows)} tokens")
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
        train_sampling_strategy="sequential",
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
    num_steps = max_steps if max_steps > 0 else -(-len(rows) // (_GROUP * _GROUPS))
    with progress_bar("SmolThink", num_steps) as bar:
        trainer = PreSafeTrainer(
            model,
            args,
            train_dataset=Dataset.from_list([rows[row] for row in order]),
            processing_class=tokenizer,
            peft_config=LoraConfig(
                r=_RANK,
                lora_alpha=2 * _RANK,
                target_modules=["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"],
                task_type="CAUSAL_LM",
            ),
            callbacks=[bar_callback(bar)],
        )
        trainer.train(resume_from_checkpoint=last_checkpoint(work / "checkpoints"))
    export_adapter(trainer.model, out, dtype=torch.float16, base_model=SMOLLM2.hub_id)


def _row(renderer: Renderer, lesson: Lesson) -> dict[str, Any]:
    prompt = renderer.render(lesson.text, lesson.thinking)
    if lesson.thinking == "on":
        completion = renderer.completion(lesson.thought, lesson.answer, ended=lesson.ended)
    else:
        completion = renderer.answer_ids(lesson.answer, ended=lesson.ended)
    return {
        "input_ids": prompt.ids + completion,
        "labels": [-100] * len(prompt.ids) + completion,
        "decision_index": prompt.decision_index,
        "signal": 0.0,
    }


def _own_answers(model: Any, tokenizer: Any, prompts: list[Prompt], file: Path) -> dict[str, str]:
    """The base model's greedy answers by prompt id, sampled once and kept in a file."""
    answers: dict[str, str] = json.loads(file.read_text(encoding="utf-8")) if file.exists() else {}
    missing = sorted((prompt for prompt in prompts if prompt.id not in answers), key=lambda prompt: len(prompt.text))
    with progress_bar("SmolLM2's own answers", len(missing)) as bar:
        for start in range(0, len(missing), 64):
            batch = missing[start : start + 64]
            texts = [
                tokenizer.apply_chat_template(
                    [{"role": "user", "content": prompt.text}], add_generation_prompt=True, tokenize=False
                ).strip(" ")
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
                prompt.id: tokenizer.decode(generation.ids, skip_special_tokens=True).strip()
                for prompt, generation in zip(batch, generations, strict=True)
            }
            write_text(file, json.dumps(answers, indent=0, ensure_ascii=False))
    return answers
