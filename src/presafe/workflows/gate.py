"""Write the gate file of an aligned system: what a server needs to read its decision and to refuse on it.

RUN/alignment/SYSTEM/gate.json    threshold, calibration, token ids, hashes of head and adapter, and the evidence

The threshold is conformal on harmless queries that the model is neither trained nor evaluated on: the user's own, or
the classifier's. One number of the adapter, its scale, was chosen on the latter before (design/0007), so they are read
after scaling. The head's probability is scaled by a temperature or, if it is better on held-out halves, by a
temperature and a shift. Evidence of held-out suites comes from the run's evaluation.
"""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any, NamedTuple

from presafe import __version__
from presafe.errors import PromptError, RunError
from presafe.internals.decision import head_probabilities
from presafe.methods.targets import REFUSALS
from presafe.models.decision_head import HEAD, DecisionHead
from presafe.models.rendering import Renderer
from presafe.prompts.overlap import fold
from presafe.prompts.sets import from_file
from presafe.records import PositionScore, Prompt
from presafe.runs.io import write_json
from presafe.runs.manifest import sha256_of, sha256_of_file
from presafe.signals.calibration import expected_calibration_error
from presafe.stages.evaluate import positions_of
from presafe.stages.respond import decisions_of
from presafe.stages.run_folder import RunFolder
from presafe.stages.systems import aligned_systems, system_folder
from presafe.stats.auroc import tpr_at_fpr_01, tpr_at_fpr_1
from presafe.stats.conformal import (
    Scaling,
    Threshold,
    conformal_threshold,
    cross_fitted_loss,
    fit_scaling,
    log_loss,
    logit,
)
from presafe.stats.intervals import wilson
from presafe.workflows.export import adapter_hashes, load_system

GATE = "gate.json"
MARGIN = 1e-4
"""Above the threshold's score, so that a server's rounding does not refuse the prompt that set it."""


class OwnQueries(NamedTuple):
    """Harmless queries of the user, on which the promise holds in place of the run's own."""

    file: Path
    """A CSV, TSV, JSON or JSONL file."""
    column: str | None
    """Column of the query; None takes the first known name."""


def calibrate(run: RunFolder, name: str, rate: float, own: OwnQueries | None = None) -> Path:
    """Write the gate file of a system.

    Args:
        run: A run that has aligned the system.
        name: Name of the system; of its seeds the first is taken.
        rate: Share of harmless prompts that may be refused, in (0, 1).
        own: Harmless queries of the user; None takes the classifier's.

    Returns:
        Path of the gate file.

    Raises:
        RunError: the run trains no such system; there are too few harmless queries for the rate; the head does not
            read the prompt's end, or prompts with CoT off end alike; or the folder cannot be written.
        PromptError: as `queries_of`.
        ModelError: the system cannot be loaded, or has no head.
    """
    folder = system_of(run, name)
    head = DecisionHead(folder)
    if head.position != "prompt_end" or head.layer is not None:
        raise RunError(
            f"the head in {folder} does not read the prompt's end after the final norm, as a server does.",
            "Align with the head at its default place.",
        )
    queries = queries_of(run, own)
    labels = [query.expect == "refuse" for query in queries]
    _need_enough(labels.count(False), rate)
    loaded = load_system(folder)
    probabilities = head_probabilities(loaded, [query.text for query in queries], head)
    threshold = _threshold([p for p, is_harmful in zip(probabilities, labels, strict=True) if not is_harmful], rate)
    scaling, how = fit(probabilities, labels)
    value = threshold.value + MARGIN
    first = next(system for system in aligned_systems(run.recipe) if system.name == name)
    positions = positions_of(run, first) if run.is_done("evaluate") else []
    gate = {
        "schema": 1,
        "made_by": f"presafe {__version__}",
        "base": run.recipe.model.address,
        "system": name,
        "head": f"{HEAD}.safetensors",
        "head_sha256": sha256_of_file(folder / f"{HEAD}.safetensors"),
        "adapter_sha256": adapter_hashes(folder),
        "threshold": value,
        "calibration": {**scaling._asdict(), **how},
        "promise": {"wrong_refusals": rate, **threshold._asdict()},
        "queries": None if own is None else {"file": str(own.file.absolute()), "column": own.column},
        "suites": evidence(positions, value, scaling),
        "reference": {
            "queries_sha256": sha256_of([query.text for query in queries]),
            "p": [round(p, 7) for p in probabilities],
        },
        **ids_of(loaded.renderer),
    }
    write_json(folder / GATE, gate)
    return folder / GATE


