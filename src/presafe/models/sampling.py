"""Sample a model on sets of prompts as one Inspect eval set: logged, resumable, with a progress bar.

The `.eval` logs are the record of the model's answers. A second run with the same log folder samples only what is
missing; a finished set makes no model call. Several answers per prompt are Inspect's epochs, each with its own seed.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from contextlib import redirect_stdout
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from threading import Event
from typing import Any, NamedTuple, cast

from inspect_ai import eval_set
from inspect_ai.log import EvalLog, EvalSample
from inspect_ai.model import Model, get_model
from inspect_ai.scorer import Scorer
from inspect_ai.solver import Solver

from presafe.config.recipe import ModelSettings, SamplingSettings
from presafe.errors import ModelError, RunError
from presafe.models.context import check_context
from presafe.models.decision_head import DecisionReading
from presafe.models.exchange import Engine
from presafe.models.kept import KeptAnswers, KeptEngine
from presafe.models.loading import load_renderer
from presafe.models.logs import (
    THOUGHT,
    DamagedLogError,
    check_sample,
    judged_samples,
    log_buffer,
    log_files,
    read_log,
    response_of,
    strings_version,
)
from presafe.models.place import Place
from presafe.models.provider import PreSafeAPI
from presafe.models.tasks import make_task
from presafe.records import Expect, Prompt, Response, Thinking
from presafe.runs.io import disk_error
from presafe.runtime.loops import run_outside_loop
from presafe.runtime.progress import progress_bar


class Sampler(NamedTuple):
    """A model and how it is sampled."""

    model: ModelSettings
    thinking: Thinking
    adapter: Path | None
    batch_size: int
    batch_tokens: int
    max_tokens: int
    seed: int
    samples: int = 1
    """Answers per prompt."""
    sampling: SamplingSettings = SamplingSettings()
    """How tokens are drawn, where it differs from the family's published sampling."""
    method: str | None = None
    """Method that prefills the thought."""
    decision: DecisionReading | None = None
    """How the system's decision is read, for searches that attack it."""
    place: Place | None = None
    """Where it is sampled, if not in this process; no part of a log's identity."""
    judges: Sequence[str] = ()
    """Inspect addresses of the judges' models whose weights are on this machine; no part of a log's identity."""

    def inspect_model(self) -> Model:
        """Return the model as Inspect knows it."""
        from presafe.models import registry  # noqa: F401  registers the provider

        arguments: dict[str, Any] = {
            "thinking": self.thinking,
            "adapter": str(self.adapter.resolve()) if self.adapter else None,
            "family": self.model.family,
            "tokenizer": self.model.tokenizer,
            "dtype": self.model.dtype,
        }
        # Inspect identifies a log by these arguments, so that a default must not add one.
        if self.method:
            arguments["method"] = self.method
        if self.model.trust_remote_code:
            arguments["trust_remote_code"] = True
        return get_model(f"presafe/{self.model.address}", memoize=False, **arguments)


