"""`PreSafeTrainer`: TRL's SFT trainer with the auxiliary loss at the decision position.

    L(θ, φ) = L_SFT(θ) + λ · L_align(θ, φ)                         (paper, section 4)
    L(θ, φ) = L_SFT(θ) + λ · L_align(θ, φ) + λ_start · L_start(θ)     where `lambda_start` is above 0 (ours)

All terms are means over the whole optimizer step (label tokens for the first, rows with a p′ for the others), so they
do not depend on padding or on the split into micro-batches and processes.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, NamedTuple, cast

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from trl import SFTConfig, SFTTrainer
from trl.trainer.sft_trainer import DataCollatorForLanguageModeling

from presafe.alignment.head import attach_head, causal_lm, trained_head
from presafe.alignment.loss import alignment_loss, next_token_loss, signal_entropy, start_loss
from presafe.alignment.standardization import FirstPass, padded_inputs, prompts_in_batches
from presafe.alignment.trainer_card import trainer_card
from presafe.errors import RecipeError, RunError, SignalError
from presafe.methods.method import Position
from presafe.models.decision_head import HEAD, read_states, start_log_odds, states_at
from presafe.models.output import logits_of
from presafe.runs.io import write_text

_TITLE = "Towards Safer Large Reasoning Models by Promoting Safety Decision-Making before Chain-of-Thought Generation"
PAPER = {
    "title": _TITLE,
    "id": "2603.17368",
    "citation": f"""@misc{{chen2026presafe,
    title         = {{{_TITLE}}},
    author        = {{Chen, Jianan and Zhang, Zhifang and He, Shuo and Yue, Linan and Feng, Lei and Zhang, Minling}},
    year          = 2026,
    eprint        = {{2603.17368}},
    archivePrefix = {{arXiv}}
}}""",
}
"""The paper, as TRL's model cards name it."""

_POSITIONS = ("decision_index", "start_index", "pool_index", "thought_index")
"""Columns that hold a position in the row."""


class _Decision(NamedTuple):
    """Logits of a micro-batch: one or two per row from the head, and for L_start those over the vocabulary."""

    head: Tensor
    start: Tensor | None


@dataclass
class PreSafeConfig(SFTConfig):
    """Extends `SFTConfig` with the settings of the auxiliary loss."""

    lambda_align: float = field(default=1.0, metadata={"help": "λ ≥ 0. At 0 the head is trained on nothing."})
    lambda_start: float = field(default=0.0, metadata={"help": "Weight of L_start, at least 0."})
    refusal_start_id: int | None = field(default=None, metadata={"help": "Token refusals start with, for L_start."})
    contrast_id: int | None = field(default=None, metadata={"help": "Pivot L_start sets it against; None: own token."})
    head: str = field(default="decision", metadata={"help": "What it reads: decision, detached or pooled (SafeKey)."})
    decision_position: Position = field(default="prompt_end", metadata={"help": "Where the head reads."})
    layer: int | None = field(default=None, metadata={"help": "Block after which it reads; None: the final norm."})
    head_learning_rate: float | None = field(default=1e-2, metadata={"help": "Head's; None: the adapter's."})
    standardize_head: bool = field(default=True, metadata={"help": "Reads (h − μ)/σ, clipped apart; else h, jointly."})
    # The head's output leaves the forward by a hook, which DDP's search for unused parameters would misjudge.
    ddp_find_unused_parameters: bool | None = False

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.lambda_align >= 0:  # nan, too
            raise RecipeError(f"lambda_align must be at least 0, got {self.lambda_align}.")
        if not self.lambda_start >= 0:
            raise RecipeError(f"lambda_start must be at least 0, got {self.lambda_start}.")
        if self.lambda_start > 0 and self.refusal_start_id is None:
            raise RecipeError("lambda_start is above 0, but no refusal_start_id is given.", "Name the token.")
        if self.n_gpu > 1:
            raise RecipeError(
                f"one process sees {self.n_gpu} GPUs, and would split each batch without its decision positions.",
                "Start it with `accelerate launch`, or show it one GPU with CUDA_VISIBLE_DEVICES=0.",
            )
        if self.packing or self.padding_free:
            raise RecipeError("packing and padding_free lose the decision positions.", "Leave both off.")
        if self.loss_type != "nll" or self.label_smoothing_factor:
            raise RecipeError(
                f"L_SFT is the plain next-token loss, got loss_type {self.loss_type!r} and "
                f"label_smoothing_factor {self.label_smoothing_factor}.",
                "Leave both at their defaults.",
            )


