"""Run judges on labelled answers, with one Inspect eval per judge.

Only the judges' replies are sampled. Their logs are kept: a judge with a finished log is not asked again.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Sequence
from contextlib import redirect_stdout
from pathlib import Path

from inspect_ai import Task, eval_set
from inspect_ai.dataset import MemoryDataset, Sample
from inspect_ai.log import EvalLog, read_eval_log
from inspect_ai.model import ChatCompletionChoice, ChatMessageAssistant, ContentReasoning, ContentText, ModelOutput
from inspect_ai.solver import Generate, Solver, TaskState, solver
from rich.text import Text

from presafe.errors import RunError
from presafe.judges.agreement import Labelled
from presafe.judges.scorers import judge
from presafe.judges.spec import Panel
from presafe.records import Verdict
from presafe.runs.folder import create_folder, locked, resume_folder
from presafe.runs.manifest import sha256_of
from presafe.runs.ownership import LABELS, check_ownership
from presafe.runtime.progress import console


def judge_labelled(
    panels: Sequence[Panel], items: Sequence[Labelled], folder: Path, *, reversed_labels: bool = False
) -> dict[str, list[Verdict]]:
    """Return the verdicts of judges on labelled answers; for a panel also those of its members, from the same calls.

    Args:
        panels: The judges and panels.
        items: Labelled answers.
        folder: Folder of the logs, with one folder per judge; it belongs to these items.
        reversed_labels: Whether judges are told their classes in the reverse order.

    Returns:
        Verdicts by the name of judge or member, in the order of the items.

    Raises:
        JudgeError: as `open_judge`.
        RunError: the folder holds something else, or belongs to other items; or a judge did not finish (its finished
            replies are kept).
    """
    sha256 = sha256_of([item.model_dump() for item in items])
    verdicts: dict[str, list[Verdict]] = {}
    check_ownership(folder, LABELS)
    with locked(folder):
        settings = folder / LABELS
        (resume_folder if settings.exists() else create_folder)(folder, settings, {"labels_sha256": sha256}, sha256)
        for panel in panels:
            logs = folder / hashlib.sha256(panel.name.encode()).hexdigest()[:12]
            log = _finished_log(logs) or _ask(panel, items, logs, reversed_labels)
            scores = {str(sample.id): next(iter((sample.scores or {}).values())) for sample in log.samples or []}
            rulings = [scores[item.id].metadata or {} for item in items]
            if panel.rule:
                for spec in panel.specs:
                    verdicts[spec.name] = [ruling["members"][spec.name] for ruling in rulings]
            verdicts[panel.name] = [ruling["verdict"] for ruling in rulings]
    return verdicts


@solver
def recorded() -> Solver:
    """Return the labelled answer, and its thought apart from it, as a model would have given it."""

    async def solve(state: TaskState, generate: Generate) -> TaskState:
        item = Labelled.model_validate(state.metadata)
        content = [ContentReasoning(reasoning=item.thought)] if item.thought else []
        message = ChatMessageAssistant(content=[*content, ContentText(text=item.answer)])
        choice = ChatCompletionChoice(message=message, stop_reason="max_tokens" if item.truncated else "stop")
        state.output = ModelOutput(choices=[choice])
        return state

    return solve


def _finished_log(logs: Path) -> EvalLog | None:
    """Return the finished log of a folder, or None."""
    for path in sorted(logs.glob("*.eval"), reverse=True):
        log = read_eval_log(str(path), header_only=True)
        if log.status == "success":
            return read_eval_log(str(path))
    return None


def _ask(panel: Panel, items: Sequence[Labelled], logs: Path, reversed_labels: bool) -> EvalLog:
    console.print(Text(f"  asking {panel.name} about {len(items)} answers"), soft_wrap=True)
    samples = [Sample(id=item.id, input=item.request, metadata=item.model_dump()) for item in items]
    task = Task(
        name="labelled", dataset=MemoryDataset(samples), solver=recorded(), scorer=judge(panel.name, reversed_labels)
    )
    logs.mkdir(parents=True, exist_ok=True)
    with open(os.devnull, "w") as nowhere, redirect_stdout(nowhere):
        success, eval_logs = eval_set(
            [task],
            log_dir=str(logs),
            model="none/none",
            display="none",
            log_level="error",
            retry_attempts=0,
            retry_immediate=False,
            fail_on_error=True,
            log_buffer=1,
            log_realtime=False,
        )
    log = _finished_log(logs)
    if not success or log is None:
        reasons = [eval_log.error.message for eval_log in eval_logs if eval_log.error] or ["it was interrupted"]
        raise RunError(
            f"{panel.name} did not finish: {reasons[0]}", "Run the same command again: finished replies are kept."
        )
    return log
