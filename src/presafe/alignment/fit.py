"""Train one system from a recipe: resumable, with a progress bar; adapter and head are written separately."""

from __future__ import annotations

import math
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean
from typing import TYPE_CHECKING, Any, Literal

from presafe.alignment.callbacks import own_callbacks
from presafe.alignment.rows import AlignmentRow, refusal_start_id, truncate
from presafe.alignment.scale import trained_alpha
from presafe.alignment.targets import excluded_modules, lora_targets
from presafe.alignment.trackers import check_trackers, run_name, tracked
from presafe.config.recipe import AlignSettings
from presafe.errors import RecipeError, SignalError
from presafe.methods.method import AdapterShape, Head
from presafe.models.checkpoints import need_whole_checkpoint
from presafe.models.output import need_own_logits
from presafe.models.rendering import Renderer
from presafe.records import HeadFit, HistoryPoint
from presafe.runs.io import write_jsonl, write_text
from presafe.runtime.checkpoints import bar_callback, last_checkpoint
from presafe.runtime.launcher import is_main_process, num_processes, weights_are_sharded
from presafe.runtime.progress import console, progress_bar

if TYPE_CHECKING:
    from presafe.alignment.trainer import PreSafeConfig, PreSafeTrainer

CHECKPOINTS = "checkpoints"
"""Folder of the checkpoints from which a killed training resumes."""
HISTORY = "history.jsonl"
"""Training curve of a system; written last, so it marks a finished training."""
HEAD_FIT = "head_fit.json"
"""How well a system's head learned p′."""
_SHORT = 256
"""Longest row, in tokens, for which a CPU trains in bfloat16 without torch's fused attention.

The backward pass of fused attention is slow: without it, a step of rows of 70 tokens takes a fifth less time. Long rows
need fused attention, because it stores nothing per pair of positions.
"""


@dataclass(frozen=True)
class FitSettings:
    """Settings of one training. With `lambda_align` and `lambda_start` at 0 it is next-token loss only."""

    align: AlignSettings
    """The recipe's settings of the stage."""
    lambda_align: float
    """λ of this system, at least 0; 0 trains no head."""
    seed: int
    """Seed of the adapter, the head and the order of rows."""
    folder: Path
    """Folder of this system; checkpoints in it are resumed."""
    label: str
    """Label of the progress bar."""
    base_model: str
    """The model's address, written as the adapter's base."""
    lambda_start: float = 0.0
    """Weight of L_start, at least 0."""
    head: Head = "decision"
    """What the head of L_align reads. Only a head that reads the decision position is written."""
    start_ids: tuple[int, int | None] | None = None
    """For L_start: the first token of a refusal, and the pivot contrasted with it (None: each row's own token). Without
    them, the first token of a refusal in the recipe's form."""
    adapter: AdapterShape | None = None
    """Shape of the adapter; None takes the recipe's."""
    initial_adapter: Path | None = None
    """Folder of an adapter to train further; None starts a new one."""
    adapter_dtype: Literal["float32", "float16"] = "float32"
    """Type of the written adapter."""


def fit(model: Any, renderer: Renderer, rows: Sequence[AlignmentRow], settings: FitSettings) -> None:
    """Align a model; write `adapter/`, `history.jsonl` and, where λ > 0, the head and `head_fit.json` to the folder.

    Under a launcher every process calls it: each takes its share of every step, and the first process writes.

    Args:
        model: The causal language model, without an adapter.
        renderer: Its tokenizer and family.
        rows: Alignment rows.
        settings: Settings of the training.

    Raises:
        SignalError: no row has a prompt that is short enough to train on.
        ModelError: as `need_own_logits`.
        RecipeError: the model has none of the layers in `lora_targets`, has fewer layers than `layer`, a tracker is
            not installed or cannot start, a callback cannot be made, or the rows of a step cannot be shared by the
            processes that train.
    """
    from peft.helpers import disable_input_dtype_casting
    from torch.nn.attention import SDPBackend, sdpa_kernel
    from transformers import set_seed

    from presafe.alignment.export import load_adapter, whole_weights
    from presafe.alignment.order import mixed_order

    align = settings.align
    _check_layers(model, align, settings.adapter.targets if settings.adapter else lora_targets(model, align))
    check_trackers(align.report_to)
    if settings.lambda_start > 0 and not weights_are_sharded():
        need_own_logits(model)
    trainable = _trainable_rows(rows, align.max_length, settings.label)
    # With one forward pass per step, groups would make each step of one kind only.
    group = align.batch_size if align.accumulation > 1 else 1
    num_rows = align.max_steps * align.batch_size * align.accumulation
    lengths = [len(row.input_ids) for row in trainable]
    order = mixed_order(lengths, [row.kind for row in trainable], group, num_rows, settings.seed)
    ordered = [trainable[index] for index in order]
    cpu_bfloat16 = _trains_in_bfloat16_on_cpu(model)
    config = _trainer_config(renderer, settings, cpu_bfloat16=cpu_bfloat16)
    set_seed(settings.seed)
    with progress_bar(settings.label, align.max_steps) as bar:
        callbacks = [bar_callback(bar), *own_callbacks(align.callbacks)]
        trainer = _trainer(model, renderer, ordered, config, _lora_config(model, settings), callbacks)
        if settings.initial_adapter is not None:
            load_adapter(trainer.model, settings.initial_adapter)
        with trainer.accelerator.main_process_first():  # it may delete a checkpoint that a kill left unfinished
            checkpoint = last_checkpoint(settings.folder / CHECKPOINTS)
        need_whole_checkpoint(checkpoint, trainer.model)
        plain_attention = cpu_bfloat16 and max(lengths) <= _SHORT
        attention = sdpa_kernel(SDPBackend.MATH) if plain_attention else nullcontext()
        # PEFT casts every input to float32 for its weights, and autocast casts it back to bfloat16: without both casts
        # the result is the same to the bit.
        no_casting = disable_input_dtype_casting(trainer.model, active=cpu_bfloat16)
        with attention, no_casting, tracked(align.report_to):
            trainer.train(resume_from_checkpoint=checkpoint)
    weights = whole_weights(trainer)  # every process takes part
    if is_main_process():
        _write_results(trainer, ordered, settings, weights)


