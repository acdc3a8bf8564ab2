"""Read Inspect's logs, check everything in them, and set damaged logs aside."""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Sequence
from pathlib import Path
from typing import cast
from zipfile import ZipFile

from inspect_ai.log import EvalLog, EvalSample, read_eval_log
from inspect_ai.model import ContentReasoning

from presafe.attacks.search import SEARCH
from presafe.errors import RunError
from presafe.records import Response, Thinking, Verdict
from presafe.runs.folder import set_aside_damaged

STRINGS = "strings"
"""Key of a score's metadata with the version of the refusal strings that judged."""
TOKEN_IDS = "token_ids"
"""Key of an output's metadata with the sampled tokens, where they are known and no prefill precedes them."""
ATTACKED = "attacked"
"""Key of a sample's metadata with how the prompt is attacked (`Attacked`)."""
SPENT = "spent"
"""Key of an output's metadata with what the response took (`Spent`), where the model was not asked just once."""
THOUGHT = "thought"
"""Name of the scorer that reads the thought; all others read the answer."""
_JSON_LOG = re.compile(r"\d{4}-\d\d-\d\dT\d\d[:-]\d\d[:-]\d\d.*\.json")
"""Names of logs that Inspect wrote as JSON (INSPECT_LOG_FORMAT)."""


_UNREAD = {"attachments", "events", "events_data", "messages", "store", "timelines"}
"""Fields of a sample that nothing here needs: without them a log takes less than a quarter of the memory."""
_WRITES = 256
"""Most times that a log is written while it grows. Ours."""


class DamagedLogError(RunError):
    """A log cannot be read completely."""


def log_buffer(num_samples: int) -> int:
    """Return how many samples a log collects before it is written: 1 up to 511, so that a kill loses none of them.

    Each write also writes the list of all samples in the log. One write for each of 10,000 samples took ten minutes.

    Args:
        num_samples: All that the log will hold.
    """
    return max(1, num_samples // _WRITES)


def log_files(folder: Path) -> list[Path]:
    """Return all that Inspect would read as a log, the newest first; links and folders with such names too."""
    paths = [path for path in folder.rglob("*") if path.suffix == ".eval" or _JSON_LOG.fullmatch(path.name)]
    return sorted(paths, key=lambda path: (path.name, path), reverse=True)


def read_log(path: Path, check: Callable[[EvalSample], object]) -> EvalLog:
    """Read a log: every sample with its answer and judgments, without Inspect's transcript of how it came about.

    Args:
        path: The log.
        check: Raises if a judged sample does not hold what it should.

    Raises:
        DamagedLogError: it is not a file, or not a complete log of ours.
        RunError: the file cannot be read.
    """
    hint = "Run the command that sampled it again: the log is set aside, and its samples are sampled again."
    if not path.is_file():
        raise DamagedLogError(f"{path} is not a file.", hint)
    try:
        with path.open("rb") as file:
            file.read(1)
    except OSError as error:
        raise RunError(f"cannot read {path}: {error.strerror or error}.") from error
    try:
        if path.suffix == ".eval":
            _check_checksums(path)
        log = read_eval_log(str(path), exclude_fields=_UNREAD)
        for sample in log.samples or []:
            if log.status == "success" or sample.scores:
                check(sample)
        _check_number(log)
    except MemoryError:
        raise
    except Exception as error:  # damaged bytes make the zip, zstd, JSON and record readers raise errors of all kinds
        reason = " ".join(f"{type(error).__name__}: {error}".split())
        raise DamagedLogError(f"{path} is damaged ({reason:.100}).", hint) from error
    return log


def _check_number(log: EvalLog) -> None:
    """Check that a finished log holds as many samples as it counted.

    Names in a zip's directory have no checksum: a damaged one hides a sample.

    Raises:
        ValueError: it holds another number.
    """
    if log.status == "success" and log.results:
        held, counted = len(log.samples or []), log.results.total_samples
        if held != counted:
            raise ValueError(f"it holds {held} of {counted} samples")


def _check_checksums(path: Path) -> None:
    """Check the parts of a log against their checksums, which Inspect's reader does not do.

    Raises:
        Exception: a part differs from its checksum, or cannot be read.
    """
    with ZipFile(path) as archive:
        if name := archive.testzip():
            raise ValueError(f"{name} differs from its checksum")


def set_damaged_aside(folder: Path, check: Callable[[EvalSample], object]) -> list[EvalLog]:
    """Read each log of a folder; rename damaged logs to `NAME.damaged` and tell the user.

    Args:
        folder: Folder of logs; it may not exist yet.
        check: As in `read_log`.

    Returns:
        The complete logs, the newest first.

    Raises:
        RunError: a file cannot be read or renamed.
    """
    logs = []
    for path in log_files(folder):
        try:
            logs.append(read_log(path, check))
        except DamagedLogError as error:
            set_aside_damaged(path, error.problem, "Samples that no other log holds are sampled again.")
    return logs


def judged_samples(folder: Path, check: Callable[[EvalSample], object]) -> set[tuple[str, int | str, int]]:
    """Return task, id and epoch of each sample that a folder's logs hold with its judgment; set damaged logs aside.

    A log that continues an earlier log also holds the samples of that log.

    Args:
        folder: As `set_damaged_aside`.
        check: As in `read_log`.

    Raises:
        RunError: as `set_damaged_aside`.
    """
    logs = set_damaged_aside(folder, check)
    return {(log.eval.task, sample.id, sample.epoch) for log in logs for sample in log.samples or [] if sample.scores}


def response_of(sample: EvalSample, thinking: Thinking) -> Response:
    """Return a judged sample of one of our tasks (`make_task`) as a record.

    Args:
        sample: The sample.
        thinking: Mode in which the model was sampled.
    """
    (choice,) = sample.output.choices
    metadata = sample.output.metadata or {}
    content = choice.message.content if isinstance(choice.message.content, list) else []
    scores = dict(sample.scores or {})
    of_thought = scores.pop(THOUGHT, None)
    of_answer = next(iter(scores.values()))
    judged = of_answer.metadata or {}
    return Response(
        prompt_id=str(sample.id),
        thinking=thinking,
        thought="\n".join(part.reasoning for part in content if isinstance(part, ContentReasoning)),
        answer=choice.message.text,
        truncated=choice.stop_reason == "max_tokens",
        complete=bool(metadata.get("complete")),
        token_ids=metadata.get(TOKEN_IDS),
        num_tokens=sample.output.usage.output_tokens if sample.output.usage else 0,
        verdict=cast(Verdict, of_answer.value),
        sample=sample.epoch,
        vote=judged.get("vote"),
        score=judged.get("score"),
        extent=judged.get("extent"),
        thought_verdict=cast(Verdict, of_thought.value) if of_thought else None,
        members=judged.get("members") or {},
        spent=metadata.get(SPENT),
        silent=(metadata.get(SEARCH) or {}).get("silent"),
    )


def check_sample(sample: EvalSample) -> None:
    """Check that a judged sample is one of our tasks.

    Raises:
        Exception: it is not; the class depends on what is missing.
    """
    response_of(sample, "on")
    sample.metadata["expect"]


def strings_version(samples: Sequence[EvalSample], scorers: Collection[str]) -> int | None:
    """Return the version of the refusal strings that judged, the oldest if a log holds several; None if none did.

    Args:
        samples: Of the log.
        scorers: Names of the scorers that are refusal strings.
    """
    scores = [score for sample in samples for name, score in (sample.scores or {}).items() if name in scorers]
    return min((int((score.metadata or {}).get(STRINGS, 1)) for score in scores), default=None)
