"""`presafe sweep`: how much do a model's rates depend on how its tokens are drawn?"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, TypeVar

import typer

from presafe.cli import options
from presafe.cli.measuring import Adapter, Measuring, Placing, unpacked
from presafe.cli.output import print_report
from presafe.errors import PreSafeError

if TYPE_CHECKING:
    from presafe.config.recipe import SamplingSettings

Number = TypeVar("Number", int, float)


@dataclass(frozen=True, kw_only=True)
class Grid:
    """Options of the ways of sampling; each takes several numbers."""

    temperature: Annotated[str, typer.Option("--temperature", help="Temperatures, with commas.")] = "0,0.6,1.0"
    top_p: Annotated[str, typer.Option("--top-p", help="Nucleus masses, with commas; 1 keeps all.")] = "0.95"
    top_k: Annotated[str, typer.Option("--top-k", help="Numbers of likely tokens, with commas; 0 keeps all.")] = "0"

    def read(self) -> list[SamplingSettings]:
        """Return the cells of the grid.

        Raises:
            PreSafeError: a word is no number, or a number is out of bounds.
        """
        from presafe.workflows.sweep import grid

        lists = (_numbers(self.temperature, "--temperature", float), _numbers(self.top_p, "--top-p", float))
        with options.bounds_of_sampling():
            return grid(*lists, _numbers(self.top_k, "--top-k", int))


@dataclass(frozen=True, kw_only=True)
class SweepMeasuring(Measuring):
    """The shared options of measuring; a sweep measures CoT on only unless it is told otherwise."""

    thinking: options.ThinkingModes = "on"


@unpacked
def sweep(
    model: options.Model, *, adapter: Adapter = None, cells: Grid, measuring: SweepMeasuring, placing: Placing
) -> None:
    """Measure MODEL over temperature × top-p × top-k; the same command again resumes."""
    suites = measuring.read_suites(["smolthink_harmful"])
    settings, drawings = placing.add_to(measuring.read_settings()), cells.read()
    folder = measuring.out or options.folder_for(
        "sweep",
        model,
        adapter,
        sorted(suites),
        drawings,
        settings.samples,
        list(settings.thinking),
        measuring.limit,
        settings.max_tokens,
        settings.sandbox,
        *measuring.model_parts(),
        *measuring.draw_parts(),
    )
    named = measuring.read_model(model)
    from presafe.report.results import sweep_table
    from presafe.workflows.sweep import sweep as run_sweep

    data = run_sweep(named, suites, drawings, folder, settings, adapter=adapter)
    print_report(data, folder / "report.html", sweep_table(data), as_json=measuring.as_json)


def _numbers(words: str, option: str, kind: Callable[[str], Number]) -> list[Number]:
    """Return numbers with commas between them.

    Raises:
        PreSafeError: a word is no number.
    """
    try:
        return [kind(word.strip()) for word in words.split(",")]
    except ValueError as error:
        raise PreSafeError(f"{option} takes numbers with commas between them, got {words!r}.") from error
