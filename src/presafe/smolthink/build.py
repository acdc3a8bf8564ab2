"""Train SmolThink-135M from SmolLM2-135M-Instruct: sample the base model's own answers, then LoRA on the lessons.

1. SmolLM2 answers the harmless build prompts in its own words (greedy, `answers.json`).
2. First pass over `rows.lessons`: the two modes, and arithmetic with its working.
3. Second and third pass over `rows.later_lessons`, each from the adapter before: the two modes set further apart.

Each pass leaves its adapter as float16; the last one's is SmolThink.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
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
from presafe.smolthink.rows import Lesson, later_lessons, lessons
from presafe.training import bar_callback, last_checkpoint

_ANSWER_TOKENS = 56
"""Budget of the base model's own answers; `first_sentences` cuts them shorter."""
_GROUP, _GROUPS = 4, 4
"""Rows of a forward pass, and forward passes of a step."""
_LEARNING_RATES = (6e-4, 4e-4, 4e-4)
"""Peak learning rate of each pass."""
_RANK = 16
_PROBLEMS = (2800, 400, 200)
"""Problems with working (CoT on), answered at once (CoT off), and with working in the second pass."""
_LATER_BENIGN = 420
"""Benign instructions with CoT on in the later passes (and with CoT off in the second), beside all look-alikes."""


def build_smolthink(work: Path, out: Path, *, seed: int = 0, max_steps: int = -1) -> None:
    """Train the adapter and write it to a folder. Resumes from `work`.

    Args:
        work: Folder of the sampled answers, the checkpoints and the first pass's adapter.
        out: Folder of the adapter; `models/smolthink/weights` for the one that ships.
        seed: Seed of the lessons and the training.
        max_steps: Stop each pass after so many steps; -1 takes one pass over its lessons.
    """
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(smollm2_folder())
    benign, borderline = built_in("benign", "build"), built_in("borderline", "build")
    base = AutoModelForCausalLM.from_pretrained(smollm2_folder(), dtype=torch.float32).eval()
    answers = _own_answers(base, tokenizer, [*benign, *borderline], work / "answers.json")
    del base

    tokenizer.chat_template = (smolthink_adapter() / "chat_template.jinja").read_text(encoding="utf-8")
    tokenizer.pad_token = tokenizer.unk_token
    problems = generate_problems("build", sum(_PROBLEMS), seed=1)
    with_working, at_once, again = (
        problems[: _PROBLEMS[0]],
        problems[_PROBLEMS[0] : sum(_PROBLEMS[:2])],
        problems[sum(_PROBLEMS[:2]) :],
    )
    first = lessons(
        harmful=built_in("harmful", "build"),
        harmless=[*benign, *borderline, *borderline],  # look-alikes need weight
        answers=answers,
        problems_on=with_working,
        problems_off=at_once,
        seed=seed,
    )
    some = [*benign[:_LATER_BENIGN], *borderline]
    second = later_lessons(
        harmful=built_in("harmful", "build"),
        answered_off=some,
        answered_on=some,
        answers=answers,
        problems_on=again,
        wordings=2,
        drafts=False,
        seed=seed,
    )
    third = later_lessons(
        harmful=built_in("harmful", "build"),
        answered_off=[*benign, *borderline],  # the second pass refuses too many of them
        answered_on=[*some, *borderline],
        answers=answers,
        problems_on=again[:100],
        wordings=1,
        drafts=True,
        seed=seed,
    )
    before: Path | None = None
    for number, (taught, rate) in enumerate(zip((first, second, third), _LEARNING_RATES, strict=True), start=1):
        folder = work / f"pass-{number}"
        if not (folder / "adapter").exists():
            _train(tokenizer, taught, rate, before, folder, seed, max_steps)
        before = folder / "adapter"
    assert before is not None
    out.mkdir(parents=True, exist_ok=True)
    for name in ("adapter_model.safetensors", "adapter_config.json"):
        shutil.copyfile(before / name, out / name)


def _train(
    tokenizer: Any, taught: Sequence[Lesson], rate: float, before: Path | None, folder: Path, seed: int, max_steps: int
) -> None:
    """One pass of LoRA, from scratch or from the adapter before; writes `folder/adapter`."""
    import torch
    from datasets import Dataset
    from peft import LoraConfig, PeftModel
    from transformers import AutoModelForCausalLM

    from presafe.alignment.export import export_adapter
    from presafe.alignment.order import mixed_order
    from presafe.alignment.trainer import PreSafeConfig, PreSafeTrainer

    renderer = Renderer(tokenizer, families()["smolthink"])
    rows = [_row(renderer, lesson) for lesson in taught]
    order = mixed_order([len(row["input_ids"]) for row in rows], _GROUP, len(rows), seed)
    console.print(f"{folder.name}: {len(rows)} lessons, {sum(len(row['input_ids']) for row in rows)} tokens")
    model = AutoModelForCausalLM.from_pretrained(smollm2_folder(), dtype=torch.float32)
    adapter = LoraConfig(
        r=_RANK,
        lora_alpha=2 * _RANK,
        target_modules=["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"],
        task_type="CAUSAL_LM",
    )
    if before is not None:
        model, adapter = PeftModel.from_pretrained(model, str(before), is_trainable=True), None
    args = PreSafeConfig(
        output_dir=str(folder / "checkpoints"),
        lambda_align=0.0,
        per_device_train_batch_size=_GROUP,
        gradient_accumulation_steps=_GROUPS,
        num_train_epochs=1,
        max_steps=max_steps,
        learning_rate=rate,
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
    num_steps = max_steps if max_steps > 0 else -(-len(rows) // (_GROUP * _GROUPS))
    with progress_bar(f"SmolThink {folder.name}", num_steps) as bar:
        trainer = PreSafeTrainer(
            model,
            args,
            train_dataset=Dataset.from_list([rows[row] for row in order]),
            processing_class=tokenizer,
            peft_config=adapter,
            callbacks=[bar_callback(bar)],
        )
        trainer.train(resume_from_checkpoint=last_checkpoint(folder / "checkpoints"))
    export_adapter(trainer.model, folder / "adapter", dtype=torch.float16, base_model=SMOLLM2.hub_id)


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
