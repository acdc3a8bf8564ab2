"""Options that several verbs share, and how their values are read."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TypeVar, cast, get_args

import typer

from presafe.errors import PreSafeError, PromptError
from presafe.runtime.dtype import Dtype as DtypeName
from presafe.runtime.reading import MOST

if TYPE_CHECKING:  # half of the time that --help would take
    from presafe.config.measure import MeasureSettings
    from presafe.config.recipe import ModelSettings, Recipe, SamplingSettings
    from presafe.records import Expect, Prompt, Thinking

Sampled = TypeVar("Sampled", "Recipe", "MeasureSettings")


def folder(name: str) -> Path:
    """Return a folder's name as a path.

    Raises:
        BadParameter: it is empty, and would be the working directory.
    """
    if not name:
        raise typer.BadParameter("an empty name is no folder")
    return Path(name)


Model = Annotated[
    str, typer.Argument(metavar="MODEL", help="Hub id, local folder, GGUF, smolthink, or http://host:port#name.")
]
Suites = Annotated[
    list[str] | None,
    typer.Option("--suite", "-s", help="Suite, or several with commas; see `presafe list suites`."),
]
ThinkingModes = Annotated[
    str, typer.Option("--thinking", help="on, off, or on,off; also a level the model has: low, medium, high.")
]
PromptFile = Annotated[Path | None, typer.Option("--prompts", help="CSV, JSON or JSONL file.")]
Column = Annotated[str | None, typer.Option("--column", help="Column of the file that holds the prompt.")]
Limit = Annotated[int | None, typer.Option("--limit", min=1, max=MOST, help="Most prompts of each suite.")]
Draw = Annotated[
    str,
    typer.Option("--draw", help="How --limit draws: stratified over a suite's categories, or first."),
]
DataDir = Annotated[Path | None, typer.Option("--data-dir", envvar="PRESAFE_DATA", help="Folder of published files.")]
Judge = Annotated[
    str | None, typer.Option("--judge", help="NAME or NAME=MODEL; see `presafe list judges`. Else refusal strings.")
]
JudgeThought = Annotated[
    str | None, typer.Option("--judge-thought", help="Judge of the thoughts on harmful prompts. Else strings.")
]
Attacks = Annotated[
    list[str] | None,
    typer.Option(
        "--attack",
        metavar="NAME[:K=V,...]",
        help="Attack on the harmful suites; again for more. `presafe list attacks`.",
    ),
]
Defenses = Annotated[
    list[str] | None,
    typer.Option(
        "--defense", metavar="NAME[:K=V,...]", help="Defense around the model; again for more. `presafe list defenses`."
    ),
]
MaxTokens = Annotated[
    int | None,
    typer.Option("--max-tokens", min=1, max=MOST, help="Token budget of thought and answer; else the family's."),
]
BatchSize = Annotated[
    int,
    typer.Option("--batch-size", min=1, max=MOST, help="Rows sampled together; of a served model, requests in flight."),
]
BatchTokens = Annotated[
    int,
    typer.Option("--batch-tokens", min=1, max=MOST, help="Most tokens that are sampled together: bounds the memory."),
]
Samples = Annotated[
    int, typer.Option("--samples", min=1, max=MOST, help="Answers per prompt; more than one needs a temperature.")
]
Temperature = Annotated[
    float | None, typer.Option("--temperature", min=0, help="0 is greedy; else as the family publishes.")
]
TopP = Annotated[float | None, typer.Option("--top-p", help="Nucleus mass kept; else as the family publishes.")]
TopK = Annotated[
    int | None, typer.Option("--top-k", min=0, max=MOST, help="Likely tokens kept, 0 all; else the family's.")
]
Engine = Annotated[
    list[str] | None,
    typer.Option(
        "--engine",
        metavar="ADDRESS|FILE",
        help="Where it samples: http://host:port#name of a server of MODEL, again for more; or a .toml with [engine].",
    ),
]
Sandbox = Annotated[
    str | None,
    typer.Option("--sandbox", help="Where the model's programs run: docker (default), local, or local-unconfined."),
]
Dtype = Annotated[str, typer.Option("--dtype", help="Type of the weights: float32, bfloat16 or auto.")]
Out = Annotated[
    Path | None,
    typer.Option(
        "--out",
        parser=folder,
        metavar="PATH",
        help="Folder; else one under runs/ that belongs to these settings.",
    ),
]
Family = Annotated[
    str | None, typer.Option("--family", help="Chat family, a .toml file of one, or auto; else detected.")
]
Tokenizer = Annotated[
    str | None, typer.Option("--tokenizer", help="Of a served model: hub id or folder; else the name it has there.")
]


def short_name(declared: str | Path) -> str:
    """Return the name of a recipe's or study's folders: a file's name without `.toml`, or the name of a shipped one."""
    return Path(declared).name.removesuffix(".toml")


def read_modes(words: str) -> list[Thinking]:
    """Return the CoT modes of a text such as "on,off".

    Raises:
        PreSafeError: it holds another word.
    """
    modes = [word.strip() for word in words.split(",")]
    if not set(modes) <= {"on", "high", "medium", "low", "off"}:
        raise PreSafeError(
            f"--thinking must be on, off, or on,off; got {words!r}.", "Models with levels also take low, medium, high."
        )
    return [cast("Thinking", mode) for mode in dict.fromkeys(modes)]


