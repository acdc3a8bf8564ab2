"""The BERT-type classifier g of the teacher's decisions (paper, section 4): query → p′ ∈ [0, 1].

It is trained with binary cross-entropy on (query, decision) pairs (paper: about 1,500), then gives p′ of every
alignment query. It reads the query alone, so that it learns the teacher's rule and not the wording of its refusals (our
default; the paper does not specify this). If answers are given, it reads query and answer as a pair of texts.
"""

from __future__ import annotations

import math
import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from presafe.config.recipe import SignalSettings
from presafe.errors import ModelError, SignalError
from presafe.models.checkpoints import need_whole_checkpoint
from presafe.models.checks import load_whole, need_finite, need_rows, reading, reason
from presafe.models.configs import need_readable_configs
from presafe.models.weights import minilm_folder
from presafe.runtime.checkpoints import bar_callback, last_checkpoint
from presafe.runtime.progress import progress_bar

MINILM = "minilm"
_BATCH_SIZE = 64
"""Texts per forward pass of predictions."""
_RETRAIN = "Delete the folder and run the same command again: it trains a new classifier."


class DecisionSplit(NamedTuple):
    """Indices of the decisions to train on, and of the decisions to measure with."""

    train: list[int]
    held_out: list[int]


def split_decisions(refused: Sequence[bool], held_out: float, seed: int) -> DecisionSplit:
    """Split decisions at random, with the same share of each class.

    Args:
        refused: The teacher's decisions.
        held_out: Share to measure with, in (0, 1); at least one decision of each class is on each side.
        seed: Seed of the random split.

    Raises:
        SignalError: a class has fewer than two decisions, too few to train and to measure.
    """
    rng = random.Random(seed)
    train: list[int] = []
    kept: list[int] = []
    for label in (True, False):
        indices = [index for index, value in enumerate(refused) if value == label]
        if len(indices) < 2:
            raise SignalError(
                f"the teacher {'refused' if label else 'answered'} {len(indices)} of {len(refused)} queries: "
                "there is no decision to learn.",
                "Give harmful and harmless queries, or choose another `respond.teacher`.",
            )
        rng.shuffle(indices)
        cut = min(max(1, round(held_out * len(indices))), len(indices) - 1)
        kept += indices[:cut]
        train += indices[cut:]
    return DecisionSplit(sorted(train), sorted(kept))


def train_classifier(
    texts: Sequence[str],
    refused: Sequence[bool],
    settings: SignalSettings,
    folder: Path,
    answers: Sequence[str] | None = None,
) -> None:
    """Train the classifier and write it to a folder; resume from the last checkpoint in the folder.

    Args:
        texts: Queries.
        refused: The teacher's decision on each.
        settings: Encoder and training.
        folder: Folder of the classifier.
        answers: The teacher's answer to each, if the classifier reads answers, too.

    Raises:
        ModelError: the encoder cannot be loaded.
    """
    import torch
    from datasets import Dataset
    from transformers import (
        DataCollatorWithPadding,
        PrinterCallback,
        Trainer,
        TrainingArguments,
        set_seed,
    )

    set_seed(settings.seed)
    address = str(minilm_folder()) if settings.encoder == MINILM else settings.encoder
    # With a single label, transformers would fit a regression; "multi_label" gives binary cross-entropy.
    tokenizer, model = _load(
        address,
        f"encoder {settings.encoder!r}",
        new_head=True,
        num_labels=1,
        problem_type="multi_label_classification",
        dtype=torch.float32,
    )
    encoded = tokenizer(list(texts), answers and list(answers), truncation=True, max_length=settings.max_length)
    rows = Dataset.from_dict({**encoded, "labels": [[float(label)] for label in refused]})
    checkpoints = folder / "checkpoints"
    arguments = TrainingArguments(
        output_dir=str(checkpoints),
        num_train_epochs=settings.epochs,
        per_device_train_batch_size=settings.batch_size,
        learning_rate=settings.learning_rate,
        warmup_steps=0.1,
        train_sampling_strategy="group_by_length",
        save_steps=settings.save_steps,
        save_total_limit=1,
        logging_steps=10,
        seed=settings.seed,
        report_to=[],
        disable_tqdm=True,
    )
    num_steps = settings.epochs * -(-len(rows) // settings.batch_size)
    with progress_bar("classifier", num_steps) as bar:
        trainer = Trainer(
            model=model,
            args=arguments,
            train_dataset=rows,
            data_collator=DataCollatorWithPadding(tokenizer),
            callbacks=[bar_callback(bar)],
        )
        trainer.remove_callback(PrinterCallback)
        checkpoint = last_checkpoint(checkpoints)
        need_whole_checkpoint(checkpoint, model)
        trainer.train(resume_from_checkpoint=checkpoint)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)