def queries_of(run: RunFolder, own: OwnQueries | None) -> list[Prompt]:
    """Return the queries of a calibration: the classifier's, with the user's in place of their harmless ones.

    A query of the classifier that the model is also aligned on is left out.

    Args:
        run: The run.
        own: Harmless queries of the user; a query that occurs twice, with case and punctuation folded, counts once.

    Raises:
        PromptError: the file cannot be read, the model is aligned or evaluated on a query in it, or it is one of the
            run's harmful ones.
    """
    queries = [decision.query for decision in decisions_of(run).judged]
    aligned_on = {fold(prompt.text) for prompt in run.workload.alignment}
    if own is None:
        return [query for query in queries if fold(query.text) not in aligned_on]
    distinct: dict[str, Prompt] = {}
    for prompt in from_file(own.file, expect="comply", column=own.column):
        distinct.setdefault(fold(prompt.text), prompt)
    harmful = [query for query in queries if query.expect == "refuse"]
    known = (*run.workload.suites.values(), harmful)
    seen = aligned_on | {fold(prompt.text) for prompts in known for prompt in prompts}
    if shared := [prompt.id for folded, prompt in distinct.items() if folded in seen]:
        raise PromptError(
            f"{own.file} holds {len(shared)} prompts that the run is aligned or evaluated on, or that are harmful "
            f"queries of its classifier (first: {shared[0]}).",
            "Leave them out: a threshold that was set on them promises nothing for new prompts.",
        )
    return [*harmful, *distinct.values()]


def queries_behind(run: RunFolder, gate: dict[str, Any]) -> list[Prompt]:
    """Return the queries that a gate file was calibrated on, as they are today.

    Args:
        run: The run of the gate file.
        gate: Its content.

    Raises:
        PromptError: as `queries_of`.
        RunError: the gate file does not say what its queries are.
    """
    kept = gate.get("queries")  # an older presafe wrote none
    if kept is None:
        return queries_of(run, None)
    try:
        own = OwnQueries(Path(kept["file"]), kept["column"])
    except (KeyError, TypeError) as error:
        raise RunError("the gate file does not say which its `queries` are.", "Run `gate calibrate` again.") from error
    return queries_of(run, own)


def system_of(run: RunFolder, name: str) -> Path:
    """Return the folder of a trained system; of its seeds the first is taken.

    Args:
        run: The run.
        name: Name of the system.

    Raises:
        RunError: the run trains no such system.
    """
    systems = {system.name: system for system in reversed(aligned_systems(run.recipe))}
    if name not in systems:
        raise RunError(f"{run.path} trains no `system` {name!r}.", f"There are: {', '.join(reversed(systems))}.")
    return system_folder(run, systems[name])


def ids_of(renderer: Renderer) -> dict[str, Any]:
    """Return what a server matches and forces: the end of a prompt with CoT on, and a refusal after a closed thought.

    Args:
        renderer: The system's tokenizer and family.

    Raises:
        RunError: prompts with CoT off end alike, so that a server would read and force in them, too.
    """
    first, second = (renderer.render(text, "on").ids for text in ("Why?", "a"))
    tail: list[int] = []
    for one, other in zip(reversed(first), reversed(second), strict=False):
        if one != other:
            break
        tail.insert(0, one)
    if renderer.render("Why?", "off").ids[-len(tail) :] == tail:
        raise RunError(
            f"prompts of {renderer.family.name} end alike with CoT on and off, so a server cannot tell at the end of a "
            "prompt whether the decision is read there: there is no gate for this family.",
            "Serve it without a gate; `presafe score` reads p of its prompts.",
        )
    refusal = REFUSALS[0]
    return {"decision_tail": tail, "refusal_ids": renderer.completion(None, refusal), "refusal": refusal}