def read_model(address: str, family: str | None, dtype: str, tokenizer: str | None = None) -> ModelSettings:
    """Return a model, how it is asked and how its weights are loaded.

    Raises:
        PreSafeError: an unknown type of weights, an unreadable family, or an option that cannot take effect.
    """
    if dtype not in (*get_args(DtypeName), "auto"):
        raise PreSafeError(f"--dtype must be float32, bfloat16 or auto, got {dtype!r}.")
    from pydantic import ValidationError

    from presafe.config.recipe import ModelSettings
    from presafe.models.family import find_family

    try:
        settings = ModelSettings.model_validate(
            {"address": address, "family": family, "tokenizer": tokenizer, "dtype": dtype}
        )
    except ValidationError as error:
        first = error.errors()[0]
        reason = first["msg"].removeprefix("Value error, ")
        where = f"--family {family}" if first["loc"] == ("family",) else address
        raise PreSafeError(f"{where}: {reason}.") from error
    if family not in (None, "auto"):
        find_family(family)  # names the file, which the settings keep as its text
    return settings


def sampled_at(settings: Sampled, engine: list[str] | None) -> Sampled:
    """Return settings with where the model is sampled.

    Args:
        settings: The settings.
        engine: Words of `--engine`; None or empty leaves them as they are.

    Raises:
        RecipeError: as `read_engine`.
    """
    from presafe.config.engine import read_engine

    return settings.model_copy(update={"engine": read_engine(engine)}) if engine else settings


@contextmanager
def bounds_of_sampling() -> Iterator[None]:
    """Turn errors of sampling settings into errors that name the option.

    Raises:
        PreSafeError: a value is out of bounds.
    """
    from pydantic import ValidationError

    try:
        yield
    except ValidationError as error:
        first = error.errors()[0]
        name = str(first["loc"][0]).replace("_", "-")
        raise PreSafeError(
            f"--{name}: {first['msg'].removeprefix('Value error, ')}, got {first['input']!r}."
        ) from error


def read_sampling(temperature: float | None, top_p: float | None, top_k: int | None) -> SamplingSettings:
    """Return how tokens are drawn where it differs from what the family publishes.

    Raises:
        PreSafeError: a value out of bounds.
    """
    from presafe.config.recipe import SamplingSettings

    with bounds_of_sampling():
        return SamplingSettings(temperature=temperature, top_p=top_p, top_k=top_k)


def read_suites(
    names: Iterable[str], data_dir: Path | None, limit: int | None, how: str = "stratified"
) -> dict[str, list[Prompt]]:
    """Return prompts by suite, at most `limit` of each.

    Raises:
        PromptError: as `load_suite`; or no such way to draw.
    """
    from presafe.evaluation.suites import load_suite, suites_of

    words = [word.strip() for name in names for word in name.split(",") if word.strip()]
    distinct = dict.fromkeys(suite for word in words for suite in suites_of(word))
    return {suite: _drawn(suite, load_suite(suite, data_dir, seed=0), limit, how) for suite in distinct}


def _drawn(suite: str, prompts: list[Prompt], limit: int | None, how: str) -> list[Prompt]:
    """Return at most `limit` prompts of a suite, and say so if they are drawn over its categories.

    Raises:
        PromptError: no such way to draw.
    """
    from presafe.config.sources import DRAWS
    from presafe.prompts.drawing import draw
    from presafe.runtime.progress import console

    if how not in DRAWS:
        raise PromptError(f"--draw must be {' or '.join(DRAWS)}, got {how!r}.")
    drawn = draw(prompts, limit, how)
    if drawn != prompts[:limit]:
        within, categories = (len({prompt.category for prompt in some}) for some in (drawn, prompts))
        reached = f"{categories} categories" if within == categories else f"{within} of {categories} categories"
        console.print(f"  {suite}: {len(drawn)} of {len(prompts)} prompts, drawn over {reached} (seed 0)")
    return drawn


def read_origins(suites: Iterable[str], data_dir: Path | None) -> dict[str, dict[str, Any]]:
    """Return where the suites come from; suites that presafe does not know are left out."""
    from presafe.evaluation.suites import origin_of, suite_names

    return {name: origin_of(name, data_dir) for name in suites if name in suite_names()}


def read_prompts(
    file: Path, column: str | None, expect: str, limit: int | None, how: str = "stratified"
) -> dict[str, list[Prompt]]:
    """Return a user's own file as a suite named after it.

    Raises:
        PromptError: as `from_file`; `expect` or `how` is another word; or a suite cannot have the file's name.
    """
    from presafe.config.bounds import checked_suite_name
    from presafe.prompts.sets import from_file

    if expect not in ("refuse", "comply"):
        raise PromptError(f"--expect must be refuse or comply, got {expect!r}.")
    prompts = from_file(file, expect=cast("Expect", expect), column=column)
    try:
        return {checked_suite_name(file.stem): _drawn(file.stem, prompts, limit, how)}
    except ValueError as error:
        raise PromptError(f"{file} names a suite, and {error}.", "Rename the file.") from error


def folder_for(verb: str, model: str, *settings: object) -> Path:
    """Return the folder of a verb if none is named: the same for the same settings, another for others."""
    name = "".join(letter if letter.isalnum() or letter in "-._" else "-" for letter in model).strip("-.")
    return Path("runs") / f"{verb}-{name}-{hashlib.sha256(repr(settings).encode()).hexdigest()[:6]}"
