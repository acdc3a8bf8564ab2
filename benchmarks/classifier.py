"""The classifier against plain transformers: training with a shuffled Trainer, scoring with a pipeline.

Both sides have the same weights (MiniLM), the same texts of uneven length and the same number of rows per batch. The
plain sides take the texts in the order of arrival, or shuffled, and pad each batch to its longest text.
"""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from sides import OURS, Sizes, against, in_turns, say, timed
from work import mixed_texts

from presafe.config.recipe import SignalSettings
from presafe.models.weights import minilm_folder
from presafe.signals.classifier import Classifier, train_classifier


def measure(sizes: Sizes) -> list[dict[str, Any]]:
    """Return the rows of the record."""
    texts = mixed_texts(sizes.pick(256, 16))
    labels = [bool(index % 2) for index in range(len(texts))]
    settings = SignalSettings(epochs=1, save_steps=10_000)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        say(f"classifier: one epoch on {len(texts)} texts")
        number = iter(range(10_000))
        training = in_turns(
            {
                OURS: timed(lambda: train_classifier(texts, labels, settings, folder / f"ours-{next(number)}")),
                "Trainer": timed(lambda: _train(texts, labels, settings, folder / f"plain-{next(number)}")),
            },
            sizes.repeats,
            warm_up=False,
        )
        trained = folder / "ours-0"
        many = texts * sizes.pick(4, 1)
        say(f"classifier: scores of {len(many)} texts")
        classifier, plain = Classifier(trained, settings), _pipeline(trained, settings)
        mine, theirs = classifier.probabilities(texts), plain(texts)
        furthest = max(abs(one - other) for one, other in zip(mine, theirs, strict=True))
        scoring = in_turns(
            {
                OURS: timed(lambda: classifier.probabilities(many)),
                "pipeline": timed(lambda: plain(many)),
            },
            sizes.repeats,
        )
    return [
        against("classifier, one epoch", "seconds", training["seconds"], {"Trainer": 0.5}),
        against("classifier, scores", "seconds", scoring["seconds"], {"pipeline": 0.5})
        | {"largest_difference": furthest},
    ]


def _train(texts: Sequence[str], labels: Sequence[bool], settings: SignalSettings, folder: Path) -> None:
    """Train as transformers' documentation does."""
    from datasets import Dataset
    from transformers import (
        AutoModelForSequenceClassification,
        AutoTokenizer,
        DataCollatorWithPadding,
        PrinterCallback,
        Trainer,
        TrainingArguments,
    )

    tokenizer = AutoTokenizer.from_pretrained(minilm_folder())
    model = AutoModelForSequenceClassification.from_pretrained(
        minilm_folder(), num_labels=1, problem_type="multi_label_classification", dtype=torch.float32
    )
    encoded = tokenizer(list(texts), truncation=True, max_length=settings.max_length)
    trainer = Trainer(
        model=model,
        args=TrainingArguments(
            output_dir=str(folder),
            num_train_epochs=settings.epochs,
            per_device_train_batch_size=settings.batch_size,
            learning_rate=settings.learning_rate,
            report_to=[],
            disable_tqdm=True,
            save_strategy="no",
        ),
        train_dataset=Dataset.from_dict({**encoded, "labels": [[float(label)] for label in labels]}),
        data_collator=DataCollatorWithPadding(tokenizer),
    )
    trainer.remove_callback(PrinterCallback)
    trainer.train()
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)


def _pipeline(folder: Path, settings: SignalSettings) -> Any:
    """Return a function from texts to probabilities, by transformers' pipeline."""
    from transformers import pipeline

    classify = pipeline("text-classification", model=str(folder), device="cpu")

    def scores(texts: Sequence[str]) -> list[float]:
        rows = classify(
            list(texts), batch_size=64, truncation=True, max_length=settings.max_length, function_to_apply="sigmoid"
        )
        return [row["score"] for row in rows]

    return scores