class Classifier:
    """A trained classifier.

    Args:
        folder: Folder that `train_classifier` wrote.
        settings: Settings of its training.

    Raises:
        ModelError: its files cannot be read, or do not hold all of its weights as finite numbers.
    """

    def __init__(self, folder: Path, settings: SignalSettings) -> None:
        self._tokenizer, model = _load(str(folder), f"the classifier in {folder}", new_head=False)
        if model.config.num_labels != 1:
            raise ModelError(f"the classifier in {folder} has {model.config.num_labels} outputs, not one.", _RETRAIN)
        self._model = model.eval()
        self._settings = settings

    def probabilities(self, texts: Sequence[str], answers: Sequence[str] | None = None) -> list[float]:
        """Return p′ of each text: the probability that the teacher refuses it, in [0, 1].

        Args:
            texts: Queries.
            answers: The teacher's answer to each, for a classifier that was trained with answers.

        Raises:
            SignalError: the classifier's training has diverged.
        """
        import torch

        encoded = self._tokenizer(
            list(texts), answers and list(answers), truncation=True, max_length=self._settings.max_length
        )
        # Texts of near length together: a short text beside a long one would be padded to its length.
        by_length = sorted(range(len(texts)), key=lambda index: len(encoded["input_ids"][index]))
        probabilities = [0.0] * len(texts)
        with torch.inference_mode():
            for start in range(0, len(texts), _BATCH_SIZE):
                indices = by_length[start : start + _BATCH_SIZE]
                rows = {name: [column[index] for index in indices] for name, column in encoded.items()}
                batch = self._tokenizer.pad(rows, return_tensors="pt")
                logits = self._model(**batch).logits.squeeze(-1)
                for index, probability in zip(indices, torch.sigmoid(logits).tolist(), strict=True):
                    probabilities[index] = probability
        if not all(math.isfinite(probability) for probability in probabilities):
            raise SignalError(
                "the classifier's outputs are not finite: its training has diverged.",
                "Lower `signal.learning_rate`, and choose another folder with `out`.",
            )
        return probabilities


def _load(address: str, what: str, *, new_head: bool, **options: Any) -> tuple[Any, Any]:
    """Load a tokenizer and a sequence classifier with complete, finite weights.

    Args:
        address: Hub id or folder.
        what: Its name in error messages.
        new_head: Whether its head is not trained yet.
        options: Further arguments of `from_pretrained`.

    Raises:
        ModelError: the files cannot be read, or weights are missing or not finite.
    """
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    def failed(error: Exception) -> ModelError:
        return ModelError(
            f"cannot load {what}: {reason(error)}.",
            "Name an encoder's folder or hub id (`signal.encoder`)." if new_head else _RETRAIN,
        )

    need_readable_configs({"pretrained_model_name_or_path": address})
    tokenizer = reading(lambda: AutoTokenizer.from_pretrained(address, trust_remote_code=False), failed)
    model = load_whole(
        AutoModelForSequenceClassification,
        what,
        failed,
        new_head=new_head,
        pretrained_model_name_or_path=address,
        **options,
    )
    need_finite(model.named_parameters(), what)
    need_rows(model, tokenizer, what)
    return tokenizer, model
