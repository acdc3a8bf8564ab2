"""Stage 2: learn the teacher's decisions, say how well, and give every alignment query its p'.

signals/classifier/        the classifier
signals/classifier.json    its accuracy, calibration and accuracy on CoT-on traces
signals/signals.jsonl      p' of every alignment query
"""

from __future__ import annotations

from presafe.records import Signal, write_jsonl, write_text
from presafe.run_folder import RunFolder
from presafe.signals.calibration import ClassifierCard, accuracy, expected_calibration_error, reliability
from presafe.signals.classifier import Classifier, train_classifier
from presafe.stages.respond import decisions_of, responses_of
from presafe.stages.systems import alignment_queries


def signal(run: RunFolder) -> None:
    """Train, measure and ask the classifier."""
    settings = run.recipe.signal
    decisions = decisions_of(run)
    texts = [query.text for query in decisions.queries]
    train, held_out = decisions.split
    folder = run.path / "signals" / "classifier"
    train_classifier([texts[i] for i in train], [decisions.refused[i] for i in train], settings, folder)
    classifier = Classifier(folder, settings)

    labels = [decisions.refused[i] for i in held_out]
    found = classifier.probabilities([texts[i] for i in held_out])
    traces = responses_of(run, "traces")
    on_traces = classifier.probabilities(
        [f"{texts[i]}\n{trace.thought}" for i, trace in zip(held_out, traces, strict=True)]
    )
    card = ClassifierCard(
        num_train=len(train),
        held_out=accuracy(found, labels),
        ece=expected_calibration_error(found, labels),
        traces=accuracy(on_traces, labels),
        teacher_unjudged=decisions.num_unjudged,
        bins=tuple(reliability(found, labels)),
    )
    aligned = alignment_queries(run.recipe)
    soft = classifier.probabilities([prompt.text for prompt in aligned])
    signals = [Signal(prompt_id=prompt.id, probability=p) for prompt, p in zip(aligned, soft, strict=True)]
    write_jsonl(run.path / "signals" / "signals.jsonl", signals)
    write_text(run.path / "signals" / "classifier.json", card.model_dump_json(indent=2) + "\n")