@dataclass
class PreSafeCollator(DataCollatorForLanguageModeling):
    """Collates rows; pads on the right, which leaves decision positions unchanged.

    Rows hold `input_ids`, `labels`, `decision_index` (position in the row) and `signal` (p′ in [0, 1]; None if only
    next-token loss reads the row). L_start also needs `start_index`, the position before a refusal's first token;
    SafeKey's heads need `pool_index`, the last token of the sentences that they read; a head at the thought's first
    token needs `thought_index`.
    """

    def torch_call(self, examples: list[dict[str, Any]]) -> dict[str, Tensor]:
        """Return the batch with the columns of the auxiliary loss; a missing p′ becomes NaN."""
        batch: dict[str, Tensor] = super().torch_call(examples)
        batch["signal"] = torch.tensor(
            [math.nan if example["signal"] is None else float(example["signal"]) for example in examples]
        )
        for name in _POSITIONS:
            if name in examples[0]:
                batch[name] = torch.tensor([example[name] for example in examples])
        return batch


def pooled_states(
    states: Float[Tensor, "rows positions hidden"], decision: Int[Tensor, " rows"], end: Int[Tensor, " rows"]
) -> tuple[Float[Tensor, "rows hidden"], Float[Tensor, "rows hidden"]]:
    """Return the states that SafeKey's two heads read: the means over (X, U) and over U alone.

    X is the whole rendered prompt here, U the first sentences of the thought. Source: SafeKey, arXiv 2505.16186,
    dual-path safety head.

    Args:
        states: Hidden states after the final norm, padded on the right.
        decision: Position of the last prompt token.
        end: Position of the last token of U; if U is empty, the state at the decision position replaces its mean.
    """
    positions = torch.arange(states.shape[1], device=states.device)[None]
    through = positions <= end[:, None]
    thought = through & (positions > decision[:, None])
    thought = torch.where(thought.any(-1, keepdim=True), thought, positions == decision[:, None])
    with_query, alone = ((states * mask[..., None]).sum(1) / mask.sum(-1, keepdim=True) for mask in (through, thought))
    return with_query, alone


