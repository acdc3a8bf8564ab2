"""The BERT-type classifier g of the teacher's decisions (paper, section 4): query → p′ ∈ [0, 1].

Trained with binary cross-entropy on (query, decision) pairs (paper: about 1,500), then asked for every alignment
query. It reads the query alone, so that it learns the teacher's rule rather than the words of its refusals (our
default; the paper does not say). Given answers, it reads query and answer as a pair of texts.
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
_AGAIN = "Delete the folder and run the same command: it is trained again."


class DecisionSplit(NamedTuple):
    """Indices of the decisions to learn from and of those kept to measure with."""

    train: list[int]
    held_out: list[int]


def split_decisions(refused: Sequence[bool], held_out: float, seed: int) -> DecisionSplit:
    """Split decisions at random, each class in the same share.

    Args:
        refused: The teacher's decisions.
        held_out: Share kept to measure with, in (0, 1).
        seed: Seed of the draw.

    Raises:
        SignalError: a class has fewer than two decisions, so there is nothing to learn or to measure.
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
                "Give it harmful and harmless queries, or choose another teacher.",
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
    """Train the classifier and write it to a folder; resumes from the last checkpoint in it.

    Args:
        texts: Queries.
        refused: The teacher's decision on each.
        settings: Encoder and training.
        folder: Where the classifier goes.
        answers: The teacher's answer to each, where it reads them, too.

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
    # With one label, transformers would fit a regression; "multi_label" makes it binary cross-entropy.
    tokenizer, model = _loaded(
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
    """A trained classifier, ready to be asked.

    Args:
        folder: What `train_classifier` wrote.
        settings: The settings it was trained with.

    Raises:
        ModelError: its files cannot be read, or do not hold all of its weights as finite numbers.
    """

    def __init__(self, folder: Path, settings: SignalSettings) -> None:
        self._tokenizer, model = _loaded(str(folder), f"the classifier in {folder}", new_head=False)
        if model.config.num_labels != 1:
            raise ModelError(f"the classifier in {folder} has {model.config.num_labels} outputs, not one.", _AGAIN)
        self._model = model.eval()
        self._settings = settings

    def probabilities(self, texts: Sequence[str], answers: Sequence[str] | None = None) -> list[float]:
        """p′ of each text: the probability that the teacher refuses it, in [0, 1].

        Args:
            texts: Queries.
            answers: The teacher's answer to each, for a classifier that was trained with answers.

        Raises:
            SignalError: the classifier's training has diverged.
        """
        import torch

        found: list[float] = []
        step = 64
        with torch.inference_mode():
            for start in range(0, len(texts), step):
                batch = self._tokenizer(
                    list(texts[start : start + step]),
                    answers and list(answers[start : start + step]),
                    truncation=True,
                    max_length=self._settings.max_length,
                    padding=True,
                    return_tensors="pt",
                )
                found += torch.sigmoid(self._model(**batch).logits.squeeze(-1)).tolist()
        if not all(math.isfinite(probability) for probability in found):
            raise SignalError(
                "the classifier gives no numbers: its training has diverged.",
                "Lower signal.learning_rate and start in another folder.",
            )
        return found


def _loaded(address: str, what: str, *, new_head: bool, **options: Any) -> tuple[Any, Any]:
    """Return a tokenizer and a sequence classifier, whole and finite.

    Args:
        address: Hub id or folder.
        what: Its name in errors' texts.
        new_head: Whether its head is still to be trained.
        options: Further arguments of `from_pretrained`.
    """
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    def failed(error: Exception) -> ModelError:
        return ModelError(
            f"cannot load {what}: {reason(error)}.", "Name an encoder's folder or hub id." if new_head else _AGAIN
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
