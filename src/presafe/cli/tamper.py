"""`presafe tamper`: what is left of an adapter's refusals when its weights are tampered with."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from presafe.cli import options
from presafe.cli.evaluate import default_folder
from presafe.cli.measuring import Attacking, Drawing, Measuring, unpacked
from presafe.cli.output import print_report
from presafe.errors import PreSafeError

_SUITES = ("smolthink_harmful", "smolthink_benign")


@unpacked
def tamper(
    model: options.Model,
    *,
    adapter: Annotated[Path, typer.Option("--adapter", help="Folder of a PEFT adapter.")],
    scales: Annotated[
        str, typer.Option("--scale", help="Factors of the adapter's scale: 1 as trained, 0 the base, -1 its opposite.")
    ] = "1,0.7,0.3,0,-1",
    ablate: Annotated[
        bool, typer.Option("--ablate/--no-ablate", help="Also without the refusal direction in its states.")
    ] = True,
    layer: Annotated[
        int | None, typer.Option("--layer", min=1, help="Block of that direction; else at 60 % of the depth.")
    ] = None,
    finetune: Annotated[
        str,
        typer.Option("--finetune", help="Also fine-tuned for so many steps on harmless beginnings; 0 leaves it out."),
    ] = "5,10,20",
    attacking: Attacking,
    measuring: Measuring,
    drawing: Drawing,
) -> None:
    """Measure an aligned model, its adapter scaled, ablated or fine-tuned in memory: no weights are written."""
    suites = measuring.read_suites(_SUITES)
    settings = attacking.add_to(measuring.read_settings(drawing.read()))
    named = measuring.read_model(model)
    from presafe.report.results import shown_tables
    from presafe.workflows.tamper import TamperSettings, tamper

    ways = TamperSettings(scales=_read_scales(scales), ablate=ablate, layer=layer, steps=_read_steps(finetune))
    folder = measuring.out or default_folder("tamper", model, suites, settings, measuring, first=(adapter, ways))
    data = tamper(named, adapter, suites, folder, ways, settings)
    print_report(data, folder / "report.html", *shown_tables(data), as_json=measuring.as_json)


def _read_scales(words: str) -> tuple[float, ...]:
    """Return the factors of a text such as "1,0.7".

    Raises:
        PreSafeError: one is no finite number from -10 to 10, or stands twice.
    """
    try:
        scales = tuple(float(word) for word in words.split(","))
    except ValueError:
        scales = ()
    if not scales or len(set(scales)) < len(scales) or not all(-10 <= scale <= 10 for scale in scales):
        raise PreSafeError(f"--scale must be different numbers from -10 to 10 with commas between, got {words!r}.")
    return scales


def _read_steps(words: str) -> tuple[int, ...]:
    """Return the numbers of steps of a text such as "5,10"; none for "0".

    Raises:
        PreSafeError: one is no whole number from 1 to 1000, or stands twice.
    """
    if words == "0":
        return ()
    steps = tuple(int(word) if word.isdecimal() else 0 for word in words.split(","))
    if len(set(steps)) < len(steps) or not all(1 <= step <= 1000 for step in steps):
        raise PreSafeError(
            f"--finetune must be different whole numbers from 1 to 1000 with commas between, or 0, got {words!r}."
        )
    return steps