def _check_layers(model: Any, align: AlignSettings, targets: Sequence[str]) -> None:
    """Check that the model has the layers that the recipe names."""
    layer_names = {name.rpartition(".")[2] for name, _ in model.named_modules()}
    if missing := sorted(set(targets) - layer_names):
        raise RecipeError(
            f"the model has no layer named {', '.join(missing)}.", "Name its own linear layers in align.lora_targets."
        )
    num_layers = model.config.get_text_config().num_hidden_layers
    if align.layer is not None and align.layer > num_layers:
        raise RecipeError(f"align.layer is {align.layer}, and the model has {num_layers} layers.", "Name one of them.")


def _trainable_rows(rows: Sequence[AlignmentRow], max_length: int, label: str) -> list[AlignmentRow]:
    """Truncate long rows, and drop rows whose prompt alone is too long; print how many."""
    trainable = [truncate(row, max_length) for row in rows if max(row.start_index + 1, row.pool_index) < max_length]
    if not trainable:
        raise SignalError(f"no alignment row has a prompt of less than {max_length} tokens.", "Raise align.max_length.")
    if num_truncated := sum(len(row.input_ids) > max_length for row in rows):
        console.print(f"  {label}: cut {num_truncated} of {len(rows)} rows to {max_length} tokens")
    if num_dropped := len(rows) - len(trainable):
        console.print(f"  {label}: left out {num_dropped} rows whose prompt fills {max_length} tokens")
    return trainable


def _trains_in_bfloat16_on_cpu(model: Any) -> bool:
    import torch

    return not torch.accelerator.is_available() and model.dtype == torch.bfloat16 and not weights_are_sharded()


def _trainer_config(renderer: Renderer, settings: FitSettings, *, cpu_bfloat16: bool) -> PreSafeConfig:
    import torch

    from presafe.alignment.order import share_of_step
    from presafe.alignment.trainer import PreSafeConfig

    align, head = settings.align, settings.head
    batch_size, accumulation = share_of_step(align.batch_size, align.accumulation, num_processes())
    refusal_id, contrast_id = settings.start_ids or (refusal_start_id(renderer, align.refusal_target), None)
    on_gpu = torch.cuda.is_available()
    return PreSafeConfig(
        output_dir=str(settings.folder / CHECKPOINTS),
        lambda_align=settings.lambda_align,
        lambda_start=settings.lambda_start,
        head=head,
        decision_position=align.decision_position,
        layer=align.layer if settings.lambda_align > 0 and head != "pooled" else None,
        refusal_start_id=refusal_id,
        contrast_id=contrast_id,
        head_learning_rate=align.head_learning_rate,
        standardize_head=align.standardize_head,
        max_steps=align.max_steps,
        per_device_train_batch_size=batch_size,
        gradient_accumulation_steps=accumulation,
        learning_rate=align.learning_rate,
        lr_scheduler_type="cosine",
        warmup_steps=align.warmup_steps,
        train_sampling_strategy="sequential",  # `mixed_order` has shuffled the rows
        max_length=None,
        bf16=on_gpu or cpu_bfloat16,
        use_cpu=cpu_bfloat16,  # without it transformers refuses bf16 where there is no GPU
        gradient_checkpointing=on_gpu,
        logging_steps=1,
        save_steps=align.save_steps,
        save_total_limit=1,
        seed=settings.seed,
        report_to=list(align.report_to),
        project="presafe",
        run_name=run_name(settings.folder),
        disable_tqdm=True,
    )


