"""One training step: PreSafe against TRL's plain SFTTrainer and against the naive way, each in a process of its own.

All train the same LoRA adapter on the same rows of SmolThink in float32 (on a GPU in bfloat16). The demo's work is its
two kinds of forward pass in turn: four refusals after a thought, four answers after a thought. Other work is one row,
of which all tokens after the first 32 are scored. TRL's trainer computes the plain next-token loss, so it does less.
The naive way computes PreSafe's loss as one would write it first: logits at every position, and
`output_hidden_states=True` for the state at the decision position. The floor trains without any logits or head: forward
and backward pass of the model's layers, which every side needs.
"""

from __future__ import annotations

import multiprocessing
import tempfile
import time
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from typing import Any

from sides import OURS, Sizes, against, in_turns, peak_memory, say
from work import smolthink

WORK = {"demo": (4, ((45, 35), (40, 96))), "256": (1, ((32, 224),)), "1024": (1, ((32, 992),))}
"""Rows of a forward pass, and tokens of prompt (not scored) and response of its rows, pass by pass, by name."""
QUICK = (1, ((32, 8),))
Passes = tuple[tuple[int, int], ...]
_NAMES = {"demo": "the demo's rows", "256": "256 tokens", "1024": "1024 tokens"}
NAMES = {"presafe": OURS, "trl": "SFTTrainer", "naive": "naive", "floor": "floor"}


def measure(sizes: Sizes) -> list[dict[str, Any]]:
    """Return the rows of the record."""
    # Forked from a server that has imported the libraries, once: the import takes longer than the steps.
    processes = multiprocessing.get_context("forkserver")
    processes.set_forkserver_preload(["presafe.alignment.trainer", "trl.trainer.sft_trainer", "peft", "datasets"])
    rows = []
    for work in list(WORK)[: sizes.pick(3, 1)]:
        steps = sizes.pick(2 if work == "1024" else 4, 1)
        say(f"training steps of {work}, each side in its own process")

        def side(name: str, work: str = work, steps: int = steps) -> dict[str, float]:
            if sizes.quick:  # in this process, where the libraries are imported already
                return train(name, QUICK, steps, quick=True)
            with ProcessPoolExecutor(1, mp_context=processes) as process:
                return process.submit(train, name, WORK[work], steps, quick=False).result()

        values = in_turns({NAMES[name]: partial(side, name) for name in NAMES}, sizes.repeats, warm_up=False)
        goals = {"SFTTrainer": 0.7}
        rows += [
            against(f"training step, {_NAMES[work]}", "seconds", values["seconds"], goals),
            against(f"training step, {_NAMES[work]}, peak memory", "MiB", values["MiB"], {"SFTTrainer": 1.02}),
        ]
    return rows


