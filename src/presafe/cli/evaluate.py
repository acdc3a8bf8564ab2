"""`presafe evaluate`: a model, with or without an adapter, on suites or a file of prompts."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from presafe.cli import options
from presafe.cli.measuring import Adapter, Attacking, Drawing, Measuring, unpacked
from presafe.cli.output import print_report
from presafe.errors import PromptError

if TYPE_CHECKING:
    from presafe.config.measure import MeasureSettings
    from presafe.records import Prompt


@dataclass(frozen=True, kw_only=True)
class OwnPrompts:
    """Options of a user's own file of prompts."""

    prompts: options.PromptFile = None
    column: options.Column = None
    expect: Annotated[
        str | None, typer.Option("--expect", help="For the file's prompts: refuse (the default) or comply.")
    ] = None

    def add_to(self, suites: Mapping[str, list[Prompt]], measuring: Measuring) -> dict[str, list[Prompt]]:
        """Return the suites with the file as one more.

        Raises:
            PromptError: an option describes no file, the file cannot be read, or it has the name of a suite.
        """
        if self.prompts is None:
            if self.column or self.expect:
                raise PromptError("--column and --expect describe a file.", "Give it with --prompts.")
            return dict(suites)
        expect = self.expect or "refuse"
        own = options.read_prompts(self.prompts, self.column, expect, measuring.limit, measuring.draw)
        if both := suites.keys() & own.keys():
            raise PromptError(f"{self.prompts} has the name of the suite {both.pop()}.", "Rename the file.")
        return {**suites, **own}


@unpacked
def evaluate(
    model: options.Model,
    *,
    adapter: Adapter = None,
    own: OwnPrompts,
    attacking: Attacking,
    measuring: Measuring,
    drawing: Drawing,
) -> None:
    """Measure a model or an aligned one on published suites or your own prompts."""
    suites = own.add_to(measuring.read_suites(), measuring)
    if not suites:
        raise PromptError("nothing to evaluate on.", "Give --suite or --prompts.")
    settings = attacking.add_to(measuring.read_settings(drawing.read()))
    folder = measuring.out or default_folder(
        "evaluate", model, suites, settings, measuring, first=(adapter,), middle=(own.expect,)
    )
    measure_and_print(model, suites, folder, settings, measuring, adapter)


def default_folder(
    verb: str,
    model: str,
    suites: Iterable[str],
    settings: MeasureSettings,
    measuring: Measuring,
    *,
    first: tuple[object, ...] = (),
    middle: tuple[object, ...] = (),
) -> Path:
    """Return the folder of a measurement if none is named.

    Args:
        verb: Name of the verb.
        model: Address of the model.
        suites: Names of the suites.
        settings: How the model is measured.
        measuring: The options.
        first: A verb's own parts of the name, before the suites.
        middle: A verb's own parts of the name, before the model's.
    """
    return options.folder_for(
        verb,
        model,
        *first,
        sorted(suites),
        measuring.limit,
        list(settings.thinking),
        settings.max_tokens,
        settings.samples,
        settings.sampling,
        settings.sandbox,
        *middle,
        *measuring.model_parts(),
        *measuring.draw_parts(),
        *settings.attacks,
        *settings.defenses,
    )


def measure_and_print(
    model: str,
    suites: Mapping[str, Sequence[Prompt]],
    folder: Path,
    settings: MeasureSettings,
    measuring: Measuring,
    adapter: Path | None = None,
) -> None:
    """Measure a model, print the table and name the report."""
    named = measuring.read_model(model)
    from presafe.report.results import shown_tables
    from presafe.workflows.measure import measure

    origins = measuring.read_origins(suites)
    data = measure(named, suites, folder, settings, adapter=adapter, origins=origins)
    print_report(data, folder / "report.html", *shown_tables(data), as_json=measuring.as_json)