def _lora_config(model: Any, settings: FitSettings) -> Any:
    from peft import LoraConfig

    align, shape = settings.align, settings.adapter
    blocks = None if shape is None else shape.layers(model.config.get_text_config().num_hidden_layers)
    targets = lora_targets(model, align) if shape is None else list(shape.targets)
    return LoraConfig(
        r=align.lora_rank if shape is None else shape.rank,
        lora_alpha=trained_alpha(align, shape),
        target_modules=targets,
        exclude_modules=excluded_modules(model, targets),
        layers_to_transform=blocks,
        task_type="CAUSAL_LM",
    )


def _trainer(
    model: Any,
    renderer: Renderer,
    ordered: Sequence[AlignmentRow],
    config: PreSafeConfig,
    lora: Any,
    callbacks: list[Any],
) -> PreSafeTrainer:
    from datasets import Dataset
    from transformers import PrinterCallback

    from presafe.alignment.trainer import PreSafeTrainer

    trainer = PreSafeTrainer(
        model,
        config,
        train_dataset=Dataset.from_list([row._asdict() for row in ordered]),
        processing_class=renderer.tokenizer,
        peft_config=lora,
        callbacks=callbacks,
    )
    trainer.remove_callback(PrinterCallback)
    return trainer


def _write_results(
    trainer: PreSafeTrainer, ordered: Sequence[AlignmentRow], settings: FitSettings, weights: dict[str, Any] | None
) -> None:
    """Write the adapter, the head and how well it fitted if it was trained, and last the history."""
    import torch

    from presafe.alignment.export import export_adapter
    from presafe.alignment.head import head_cosine, save_head

    align, folder = settings.align, settings.folder
    dtype: torch.dtype = getattr(torch, settings.adapter_dtype)
    export_adapter(trainer.model, folder / "adapter", dtype=dtype, base_model=settings.base_model, state=weights)
    head_was_trained = settings.lambda_align > 0
    if head_was_trained and settings.head != "pooled":
        save_head(trainer.model, folder, position=align.decision_position, layer=align.layer, state=weights)
    history = _history(trainer, ordered, align, head_was_trained=head_was_trained)
    if head_was_trained and settings.head != "pooled":
        fit_of_head = head_fit(history, ordered, head_cosine(trainer.model, settings.seed, weights))
        write_text(folder / HEAD_FIT, fit_of_head.model_dump_json(indent=2) + "\n")
        if fit_of_head.is_fitted is False:
            console.print(
                f"  {settings.label}: the head did not fit: it explains {100 * (fit_of_head.explained or 0):.0f} % of "
                "what p' varies (less than half), so this run says nothing about what the head is worth"
            )
    write_jsonl(folder / HISTORY, history)


def head_fit(history: Sequence[HistoryPoint], ordered: Sequence[AlignmentRow], cosine: float) -> HeadFit:
    """Return how well the head learned p′, over the last quarter of the steps.

    Args:
        history: All steps of a training with a head, at least one.
        ordered: The rows of all steps, in their order, as many in each.
        cosine: Between the head's weights and those with which it started.
    """
    num_last = -(-len(history) // 4)
    rows_per_step = len(ordered) // len(history)
    last = history[-num_last:]
    signals = [row.signal for row in ordered[-num_last * rows_per_step :] if row.signal is not None]
    return HeadFit(
        loss=fmean(point.bce for point in last if point.bce is not None),
        floor=fmean(_entropy(signal) for signal in signals),
        constant=_entropy(fmean(signals)),
        cosine=cosine,
    )


def _entropy(signal: float) -> float:
    """Return H(p′) in nats."""
    return -sum(share * math.log(share) for share in (signal, 1 - signal) if share > 0)


def _history(
    trainer: PreSafeTrainer, ordered: Sequence[AlignmentRow], align: AlignSettings, *, head_was_trained: bool
) -> list[HistoryPoint]:
    """Return the training curve."""
    rows_per_step = align.batch_size * align.accumulation
    return [
        HistoryPoint(
            step=entry["step"],
            nll=entry["sft_loss"],
            bce=entry["align_loss"] if head_was_trained else None,
            start_bce=entry.get("start_loss"),
            floor=entry.get("signal_entropy") if head_was_trained else None,
            num_tokens=sum(
                len(row.input_ids) for row in ordered[rows_per_step * (entry["step"] - 1) :][:rows_per_step]
            ),
        )
        for entry in trainer.state.log_history
        if "sft_loss" in entry
    ]