def sample_responses(
    what: str,
    suites: Mapping[str, Sequence[Prompt]],
    scorers: Mapping[str, Sequence[Scorer]],
    sampler: Sampler,
    log_dir: Path,
    *,
    sandbox: str | tuple[str, str] | None = None,
    solver: Solver | None = None,
) -> dict[str, list[Response]]:
    """Sample each suite, judge the answers, and return the responses.

    Args:
        what: Label of the progress bar.
        suites: Prompts by suite name.
        scorers: Judges by suite name, as `make_task` takes them.
        sampler: The model and how it is sampled.
        log_dir: Folder of the Inspect logs; a folder belongs to one sampler.
        sandbox: Inspect sandbox in which judges run programs, for suites of programs.
        solver: Asks the model, and calls `PreSafeAPI.on_answered` after each answer; None asks once per answer.

    Returns:
        Responses by suite, in the order of the prompts; the answers to one prompt follow one another.

    Raises:
        RunError: the eval did not finish; finished samples are kept in `log_dir`. Other errors of decoding are raised
            unchanged.
        PromptError: a prompt and the token budget do not fit the model's context.
        ModelError: the model cannot be loaded, its server does not answer, or several greedy answers are requested.
    """
    kept = keep_answers(what, suites, sampler, log_dir) if solver is None else None
    if kept is not None and sampler.place is not None:
        model = sampler.model
        renderer = load_renderer(model.address, model.family, trust_remote_code=model.trust_remote_code)
        with sampler.place.judging(sampler.judges, sampler.batch_size):
            replayed = KeptEngine(renderer, kept, sampler.batch_size)
            _sample(f"{what}, judged", suites, scorers, sampler, log_dir, sandbox, engine_of=lambda _: replayed)
    else:
        kept = KeptAnswers(log_dir)  # perhaps of a session with another engine
        _sample(what, suites, scorers, sampler, log_dir, sandbox, solver, kept.kept_by if kept else None)
    kept.delete()
    return load_responses(log_dir, sampler.thinking, suites)


def keep_answers(
    what: str, suites: Mapping[str, Sequence[Prompt]], sampler: Sampler, log_dir: Path
) -> KeptAnswers | None:
    """Sample each suite without its judges, where these must wait until a vLLM that the run starts has ended.

    Args:
        what: As `sample_responses`, as are the others.
        suites: See there.
        sampler: See there.
        log_dir: See there.

    Returns:
        The answers, which `sample_responses` judges; None if no judge must wait, or all is judged.

    Raises:
        PreSafeError: as `sample_responses`.
    """
    if sampler.place is None or not sampler.place.starts_vllm or not sampler.judges:
        return None
    done = run_outside_loop(lambda: judged_samples(log_dir, check_sample))
    if len(done) == sampler.samples * sum(map(len, suites.values())):
        return None
    kept = KeptAnswers(log_dir)
    if not kept.is_finished:
        with TemporaryDirectory(prefix="presafe-") as folder:  # its logs hold no verdict
            _sample(what, suites, {}, sampler, Path(folder), None, engine_of=kept.kept_by)
        kept.finish()
    return kept