def fit(probabilities: Sequence[float], labels: Sequence[bool]) -> tuple[Scaling, dict[str, Any]]:
    """Return the scaling of the head's probabilities, and how it was chosen.

    Args:
        probabilities: p of each query.
        labels: Whether each should be refused.

    Raises:
        RunError: a half of the queries has only one class.
    """
    logits = [logit(p) for p in probabilities]
    if any(len(set(labels[start::2])) < 2 for start in (0, 1)):
        raise RunError("the classifier's queries have too few of one kind to calibrate on.", "Use a run with more.")
    losses = {shifted: cross_fitted_loss(logits, labels, shifted=shifted) for shifted in (False, True)}
    shifted = losses[True] < losses[False]
    scaling = fit_scaling(logits, labels, shifted=shifted)
    raw = Scaling(1.0, 0.0)
    return scaling, {
        "kind": "temperature_and_shift" if shifted else "temperature",
        "n": len(labels),
        "log_loss_raw": log_loss(logits, labels, raw),
        "log_loss_held_out_temperature": losses[False],
        "log_loss_held_out_temperature_and_shift": losses[True],
    }


def evidence(positions: Sequence[PositionScore], threshold: float, scaling: Scaling) -> list[dict[str, Any]]:
    """Return what the gate does on each held-out suite: refusals with Wilson's interval, ranking, calibration error.

    Args:
        positions: The system's decision scores.
        threshold: The gate's.
        scaling: The gate's.
    """
    harmful = [p for p in map(_probability, positions) if p is not None and p[1] == "refuse"]
    rows = []
    for suite in dict.fromkeys(position.suite for position in positions):
        for expect in ("refuse", "comply"):
            own = [p[0] for p in map(_probability, positions) if p is not None and p[1:] == (expect, suite)]
            if not own:
                continue
            refused = wilson(sum(p >= threshold for p in own), len(own))
            row: dict[str, Any] = {"suite": suite, "expect": expect, "refused": refused._asdict()}
            if expect == "comply" and harmful:
                others = [p[0] for p in harmful]
                row |= {"tpr_at_fpr_1": tpr_at_fpr_1(others, own), "tpr_at_fpr_01": tpr_at_fpr_01(others, own)}
                labels = [True] * len(others) + [False] * len(own)
                row["ece_raw"] = expected_calibration_error([*others, *own], labels)
                scaled = [scaling.probability(logit(p)) for p in (*others, *own)]
                row["ece_calibrated"] = expected_calibration_error(scaled, labels)
            rows.append(row)
    return rows


def _probability(position: PositionScore) -> tuple[float, str, str] | None:
    """Return p of a prompt, what it expects, and its suite; None without a head."""
    p = position.head_probability
    return None if p is None else (p, position.expect, position.suite)


def _need_enough(num_harmless: int, rate: float) -> None:
    """Check that a number of harmless queries can promise a rate, before any of them is computed.

    Raises:
        RunError: it cannot.
    """
    if conformal_threshold([0.0] * num_harmless, Fraction(str(rate))) is None:
        raise RunError(
            f"a rate of {rate:g} wrong refusals cannot be promised on so few harmless queries ({num_harmless}).",
            f"Raise `wrong_refusals` to at least {1 / (num_harmless + 1):.4f}, or use more queries.",
        )


def _threshold(harmless: Sequence[float], rate: float) -> Threshold:
    """Return the threshold that keeps a rate of wrong refusals.

    Raises:
        RunError: the queries reach p = 1.
    """
    threshold = conformal_threshold(harmless, Fraction(str(rate)))
    assert threshold is not None, "their number was checked"
    if threshold.value + MARGIN >= 1:
        raise RunError(
            f"the head gives p = {threshold.value:.6f} to a harmless query at this rate: no threshold is above it.",
            "Raise `wrong_refusals`.",
        )
    return threshold
