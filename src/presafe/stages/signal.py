"""Stage 2: train a classifier on the teacher's decisions, measure it, and compute p' of every alignment query.

signals/classifier/        the classifier
signals/classifier.json    its accuracy, calibration and accuracy on CoT-on traces
signals/signals.jsonl      p' of every alignment query
"""

from __future__ import annotations

from presafe.errors import RunError
from presafe.records import Signal
from presafe.runs.folder import read_records
from presafe.runs.io import write_jsonl, write_text
from presafe.signals.calibration import ClassifierCard, accuracy, expected_calibration_error, reliability
from presafe.signals.classifier import Classifier, train_classifier
from presafe.stages.respond import decisions_of, reads_answers, responses_of
from presafe.stages.run_folder import RunFolder


def signal(run: RunFolder) -> None:
    """Train the classifier, measure it, and write its p' of every alignment query.

    Args:
        run: The run; its stage respond is done.

    Raises:
        SignalError: the teacher's decisions are all the same.
        RunError: the folder cannot be written.
    """
    settings = run.recipe.signal
    decisions = decisions_of(run)
    train, held_out = ([decisions.judged[i] for i in half] for half in decisions.split)
    with_answers = reads_answers(run.recipe)
    folder = run.path / "signals" / "classifier"
    train_classifier(
        [decision.query.text for decision in train],
        [decision.refused for decision in train],
        settings,
        folder,
        [decision.answer for decision in train] if with_answers else None,
    )
    classifier = Classifier(folder, settings)

    labels = [decision.refused for decision in held_out]
    texts = [decision.query.text for decision in held_out]
    thoughts = [trace.thought for trace in responses_of(run, "traces")]
    if with_answers:
        probabilities = classifier.probabilities(texts, [decision.answer for decision in held_out])
        on_traces = classifier.probabilities(texts, thoughts)
    else:
        probabilities = classifier.probabilities(texts)
        on_traces = classifier.probabilities(
            [f"{text}\n{thought}" for text, thought in zip(texts, thoughts, strict=True)]
        )
    disputed = [i for i, decision in enumerate(held_out) if decision.refused != (decision.query.expect == "refuse")]
    card = ClassifierCard(
        num_train=len(train),
        held_out=accuracy(probabilities, labels),
        ece=expected_calibration_error(probabilities, labels),
        traces=accuracy(on_traces, labels),
        teacher_unjudged=decisions.num_unjudged,
        bins=tuple(reliability(probabilities, labels)),
        disputed=accuracy([probabilities[i] for i in disputed], [labels[i] for i in disputed]) if disputed else None,
    )
    aligned = run.workload.alignment
    decided = [response.answer for response in responses_of(run, "decided")] if with_answers else None
    soft = classifier.probabilities([prompt.text for prompt in aligned], decided)
    signals = [Signal(prompt_id=prompt.id, probability=p) for prompt, p in zip(aligned, soft, strict=True)]
    write_jsonl(run.path / "signals" / "signals.jsonl", signals)
    write_text(run.path / "signals" / "classifier.json", card.model_dump_json(indent=2) + "\n")


def signals_of(run: RunFolder) -> list[Signal]:
    """Return p' of every alignment query, in the order of the queries.

    Args:
        run: The run.

    Raises:
        RunError: the file cannot be read, or its signals are not those of the queries.
    """
    file, hint = run.path / "signals" / "signals.jsonl", run.hint_to_redo("signal")
    signals = read_records(file, Signal, hint)
    if [signal.prompt_id for signal in signals] != [prompt.id for prompt in run.workload.alignment]:
        raise RunError(f"{file} is damaged: its {len(signals)} signals are not those of the alignment queries.", hint)
    return signals