def _sample(
    what: str,
    suites: Mapping[str, Sequence[Prompt]],
    scorers: Mapping[str, Sequence[Scorer]],
    sampler: Sampler,
    log_dir: Path,
    sandbox: str | tuple[str, str] | None,
    solver: Solver | None = None,
    engine_of: Callable[[Engine], Engine] | None = None,
) -> None:
    """Sample and judge each suite, as `sample_responses`; a suite without scorers is not judged.

    `engine_of` returns what is asked in place of the sampler's engine; None asks that one.
    """
    model = sampler.inspect_model()
    boxes = {"code": sandbox}
    tasks = [
        make_task(
            name, prompts, scorers.get(name, ()), seed=sampler.seed, sandbox=boxes.get(prompts[0].expect), solver=solver
        )
        for name, prompts in suites.items()
    ]
    try:
        log_dir.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise disk_error(log_dir, error) from error
    done = run_outside_loop(lambda: judged_samples(log_dir, check_sample))
    total = sampler.samples * sum(len(prompts) for prompts in suites.values())
    # Inspect reports the end on stdout, where only results belong.
    with progress_bar(what, total) as bar, open(os.devnull, "w") as nowhere, redirect_stdout(nowhere):
        bar.advance(len(done))
        api = cast(PreSafeAPI, model.api)
        if sampler.place is not None:
            elsewhere = sampler.place.engine_for(sampler.model, sampler.adapter, sampler.batch_size)
            api.engine = elsewhere or api.engine
        engine = api.engine
        interrupted = Event()

        def advance(count: int) -> None:
            if interrupted.is_set():
                raise RunError("the sampling was interrupted.")
            bar.advance(count)

        api.decision, api.searches = sampler.decision, log_dir / "searches"
        api.on_search = partial(bar.part, check=partial(advance, 0))
        # A solver of its own may ask often for one answer: the bar counts answers.
        engine.on_finished, api.on_answered = (lambda _: advance(0), advance) if solver else (advance, api.on_answered)
        # Not model arguments: changing batch sizes must not invalidate the log.
        engine.batch_size, engine.batch_tokens = sampler.batch_size, sampler.batch_tokens
        if engine_of is not None:
            api.engine, on_finished = engine_of(engine), engine.on_finished
            engine = api.engine
            engine.on_finished = on_finished
        if len(done) < total:
            engine.ready()  # here, so that a model that cannot be loaded is one error, not one per sample
            _check_draws(api, sampler)
            named = {f"{prompt.id} of {name}": prompt for name, prompts in suites.items() for prompt in prompts}
            check_context(named, api.ids_of, sampler.max_tokens, engine.context())
        success, logs = run_outside_loop(
            lambda: eval_set(
                tasks,
                log_dir=str(log_dir),
                model=model,
                max_tokens=sampler.max_tokens,
                seed=sampler.seed,
                epochs=sampler.samples,
                **sampler.sampling.model_dump(exclude_none=True),
                display="none",
                log_level="error",
                retry_attempts=0,
                retry_immediate=False,
                fail_on_error=True,
                max_tasks=len(tasks),
                max_samples=engine.in_flight(),
                adaptive_connections=False,  # Inspect would start with too few requests to fill a batch
                log_buffer=log_buffer(sampler.samples * max(map(len, suites.values()))),
                log_realtime=False,
                log_dir_allow_dirty=True,
            ),
            stop=interrupted.set,
        )
    if api.failure is not None:
        raise api.failure
    if len(logs) < len(tasks):  # after Ctrl-C Inspect returns without the task's log, but reports success
        raise KeyboardInterrupt
    if not success:
        reasons = [log.error.message for log in logs if log.error] or ["the eval was interrupted"]
        raise RunError(f"{what} did not finish: {reasons[0]}.", "Run the same command again: finished work is kept.")


def _check_draws(api: PreSafeAPI, sampler: Sampler) -> None:
    """Check that several answers per prompt are not decoded greedily: all would be the same.

    Raises:
        ModelError: they are.
    """
    if sampler.samples > 1 and api.sampling_for(sampler.sampling.model_dump()).temperature == 0:
        raise ModelError(
            f"{sampler.samples} samples per prompt, but CoT {sampler.thinking} is decoded greedily: all would be the "
            "same.",
            "Set a `temperature` above 0, or `samples` to 1.",
        )


class LoggedSuite(NamedTuple):
    """One suite as its log holds it: prompts, responses and settings."""

    expect: Expect
    version: int
    """Version of the suite (`Prompt.version`); 1 in a log without one."""
    texts: dict[str, str]
    """Texts of the prompts by id."""
    expected: dict[str, tuple[Expect, str]]
    """What is expected of the answer, and its reference, by prompt id."""
    responses: dict[str, tuple[Response, ...]]
    """Responses by prompt id, in the order of their samples."""
    judge: str
    thought_judge: str | None
    decoding: dict[str, Any]
    """Settings of both modes: token budget, seed, samples per prompt, type of the weights."""
    sampling: dict[str, Any] | None
    """Temperature, top-p and top-k of this mode."""
    asked_sampling: dict[str, Any]
    """The part of them that was requested, different from the family's published sampling."""
    name: str = ""
    """Name of the suite."""
    thinking: Thinking | None = None
    """Mode in which the model was sampled; None if the log does not state it."""
    strings: int | None = None
    """Version of the refusal strings that judged; None if other judges did. A log without it is of version 1."""


_SAMPLING = {"temperature", "top_p", "top_k"}
"""Settings of an Inspect eval that belong to `asked_sampling`."""