class PreSafeTrainer(SFTTrainer):
    """Trains a causal language model on L_SFT + λ · L_align + λ_start · L_start.

    Args:
        model: A causal language model; the trainer adds a head if it has none.
        args: Settings.
        train_dataset: Rows as `PreSafeCollator` reads them.
        processing_class: The tokenizer.
        peft_config: The LoRA adapter; the head is trained and saved with it.
    """

    _tag_names = ("trl", "presafe")
    _name = "PreSafe"
    _paper: ClassVar[dict[str, str]] = PAPER
    """What TRL's tags of models and `create_model_card` read."""

    def create_model_card(
        self, model_name: str | None = None, dataset_name: str | None = None, tags: str | list[str] | None = None
    ) -> None:
        """Write README.md into the output folder: a card of an adapter, in place of TRL's.

        Args:
            model_name: Title of the card; None takes the folder's name.
            dataset_name: Hub id or folder of the rows.
            tags: More tags.
        """
        if not self.is_world_process_zero():
            return
        folder = Path(self.args.output_dir)
        more = [tags] if isinstance(tags, str) else tags or []
        card = trainer_card(
            getattr(self.model.config, "_name_or_path", None) or None,
            dataset_name,
            title=model_name or folder.name,
            tags=[*self._tag_names, *more],
            paper=self._paper,
        )
        write_text(folder / "README.md", card)

    def __init__(
        self, model: nn.Module, args: PreSafeConfig, *, processing_class: Any, peft_config: Any = None, **rest: Any
    ) -> None:
        if not hasattr(causal_lm(model), HEAD):
            if causal_lm(model) is not model and args.lambda_align > 0:
                raise RecipeError(
                    "a model that carries an adapter already has no place for the head in its checkpoints.",
                    "Give the bare model and a peft_config, or attach_head before PEFT wraps the model.",
                )
            attach_head(causal_lm(model), args.seed, 2 if args.head == "pooled" else 1)
        if peft_config is not None:
            peft_config.modules_to_save = sorted({*(peft_config.modules_to_save or ()), HEAD})
        rest.setdefault("data_collator", PreSafeCollator(pad_token_id=processing_class.pad_token_id))
        super().__init__(model=model, args=args, processing_class=processing_class, peft_config=peft_config, **rest)
        config = cast(Any, causal_lm(self.model)).config.get_text_config()
        if self.aux_loss_enabled and not hasattr(config, "num_experts"):
            config.num_experts = config.num_local_experts  # TRL's loss of the router reads the first name only
        # All terms are scaled here, so label tokens are counted over the step, whatever arguments forward takes.
        self.model_accepts_loss_kwargs = True
        self._positions: dict[str, Tensor] | None = None
        self._decision: _Decision | None = None
        self._num_signals_in_step = 0
        self._measured: list[Tensor] | None = None
        if args.standardize_head and args.lambda_align > 0 and args.head != "pooled":
            self.add_callback(FirstPass(self))
        # Runs inside the forward that DDP, FSDP or ZeRO wraps; the decoder's output is after the final norm.
        causal_lm(self.model).base_model.register_forward_hook(self._read_decision)  # type: ignore[union-attr]

    def states_of_prompts(self) -> Tensor | None:
        """Return the states that the head reads in the prompts of the training rows; None if no row has a p′.

        Every process must call it; each reads all rows.

        Returns:
            States of shape (distinct prompts, hidden size), at most 1,024 of them.
        """
        device, model = self.accelerator.device, self.model_wrapped
        self._measured = []
        model.eval()
        try:
            for rows in prompts_in_batches(self.train_dataset, self.args.decision_position == "thought_start"):
                inputs: dict[str, Any] = padded_inputs(rows, self.processing_class.pad_token_id, device)
                if device.type == "cpu":  # as in `_sft_loss`: the vocabulary is most of the work
                    inputs["logits_to_keep"] = 1
                self._positions = {
                    name: torch.tensor([row[name] for row in rows]) for name in _POSITIONS if name in rows[0]
                }
                with torch.no_grad(), self.compute_loss_context_manager():
                    model(**inputs, use_cache=False, output_hidden_states=self.args.layer is not None)
            return torch.cat(self._measured) if self._measured else None
        finally:
            self._positions, self._measured = None, None
            model.train()

    def get_batch_samples(self, *args: Any, **kwargs: Any) -> Any:
        """Return the batches of a step, and count M, its rows with a p′ over all processes."""
        batches, num_items = super().get_batch_samples(*args, **kwargs)
        num_signals = sum(int((~batch["signal"].isnan()).sum()) for batch in batches)
        per_process = self.accelerator.gather(torch.tensor(num_signals, device=self.accelerator.device))
        self._num_signals_in_step = int(per_process.sum())
        return batches, num_items

    def compute_loss(
        self,
        model: nn.Module,
        inputs: dict[str, Any],
        return_outputs: bool = False,
        num_items_in_batch: Any = None,
    ) -> Any:
        """Return the loss of one micro-batch, scaled so that the micro-batches of a step add up to its mean."""
        inputs = dict(inputs)
        targets = inputs.pop("signal")
        self._positions = positions = {name: inputs.pop(name) for name in _POSITIONS if name in inputs}
        ids = inputs["input_ids"]
        if self.args.layer is not None:
            inputs["output_hidden_states"] = True
        try:
            sft = self._sft_loss(model, inputs, return_outputs, num_items_in_batch)
        finally:
            self._positions = None
        sft_loss, outputs = sft if return_outputs else (sft, None)
        decision = self._take_decision()
        training = self.model.training
        has_signal = ~targets.isnan()
        num_rows = max(1, self._num_signals_in_step if training else int(has_signal.sum()))
        # DDP averages gradients over processes; the auxiliary terms are sums over all of them.
        num_processes = self.accelerator.num_processes if training else 1
        head_targets = targets[has_signal].repeat_interleave(
            decision.head.shape[-1]
        )  # the same for SafeKey's two heads
        bce = alignment_loss(decision.head[has_signal].flatten(), head_targets) * num_processes / num_rows
        self._record("sft_loss", sft_loss, training)
        self._record("align_loss", bce, training)
        entropy = signal_entropy(head_targets) * num_processes / num_rows
        self._record("signal_entropy", entropy, training)
        loss = sft_loss + self.args.lambda_align * bce
        if decision.start is not None:
            own = ids[torch.arange(len(ids), device=ids.device), positions["start_index"] + 1]
            start = self._start_loss(decision.start[has_signal], own[has_signal], targets[has_signal])
            start = start * num_processes / num_rows
            self._record("start_loss", start, training)
            loss = loss + self.args.lambda_start * start
        return (loss, outputs) if return_outputs else loss

    def _take_decision(self) -> _Decision:
        """Return the logits that the forward hook stored, and clear them."""
        decision, self._decision = self._decision, None
        if decision is None:
            raise RuntimeError("the model's forward did not run its decoder, whose hook reads the decision")
        return decision

    def _sft_loss(self, model: nn.Module, inputs: dict[str, Any], return_outputs: bool, num_items: Any) -> Any:
        if self.accelerator.device.type != "cpu" or return_outputs or self.aux_loss_enabled:
            return super().compute_loss(model, inputs, return_outputs, num_items)
        # On a CPU, TRL's fused head computes logits and entropy at every position. For a small model, whose vocabulary
        # is most of the work, this is several times slower than computing only the columns that hold a label.
        labels = inputs.pop("labels")[:, 1:]
        columns = (labels != -100).any(0).nonzero().squeeze(1)
        logits = model(**inputs, logits_to_keep=columns, use_cache=False).logits
        column_labels = labels[:, columns]
        num_labels = (column_labels != -100).sum() if num_items is None else num_items
        across_devices = self.args.average_tokens_across_devices and num_items is not None
        scale = self.accelerator.num_processes if across_devices else 1
        return next_token_loss(logits, column_labels) * scale / torch.as_tensor(num_labels).clamp(min=1)

    def _read_decision(self, module: nn.Module, args: Any, output: Any) -> None:
        if self._positions is None:
            return
        states, lm = output.last_hidden_state, causal_lm(self.model)
        rows = torch.arange(len(states), device=states.device)
        positions = {name: index.to(states.device) for name, index in self._positions.items()}
        if self._measured is not None:
            self._measured.append(self._head_input(output, positions).detach())
            return
        with torch.autocast(states.device.type, enabled=False):
            # Through the wrapper, not the copy: PEFT's wrapper is what DDP and FSDP know.
            head = getattr(lm, HEAD)
            if self.args.head == "pooled":
                means = pooled_states(states.float(), positions["decision_index"], positions["pool_index"])
                logits = head(torch.stack(means, dim=1)).diagonal(dim1=1, dim2=2)  # each head reads its own mean
            else:
                logits = head(self._head_input(output, positions))
        start = None
        if self.args.lambda_start > 0:
            if "start_index" not in positions:
                raise SignalError("L_start needs a column start_index, and the rows have none.")
            start = logits_of(lm, states[rows, positions["start_index"]]).float()
        self._decision = _Decision(logits, start)

    def _start_loss(self, logits: Tensor, own: Tensor, targets: Tensor) -> Tensor:
        if self.args.contrast_id is None:
            return start_loss(logits, self.args.refusal_start_id, own, targets)
        return alignment_loss(start_log_odds(logits, self.args.refusal_start_id, self.args.contrast_id), targets)

    def _head_input(self, output: Any, positions: dict[str, Tensor]) -> Tensor:
        """Return the state that the head reads, at the configured position and layer.

        Raises:
            SignalError: the rows lack the position where the thought starts.
            RunError: the state passes no gradient to the adapter.
        """
        if self.args.decision_position == "thought_start" and "thought_index" not in positions:
            raise SignalError("a head at the thought's start needs a column thought_index, and the rows have none.")
        states = states_at(output, self.args.layer)
        state = read_states(
            states, self.args.decision_position, positions["decision_index"], positions.get("thought_index")
        )
        if self.args.head == "detached":
            return state.detach()
        if self.args.layer is not None and torch.is_grad_enabled() and not state.requires_grad:
            raise RunError(
                f"the state after layer {self.args.layer} passes no gradient on.",
                "No adapter lies below it, or gradients are checkpointed as ZeRO-3 does it: leave out align.layer.",
            )
        return state

    def _record(self, name: str, value: Tensor, training: bool) -> None:
        """Record a value for the log, times the number of micro-batches, because the log averages over them.

        Raises:
            RunError: the value is not finite.
        """
        steps = self.current_gradient_accumulation_steps if training else 1
        total = self.accelerator.gather_for_metrics(value.detach().float().reshape(1)).mean().item() * steps
        if not math.isfinite(total):
            raise RunError(
                f"{name} is {total} after step {self.state.global_step}: the training has diverged.",
                "Lower the learning rate and start in another folder.",
            )
        self._metrics["train" if training else "eval"][name].append(total)

    def _set_signature_columns_if_needed(self) -> None:
        super()._set_signature_columns_if_needed()
        known: list[str] = self._signature_columns  # type: ignore[has-type]
        self._signature_columns = [*dict.fromkeys([*known, "signal", *_POSITIONS])]

    def create_optimizer(self, *args: Any, **kwargs: Any) -> Any:
        """Create the optimizer; the head gets its own parameter group if it has its own learning rate."""
        fresh = self.optimizer is None
        optimizer = super().create_optimizer(*args, **kwargs)
        if fresh and self.args.head_learning_rate is not None:
            head_ids = {id(parameter) for parameter in trained_head(self.model).parameters()}
            head = [p for group in optimizer.param_groups for p in group["params"] if id(p) in head_ids]
            for group in optimizer.param_groups:
                group["params"] = [p for p in group["params"] if id(p) not in head_ids]
            optimizer.add_param_group({"params": head, "weight_decay": 0.0, "lr": self.args.head_learning_rate})
        return optimizer

    def _clip_grad_norm(self, model: nn.Module) -> Any:
        """Clip the head's gradient apart from the adapter's; DeepSpeed and FSDP1 clip all that they hold jointly."""
        clips_itself = self.is_deepspeed_enabled or (self.is_fsdp_enabled and not self.accelerator.is_fsdp2)
        if clips_itself or not self.args.standardize_head:
            return super()._clip_grad_norm(model)
        head = list(trained_head(self.model).parameters())
        head_ids = {id(parameter) for parameter in head}
        others = [parameter for parameter in model.parameters() if id(parameter) not in head_ids]
        norm = self.accelerator.clip_grad_norm_(others, self.args.max_grad_norm)
        torch.nn.utils.clip_grad_norm_(head, self.args.max_grad_norm)
        return norm
