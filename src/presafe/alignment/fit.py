"""Train one system from a recipe: resumable, with a progress bar, exported as a plain adapter and a head apart."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any, Literal

from presafe.alignment.rows import AlignmentRow, cut, refusal_start_id
from presafe.errors import RecipeError, SignalError
from presafe.methods.method import Head
from presafe.models.checkpoints import need_whole_checkpoint
from presafe.models.rendering import Renderer
from presafe.processes import is_main_process, num_processes, weights_are_cut
from presafe.progress import console, progress_bar
from presafe.recipe import AlignSettings
from presafe.records import HistoryPoint, write_jsonl
from presafe.training import bar_callback, last_checkpoint

CHECKPOINTS = "checkpoints"
"""Folder of what a training goes on from after a kill."""
HISTORY = "history.jsonl"
"""Training curve of a system; written last, so that it marks a finished training."""
_SHORT = 256
"""Tokens of a row up to which a CPU trains in bfloat16 without torch's fused attention, which is slow going backward: a
step of rows of 70 tokens takes a fifth less time. Long rows need it: it keeps nothing for each pair of positions.
"""


def fit(
    model: Any,
    renderer: Renderer,
    rows: Sequence[AlignmentRow],
    settings: AlignSettings,
    *,
    lambda_align: float,
    lambda_start: float = 0.0,
    head: Head = "decision",
    start_ids: tuple[int, int | None] | None = None,
    seed: int,
    folder: Path,
    label: str,
    base_model: str,
    start: Path | None = None,
    dtype: Literal["float32", "float16"] = "float32",
) -> None:
    """Align a model; writes `adapter/`, `history.jsonl` and, where λ > 0, `presafe_head.safetensors` to the folder.

    Args:
        model: The causal language model, without an adapter.
        renderer: Its tokenizer and family.
        rows: Alignment rows.
        settings: The recipe's settings of the stage.
        lambda_align: λ of this system; 0 trains no head.
        lambda_start: Weight of L_start of this system; with both at 0 it is next-token loss only.
        head: What the head of L_align reads. Only one that reads the decision position is written.
        start_ids: The token a refusal starts with, for L_start, and the pivot set against it, None being each row's
            own token; without them that of the recipe's form.
        seed: Seed of the adapter, the head and the order of rows.
        folder: Folder of this system; checkpoints in it are resumed.
        label: Label of the progress bar.
        base_model: The model's address, written as the adapter's base.
        start: Folder of an adapter to go on from; None begins a new one.
        dtype: Type of the written adapter.

    Raises:
        SignalError: no row has a prompt that is short enough to train on.
        RecipeError: the model has none of the layers in `settings.lora_targets`, not as many as `settings.layer`, or
            the rows of a step cannot be shared by the processes that train.

    Under a launcher every process calls it: each takes its share of every step, and the first writes.
    """
    import torch
    from datasets import Dataset
    from peft import LoraConfig
    from peft.helpers import disable_input_dtype_casting
    from torch.nn.attention import SDPBackend, sdpa_kernel
    from transformers import PrinterCallback, set_seed

    from presafe.alignment.export import export_adapter, load_adapter, whole_weights
    from presafe.alignment.head import save_head
    from presafe.alignment.order import mixed_order, share_of_step
    from presafe.alignment.trainer import PreSafeConfig, PreSafeTrainer

    layers = {name.rpartition(".")[2] for name, _ in model.named_modules()}
    if missing := sorted(set(settings.lora_targets) - layers):
        raise RecipeError(
            f"the model has no layer named {', '.join(missing)}.", "Name its own linear layers in align.lora_targets."
        )
    num_layers = model.config.get_text_config().num_hidden_layers
    if settings.layer is not None and settings.layer > num_layers:
        raise RecipeError(
            f"align.layer is {settings.layer}, and the model has {num_layers} layers.", "Name one of them."
        )
    longest = settings.max_length
    kept = [cut(row, longest) for row in rows if max(row.start_index + 1, row.pool_index) < longest]
    if not kept:
        raise SignalError(f"no alignment row has a prompt of less than {longest} tokens.", "Raise align.max_length.")
    if num_cut := sum(len(row.input_ids) > longest for row in rows):
        console.print(f"  {label}: cut {num_cut} of {len(rows)} rows to {longest} tokens")
    if len(kept) < len(rows):
        console.print(f"  {label}: left out {len(rows) - len(kept)} rows whose prompt fills {longest} tokens")
    a_step = settings.batch_size * settings.accumulation
    needed = settings.max_steps * a_step
    # One forward pass a step: grouped it would be of one kind.
    group = settings.batch_size if settings.accumulation > 1 else 1
    order = mixed_order([len(row.input_ids) for row in kept], [row.kind for row in kept], group, needed, seed)
    batch_size, accumulation = share_of_step(settings.batch_size, settings.accumulation, num_processes())
    first, against = start_ids or (refusal_start_id(renderer, settings.refusal_target), None)
    checkpoints = folder / CHECKPOINTS
    on_gpu = torch.cuda.is_available()
    on_cpu = not torch.accelerator.is_available()
    on_cpu_in_bfloat16 = on_cpu and model.dtype == torch.bfloat16 and not weights_are_cut()
    set_seed(seed)
    arguments = PreSafeConfig(
        output_dir=str(checkpoints),
        lambda_align=lambda_align,
        lambda_start=lambda_start,
        head=head,
        decision_position=settings.decision_position,
        layer=settings.layer if lambda_align > 0 and head != "pooled" else None,
        refusal_start_id=first,
        contrast_id=against,
        head_learning_rate=settings.head_learning_rate,
        max_steps=settings.max_steps,
        per_device_train_batch_size=batch_size,
        gradient_accumulation_steps=accumulation,
        learning_rate=settings.learning_rate,
        lr_scheduler_type="cosine",
        warmup_steps=settings.warmup_steps,
        train_sampling_strategy="sequential",  # `mixed_order` has drawn it
        max_length=None,
        bf16=on_gpu or on_cpu_in_bfloat16,
        use_cpu=on_cpu_in_bfloat16,  # without it transformers refuses bf16 where there is no GPU
        gradient_checkpointing=on_gpu,
        logging_steps=1,
        save_steps=settings.save_steps,
        save_total_limit=1,
        seed=seed,
        report_to=[],
        disable_tqdm=True,
    )
    with progress_bar(label, settings.max_steps) as bar:
        trainer = PreSafeTrainer(
            model,
            arguments,
            train_dataset=Dataset.from_list([kept[index]._asdict() for index in order]),
            processing_class=renderer.tokenizer,
            peft_config=LoraConfig(
                r=settings.lora_rank,
                lora_alpha=settings.lora_alpha,
                target_modules=list(settings.lora_targets),
                task_type="CAUSAL_LM",
            ),
            callbacks=[bar_callback(bar)],
        )
        trainer.remove_callback(PrinterCallback)
        if start is not None:
            load_adapter(trainer.model, start)
        with trainer.accelerator.main_process_first():  # it may delete one that was cut
            checkpoint = last_checkpoint(checkpoints)
        need_whole_checkpoint(checkpoint, trainer.model)
        short = max(len(row.input_ids) for row in kept) <= _SHORT
        attention = sdpa_kernel(SDPBackend.MATH) if on_cpu_in_bfloat16 and short else nullcontext()
        # PEFT makes every input float32 for its weights, and autocast makes it bfloat16 again: to the bit the same.
        with attention, disable_input_dtype_casting(trainer.model, active=on_cpu_in_bfloat16):
            trainer.train(resume_from_checkpoint=checkpoint)
    weights = whole_weights(trainer)
    if not is_main_process():
        return
    export_adapter(trainer.model, folder / "adapter", dtype=getattr(torch, dtype), base_model=base_model, state=weights)
    if lambda_align > 0 and head != "pooled":  # at 0 the head is trained on nothing, and decides nothing
        save_head(trainer.model, folder, position=settings.decision_position, layer=settings.layer, state=weights)
    history = [
        HistoryPoint(
            step=entry["step"],
            nll=entry["sft_loss"],
            bce=entry["align_loss"] if lambda_align > 0 else None,
            start_bce=entry.get("start_loss"),
            num_tokens=sum(len(kept[row].input_ids) for row in order[a_step * (entry["step"] - 1) :][:a_step]),
        )
        for entry in trainer.state.log_history
        if "sft_loss" in entry
    ]
    write_jsonl(folder / HISTORY, history)