def logged_suites(log_dir: Path, thinking: Thinking) -> dict[str, LoggedSuite]:
    """Read each finished suite in a folder of logs, by name; a log cut by a kill is not finished.

    Args:
        log_dir: Folder of the Inspect logs.
        thinking: Mode in which the model was sampled.

    Raises:
        DamagedLogError: a log cannot be read completely.
    """
    suites: dict[str, LoggedSuite] = {}
    for suite in _finished(log_dir, thinking):  # the newest comes first
        suites.setdefault(suite.name, suite)
    return suites


def load_responses(
    log_dir: Path, thinking: Thinking, suites: Mapping[str, Sequence[Prompt]]
) -> dict[str, list[Response]]:
    """Read the responses of finished suites back from their logs.

    Args:
        log_dir: Folder of the Inspect logs.
        thinking: Mode in which the model was sampled.
        suites: Prompts by suite name.

    Returns:
        Responses by suite, as from `sample_responses`.

    Raises:
        RunError: a suite has no finished log with exactly these prompts in this mode; or as `logged_suites`.
    """
    finished = _finished(log_dir, thinking)
    responses = {}
    for name, prompts in suites.items():
        texts = {prompt.id: prompt.text for prompt in prompts}
        of_name = [suite for suite in finished if suite.name == name]
        fitting = [suite for suite in of_name if suite.texts == texts and suite.thinking == thinking]
        if not fitting:
            reason = "; its logs are of other prompts or another mode" if of_name else ""
            raise RunError(f"{log_dir} has no finished response for {name!r}{reason}.", "Run the stage again.")
        responses[name] = [response for prompt in prompts for response in fitting[0].responses[prompt.id]]
    return responses


def _finished(log_dir: Path, thinking: Thinking) -> list[LoggedSuite]:
    """Read the finished suites of a folder of logs, the newest first."""
    logs = run_outside_loop(lambda: [read_log(path, check_sample) for path in log_files(log_dir)])
    return [_suite_of(log, log.samples, thinking) for log in logs if log.status == "success" and log.samples]


def _suite_of(log: EvalLog, samples: Sequence[EvalSample], thinking: Thinking) -> LoggedSuite:
    """Return the suite of a finished log.

    Raises:
        DamagedLogError: an answer is missing or occurs twice.
    """
    count = log.eval.config.epochs or 1
    responses: dict[str, tuple[Response, ...]] = {}
    for sample in sorted(samples, key=lambda sample: sample.epoch):
        before = responses.get(str(sample.id), ())
        responses[str(sample.id)] = (*before, response_of(sample, thinking))
    for prompt_id, answers in responses.items():
        if [answer.sample for answer in answers] != list(range(1, count + 1)):
            raise DamagedLogError(
                f"{log.location} is damaged (not {count} answers to {prompt_id}).",
                "Move it away and run the same command again.",
            )
    judges = [(scorer.name, str((scorer.options or {}).get("name", scorer.name))) for scorer in log.eval.scorers or []]
    arguments = log.eval.model_args or {}
    return LoggedSuite(
        name=log.eval.task,
        thinking=cast(Thinking | None, arguments.get("thinking")),
        expect=cast(Expect, samples[0].metadata["expect"]),
        version=samples[0].metadata.get("version", 1),
        texts={str(sample.id): str(sample.input) for sample in samples},
        expected={str(sample.id): (sample.metadata["expect"], str(sample.target)) for sample in samples},
        responses=responses,
        judge=", ".join(judge for scorer, judge in judges if scorer != THOUGHT),
        thought_judge=next((judge for scorer, judge in judges if scorer == THOUGHT), None),
        strings=strings_version(samples, {scorer for scorer, judge in judges if "_strings" in judge}),
        decoding=log.plan.config.model_dump(exclude_none=True, exclude={*_SAMPLING, "adaptive_connections"})
        | {"samples": count, "dtype": arguments.get("dtype")},
        sampling=next((known for sample in samples if (known := (sample.output.metadata or {}).get("sampling"))), None),
        asked_sampling=log.plan.config.model_dump(exclude_none=True, include=_SAMPLING),
    )
