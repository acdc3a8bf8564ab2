"""Stage 2: learn the teacher's decisions, say how well, and give every alignment query its p'.

signals/classifier/        the classifier
signals/classifier.json    its accuracy, calibration and accuracy on CoT-on traces
signals/signals.jsonl      p' of every alignment query
"""

from __future__ import annotations

from presafe.records import Signal, write_jsonl, write_text
from presafe.run_folder import RunFolder
from presafe.signals.calibration import ClassifierCard, accuracy, expected_calibration_error, reliability
from presafe.signals.classifier import Classifier, split_decisions, train_classifier
from presafe.stages.respond import queries_of, responses_of
from presafe.stages.systems import alignment_queries


def signal(run: RunFolder) -> None:
    """Train, measure and ask the classifier."""
    settings = run.recipe.signal
    queries = queries_of(run, "teacher")
    teacher = responses_of(run, "teacher")
    decided = [(q, r) for q, r in zip(queries, teacher, strict=True) if r.verdict != "unjudged"]
    texts = [query.text for query, _ in decided]
    refused = [response.verdict == "refuse" for _, response in decided]
    split = split_decisions(refused, settings.held_out, settings.seed)

    folder = run.path / "signals" / "classifier"
    train_classifier([texts[i] for i in split.train], [refused[i] for i in split.train], settings, folder)
    classifier = Classifier(folder, settings)

    labels = [refused[i] for i in split.held_out]
    found = classifier.probabilities([texts[i] for i in split.held_out])
    on_queries = accuracy(found, labels)
    thoughts = {response.prompt_id: response.thought for response in responses_of(run, "traces")}
    traced = [i for i in split.held_out if thoughts.get(decided[i][0].id)]
    on_traces = (
        accuracy(
            classifier.probabilities([f"{texts[i]}\n{thoughts[decided[i][0].id]}" for i in traced]),
            [refused[i] for i in traced],
        )
        if traced
        else None
    )
    card = ClassifierCard(
        n_train=len(split.train),
        n_held_out=len(split.held_out),
        accuracy=on_queries.value or 0.0,
        low=on_queries.low or 0.0,
        high=on_queries.high or 0.0,
        ece=expected_calibration_error(found, labels),
        trace_accuracy=on_traces.value if on_traces else None,
        trace_low=on_traces.low if on_traces else None,
        trace_high=on_traces.high if on_traces else None,
        trace_n=len(traced),
        teacher_unjudged=len(teacher) - len(decided),
        bins=tuple(reliability(found, labels)),
    )
    aligned = alignment_queries(run.recipe)
    soft = classifier.probabilities([prompt.text for prompt in aligned])
    signals = [Signal(prompt_id=prompt.id, probability=p) for prompt, p in zip(aligned, soft, strict=True)]
    write_jsonl(run.path / "signals" / "signals.jsonl", signals)
    write_text(run.path / "signals" / "classifier.json", card.model_dump_json(indent=2) + "\n")