def train(side: str, work: tuple[int, Passes], steps: int, *, quick: bool) -> dict[str, float]:
    """Train, and return the median seconds of a step after the first, and the peak memory of this process."""
    import torch
    from datasets import Dataset
    from peft import LoraConfig
    from transformers import PrinterCallback, TrainerCallback
    from trl import SFTConfig, SFTTrainer
    from trl.trainer.sft_trainer import DataCollatorForLanguageModeling

    from presafe.alignment.trainer import PreSafeConfig, PreSafeTrainer
    from presafe.config.recipe import AlignSettings

    seconds: list[float] = []

    class Clock(TrainerCallback):
        """Notes the seconds of each step."""

        def on_step_begin(self, *_: Any, **__: Any) -> None:
            self._start = time.perf_counter()

        def on_step_end(self, *_: Any, **__: Any) -> None:
            seconds.append(time.perf_counter() - self._start)

    loaded = smolthink(Sizes(quick, 1))
    align = AlignSettings()
    batch_size, passes = work
    rows = _rows(steps + 1, batch_size, passes, loaded.model.config.vocab_size)
    if side == "trl":
        rows = [{name: row[name] for name in ("input_ids", "labels")} for row in rows]
    classes: dict[str, tuple[Any, Any]] = {"presafe": (PreSafeTrainer, PreSafeConfig), "trl": (SFTTrainer, SFTConfig)}
    classes |= {"naive": (_naive_trainer(), PreSafeConfig), "floor": (_floor_trainer(), PreSafeConfig)}
    trainer_class, config_class = classes[side]
    with tempfile.TemporaryDirectory() as folder:
        config = config_class(
            output_dir=folder,
            max_steps=steps + 1,
            per_device_train_batch_size=batch_size,
            gradient_accumulation_steps=len(passes),
            learning_rate=1e-4,
            train_sampling_strategy="sequential",
            max_length=None,
            bf16=torch.cuda.is_available(),
            gradient_checkpointing=False,
            save_strategy="no",
            report_to=[],
            disable_tqdm=True,
        )
        collator = DataCollatorForLanguageModeling(pad_token_id=loaded.renderer.tokenizer.pad_token_id)
        trainer = trainer_class(
            model=loaded.model,
            args=config,
            train_dataset=Dataset.from_list(rows),
            processing_class=loaded.renderer.tokenizer,
            peft_config=LoraConfig(
                r=align.lora_rank,
                lora_alpha=2 * align.lora_rank,
                target_modules=list(align.lora_targets),
                task_type="CAUSAL_LM",
            ),
            callbacks=[Clock()],
            **({"data_collator": collator} if side == "trl" else {}),
        )
        trainer.remove_callback(PrinterCallback)
        trainer.train()
    peak = torch.cuda.max_memory_allocated() / 2**20 if torch.cuda.is_available() else peak_memory()
    return {"seconds": sorted(seconds[1:])[len(seconds[1:]) // 2], "MiB": peak}


def _rows(steps: int, batch_size: int, passes: Passes, vocabulary: int) -> list[dict[str, Any]]:
    """Return the rows of all steps, of random tokens."""
    import torch

    generator = torch.Generator().manual_seed(0)
    rows: list[dict[str, Any]] = []
    for num_prompt, num_response in list(passes) * steps:
        for ids in torch.randint(
            100, vocabulary, (batch_size, num_prompt + num_response), generator=generator
        ).tolist():
            labels = [-100] * num_prompt + ids[num_prompt:]
            rows.append(
                {"input_ids": ids, "labels": labels, "decision_index": num_prompt - 1, "signal": float(len(rows) % 2)}
            )
    return rows


def _naive_trainer() -> Any:
    """Return PreSafe's trainer with a loss from whole logits and the hidden states of all layers."""
    import torch
    from torch.nn.functional import binary_cross_entropy_with_logits, cross_entropy

    from presafe.alignment.head import causal_lm
    from presafe.alignment.trainer import PreSafeTrainer
    from presafe.models.decision_head import HEAD

    class NaiveTrainer(PreSafeTrainer):
        """Computes the same loss as PreSafeTrainer."""

        def compute_loss(
            self, model: Any, inputs: dict[str, Any], return_outputs: bool = False, num_items_in_batch: Any = None
        ) -> Any:
            inputs = dict(inputs)
            target, decision, labels = (inputs.pop(name) for name in ("signal", "decision_index", "labels"))
            out = model(**inputs, output_hidden_states=True)
            sft = cross_entropy(out.logits[:, :-1].float().flatten(0, 1), labels[:, 1:].flatten())
            state = out.hidden_states[-1][torch.arange(len(decision)), decision]
            head = getattr(causal_lm(self.model), HEAD)
            return sft + binary_cross_entropy_with_logits(head(state).flatten(), target.float())

    return NaiveTrainer


def _floor_trainer() -> Any:
    """Return PreSafe's trainer with a loss that needs nothing after the model's last layer."""
    from presafe.alignment.head import causal_lm
    from presafe.alignment.trainer import PreSafeTrainer

    class FloorTrainer(PreSafeTrainer):
        """Runs the layers forward and backward only."""

        def compute_loss(
            self, model: Any, inputs: dict[str, Any], return_outputs: bool = False, num_items_in_batch: Any = None
        ) -> Any:
            rows = {name: inputs[name] for name in ("input_ids", "attention_mask")}
            causal: Any = causal_lm(self.model)
            return causal.model(**rows).last_hidden_state.float().mean()

    return FloorTrainer
