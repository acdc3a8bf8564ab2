"""`PreSafeTrainer`: TRL's SFT trainer with the auxiliary loss at the decision position.

    L(θ, φ) = L_SFT(θ) + λ · L_align(θ, φ)                         (paper, section 4)
    L(θ, φ) = L_SFT(θ) + λ · L_align(θ, φ) + λ_start · L_start(θ)     where `lambda_start` is above 0 (ours)

All terms are means over the whole optimiser step (label tokens for the first, rows with a p′ for the others), so that
neither padding nor the split into micro-batches or processes changes them.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from trl import SFTConfig, SFTTrainer
from trl.trainer.sft_trainer import DataCollatorForLanguageModeling

from presafe.alignment.head import attach_head, causal_lm, trained_head
from presafe.alignment.loss import alignment_loss, next_token_loss, start_loss
from presafe.errors import RecipeError, RunError, SignalError
from presafe.methods.method import Position
from presafe.models.decision_head import HEAD, read_states, start_log_odds, states_at

_POSITIONS = ("decision_index", "start_index", "pool_index", "thought_index")
"""Columns that name a position in the row."""


class _Decision(NamedTuple):
    """Logits of a micro-batch: the head's, one or two a row, and the model's own over the vocabulary, for L_start."""

    head: Tensor
    start: Tensor | None


@dataclass
class PreSafeConfig(SFTConfig):
    """`SFTConfig` with the settings of the auxiliary loss."""

    lambda_align: float = field(default=1.0, metadata={"help": "λ ≥ 0. At 0 the head is trained on nothing."})
    lambda_start: float = field(default=0.0, metadata={"help": "Weight of L_start, at least 0."})
    refusal_start_id: int | None = field(default=None, metadata={"help": "Token refusals start with, for L_start."})
    contrast_id: int | None = field(default=None, metadata={"help": "Pivot L_start sets it against; None: own token."})
    head: str = field(default="decision", metadata={"help": "What it reads: decision, detached or pooled (SafeKey)."})
    decision_position: Position = field(default="prompt_end", metadata={"help": "Where the head reads."})
    layer: int | None = field(default=None, metadata={"help": "Block after which it reads; None: the final norm."})
    head_learning_rate: float | None = field(default=None, metadata={"help": "Head's; None: the adapter's."})
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
    """Pads on the right, which leaves decision positions as they are.

    Rows hold `input_ids`, `labels`, `decision_index` (position in the row) and `signal` (p′ in [0, 1]; None where only
    next-token loss reads the row); for L_start also `start_index`, the position before the token that a refusal starts
    with, for SafeKey's heads `pool_index`, the last token of the sentences that they read, and for a head at the
    thought's first token `thought_index`.
    """

    def torch_call(self, examples: list[dict[str, Any]]) -> dict[str, Tensor]:
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
    """What SafeKey's two heads read: the means over query and first sentences (X, U), and over the sentences alone (U).

    Source: SafeKey, arXiv 2505.16186, dual-path safety head. X is the whole rendered prompt here.

    Args:
        states: Hidden states after the final norm, padded on the right.
        decision: Position of the last prompt token.
        end: Position of the last token of U; where U has none, both read the decision position alone for U.
    """
    positions = torch.arange(states.shape[1], device=states.device)[None]
    through = positions <= end[:, None]
    thought = through & (positions > decision[:, None])
    thought = torch.where(thought.any(-1, keepdim=True), thought, positions == decision[:, None])
    means = [(states * kept[..., None]).sum(1) / kept.sum(-1, keepdim=True) for kept in (through, thought)]
    return means[0], means[1]


class PreSafeTrainer(SFTTrainer):
    """Trains a causal language model on L_SFT + λ · L_align.

    Args:
        model: A causal language model; it is given a head unless it has one.
        args: Settings.
        train_dataset: Rows as `PreSafeCollator` reads them.
        processing_class: The tokenizer.
        peft_config: The LoRA adapter; the head is trained and saved with it.
    """

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
        # Both terms are scaled here, so label tokens are counted over the step whatever the model's forward takes.
        self.model_accepts_loss_kwargs = True
        self._where: dict[str, Tensor] | None = None
        self._decision: _Decision | None = None
        self._decided_in_step = 0
        # Runs inside the forward that DDP, FSDP or ZeRO wraps; the decoder's output is after the final norm.
        causal_lm(self.model).base_model.register_forward_hook(self._read_decision)  # type: ignore[union-attr]

    def get_batch_samples(self, *args: Any, **kwargs: Any) -> Any:
        """Also counts M, the rows of the whole step with a p′, over all processes."""
        batches, num_items = super().get_batch_samples(*args, **kwargs)
        decided = sum(int((~batch["signal"].isnan()).sum()) for batch in batches)
        of_all = self.accelerator.gather(torch.tensor(decided, device=self.accelerator.device))
        self._decided_in_step = int(of_all.sum())
        return batches, num_items

    def compute_loss(
        self,
        model: nn.Module,
        inputs: dict[str, Any],
        return_outputs: bool = False,
        num_items_in_batch: Any = None,
    ) -> Any:
        """The loss of one micro-batch, scaled so that the micro-batches of a step add up to its mean."""
        inputs = dict(inputs)
        targets = inputs.pop("signal")
        self._where = where = {name: inputs.pop(name) for name in _POSITIONS if name in inputs}
        ids = inputs["input_ids"]
        if self.args.layer is not None:
            inputs["output_hidden_states"] = True
        try:
            sft = self._sft_loss(model, inputs, return_outputs, num_items_in_batch)
        finally:
            self._where = None
        sft_loss, outputs = sft if return_outputs else (sft, None)
        decision, self._decision = self._decision, None
        assert decision is not None
        training = self.model.training
        decided = ~targets.isnan()
        rows = max(1, self._decided_in_step if training else int(decided.sum()))
        # DDP averages gradients over processes; both terms are sums over all of them.
        processes = self.accelerator.num_processes if training else 1
        each = targets[decided].repeat_interleave(decision.head.shape[-1])  # SafeKey's two heads learn the same
        bce = alignment_loss(decision.head[decided].flatten(), each) * processes / rows
        self._note("sft_loss", sft_loss, training)
        self._note("align_loss", bce, training)
        loss = sft_loss + self.args.lambda_align * bce
        if decision.start is not None:
            own = ids[torch.arange(len(ids), device=ids.device), where["start_index"] + 1]
            start = self._start_loss(decision.start[decided], own[decided], targets[decided]) * processes / rows
            self._note("start_loss", start, training)
            loss = loss + self.args.lambda_start * start
        return (loss, outputs) if return_outputs else loss

    def _sft_loss(self, model: nn.Module, inputs: dict[str, Any], return_outputs: bool, num_items: Any) -> Any:
        if self.accelerator.device.type != "cpu" or return_outputs or self.aux_loss_enabled:
            return super().compute_loss(model, inputs, return_outputs, num_items)
        # Off the GPU, TRL's fused head scores every position and its entropy. Where the vocabulary is most of the
        # work that is several times slower than scoring the columns that hold a label.
        labels = inputs.pop("labels")[:, 1:]
        columns = (labels != -100).any(0).nonzero().squeeze(1)
        logits = model(**inputs, logits_to_keep=columns, use_cache=False).logits
        kept = labels[:, columns]
        count = (kept != -100).sum() if num_items is None else num_items
        scale = (
            self.accelerator.num_processes if self.args.average_tokens_across_devices and num_items is not None else 1
        )
        return next_token_loss(logits, kept) * scale / torch.as_tensor(count).clamp(min=1)

    def _read_decision(self, module: nn.Module, args: Any, output: Any) -> None:
        if self._where is None:
            return
        states, lm = output.last_hidden_state, causal_lm(self.model)
        rows = torch.arange(len(states), device=states.device)
        where = {name: position.to(states.device) for name, position in self._where.items()}
        with torch.autocast(states.device.type, enabled=False):
            # Through the wrapper, not the copy: PEFT's wrapper is what DDP and FSDP know.
            head = getattr(lm, HEAD)
            if self.args.head == "pooled":
                means = pooled_states(states.float(), where["decision_index"], where["pool_index"])
                logits = head(torch.stack(means, dim=1)).diagonal(dim1=1, dim2=2)  # each head reads its own mean
            else:
                logits = head(self._read(output, where))
        words = None
        if self.args.lambda_start > 0:
            if "start_index" not in where:
                raise SignalError("L_start needs a column start_index, and the rows have none.")
            words = lm.get_output_embeddings()(states[rows, where["start_index"]]).float()  # type: ignore[operator]
        self._decision = _Decision(logits, words)

    def _start_loss(self, logits: Tensor, own: Tensor, targets: Tensor) -> Tensor:
        if self.args.contrast_id is None:
            return start_loss(logits, self.args.refusal_start_id, own, targets)
        return alignment_loss(start_log_odds(logits, self.args.refusal_start_id, self.args.contrast_id), targets)

    def _read(self, output: Any, where: dict[str, Tensor]) -> Tensor:
        """What the head reads at the decision position.

        Raises:
            SignalError: the rows do not say where the thought starts.
            RunError: no gradient would come from there.
        """
        if self.args.decision_position == "thought_start" and "thought_index" not in where:
            raise SignalError("a head at the thought's start needs a column thought_index, and the rows have none.")
        states = states_at(output, self.args.layer)
        read = read_states(states, self.args.decision_position, where["decision_index"], where.get("thought_index"))
        if self.args.head == "detached":
            return read.detach()
        if self.args.layer is not None and torch.is_grad_enabled() and not read.requires_grad:
            raise RunError(
                f"the state after layer {self.args.layer} passes no gradient on.",
                "No adapter lies below it, or gradients are checkpointed as ZeRO-3 does it: leave out align.layer.",
            )
        return read

    def _note(self, name: str, value: Tensor, training: bool) -> None:
        """Keep a value for the log: micro-batches of a step add up, so each is noted times their number.

        Raises:
            RunError: the loss is not a number any more.
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
        """The adapter's optimiser; the head gets a group of its own where it has a learning rate of its own."""
        fresh = self.optimizer is None
        optimizer = super().create_optimizer(*args, **kwargs)
        if fresh and self.args.head_learning_rate is not None:
            head = {id(parameter) for parameter in trained_head(self.model).parameters()}
            moved = [p for group in optimizer.param_groups for p in group["params"] if id(p) in head]
            for group in optimizer.param_groups:
                group["params"] = [p for p in group["params"] if id(p) not in head]
            optimizer.add_param_group({"params": moved, "weight_decay": 0.0, "lr": self.args.head_learning_rate})
        return optimizer
